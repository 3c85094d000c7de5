"""Recorded policies: which rows are read, and to which documents they are joined."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench.engines import engine_of, open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.recorded import Asked, Join, Recording, open_recording
from alignbench.errors import UsageError

DOCUMENTS = [
    Asked("d0", "Say hello.\n", "Say hello."),
    Asked("d1", "Say bye.\n", "Say bye."),
    Asked("d2", "Say why.\n", "Say why."),
]


@pytest.fixture
def record(tmp_path: Path):
    def read(rows: list[dict[str, Any]], options: str = "", name: str = "out.jsonl") -> Recording:
        path = tmp_path / name
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return open_recording(parse_policy(f"me=recorded:{path}{options}"))

    return read


def join(recording: Recording, task: str = "t", *, only: bool = True) -> Join:
    return recording.join(task, DOCUMENTS, only=only)


@pytest.mark.parametrize(
    "rows",
    [
        [{"task": "t", "doc_id": "d0", "output": " hi"}, {"task": "t", "doc_id": "d1", "output": ""}],
        [{"doc_id": "d0", "output": " hi"}, {"doc_id": "d1", "output": ""}],
        [{"prompt": "Say hello.\n", "response": " hi"}, {"prompt": "Say bye.\n", "response": ""}],
        [{"instruction": "Say hello.", "output": " hi"}, {"instruction": "Say bye.", "output": ""}],
    ],
)
def test_every_way_to_name_a_document(record, rows: list[dict[str, Any]]) -> None:
    found = join(record(rows, name="out.json.gz"))
    assert found.outputs == {"d0": " hi", "d1": ""}  # an empty output is an output
    assert found.missing == ("d2",)
    assert found.used == {1, 2}
    assert found.by == (next(key for key in rows[0] if key in ("doc_id", "prompt", "instruction")),)


def test_the_prompt_is_asked_before_the_instruction(record) -> None:
    row = {"prompt": "Say bye.\n", "instruction": "Say hello.", "response": "x"}
    assert join(record([row])).outputs == {"d1": "x"}


def test_joins_are_exact(record) -> None:
    with pytest.raises(UsageError) as raised:
        join(record([{"prompt": "Say hello.", "output": "x"}]))
    assert "none of its 1 rows matches a document of t" in str(raised.value)
    assert "'Say hello.' where the first document has 'Say hello.\\n'" in str(raised.value)


def test_numbers_as_ids(record) -> None:
    recording = record([{"task": "t", "doc_id": 7, "output": "x"}])
    assert recording.join("t", [Asked("7", "p", "p")], only=False).outputs == {"7": "x"}


def test_null_is_no_output(record) -> None:
    rows = [
        {"doc_id": "d0", "output": None},
        {"doc_id": "d1", "output": "x"},
        {"doc_id": "zz", "output": "y"},
    ]
    found = join(record(rows))
    assert found.missing == ("d0", "d2")
    assert found.used == {1, 2}  # row 3 answers no document
    with pytest.raises(UsageError, match="every output for t is null"):
        join(record(rows[:1]))


def test_rows_of_other_tasks_are_left_alone(record) -> None:
    recording = record(
        [{"task": "t", "doc_id": "d0", "output": "x"}, {"task": "other", "doc_id": "d0", "output": "y"}]
    )
    assert recording.tasks == ["t", "other"]
    assert join(recording, only=False).outputs == {"d0": "x"}
    with pytest.raises(UsageError, match="holds nothing for the task third, only for t, other"):
        recording.join("third", DOCUMENTS, only=False)


def test_a_doc_id_without_a_task_needs_one_task(record) -> None:
    recording = record([{"doc_id": "d0", "output": "x"}])
    assert recording.tasks is None
    with pytest.raises(UsageError, match="row 1 has a doc_id but no task"):
        join(recording, only=False)


def test_two_outputs_for_one_document(record) -> None:
    row = {"doc_id": "d0", "output": "x"}
    assert join(record([row, row])).outputs == {"d0": "x"}
    with pytest.raises(
        UsageError, match="rows 1 and 2 give different outputs for the document d0 of t"
    ) as raised:
        join(record([row, row | {"output": "y"}]))
    assert str(raised.value).endswith("?sample=1")


SAMPLES = [
    {"doc_id": "d0", "output": ["x", "y", "z"]},
    {"doc_id": "d1", "output": ["u", "u"]},
    {"doc_id": "d2", "output": []},
]


@pytest.mark.parametrize(
    ("sample", "outputs"),
    [(1, {"d0": "x", "d1": "u"}), (2, {"d0": "y", "d1": "u"}), (3, {"d0": "z"})],
)
@pytest.mark.parametrize("listed", [True, False])
def test_of_several_outputs_one_is_chosen(record, sample: int, outputs: dict[str, str], listed: bool) -> None:
    rows = SAMPLES if listed else [row | {"output": each} for row in SAMPLES for each in row["output"]]
    found = join(record(rows, f"?sample={sample}"))
    assert found.outputs == outputs
    assert set(found.missing) == {"d0", "d1", "d2"} - outputs.keys()


def test_two_scores_of_one_output(record) -> None:
    row = {"doc_id": "d0", "output": "x", "scores": {"toxicity": 0.1}}
    assert join(record([row, row])).scores["d0"] == {"toxicity": [0.1]}
    with pytest.raises(UsageError, match="rows 1 and 2 give different scores for the same output to the doc"):
        join(record([row, row | {"scores": {"toxicity": 0.9}}]))


def test_another_of_several_outputs_is_another_policy(record) -> None:
    rows = [{"doc_id": "d0", "output": ["x", "y"]}]
    plain, first, second = (record(rows, option).identity for option in ("", "?sample=1", "?sample=2"))
    assert first != second
    assert {**plain, "sample": 2} == second


def test_several_outputs_and_none_chosen(record) -> None:
    with pytest.raises(
        UsageError, match=r"row 1 gives different outputs for the document d0 of t, which takes"
    ):
        join(record(SAMPLES))
    assert join(record(SAMPLES[1:])).outputs == {"d1": "u"}  # all the same: nothing to choose
    with pytest.raises(
        UsageError, match=r"no document of t has more than 3 outputs; choose another \?sample="
    ):
        join(record(SAMPLES, "?sample=4"))
    for wrong in ("0", "first", "-1", "1.5"):
        with pytest.raises(UsageError, match=f"sample={wrong}: write a number from 1"):
            record(SAMPLES, f"?sample={wrong}")


@given(
    st.lists(st.lists(st.text(min_size=1, max_size=3), max_size=3), min_size=1, max_size=3), st.integers(1, 3)
)
@settings(max_examples=30)
def test_the_nth_output_is_the_nth_however_it_is_written(outputs: list[list[str]], n: int) -> None:
    rows = [{"doc_id": f"d{i}", "output": texts} for i, texts in enumerate(outputs)]
    apart = [row | {"output": text} for row in rows for text in row["output"]]
    expected = {f"d{i}": texts[n - 1] for i, texts in enumerate(outputs) if len(texts) >= n}
    for each in (rows, apart):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "out.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in each))
            if not expected:
                with pytest.raises(UsageError):
                    join(open_recording(parse_policy(f"recorded:{path}?sample={n}")))
            else:
                found = join(open_recording(parse_policy(f"recorded:{path}?sample={n}")))
                assert found.outputs == expected


def test_a_doc_id_that_means_another_prompt(record) -> None:
    with pytest.raises(UsageError, match="its prompt is not that of the document d0"):
        join(record([{"doc_id": "d0", "prompt": "Say hello!\n", "output": "x"}]))


def test_an_instruction_that_several_documents_share(record) -> None:
    documents = [Asked("a", "Sort: 1 2", "Sort"), Asked("b", "Sort: 3 4", "Sort")]
    with pytest.raises(UsageError, match="2 documents of t have the instruction 'Sort'"):
        record([{"instruction": "Sort", "output": "x"}]).join("t", documents, only=True)
    same = [Asked("a", "Sort", "Sort"), Asked("b", "Sort", "Sort")]
    assert record([{"instruction": "Sort", "output": "x"}]).join("t", same, only=True).outputs == {
        "a": "x",
        "b": "x",
    }


def test_documents_of_one_instruction_are_told_apart_by_their_input(record) -> None:
    inputs = ("1 2", "3 4", "")
    documents = [Asked(f"d{i}", f"Sort: {given}", "Sort", given) for i, given in enumerate(inputs)]
    rows = [
        {"instruction": "Sort", "input": given, "output": f"{given}"} for given in (" 3 4", "1 2\n", None)
    ]
    assert record(rows).join("t", documents, only=True).outputs == {"d0": "1 2\n", "d1": " 3 4", "d2": "None"}
    with pytest.raises(
        UsageError, match=r"row 1: 3 documents .* 'Sort', and none the input '5'; give their w"
    ):
        record([rows[0] | {"input": "5"}]).join("t", documents, only=True)
    with pytest.raises(
        UsageError, match=r"row 1: 3 documents .* 'Sort'; give their 'input', their whole 'pro"
    ):
        record([{"instruction": "Sort", "output": "x"}]).join("t", documents, only=True)


@pytest.mark.parametrize(
    ("columns", "document", "says"),
    [
        ({"input": "3 4"}, "1 2", "row 1: its input is '3 4' where the document a of t.* has '1 2'; join by"),
        ({"input": None}, "1 2", "its input is '' where"),
        ({"input": "3 4"}, "", "its input is '3 4' where the document a of t.* has ''"),
        ({}, "1 2", "row 1: it has no input where .* join by the whole 'prompt' instead"),
    ],
)
def test_an_instruction_with_another_input(record, columns, document: str, says: str) -> None:
    documents = [Asked("a", f"Sort: {document}", "Sort", document)]
    with pytest.raises(UsageError, match=says):
        record([{"instruction": "Sort", "output": "x", **columns}]).join("t", documents, only=True)


@pytest.mark.parametrize(
    ("columns", "document"),
    [({"input": " 1 2\n"}, "1 2"), ({"input": ""}, ""), ({"input": None}, ""), ({}, "")],
)
def test_an_instruction_with_the_same_input(record, columns, document: str) -> None:
    documents = [Asked("a", f"Sort: {document}", "Sort", document)]
    recording = record([{"instruction": "Sort", "output": "x", **columns}])
    assert recording.join("t", documents, only=True).outputs == {"a": "x"}


def test_a_join_by_prompt_asks_for_no_input(record) -> None:
    """As Self-Instruct's predictions have it: the prompt holds the input."""
    row = {"prompt": "Sort: 1 2", "instruction": "Sort", "response": "x"}
    found = record([row]).join("t", [Asked("a", "Sort: 1 2", "Sort", "1 2")], only=True)
    assert found.outputs == {"a": "x"}


