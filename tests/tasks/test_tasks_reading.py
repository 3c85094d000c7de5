"""Tasks whose answer is written: reading, translation, summaries, arithmetic; on the hub's formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_rows import LAYOUTS, write_mirror
from test_tasks_shipped import module

from alignbench.engines.types import Completion, Scored
from alignbench.metrics import corpus_value
from alignbench.tasks.documents import metrics_with_levels
from alignbench.tasks.registry import find_tasks
from alignbench.tasks.types import Document, Task

WRITTEN = ("wsc", "quac", "squad_v2", "drop", "wmt15_fr_en", "cnn_dm", "tldr", "gsm8k")
WITH_SHOTS = {
    "wsc_15shot": 15,
    "quac_2shot": 2,
    "squad_v2_4shot": 4,
    "drop_4shot": 4,
    "wmt15_fr_en_15shot": 15,
    "gsm8k_8shot": 8,
}
HEADS = {
    "wsc": "Passage: ",
    "quac": "Title: ",
    "squad_v2": "Title: ",
    "drop": "Passage: ",
    "wmt15_fr_en": "French: ",
    "gsm8k": "Problem: ",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("hub"))


def task(name: str, data: Path) -> Task:
    return find_tasks([name], mirror=data)[0]


def said(text: str) -> Completion:
    return Completion(text, (), (1,), (0.0,), (0.0,), "eos")


def scores(found: Task, document: Document, text: str) -> dict[str, float]:
    return dict(found.score(document, said(text)))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_target_scores_full_marks_and_nonsense_none(hub: Path, name: str) -> None:
    found = task(name, hub)
    for document in found.load():
        assert found.headline is not None
        best = scores(found, document, document.target or "")[found.headline]
        worst = scores(found, document, "zzz")[found.headline]
        if found.headline in found.combine:
            best, worst = (corpus_value([value], found.combine[found.headline]) for value in (best, worst))
        if name == "drop" and "Ann, Tom" in (document.target or ""):
            assert 0 < best < 1  # two answers on one line are one span: see docs/fidelity.md
        elif name == "quac":
            assert best > 0.5  # the writer's answer, scored against the annotators'
        else:
            assert best == pytest.approx(1.0)
        if name == "wsc":
            assert worst == (not document.fields["refers"])  # nonsense is not the candidate, and that is said
        else:
            assert worst == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("name", WITH_SHOTS)
def test_exemplars_are_other_documents_with_their_targets(hub: Path, name: str) -> None:
    plain_name = name.rpartition("_")[0]
    head = HEADS[plain_name]
    zero, shown = task(plain_name, hub).load(), task(name, hub).load()
    targets = {f"{_own(doc)} {doc.target}": doc for doc in zero}
    for plain, full in zip(zero, shown, strict=True):
        assert full.prompt.endswith(_own(plain))
        assert (full.doc_id, full.references) == (plain.doc_id, plain.references)
        between = full.prompt.removesuffix(_own(plain)).partition("\n\n")[2].removesuffix("\n\n")
        exemplars = [head + part for part in between.split(f"\n\n{head}")]
        exemplars[0] = exemplars[0].removeprefix(head)
        assert len(exemplars) == WITH_SHOTS[name]
        assert all(targets[text].cluster != plain.cluster for text in exemplars)


def _own(document: Document) -> str:
    """The prompt without its instruction."""
    return document.prompt.partition("\n\n")[2]


@pytest.mark.parametrize("name", WRITTEN)
def test_decoding_is_the_papers(hub: Path, name: str) -> None:
    """Appendix D: temperature 0, truncated at the first line break. GSM8K is not in it, and takes steps."""
    found = task(name, hub)
    assert found.sampling["temperature"] == 0
    assert found.sampling["stop"] == (("\nProblem:",) if name == "gsm8k" else ("\n",))


def test_quac(hub: Path) -> None:
    found = task("quac", hub)
    documents = found.load()
    # four dialogues of three questions; on the third, two people share no word, so it is not asked
    assert [doc.doc_id for doc in documents[:3]] == ["C_0_q#0", "C_0_q#1", "C_1_q#0"]
    first, second = documents[:2]
    assert first.cluster == second.cluster == "C_0"
    assert _own(second) == (
        "Title: Ann 0: Early life\nParagraph: Ann was born in Abyone. Her father was a baker.\n\n"
        "Q: Where was she born?\nA: born in Abyone\nQ: When was that?\nA:"
    )
    assert first.prompt.startswith("Answer each question from the paragraph at the head of its dialogue.")
    assert scores(found, second, "I don't know.") == {"quac_f1": 1.0}
    assert scores(found, second, "In 1900") == {"quac_f1": 0.0}
    # against "in Abyone": 1; against "Abyone": 2/3; each reference left out in turn
    assert scores(found, first, "in Abyone") == {"quac_f1": pytest.approx((2 / 3 + 1) / 2)}


def test_squad_v2(hub: Path) -> None:
    found = task("squad_v2", hub)
    length, finder, end = found.load()[:3]
    assert _own(length).endswith("It ends in a lake.\n\nQ: How long is it?\nA:")
    assert _own(end).endswith(
        "Q: How long is it?\nA: 2 miles\nQ: Who found it?\nA: Not in background.\nQ: Where does it end?\nA:"
    )
    assert length.references == ("2 miles", "2 miles long")
    for text in ("Not in background.", "unanswerable", ""):
        assert scores(found, finder, text) == {"squad_f1": 1.0, "squad_em": 1.0}
        assert scores(found, length, text) == {"squad_f1": 0.0, "squad_em": 0.0}
    assert scores(found, finder, "A king") == {"squad_f1": 0.0, "squad_em": 0.0}
    assert scores(found, length, "about 2 miles") == {"squad_f1": pytest.approx(0.8), "squad_em": 0.0}
    assert {doc.cluster for doc in (length, finder, end)} == {"River_Ouse0".replace("_", " ")}


def test_drop(hub: Path) -> None:
    found = task("drop", hub)
    goals, scorers, day = found.load()[:3]
    assert (goals.doc_id, goals.cluster, goals.references) == ("0-0", "nfl_0", ("1", "many"))
    assert scorers.references == ("Ann\nTom", "Tom\nAnn")
    assert (scorers.target, day.references) == ("Ann, Tom", ("3 May 1901", "May 1901"))
    assert scores(found, goals, "1.0") == {"drop_f1": 1.0, "drop_em": 1.0}
    assert scores(found, goals, "2 goals") == {"drop_f1": 0.0, "drop_em": 0.0}


def test_drops_layouts_give_the_same_answers() -> None:
    prepare = module("nlp/drop.py").prepare
    head = {"section_id": "s", "query_id": "q", "passage": " P. ", "question": " Q? "}
    number = {"number": "4", "date": {}, "spans": []}
    spans = {"number": "", "date": {}, "spans": ["four"]}
    authors = prepare({**head, "answer": number, "validated_answers": [spans]})
    columns = {key: [spans[key]] for key in spans}
    assert authors == prepare({**head, "answer": number, "validated_answers": columns})
    assert authors == prepare(
        {**head, "answers_spans": {"spans": ["4", "four", "4"], "types": ["number"] * 3}}
    )
    assert (authors["references"], authors["passage"], authors["question"]) == (["4", "four"], "P.", "Q?")
    with pytest.raises(ValueError, match="question q has no answer"):
        prepare({**head, "answers_spans": {"spans": [], "types": []}})


def test_wsc(hub: Path) -> None:
    found = task("wsc", hub)
    ann, tom = found.load()[:2]
    assert _own(ann) == (
        "Passage: Ann met Tom on day 0 because *she* was in town.\n"
        'Question: In this passage, what does the pronoun "she" stand for?\nAnswer:'
    )
    assert ann.cluster == tom.cluster
    assert (ann.target, tom.target) == ("Ann", "Ann")  # the row on Tom says no; the other one says who
    # is the candidate meant? Of Ann: yes. Of Tom: no
    for text, of_ann, of_tom in (("Ann", 1, 1), ("It is Ann.", 1, 1), ("Tom", 0, 0), ("the town", 0, 1)):
        assert (scores(found, ann, text), scores(found, tom, text)) == (
            {"accuracy": of_ann},
            {"accuracy": of_tom},
        )
    assert scores(found, tom, " ") == {"accuracy": 0.0, "unparsed": 1.0}


def test_wsc_finds_part_of_a_name_in_both_directions() -> None:
    matches = module("nlp/wsc.py").matches
    meant = {"candidate": "The city councilmen", "refers": True}
    assert matches(meant, "councilmen") == {"accuracy": 1}  # contained in the candidate
    assert matches(meant, "It means the city councilmen there.") == {"accuracy": 1}  # contains it
    assert matches(meant, "councilmen of another city") == {"accuracy": 0}
    assert matches({**meant, "refers": False}, "the demonstrators") == {"accuracy": 1}


def test_wsc_marks_the_pronoun_nearest_to_the_index() -> None:
    arrange = module("nlp/wsc.py").with_nouns
    row = {**LAYOUTS["wsc"][1][0], "text": 'She said: "she  saw her, and she ran."', "span2_index": 3}
    assert arrange([row])[0]["passage"] == 'She said: "*she* saw her, and she ran."'
    assert arrange([{**row, "span2_index": 0}])[0]["passage"].startswith("*She* said")
    with pytest.raises(ValueError, match="row 0 has no word 'he'"):
        arrange([{**row, "span2_text": "he"}])


def test_wmt15(hub: Path) -> None:
    found = task("wmt15_fr_en", hub)
    documents = found.load()
    assert _own(documents[0]) == "French: Le chat numéro 0 dort sur le tapis.\nEnglish:"
    rows = [found.score(doc, said(doc.target or ""))["bleu"] for doc in documents]
    assert corpus_value(rows, found.combine["bleu"]) == pytest.approx(1)
    half = rows[:8] + [found.score(doc, said("The cat is there."))["bleu"] for doc in documents[8:]]
    assert 0.2 < (corpus_value(half, found.combine["bleu"]) or 0) < 0.8


def test_summaries(hub: Path) -> None:
    news = task("cnn_dm", hub).load()[0]
    assert news.prompt.endswith("Nobody was hurt.\nRoads are closed.\n\nTL;DR:")
    assert news.target == "Storm hits town 0 .\nRoads are closed ."
    values = scores(task("cnn_dm", hub), news, "Storm hits town 0.")
    # 4 of 4 words said, 4 of 7 wanted
    assert values["rouge_l"] == values["rouge1"] == pytest.approx(2 * 4 / (4 + 7))
    post = task("tldr", hub).load()[0]
    assert post.prompt.endswith("POST: She sleeps all day.\n\nTL;DR:")
    assert post.target == "Cat 0 sleeps all day."


def test_gsm8k(hub: Path) -> None:
    found = task("gsm8k", hub)
    document = found.load()[0]
    assert document.target == "She has 995+3=998 cats.\n#### 998"
    assert scores(found, document, "995 and 3 make 998.") == {"numeric_match": 1.0}
    assert scores(found, document, "Many.") == {"numeric_match": 0.0, "unparsed": 1.0}
    with pytest.raises(ValueError, match="####"):
        module("nlp/gsm8k.py").prepare({"question": "q", "answer": "7"})


# --- WSC273 ------------------------------------------------------------------------------------------------


def test_wsc273_from_the_hubs_columns(hub: Path) -> None:
    large, small, cat = task("wsc273", hub).load()
    assert large.choices == (
        "The box does not fit in the bag because the box is too large.",
        "The box does not fit in the bag because the bag is too large.",
        "The box does not fit in the bag because the box",
        "The box does not fit in the bag because the bag",
    )
    assert cat.choices[1] == "Ann told Sue that Sue's cat had died."
    assert large.cluster == small.cluster != cat.cluster
    assert (large.fields["label"], small.fields["label"]) == (0, 1)


def test_partial_and_full_scoring_can_differ(hub: Path) -> None:
    found = task("wsc273", hub)
    document = found.load()[0]  # the box is right
    # the whole with the bag is likelier, because "the bag" is; behind the box the rest is likelier
    values = found.score(document, [Scored(v, 9, False) for v in (-20.0, -18.0, -15.0, -11.0)])
    assert values == {"accuracy": 1.0, "accuracy_full": 0.0}


def test_wsc273_on_the_real_file(shared_data: Path) -> None:
    documents = task("wsc273", shared_data).load()
    assert len(documents) == 273
    assert documents[0].choices[0] == (
        "The city councilmen refused the demonstrators a permit because the city councilmen feared violence."
    )
    assert 130 <= len({doc.cluster for doc in documents}) <= 137  # 136 pairs and a triple, some alike
    assert all(
        whole.startswith(head) for doc in documents for whole, head in zip(doc.choices, doc.choices[2:])
    )


# --- as many exemplars as in the paper ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hellaswag", "rte", "sst2"])
def test_fifteen_shots_of_the_real_files(shared_data: Path, name: str) -> None:
    few, many = task(f"{name}_5shot", shared_data).load(), task(f"{name}_15shot", shared_data).load()
    assert [doc.doc_id for doc in few] == [doc.doc_id for doc in many]
    assert many[0].prompt.count("\n\n") - few[0].prompt.count("\n\n") == 10
    if name == "sst2":
        assert {doc.prompt.count("Sentiment: positive") for doc in many} <= {7, 8}


def test_gsm8k_on_the_real_file(shared_data: Path) -> None:
    found = task("gsm8k", shared_data)
    documents = found.load()
    assert len(documents) == 1319
    assert {scores(found, doc, doc.target or "")["numeric_match"] for doc in documents} == {1.0}
    assert not any("<<" in (doc.target or "") for doc in documents)
    assert metrics_with_levels(found, documents)[0].unit == "rate"


# --- suites ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "n"), [("nlp", 22), ("bias", 8)])
def test_whole_suites_load_from_real_files_and_the_hubs_formats(
    hub: Path, shared_data: Path, suite: str, n: int
) -> None:
    found = find_tasks([suite], mirror=hub)
    assert len(found) == n
    for each in found:
        at_hand = each.name.startswith(("hellaswag", "rte", "sst2", "lambada"))
        documents = task(each.name, shared_data if at_hand else hub).load()
        assert documents
        assert all(doc.prompt or doc.choices or doc.target for doc in documents)


def test_the_papers_suite_names_each_task_of_its_table_14() -> None:
    """Its tasks of these two families; those of the others are tested where they are."""
    from alignbench.tasks.registry import look

    suite = next(suite for suite in look().suites if suite.name == "instructgpt")
    assert suite.problem is None
    known = {entry.name for entry in find_entries() if entry.family in ("bias", "nlp")}
    elsewhere = {"real_toxicity", "truthfulqa"}
    mine = [name for name in suite.tasks if not name.startswith(tuple(elsewhere))]
    assert set(mine) <= known
    assert len(mine) == 25


def find_entries():
    from alignbench.tasks.registry import list_entries

    return list_entries()
