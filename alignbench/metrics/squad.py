"""Exact match and F1 of extractive question answering: SQuAD, SQuAD 2.0 with no-answer, QuAC.

SQuAD's are those of the official ``evaluate-v2.0.py`` (Rajpurkar et al. 2018), QuAC's those of the official
``scorer.py`` (Choi et al. 2018, section 5). Both normalise alike: lower case, no ASCII punctuation, no
articles, single spaces. (``exact_match`` and ``f1`` of ``text`` drop every script's punctuation.)
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

NO_ANSWER = (
    "Not in background.",
    "unanswerable",
    "not answerable",
    "no answer",
    "I don't know",
    "CANNOTANSWER",
)
"""Outputs by which a generative model says that the text holds no answer. The first and "I don't know" are
what InstructGPT's prompts for SQuAD 2.0 and QuAC ask for (Ouyang et al. 2022, appendix D)."""
CANNOTANSWER = "CANNOTANSWER"
"""QuAC's reference for a question without an answer."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_normalize(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split())


def squad_em(output: str, references: Sequence[str], no_answer: Sequence[str] = NO_ANSWER) -> float:
    """1 if the normalised output is a normalised reference, else 0.

    Args:
        references: the accepted answers; none of them, or none with a word in it: the question has no answer,
            and right is an output that is empty after normalisation.
        no_answer: outputs (compared normalised) that count as an empty one, unless they are an accepted
            answer.
    """
    said, wanted = _prepare(output, references, no_answer)
    return float(said in wanted)


def squad_f1(output: str, references: Sequence[str], no_answer: Sequence[str] = NO_ANSWER) -> float:
    """F1 over normalised words for the best reference, in [0, 1]; without an answer as in ``squad_em``."""
    said, wanted = _prepare(output, references, no_answer)
    return max(_f1(said.split(), text.split()) for text in wanted)


def says_no_answer(output: str, no_answer: Sequence[str] = NO_ANSWER) -> bool:
    """Whether the output says that there is no answer: it is empty after normalisation, or one of
    ``no_answer``."""
    said = squad_normalize(output)
    return not said or said in {squad_normalize(phrase) for phrase in no_answer}


def quac_f1(output: str, references: Sequence[str], no_answer: Sequence[str] = NO_ANSWER) -> float | None:
    """QuAC's F1: each reference is left out in turn, the best F1 over the others counts, and the mean is
    taken.

    So a model is compared with as many references as a person is (``quac_human_f1``). With one reference it
    is the F1 with that. As in the official scorer, references that say ``CANNOTANSWER`` decide if they are at
    least as many as the others, and are left out if they are fewer. The official scorer also leaves out the
    questions on which people agree little (human F1 below 0.4); that is for the task to do.

    Args:
        references: one answer an annotator; ``CANNOTANSWER`` where they found none.
        no_answer: outputs (compared normalised) that count as ``CANNOTANSWER``. An empty output is no answer
            at all, hence wrong.

    Returns:
        A number in [0, 1]; None without any reference.
    """
    wanted = _decided(references)
    if not wanted:
        return None
    said = squad_normalize(output)
    if said and says_no_answer(output, no_answer) and said not in wanted:
        said = squad_normalize(CANNOTANSWER)
    scores = [_f1(said.split(), text.split()) if said else 0.0 for text in wanted]
    if len(scores) == 1:
        return scores[0]
    others = [max(scores[:left] + scores[left + 1 :]) for left in range(len(scores))]
    return sum(others) / len(others)


def quac_human_f1(references: Sequence[str]) -> float | None:
    """How well the annotators of a question agree: the mean over them of the best F1 with another one's
    answer.

    1 where there is one. None without any reference.
    """
    wanted = _decided(references)
    if not wanted:
        return None
    if len(wanted) == 1:
        return 1.0
    best = [
        max(_f1(one.split(), other.split()) if one else 0.0 for j, other in enumerate(wanted) if j != i)
        for i, one in enumerate(wanted)
    ]
    return sum(best) / len(best)


def _prepare(output: str, references: Sequence[str], no_answer: Sequence[str]) -> tuple[str, list[str]]:
    wanted = [text for text in map(squad_normalize, references) if text] or [""]
    said = squad_normalize(output)
    if said not in wanted and says_no_answer(output, no_answer):
        said = ""
    return said, wanted


def _decided(references: Sequence[str]) -> list[str]:
    """The references after the vote on whether there is an answer, normalised."""
    answers = [text for text in references if text.strip() != CANNOTANSWER]
    if references and len(references) - len(answers) >= len(answers):
        return [squad_normalize(CANNOTANSWER)]
    return [squad_normalize(text) for text in answers]


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words with their counts; two empty texts agree."""
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))
