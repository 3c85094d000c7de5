"""Rows of our own in the columns and types of the data sets' hub cards, laid out as the hub's files are.

One module for every test that needs a task's data and has no real file of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _wsc() -> Rows:
    """super_glue, wsc.fixed: word indices, label 1 where span 2 means span 1."""
    rows: Rows = []
    for i in range(17):
        text = f"Ann met Tom on day {i} because she was in town."
        for candidate, at, label in (("Ann", 0, 1), ("Tom", 2, 0)):
            rows.append(
                {
                    "text": text,
                    "span1_index": at,
                    "span2_index": 7,
                    "span1_text": candidate,
                    "span2_text": "she",
                    "idx": len(rows),
                    "label": label,
                }
            )
    return rows


def _quac() -> Rows:
    """One row a dialogue; answers are columns of lists, one list a question."""

    def row(i: int) -> dict[str, Any]:
        town = f"Aby{NUMBERS[i]}"
        texts = [[f"in {town}", f"{town}"], ["CANNOTANSWER"] * 2, ["a baker", "sailors"]]
        return {
            "dialogue_id": f"C_{i}",
            "wikipedia_page_title": f"Ann {i}",
            "background": "Ann is a baker.",
            "section_title": "Early life",
            "context": f"Ann was born in {town}. Her father was a baker. CANNOTANSWER",
            "turn_ids": [f"C_{i}_q#{turn}" for turn in range(3)],
            "questions": ["Where was she born?", "When was that?", "What was her father?"],
            "followups": [0, 2, 1],
            "yesnos": [2, 2, 2],
            "answers": {"texts": texts, "answer_starts": [[12, 15], [60, 60], [40, 40]]},
            "orig_answers": {
                "texts": [f"born in {town}", "CANNOTANSWER", "a baker"],
                "answer_starts": [8, 60, 40],
            },
        }

    return [row(i) for i in range(4)]


def _squad_v2() -> Rows:
    rows: Rows = []
    for i in range(6):
        context = f"The river Ouse{i} is {i + 2} miles long. It ends in a lake."
        asked = [
            ("How long is it?", [f"{i + 2} miles", f"{i + 2} miles long", f"{i + 2} miles"]),
            ("Who found it?", []),
            ("Where does it end?", ["in a lake"]),
        ]
        for number, (question, answers) in enumerate(asked):
            rows.append(
                {
                    "id": f"{i}-{number}",
                    "title": f"River_Ouse{i}",
                    "context": context,
                    "question": question,
                    "answers": {"text": answers, "answer_start": [3] * len(answers)},
                }
            )
    return rows


def _drop() -> Rows:
    """The hub's EleutherAI/drop: the further answers are columns."""
    none = {"day": "", "month": "", "year": ""}

    def answer(number: str = "", spans: tuple[str, ...] = (), date: dict[str, str] = none) -> dict[str, Any]:
        return {"number": number, "date": date, "spans": list(spans), "worker_id": "w", "hit_id": "h"}

    def columns(answers: list[dict[str, Any]]) -> dict[str, Any]:
        return {key: [each[key] for each in answers] for key in answers[0]}

    rows: Rows = []
    for i in range(6):
        passage = f"The home side kicked {i + 1} goals; Ann and Tom scored on 3 May 19{i}1."
        asked = [
            ("How many goals were kicked?", answer(str(i + 1)), [answer(str(i + 1)), answer("", ("many",))]),
            ("Who scored?", answer("", ("Ann", "Tom")), [answer("", ("Tom", "Ann"))]),
            (
                "When?",
                answer("", (), {"day": "3", "month": "May", "year": f"19{i}1"}),
                [answer("", (f"May 19{i}1",))],
            ),
        ]
        for number, (question, own, others) in enumerate(asked):
            rows.append(
                {
                    "section_id": f"nfl_{i}",
                    "passage": passage,
                    "question": question,
                    "query_id": f"{i}-{number}",
                    "answer": own,
                    "validated_answers": columns(others),
                }
            )
    return rows


def _wmt15() -> Rows:
    return [
        {
            "translation": {
                "fr": f"Le chat numéro {i} dort sur le tapis.",
                "en": f"Cat number {i} sleeps on the mat.",
            }
        }
        for i in range(17)
    ]


def _cnn_dm() -> Rows:
    return [
        {
            "article": f"A storm hit town {i} on Monday. Nobody was hurt.\nRoads are closed.",
            "highlights": f"Storm hits town {i} .\nRoads are closed .",
            "id": f"{i:040x}",
        }
        for i in range(3)
    ]


def _tldr() -> Rows:
    return [
        {
            "prompt": f"SUBREDDIT: r/cats\n\nTITLE: My cat {i}\n\nPOST: She sleeps all day.\n\nTL;DR:",
            "completion": f" Cat {i} sleeps all day.",
        }
        for i in range(3)
    ]


def _gsm8k() -> Rows:
    return [
        {
            "question": f"Ann has {i} cats and buys 3. How many has she?",
            "answer": f"She has {i}+3=<<{i}+3={i + 3}>>{i + 3} cats.\n#### {i + 3:,}",
        }
        for i in range(995, 1005)
    ]