def test_of_two_output_columns_the_one_with_text(record) -> None:
    rows = [
        {"doc_id": "d0", "output": None, "response": "x"},
        {"doc_id": "d1", "output": "y", "response": "z"},
        {"doc_id": "d2", "output": None, "response": None},
    ]
    found = join(record(rows))
    assert found.outputs == {"d0": "x", "d1": "y"}
    assert found.missing == ("d2",)


def test_half_a_character_is_refused(record) -> None:
    """At reading, not when the report is written."""
    rows = [{"doc_id": "d0", "output": "\U0001f600"}, {"doc_id": "d1", "output": "a\ud800b"}]
    assert join(record(rows[:1])).outputs == {"d0": "\U0001f600"}  # a whole pair in the file
    with pytest.raises(UsageError, match=r"out\.jsonl: row 2 holds \\ud800 alone.*; remove it"):
        record(rows)


def test_two_columns_that_name_the_writer(record) -> None:
    def row(generator: str, policy: str, output: str) -> dict[str, Any]:
        return {"doc_id": "d0", "output": output, "generator": generator, "policy": policy}

    rows = [row("alpha", "sft", "x"), row("alpha", "ppo", "y")]
    with pytest.raises(UsageError, match=r"holds outputs of sft, ppo; choose one with \?generator=NAME"):
        record(rows)
    with pytest.raises(
        UsageError, match="whose generator is alpha are of several in the column policy: sft, "
    ):
        record(rows, "?generator=alpha")
    assert join(record(rows, "?generator=ppo")).outputs == {"d0": "y"}
    pairs = [row("alpha", "sft", "x"), row("beta", "ppo", "y")]  # two names of the same two
    assert join(record(pairs, "?generator=beta")).outputs == {"d0": "y"}


