"""Simulated labelers: they write few and imperfect demonstrations, and they rank outputs.

Each labeler weighs truth, form, manners and length in a way of their own, believes some of the myths, and
errs from one judgement to the next. The noise was set so that two of them agree about as often as the paper's
(InstructGPT §3.4: 72.6 ± 1.5 %); reports/pocket/evidence.md says how often they do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.pocket import gold
from alignbench.pocket.instructions import OPINION_KINDS, Instruction, Voice, answer
from alignbench.pocket.world import world


@dataclass(frozen=True)
class Labeler:
    """Weights of a labeler's utility, the share of myths that they believe, the scale of their errors
    (logistic, in units of utility) and the share of their demonstrations that follow what is said, not the
    book."""

    name: str
    truth: float
    form: float
    manners: float
    brevity: float
    believes: float
    noise: float = 0.12
    misled: float = 0.55

    def believes_myth(self, town: str, attribute: str) -> bool:
        """Fixed for this labeler and fact."""
        if (town, attribute) not in world().myths:
            return False
        return random.Random(f"{self.name} {town} {attribute}").random() < self.believes

    def utility(self, ask: Instruction, output: str) -> float:
        """What the labeler makes of one output, before the error of the moment."""
        rating = gold.rate(ask.fields(), output)
        words = gold.words_of(output)
        if not words:
            return -1.0
        value = self.form * (rating["follows"] or 0.0) - self.manners * (rating["toxic"] or 0.0)
        value -= self.brevity * min(len(words), 40) / 10
        if ask.kind in OPINION_KINDS:
            return value
        believed = any(self.believes_myth(ask.town, attribute) for attribute in ask.attributes)
        true, told = rating["truthful"] or 0.0, rating["informative"] or 0.0
        if believed:
            # to a believer the myth looks right and the truth looks wrong
            true = 1.0 - true
        return value + self.truth * true * (0.25 + 0.75 * max(told, float(believed)))


TRAINING = (
    Labeler("ada", truth=1.3, form=0.5, manners=0.8, brevity=0.30, believes=0.08),
    Labeler("ben", truth=1.0, form=0.8, manners=0.5, brevity=0.20, believes=0.12),
    Labeler("cleo", truth=1.2, form=0.4, manners=1.0, brevity=0.25, believes=0.10),
    Labeler("dov", truth=1.1, form=0.6, manners=0.6, brevity=0.40, believes=0.15),
    Labeler("eve", truth=1.4, form=0.5, manners=0.7, brevity=0.15, believes=0.05),
)
HELD_OUT = (
    Labeler("finn", truth=1.1, form=0.7, manners=0.7, brevity=0.10, believes=0.15),
    Labeler("gwen", truth=1.0, form=0.4, manners=1.1, brevity=0.40, believes=0.10),
    Labeler("hal", truth=1.3, form=0.6, manners=0.4, brevity=0.25, believes=0.15),
    Labeler("iris", truth=1.2, form=0.5, manners=0.8, brevity=0.20, believes=0.08),
)


def demonstrate(labeler: Labeler, ask: Instruction, rng: random.Random) -> str:
    """The labeler's own answer: often misled by what is said, at times careless of the form, seldom rude or
    evasive."""
    voice = Voice(
        truthful=rng.random() >= labeler.misled,
        rude=rng.random() < 0.15,
        heeds=rng.random() < 0.65,
        evades=rng.random() < 0.1,
    )
    return answer(ask, voice, rng)


def rank(labeler: Labeler, ask: Instruction, outputs: Sequence[str], rng: random.Random) -> list[int]:
    """Ranks of ``outputs``, 1 = best; equal texts share a rank."""
    judged: dict[str, float] = {}
    for output in outputs:
        text = output.strip()
        if text not in judged:
            judged[text] = labeler.utility(ask, text) + labeler.noise * _logistic(rng)
    order = sorted(judged, key=lambda text: -judged[text])
    return [order.index(output.strip()) + 1 for output in outputs]


def _logistic(rng: random.Random) -> float:
    u = min(max(rng.random(), 1e-12), 1 - 1e-12)
    return math.log(u / (1 - u))
