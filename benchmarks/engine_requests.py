"""What both sides are asked: requests made of real text, the same ones for everybody.

A request is [context, continuation] to score, or [prompt] to continue.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignbench.sources.files import Row, read_rows

SEED = 20221104
SHOTS = 5
LETTERS = "ABCD"

Job = dict[str, Any]


def mmlu(data: Path, n: int) -> Job:
    """Five-shot MMLU: ``n`` questions of one subject behind its five exemplars; the letter is scored.

    One subject, as a whole run has 57 groups of about 250 such questions: sharing over ``n`` understates it.
    """
    shots = [r for r in read_rows(data / "mmlu/mmlu_dev.jsonl") if r["subject"] == "high_school_geography"]
    asked = [
        r for r in read_rows(data / "mmlu/mmlu_test.jsonl.gz") if r["subject"] == "high_school_geography"
    ]
    head = "The following are multiple choice questions (with answers) about high school geography."
    solved = [f"{_mmlu_question(r)} {LETTERS[r['answer']]}" for r in shots[:SHOTS]]
    contexts = ["\n\n".join([head, *solved, _mmlu_question(r)]) for r in _drawn(asked, n)]
    return _scored([[context, f" {letter}"] for context in contexts for letter in LETTERS])


def _mmlu_question(row: Row) -> str:
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"]))
    return f"{row['question'].strip()}\n{options}\nAnswer:"


def hellaswag(data: Path, n: int) -> Job:
    """Five-shot HellaSwag: four endings of ``n`` texts, each behind five exemplars drawn for it alone."""
    rows = read_rows(data / "nlp_tasks/hellaswag_validation_1000.jsonl.gz")
    requests = []
    for number, row in enumerate(_drawn(rows, n)):
        others = [other for other in rows if other is not row]
        shots = random.Random(SEED + number).sample(others, SHOTS)
        solved = [f"{shot['query']} {shot['choices'][shot['gold']]}" for shot in shots]
        context = "\n\n".join([*solved, row["query"]])
        requests += [[context, f" {ending}"] for ending in row["choices"]]
    return _scored(requests)


def gsm8k(data: Path, n: int, max_tokens: int, *, drawn: bool) -> Job:
    """Five-shot GSM8K: ``n`` problems, the same five solved ones before each or, ``drawn``, five of its own.

    An answer ends with EOS or a stop string; a stop string of letters stands for the one that a trained model
    would write.
    """
    rows = read_rows(data / "gsm8k/test.jsonl.gz")
    asked = _drawn(rows, n)
    rest = [row for row in rows if row not in asked]
    prompts = []
    for number, row in enumerate(asked):
        shots = random.Random(SEED + number * drawn).sample(rest, SHOTS)
        solved = [f"Question: {shot['question']}\nAnswer: {shot['answer']}" for shot in shots]
        prompts.append("\n\n".join([*solved, f"Question: {row['question']}\nAnswer:"]))
    return _continued(prompts, max_tokens, stop=["Question:", "</s>", "ight"])


def equal(data: Path, n: int, words: int, max_tokens: int) -> Job:
    """``n`` prompts of ``words`` words of running text; every answer has ``max_tokens`` tokens."""
    return _continued(_cuttings(data, [words] * n), max_tokens, eos=False)


def ragged(data: Path, n: int, max_tokens: int) -> Job:
    """``n`` GSM8K problems without exemplars; an answer ends with EOS, or after ``max_tokens``."""
    rows = _drawn(read_rows(data / "gsm8k/test.jsonl.gz"), n)
    return _continued([f"Question: {row['question']}\nAnswer:" for row in rows], max_tokens)


def spread(data: Path, n: int, fewest: int = 2, most: int = 400) -> Job:
    """``n`` texts of which the longest has 200 times the words of the shortest, spaced evenly in logarithm;
    the last word is scored."""
    ends = math.log(fewest), math.log(most)
    words = [round(math.exp(ends[0] + (ends[1] - ends[0]) * i / (n - 1))) for i in range(n)]
    random.Random(SEED).shuffle(words)
    parts = [text.rpartition(" ") for text in _cuttings(data, words)]
    return _scored([[context, f" {word}"] for context, _, word in parts])


def _cuttings(data: Path, words: Sequence[int]) -> list[str]:
    """Pieces of running text with so many words each, from random places."""
    rows = read_rows(data / "nlp_tasks/lambada_openai.jsonl.gz")
    text = " ".join(f"{row['context']} {row['continuation']}" for row in rows).split()
    generator = random.Random(SEED)
    starts = [generator.randrange(len(text) - n) for n in words]
    return [" ".join(text[start : start + n]) for start, n in zip(starts, words)]


def _drawn(rows: list[Row], n: int) -> list[Row]:
    return random.Random(SEED).sample(rows, n)


def _scored(requests: list[list[str]]) -> Job:
    return {"verb": "score", "requests": requests, "max_tokens": 0}


def _continued(prompts: list[str], max_tokens: int, *, stop: Sequence[str] = (), eos: bool = True) -> Job:
    return {
        "verb": "generate",
        "requests": [[prompt] for prompt in prompts],
        "max_tokens": max_tokens,
        "stop": list(stop),
        "eos": eos,
    }