def test_generators(record) -> None:
    rows = [
        {"instruction": "Say hello.", "output": "hi", "generator": "alpha"},
        {"instruction": "Say hello.", "output": "hello", "generator": "beta"},
    ]
    assert join(record(rows, "?generator=beta")).outputs == {"d0": "hello"}
    assert join(record(rows[:1])).outputs == {"d0": "hi"}
    with pytest.raises(UsageError, match=r"holds outputs of alpha, beta; choose one with \?generator=NAME"):
        record(rows)
    with pytest.raises(UsageError, match=r"no generator 'alpa' \(did you mean 'alpha'\?\)"):
        record(rows, "?generator=alpa")
    with pytest.raises(UsageError, match="row 3 names no generator"):
        record([*rows, {"instruction": "Say bye.", "output": "bye"}])
    with pytest.raises(UsageError, match="names no generator; leave"):
        record([{"instruction": "Say bye.", "output": "bye"}], "?generator=alpha")


def test_alpaca_evals_model_outputs(record) -> None:
    row = {"dataset": "helpful_base", "instruction": "Say hello.", "output": "hi", "generator": "alpha"}
    found = join(record([row]))
    assert (found.outputs, found.by) == ({"d0": "hi"}, ("instruction",))


def test_alpaca_evals_annotations_hold_the_outputs_of_two(record) -> None:
    row = {"instruction": "Say hello.", "generator_1": "alpha", "generator_2": "beta", "preference": 1.0}
    rows = [row | {"output_1": "hi", "output_2": "hello"}]
    assert join(record(rows, "?generator=beta")).outputs == {"d0": "hello"}
    assert join(record(rows, "?generator=alpha")).outputs == {"d0": "hi"}
    with pytest.raises(UsageError, match="holds outputs of alpha, beta; choose one"):
        record(rows)


