"""What both sides are asked, from real data."""

from __future__ import annotations

from pathlib import Path

import engine_requests as requests


def test_mmlu_shares_its_exemplars_and_hellaswag_does_not(shared_data: Path) -> None:
    mmlu = requests.mmlu(shared_data, 3)["requests"]
    assert [continuation for _, continuation in mmlu] == [" A", " B", " C", " D"] * 3
    shots = [context.split("\n\n")[:6] for context, _ in mmlu]
    assert all(each == shots[0] for each in shots)
    hellaswag = requests.hellaswag(shared_data, 3)["requests"]
    firsts = {context.split("\n\n")[0] for context, _ in hellaswag}
    assert len(hellaswag) == 12
    assert len(firsts) == 3


def test_gsm8k_has_the_same_shots_or_drawn_ones(shared_data: Path) -> None:
    for drawn, kinds in ((False, 1), (True, 4)):
        prompts = [p for (p,) in requests.gsm8k(shared_data, 4, 32, drawn=drawn)["requests"]]
        heads = {prompt.rpartition("\n\nQuestion:")[0] for prompt in prompts}
        assert len(heads) == kinds
        assert all(prompt.count("Question:") == 6 for prompt in prompts)


def test_the_spread_is_two_hundredfold(shared_data: Path) -> None:
    texts = ["".join(pair) for pair in requests.spread(shared_data, 400)["requests"]]
    words = sorted(len(text.split()) for text in texts)
    assert (words[0], words[-1]) == (2, 400)
    assert 24 <= words[200] <= 33  # even in logarithm: the middle is about √(2 · 400)
