"""Every layout becomes the same typed examples; what is not one is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench.errors import UsageError
from alignbench.train.data import (
    Comparison,
    Demonstration,
    Order,
    prompts_for,
    read_comparisons,
    read_demonstrations,
    read_prompts,
    read_texts,
    split_by_prompt,
)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(*rows: dict[str, Any]) -> str:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return to_file


DIALOGUE = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.mark.parametrize(
    ("row", "prompt", "response"),
    [
        ({"prompt": "q:", "response": " a", "labeler": "x"}, "q:", " a"),
        ({"prompt": "q:", "completion": " a"}, "q:", " a"),
        ({"instruction": "do", "output": "done"}, "\n\nHuman: do\n\nAssistant:", " done"),
        ({"instruction": "do", "input": "", "output": "x"}, "\n\nHuman: do\n\nAssistant:", " x"),
        ({"instruction": "do", "input": "it", "output": "x"}, "\n\nHuman: do\n\nit\n\nAssistant:", " x"),
        ({"messages": DIALOGUE}, "\n\nHuman: hi\n\nAssistant:", " ho"),
        ({"prompt": DIALOGUE[:1], "completion": DIALOGUE[1:]}, "\n\nHuman: hi\n\nAssistant:", " ho"),
        (
            {"messages": [{"role": "system", "content": "s"}, *DIALOGUE, *DIALOGUE]},
            "\n\nSystem: s\n\nHuman: hi\n\nAssistant: ho\n\nHuman: hi\n\nAssistant:",
            " ho",
        ),
    ],
)
def test_layouts_of_demonstrations(write: Any, row: dict[str, Any], prompt: str, response: str) -> None:
    assert read_demonstrations(write(row)) == [Demonstration(prompt, response)]


def test_a_chat_template_renders_messages_and_eos_is_left_to_the_encoder(
    write: Any, make_tokenizer: Any
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    (one,) = read_demonstrations(write({"messages": DIALOGUE}), tokenizer=tokenizer)
    assert one == Demonstration("[user]hi<eos>\n[assistant]", "ho")


RENDERED = Demonstration("[user]hi<eos>\n[assistant]", "ho")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "response": "ho"},
        {"prompt": "hi", "completion": "ho"},
        {"instruction": "hi", "output": "ho"},
        {"prompt": DIALOGUE[:1], "completion": "ho"},
    ],
)
def test_a_chat_template_renders_every_layout_of_demonstrations(
    write: Any, make_tokenizer: Any, row: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    assert read_demonstrations(write(row), tokenizer=tokenizer) == [RENDERED]
    assert read_prompts(write(row), tokenizer=tokenizer) == [RENDERED.prompt]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "ho", "rejected": "no"},
        {"prompt": "hi", "responses": ["no", "ho"], "ranks": [2, 1]},
        {"prompt": DIALOGUE[:1], "chosen": "ho", "rejected": "no"},
    ],
)
def test_a_chat_template_renders_every_layout_of_comparisons(
    write: Any, make_tokenizer: Any, row: dict[str, Any]
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    (one,) = read_comparisons(write(row), tokenizer=tokenizer)
    assert one == Comparison(RENDERED.prompt, ("ho", "no"), ((0, 1),))
    assert read_prompts(write(row), tokenizer=tokenizer) == [RENDERED.prompt]


def test_dialogues_with_turns_of_their_own_are_not_put_into_a_template(
    write: Any, make_tokenizer: Any
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(UsageError, match="chat_template=off"):
        read_comparisons(write({"chosen": f"{HH} yes", "rejected": f"{HH} no"}), tokenizer=tokenizer)


def test_a_reader_with_another_template_gets_the_same_prompts_in_its_own(
    write: Any, make_tokenizer: Any
) -> None:
    tokenizer, plain = make_tokenizer(), make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    data = write({"prompt": "hi"}, {"prompt": "you"}, {"prompt": "hi"})
    assert prompts_for(data, None, tokenizer, plain) == {
        "[user]hi<eos>\n[assistant]": "hi",
        "[user]you<eos>\n[assistant]": "you",
    }
    assert prompts_for(data, None, tokenizer, tokenizer) == {}


HH = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "+", "rejected": "-"}, Comparison("q", ("+", "-"), ((0, 1),))),
        ({"chosen": f"{HH} yes", "rejected": f"{HH} no"}, Comparison(HH, (" yes", " no"), ((0, 1),))),
        # the responses share a beginning, and one goes on for another turn
        (
            {"chosen": f"{HH} yes.", "rejected": f"{HH} yes.\n\nHuman: d\n\nAssistant: e"},
            Comparison(HH, (" yes.", " yes.\n\nHuman: d\n\nAssistant: e"), ((0, 1),)),
        ),
        (
            {"prompt": "q", "responses": ["a", "b", "c"], "ranks": [2, 1, 2], "labeler": "l"},
            Comparison("q", ("b", "a", "c"), ((0, 1), (0, 2)), "l"),
        ),
        (
            {
                "prompt": "hi",
                "chosen": DIALOGUE,
                "rejected": [DIALOGUE[0], {"role": "assistant", "content": "x"}],
            },
            Comparison("\n\nHuman: hi\n\nAssistant:", (" ho", " x"), ((0, 1),)),
        ),
        (
            {
                "prompt": DIALOGUE[:1],
                "chosen": DIALOGUE[1:],
                "rejected": [{"role": "assistant", "content": "x"}],
            },
            Comparison("\n\nHuman: hi\n\nAssistant:", (" ho", " x"), ((0, 1),)),
        ),
        (
            {"prompt": "hi", "chosen": DIALOGUE[1:], "rejected": [{"role": "assistant", "content": "x"}]},
            Comparison("\n\nHuman: hi\n\nAssistant:", (" ho", " x"), ((0, 1),)),
        ),
    ],
)
def test_layouts_of_comparisons(write: Any, row: dict[str, Any], expected: Comparison) -> None:
    (one,) = read_comparisons(write(row))
    assert one.prompt == expected.prompt
    assert one.labeler == expected.labeler
    by_text = {(one.responses[a], one.responses[b]) for a, b in one.pairs}
    assert by_text == {(expected.responses[a], expected.responses[b]) for a, b in expected.pairs}
    assert sorted(one.responses) == sorted(expected.responses)


def test_rows_of_one_prompt_and_labeler_are_one_batch_element(write: Any) -> None:
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "r", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "b", "rejected": "c"},
        {"prompt": "q", "chosen": "d", "rejected": "d"},  # the same twice: says nothing
    ]
    first, second = read_comparisons(write(*rows))
    assert (first.responses, first.pairs) == (("a", "b", "c"), ((0, 1), (1, 2)))
    assert second.prompt == "r"


def test_a_ranking_of_k_without_ties_has_all_pairs(write: Any) -> None:
    (one,) = read_comparisons(write({"prompt": "q", "responses": list("abcde"), "ranks": [5, 4, 3, 2, 1]}))
    assert len(one.responses) == 5
    assert len(one.pairs) == 10
    assert all(one.responses[better] > one.responses[worse] for better, worse in one.pairs)


def test_texts_and_prompts(write: Any) -> None:
    assert read_texts(write({"text": "a"}, {"text": "b"})) == ["a", "b"]
    assert read_prompts(write({"prompt": "q"}, {"prompt": "r"}, {"prompt": "q"})) == ["q", "r"]
    assert read_prompts(write({"chosen": f"{HH} yes", "rejected": f"{HH} no"})) == [HH]
    assert read_prompts(write({"instruction": "do", "output": "x"})) == ["\n\nHuman: do\n\nAssistant:"]


@pytest.mark.parametrize(
    ("read", "row", "said"),
    [
        (
            read_demonstrations,
            {"question": "q", "answer": "a"},
            "columns question, answer; demonstrations need",
        ),
        (read_comparisons, {"prompt": "q", "response": "a"}, "columns prompt, response; comparisons need"),
        (read_texts, {"prompt": "q"}, "texts need {text}"),
        (read_prompts, {"question": "q"}, "columns question"),
        (read_demonstrations, {"prompt": "q", "response": None}, "row 1: 'response' is None, not text"),
        (read_demonstrations, {"messages": [{"role": "user", "content": "x"}]}, "row 1: messages must be"),
        (read_comparisons, {"chosen": "a", "rejected": "b"}, "row 1: chosen and rejected share no"),
        (read_comparisons, {"prompt": "q", "responses": ["a"], "ranks": [1, 2]}, "row 1: responses"),
        (read_comparisons, {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 1]}, "no row prefers"),
    ],
)
def test_what_is_no_example_is_named(write: Any, read: Any, row: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(write(row))
    assert said in str(error.value)


def test_the_row_that_is_broken_is_named(write: Any) -> None:
    with pytest.raises(UsageError, match="row 2"):
        read_demonstrations(write({"prompt": "q", "response": "a"}, {"prompt": "q", "response": 3}))


@pytest.mark.parametrize(
    ("read", "row"),
    [
        (read_demonstrations, {"prompt": "q", "response": "a"}),
        (read_demonstrations, {"instruction": "q", "output": "a"}),
        (
            read_demonstrations,
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        ),
        (read_comparisons, {"prompt": "q", "chosen": "a", "rejected": "b"}),
        (read_comparisons, {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]}),
    ],
)
def test_a_row_that_lacks_a_column_of_the_first_is_named(write: Any, read: Any, row: dict[str, Any]) -> None:
    for column in row:
        with pytest.raises(UsageError, match="row 2"):
            read(write(row, {"other": 1, **{key: row[key] for key in row if key != column}}))


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        ([("user", "q"), ("assistant", "a")], [("user", "other"), ("assistant", "b")], "differ before"),
        ([("user", "q"), ("assistant", "a")], None, "'rejected' is None"),
        ([(3, "q"), ("assistant", "a")], [(3, "q"), ("assistant", "b")], "messages must be"),
    ],
)
def test_broken_turns_are_named(write: Any, chosen: Any, rejected: Any, said: str) -> None:
    def turns(side: Any) -> Any:
        return side and [{"role": role, "content": content} for role, content in side]

    with pytest.raises(UsageError, match=f"row 1: .*{said}"):
        read_comparisons(write({"chosen": turns(chosen), "rejected": turns(rejected)}))


def test_turns_that_the_chat_template_refuses_are_named(write: Any, make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.raises(UsageError, match=r"row 1: .*roles must alternate"):
        read_demonstrations(write({"messages": turns}), tokenizer=tokenizer)


def test_empty_files_and_options_of_a_spec(tmp_path: Path, write: Any) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UsageError, match="no rows"):
        read_texts(str(tmp_path / "empty.jsonl"))
    with pytest.raises(UsageError, match="did you mean 'split'"):
        read_texts("name?splitt=test")
    with pytest.raises(UsageError, match="seed is 'x'"):
        read_texts("pocket:corpus?seed=x")
    write({"text": "a"})
    assert read_texts(f"{tmp_path}?files=rows*") == ["a"]


def test_real_dialogues(shared_data: Path) -> None:
    read = read_comparisons("Anthropic/hh-rlhf?files=harmless-base_test*", mirror=shared_data)
    assert sum(len(one.pairs) for one in read) == 2312
    assert all(one.prompt.endswith("\n\nAssistant:") for one in read)


@given(st.lists(st.text("abc", max_size=2), min_size=2), st.floats(0.01, 0.99), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_a_split_shares_no_prompt_and_loses_nothing(prompts: list[str], fraction: float, seed: int) -> None:
    kept, held = split_by_prompt(prompts, lambda text: text, fraction, seed)
    assert set(kept).isdisjoint(held)
    assert Counter(kept) + Counter(held) == Counter(prompts)
    assert kept
    assert bool(held) == (len(set(prompts)) > 1)
    assert split_by_prompt(prompts, lambda text: text, fraction, seed) == (kept, held)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_epochs_show_every_example_equally_often(n: int, batch: int, epochs: int, seed: int) -> None:
    order = Order(n, batch, seed, epochs=epochs)
    seen = [i for step in range(order.steps) for i in order.batch(step)]
    assert Counter(seen) == dict.fromkeys(range(n), epochs)
    assert all(order.batch(step) for step in range(order.steps))
    assert [Order(n, batch, seed, epochs=epochs).batch(s) for s in (order.steps - 1,)] == [
        order.batch(order.steps - 1)
    ]


def test_steps_win_and_batches_are_full() -> None:
    order = Order(10, 4, 0, steps=7, epochs=1)
    assert order.steps == 7
    assert all(len(order.batch(step)) == 4 for step in range(7))
    assert order.batch(0) != order.batch(5)