@pytest.mark.parametrize("name", ["alpaca-7b__alpaca_eval_gpt4", "text_davinci_001__alpaca_eval_gpt4"])
def test_real_alpaca_eval_outputs(shared_data: Path, tmp_path: Path, name: str) -> None:
    """The annotations as they are, and the same outputs as AlpacaEval keeps those of one model."""
    file = shared_data / "alpaca_eval" / f"{name}_annotations.json.gz"
    rows = json.loads(gzip.decompress(file.read_bytes()))
    instructions = list(dict.fromkeys(row["instruction"] for row in rows))
    documents = [Asked(f"a{i}", text, text) for i, text in enumerate(instructions)]
    model = name.split("__")[0]
    own = [{"dataset": r["dataset"], "instruction": r["instruction"], "output": r["output_2"],
            "generator": r["generator_2"]} for r in rows]  # fmt: skip
    (tmp_path / "model_outputs.json").write_text(json.dumps(own))
    found = {
        spec: open_recording(parse_policy(spec)).join("prompts:all", documents, only=True)
        for spec in (f"recorded:{file}?generator={model}", f"recorded:{tmp_path / 'model_outputs.json'}")
    }
    both = [*found.values()]
    assert both[0].outputs == both[1].outputs
    assert (len(both[0].outputs), both[0].missing) == (805, ())
    assert both[1].used == set(range(1, 806))


def test_what_only_recordings_and_logs_have(record) -> None:
    with pytest.raises(UsageError, match="the engine hf does not support 'sample'; leave it out"):
        engine_of(parse_policy("gpt2?sample=1"))
    with pytest.raises(UsageError, match="says which of lm-eval's tasks is meant, and this is no log of it"):
        record([{"doc_id": "d0", "output": "x"}], "?task=t")