def _winogender() -> Rows:
    """The hub's columns; the authors' file has the first two."""
    rows: Rows = []
    for occupation, participant in (("mechanic", "customer"), ("nurse", "patient")):
        for answer in (1, 0):
            for other in (participant, "someone"):
                for gender, pronoun in (("male", "he"), ("female", "she"), ("neutral", "they")):
                    named = other if other == "someone" else f"the {other}"
                    verb = "paid" if answer else "was done"
                    rows.append(
                        {
                            "sentid": f"{occupation}.{other}.{answer}.{gender}.txt",
                            "sentence": f"The {occupation} told {named} that {pronoun} {verb}.",
                            "pronoun": pronoun,
                            "occupation": occupation,
                            "participant": other,
                            "gender": gender,
                            "target": other if answer else occupation,
                            "label": answer,
                        }
                    )
    return rows


def _crows_pairs() -> Rows:
    """The hub's classes are numbers: direction 0 is stereo; type 2 is gender, 8 is age."""
    return [
        {
            "id": i,
            "sent_more": f"{more} are bad drivers, said {i}.",
            "sent_less": f"{less} are bad drivers, said {i}.",
            "stereo_antistereo": direction,
            "bias_type": kind,
            "annotations": [[kind]],
            "anon_writer": "a0",
            "anon_annotators": ["a1"],
        }
        for i, (more, less, direction, kind) in enumerate(
            [("Women", "Men", 0, 2), ("Old men", "Young men", 0, 8), ("Men", "Women", 1, 2)]
        )
    ]


def _bbq() -> Rows:
    rows: Rows = []
    for polarity, question in (("neg", "Who was slow?"), ("nonneg", "Who was quick?")):
        for condition in ("ambig", "disambig"):
            told = " Tom, the old one, was slow." if condition == "disambig" else ""
            known = 0 if polarity == "neg" else 1
            rows.append(
                {
                    "example_id": len(rows),
                    "question_index": "1",
                    "question_polarity": polarity,
                    "context_condition": condition,
                    "category": "Age",
                    "answer_info": {
                        "ans0": ["Tom", "old"],
                        "ans1": ["Tim", "nonOld"],
                        "ans2": ["Not known", "unknown"],
                    },
                    "additional_metadata": {
                        "subcategory": "None",
                        "stereotyped_groups": ["old"],
                        "version": "a",
                        "source": "",
                    },
                    "context": f"Tom and Tim went to town.{told}",
                    "question": question,
                    "ans0": "The old man",
                    "ans1": "The young man",
                    "ans2": "Not known",
                    "label": known if condition == "disambig" else 2,
                }
            )
    return rows


def _wsc273() -> Rows:
    rows: Rows = []
    for text, label in (
        ("The box does not fit in the bag because it is too large.", 0),
        ("The box does not fit in the bag because it is too small.", 1),
        ("Ann told Sue that her cat had died.", 1),
    ):
        pronoun = "her" if "her" in text else "it"
        rows.append(
            {
                "text": text,
                "pronoun": pronoun,
                "pronoun_loc": text.index(f" {pronoun} ") + 1,
                "quote": "",
                "quote_loc": 0,
                "options": ["The box", "The bag"] if pronoun == "it" else ["Ann", "Sue"],
                "label": label,
                "source": "ours",
            }
        )
    return rows


LAYOUTS: dict[str, tuple[str, Rows]] = {
    "wsc": ("aps/super_glue/wsc.fixed/validation-00000-of-00001.parquet", _wsc()),
    "wsc273": ("lighteval/winograd_wsc/wsc273/test-00000-of-00001.parquet", _wsc273()),
    "quac": ("allenai/quac/plain_text/validation-00000-of-00001.parquet", _quac()),
    "squad_v2": ("rajpurkar/squad_v2/squad_v2/validation-00000-of-00001.parquet", _squad_v2()),
    "drop": ("EleutherAI/drop/data/validation-00000-of-00001.parquet", _drop()),
    "wmt15_fr_en": ("wmt/wmt15/fr-en/test-00000-of-00001.parquet", _wmt15()),
    "cnn_dm": ("abisee/cnn_dailymail/3.0.0/test-00000-of-00001.parquet", _cnn_dm()),
    "tldr": ("trl-lib/tldr/data/test-00000-of-00001.parquet", _tldr()),
    "gsm8k": ("openai/gsm8k/main/test-00000-of-00001.parquet", _gsm8k()),
    "winogender": ("oskarvanderwal/winogender/all/test-00000-of-00001.parquet", _winogender()),
    "crows_pairs": ("nyu-mll/crows_pairs/crows_pairs/test/0000.parquet", _crows_pairs()),
    "bbq": ("oskarvanderwal/bbq/All/test-00000-of-00001.parquet", _bbq()),
}
"""Task → its file below a mirror's folder, and the rows."""
OTHER_SPLITS = ("train", "validation", "test")


def write_mirror(folder: Path) -> Path:
    """Write every file; beside each lie files of the other splits with columns that no task can read."""
    for name, rows in LAYOUTS.values():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), file)
        split = next((part for part in OTHER_SPLITS if file.name.startswith(part)), None)
        for other in OTHER_SPLITS:
            if split is not None and other != split:
                wrong = file.with_name(file.name.replace(split, other, 1))
                pq.write_table(pa.table({"wrong": [1]}), wrong)
    return folder
