"""Real prompts that judges read (AlpacaEval, HH), and instructions that a program checks (IFEval)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from task_tools import POLICY, scored, shipped, write_rows

from alignbench.engines.policy import parse_policy
from alignbench.engines.recorded import Asked, open_recording
from alignbench.evaluation import score_outputs
from alignbench.tasks.registry import find_tasks

NOTHING = dict.fromkeys(
    ("num_highlights", "relation", "num_words", "language", "keywords", "forbidden_words")
)
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Tell a story in at least 5 words, without commas.",
        "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
        "kwargs": [{**NOTHING, "relation": "at least", "num_words": 5}, NOTHING],
    },
    {
        "key": 1001,
        "prompt": "Name a river. Do not say Rhine.",
        "instruction_id_list": ["keywords:forbidden_words"],
        "kwargs": [{**NOTHING, "forbidden_words": ["Rhine"]}],
    },
]


def test_alpaca_eval_from_the_hubs_file(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Sort: 3, 1.", "output": "1, 3", "generator": "gpt4", "dataset": "koala"},
        {"instruction": "Hi!\n", "output": "Hello.", "generator": "gpt4", "dataset": "oasst"},
    ]
    place = tmp_path / "tatsu-lab" / "alpaca_eval"
    place.mkdir(parents=True)
    (place / "alpaca_eval.json").write_text(json.dumps(rows))
    task = shipped("alpaca_eval", tmp_path)
    assert [d.prompt for d in task.load()] == ["Sort: 3, 1.", "Hi!\n"]
    assert (task.judged, task.metrics, task.area) == (True, (), "helpfulness")
    assert (task.licence, task.sampling["max_tokens"]) == ("CC-BY-NC-4.0", 512)


@pytest.mark.parametrize("model", ["alpaca-7b", "text_davinci_001"])
def test_published_outputs_meet_every_instruction_of_alpaca_eval(shared_data: Path, model: str) -> None:
    documents = shipped("alpaca_eval", shared_data).load()
    assert len(documents) == len({d.doc_id for d in documents}) == 805
    path = shared_data / "alpaca_eval" / f"{model}__alpaca_eval_gpt4_annotations.json.gz"
    found = open_recording(parse_policy(f"recorded:{path}?generator={model}")).join(
        "alpaca_eval", [Asked(d.doc_id, d.prompt, d.fields["instruction"]) for d in documents], only=True
    )
    assert (len(found.outputs), found.missing) == (805, ())


def test_hh_prompts(shared_data: Path) -> None:
    task = shipped("hh_prompts", shared_data)
    documents = task.load()
    assert (len(documents), len({d.cluster for d in documents})) == (2312, 2310)
    assert all(d.prompt.startswith("\n\nHuman:") and d.prompt.endswith("\n\nAssistant:") for d in documents)
    assert documents[0].target == documents[0].fields["chosen"]
    assert (task.judged, task.metrics, task.headline, task.kind) == (True, (), None, "generate")
    assert task.sampling["stop"] == ("\n\nHuman:",)


def test_hh_helpful_prompts(tmp_path: Path) -> None:
    common = "\n\nHuman: What rhymes with blue?\n\nAssistant:"
    rows = [{"chosen": f"{common} Few.", "rejected": f"{common} What?"}]
    data = write_rows(tmp_path / "hh-rlhf" / "helpful-base" / "test.jsonl", rows).parent
    (document,) = shipped("hh_helpful_prompts", data).load()
    assert (document.prompt, document.target) == (common, " Few.")
    assert shipped("hh_helpful_prompts", data).area == "helpfulness"


@pytest.fixture
def ifeval(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "google" / "IFEval" / "ifeval_input_data.jsonl", IFEVAL).parent


def test_ifeval_documents(ifeval: Path) -> None:
    task = shipped("ifeval", ifeval)
    assert [(d.doc_id, d.prompt) for d in task.load()] == [(str(r["key"]), r["prompt"]) for r in IFEVAL]
    assert (task.headline, task.sampling["max_tokens"]) == ("prompt_strict", 1280)


def test_ifeval_by_prompt_and_by_instruction(ifeval: Path) -> None:
    task = shipped("ifeval", ifeval)
    # of the three instructions the first output follows one, the second its only one
    samples = scored(task, ["Once, long ago, in a town", "The Danube."])
    assert [s.values["prompt_strict"] for s in samples] == [0, 1]
    mean = sum(s.values["instruction_strict"] or 0 for s in samples) / 2
    assert mean == pytest.approx(2 / 3)
    assert {s.values["prompt_loose"] for s in samples} == {0, 1}


def test_ifeval_loosely(ifeval: Path) -> None:
    """A first line that greets breaks the rule; loosely it is forgiven."""
    samples = scored(shipped("ifeval", ifeval), ["Sure, here:\nOnce there was a town", ""])
    assert [samples[0].values[f"prompt_{how}"] for how in ("strict", "loose")] == [0, 1]
    assert samples[1].values["prompt_loose"] == 0  # an empty output follows nothing
    for how, followed in (("strict", 1), ("loose", 2)):
        values = [s.values[f"instruction_{how}"] for s in samples]
        assert sum(v or 0 for v in values) / 2 == pytest.approx(followed / 3)


def test_an_output_that_is_not_there_is_in_no_sum(ifeval: Path) -> None:
    task = shipped("ifeval", ifeval)
    samples = score_outputs(POLICY, task, task.load(), [None, "The Danube."])
    assert [s.values["instruction_strict"] for s in samples] == [None, 1]


def test_the_suite() -> None:
    names = [task.name for task in find_tasks(["helpfulness"])]
    assert names == ["self_instruct", "alpaca_eval", "hh_helpful_prompts", "ifeval"]