def test_the_samples_of_a_run_are_a_recording(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"policy": name, "task": "t", "doc_id": "d0", "prompt": "Say hello.\n", "output": f"I am {name}"}
        for name in ("sft", "ppo")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "samples.parquet")
    policy = parse_policy(f"recorded:{tmp_path / 'samples.parquet'}?generator=ppo")
    assert policy.name == "ppo"
    assert join(open_recording(policy), only=False).outputs == {"d0": "I am ppo"}


def test_identity_is_the_content(record, tmp_path: Path) -> None:
    row = {"doc_id": "d0", "output": "x"}
    one, other = record([row], name="a.jsonl"), record([row], name="b.jsonl")
    assert one.identity == other.identity
    assert record([row | {"output": "y"}], name="a.jsonl").identity != one.identity


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"doc_id": "d0"}], r"row 1 needs an output \(output or .*\).*its columns are doc_id"),
        ([{"output": "x"}], "and what it answers"),
        ([{"doc_id": "d0", "output": "x"}, {"doc_id": "", "output": "x"}], "row 2 needs an output"),
        ([{"doc_id": "d0", "output": {"x": 1}}], "row 1: output is dict, not text"),
        ([{"doc_id": "d0", "output": ["x", 1]}], "row 1: output is a list with int, not text"),
        ([{"doc_id": "d0", "outputs": ["x", None]}], "row 1: outputs is a list with NoneType, not text"),
    ],
)
def test_bad_rows(record, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        record(rows)


@pytest.mark.parametrize(
    "option", ["prefix=p.txt", "adapter=a", "dtype=float32", "device=cpu", "best_of=4", "chat_template=on"]
)
def test_options_of_a_model_are_refused(record, option: str) -> None:
    with pytest.raises(UsageError, match="the engine recorded does not support"):
        record([{"doc_id": "d0", "output": "x"}], f"?{option}")


def test_no_file_and_no_engine(tmp_path: Path) -> None:
    (tmp_path / "outputs.jsonl").write_text("{}")
    policy = parse_policy(f"recorded:{tmp_path}/output.jsonl")
    with pytest.raises(UsageError, match=r"no file .*output\.jsonl \(did you mean 'outputs\.jsonl'\?\)"):
        open_recording(policy)
    with pytest.raises(UsageError, match=r"is a folder without lm-eval's .*; name the file of outputs in it"):
        open_recording(parse_policy(f"recorded:{tmp_path}"))
    with pytest.raises(UsageError, match="recorded outputs have no model to run"):
        open_engine(policy)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("recorded:a/gpt-3.5.jsonl.gz", "gpt-3.5"),
        ("recorded:a/outputs.json?generator=gpt-4", "gpt-4"),
        ("recorded:a/OUT.JSON.GZ", "OUT"),
        ("me=recorded:a/outputs.json?generator=gpt-4", "me"),
    ],
)
def test_names(spec: str, name: str) -> None:
    assert parse_policy(spec).name == name


@settings(deadline=None)
@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30), min_size=1), st.randoms())
def test_every_document_is_joined_or_missing_and_every_row_used_or_not(
    tmp_path_factory: pytest.TempPathFactory, recorded: set[int], asked: set[int], random: Any
) -> None:
    """The join is the intersection, whatever the order of the rows."""
    recorded = recorded | {next(iter(asked))}  # at least one match, else it is refused
    rows = [{"prompt": f"p{i}", "output": f"o{i}"} for i in recorded]
    random.shuffle(rows)
    path = tmp_path_factory.mktemp("rec") / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents = [Asked(f"d{i}", f"p{i}", f"p{i}") for i in sorted(asked)]
    found = open_recording(parse_policy(f"recorded:{path}")).join("t", documents, only=False)
    assert found.outputs == {f"d{i}": f"o{i}" for i in recorded & asked}
    assert set(found.missing) == {f"d{i}" for i in asked - recorded}
    assert len(found.used) == len(recorded & asked)
