"""The requests that both sides answer: real data, and edge cases made by hand."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SEED = 1234
Verb = Literal["loglikelihood", "generate_until", "loglikelihood_rolling"]


@dataclass(frozen=True)
class Question:
    """A document: which requests are its choices, and which of them is right; or the text that is right."""

    rows: range
    gold: int | str
    lengths: tuple[int, ...] = ()
    """Characters of each choice."""


@dataclass(frozen=True)
class RequestSet:
    """Requests of one verb, as arguments of lm-eval's verb of this name.

    ``requests``: (context, continuation), or (prompt, {"until", "max_gen_toks"}), or (text,).
    ``known``: index → why the two sides are meant to differ there. ``apart``: each is asked by itself.
    """

    name: str
    verb: Verb
    requests: list[tuple[Any, ...]]
    questions: list[Question] = field(default_factory=list)
    known: dict[int, str] = field(default_factory=dict)
    apart: bool = False


def read(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from map(json.loads, file)


def sample(rows: Iterator[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """``n`` rows by a fixed seed, in their order; all of them where there are no more."""
    every = list(rows)
    chosen = sorted(random.Random(SEED).sample(range(len(every)), min(n, len(every))))
    return [every[i] for i in chosen]


def training_texts(data: Path) -> list[str]:
    """Public texts that tokenizers are trained on."""
    texts = [row["query"] for row in read(data / "nlp_tasks/hellaswag_validation_1000.jsonl.gz")]
    texts += [row["context"] for row in sample(read(data / "nlp_tasks/lambada_openai.jsonl.gz"), 1500)]
    texts += [row["question"] + "\n" + row["answer"] for row in read(data / "gsm8k/test.jsonl.gz")]
    return texts + [row["question"] for row in sample(read(data / "mmlu/mmlu_test.jsonl.gz"), 2000)]


def _choices(name: str, documents: Sequence[tuple[str, Sequence[str], int]]) -> RequestSet:
    requests: list[tuple[Any, ...]] = []
    questions = []
    for context, choices, gold in documents:
        rows = range(len(requests), len(requests) + len(choices))
        questions.append(Question(rows, gold, tuple(map(len, choices))))
        requests += [(context, f" {choice}") for choice in choices]
    return RequestSet(name, "loglikelihood", requests, questions)


def hellaswag(data: Path, n: int) -> RequestSet:
    rows = sample(read(data / "nlp_tasks/hellaswag_validation_1000.jsonl.gz"), n)
    return _choices("hellaswag", [(r["query"], r["choices"], r["gold"]) for r in rows])


def arc_easy(data: Path, n: int) -> RequestSet:
    rows = sample(read(data / "nlp_tasks/arc_easy.jsonl.gz"), n)
    return _choices("arc_easy", [(f"{r['query']}\nAnswer:", r["choices"], r["gold"]) for r in rows])


def arc_challenge(data: Path, n: int) -> RequestSet:
    rows = sample(read(data / "nlp_tasks/arc_challenge.jsonl.gz"), n)
    return _choices("arc_challenge", [(f"{r['query']}\nAnswer:", r["choices"], r["gold"]) for r in rows])


def mmlu(data: Path, n: int) -> RequestSet:
    """Five exemplars of the development split before every question; the letter is scored."""

    def shown(row: dict[str, Any], answer: str) -> str:
        options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"]))
        return f"{row['question'].strip()}\n{options}\nAnswer:{answer}"

    exemplars: dict[str, list[str]] = {}
    for row in read(data / "mmlu/mmlu_dev.jsonl"):
        exemplars.setdefault(row["subject"], []).append(shown(row, f" {'ABCD'[row['answer']]}"))
    documents = []
    for row in sample(read(data / "mmlu/mmlu_test.jsonl.gz"), n):
        about = row["subject"].replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {about}."
        prompt = "\n\n".join([head, *exemplars[row["subject"]], shown(row, "")])
        documents.append((prompt, tuple("ABCD"), row["answer"]))
    return _choices("mmlu_5shot", documents)


def lambada(data: Path, n: int) -> RequestSet:
    rows = sample(read(data / "nlp_tasks/lambada_openai.jsonl.gz"), n)
    documents = [(r["context"], (r["continuation"],), 0) for r in rows]
    return _choices("lambada_openai", documents)


def gsm8k(data: Path, n: int) -> RequestSet:
    """Five solved problems of the training split, then a problem; greedy text up to the next problem."""
    with gzip.open(data / "flan_cot/gsm8k_train.tsv.gz", "rt") as file:
        solved = [next_row for next_row, _ in zip(csv.reader(file, delimiter="\t"), range(5))]
    shots = [f"Question: {q}\nAnswer: {why} #### {answer}" for q, answer, why in solved]
    rows = sample(read(data / "gsm8k/test.jsonl.gz"), n)
    until = {"until": ["Question:", "</s>", "<|im_end|>"], "max_gen_toks": 64}
    requests: list[tuple[Any, ...]] = [
        ("\n\n".join([*shots, f"Question: {r['question']}\nAnswer:"]), until) for r in rows
    ]
    gold = [re.sub(r".*#### ", "", r["answer"], flags=re.DOTALL) for r in rows]
    questions = [Question(range(i, i + 1), answer) for i, answer in enumerate(gold)]
    return RequestSet("gsm8k_5shot", "generate_until", requests, questions)


def free_text(data: Path, n: int) -> RequestSet:
    """Zero-shot continuations of texts of many lengths, with stop strings that are frequent in any text."""
    rows = sample(read(data / "nlp_tasks/hellaswag_validation_1000.jsonl.gz"), n)
    stops = {"until": ["\n\n", ". ", "ing "], "max_gen_toks": 48}
    return RequestSet("free_text", "generate_until", [(r["query"], stops) for r in rows])


def rolling(data: Path, n: int) -> RequestSet:
    """Texts from a few tokens to several context windows, the last ones in Chinese."""
    story = " ".join(r["context"] for r in sample(read(data / "nlp_tasks/lambada_openai.jsonl.gz"), 80))
    chinese = (data / "mgsm/mgsm_zh.tsv").read_text()
    sizes = [20, 300, 1500, 4000, 6000, 9000, 14000, 20000][:n]
    texts = [story[:size] for size in sizes] + [chinese[: size // 8] for size in sizes[::2]]
    return RequestSet("rolling", "loglikelihood_rolling", [(text,) for text in texts])


SETS: dict[str, tuple[Callable[[Path, int], RequestSet], int]] = {
    "hellaswag": (hellaswag, 250),
    "arc_easy": (arc_easy, 150),
    "arc_challenge": (arc_challenge, 150),
    "mmlu_5shot": (mmlu, 60),
    "lambada_openai": (lambada, 200),
    "gsm8k_5shot": (gsm8k, 24),
    "free_text": (free_text, 40),
    "rolling": (rolling, 8),
}
"""Name → what makes it, and of how many documents by default."""
