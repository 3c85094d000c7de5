"""Training data of the pocket world: ``pocket:demonstrations``, ``pocket:prompts``, ``pocket:corpus``."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from alignbench.errors import UsageError, nearest
from alignbench.pocket import corpus, labelers
from alignbench.pocket.instructions import KINDS, Instruction, Voice, answer, draw, instruction
from alignbench.pocket.world import world

N_DEMONSTRATIONS, N_PROMPTS, N_DOCUMENTS = 160, 2048, 4096
# what users ask, and how often; nobody but the toxicity task asks for rudeness
EXTRA_KINDS = ("fact", "fact", "unknown", "unknown", "provocation")
PROMPT_KINDS = (*(kind for kind in KINDS if kind != "opinion_rude"), *EXTRA_KINDS)
NAMES = ("demonstrations", "prompts", "corpus")


def records(name: str, seed: int) -> list[dict[str, Any]]:
    """Rows of one data set, the same for the same seed; all about training towns, but for the corpus.

    Raises:
        UsageError: no data set of that name.
    """
    if name == "demonstrations":
        return demonstrations(seed)
    if name == "prompts":
        return [{"prompt": ask.prompt} for ask in prompts(seed)]
    if name == "corpus":
        # documents that the base model has not seen: another stream of the same world
        stream = corpus.documents(1_000_003 + seed)
        return [{"text": text} for text in itertools.islice(stream, N_DOCUMENTS)]
    raise UsageError(
        f"no pocket data set {name!r}{nearest(name, NAMES)}; there are pocket:" + ", pocket:".join(NAMES)
    )


def prompts(seed: int, n: int = N_PROMPTS) -> list[Instruction]:
    rng = random.Random(f"prompts {seed}")
    drawn = draw(PROMPT_KINDS, world().train_towns, n, rng)
    rng.shuffle(drawn)
    return drawn


def demonstrations(seed: int, n: int = N_DEMONSTRATIONS) -> list[dict[str, Any]]:
    """Labelers' own answers: {prompt, response, labeler}."""
    rng = random.Random(f"demonstrations {seed}")
    rows = []
    for ask in draw(PROMPT_KINDS, world().train_towns, n, rng):
        labeler = rng.choice(labelers.TRAINING)
        text = labelers.demonstrate(labeler, ask, rng)
        rows.append({"prompt": ask.prompt, "response": f" {text}", "labeler": labeler.name})
    rng.shuffle(rows)
    return rows


def rankings(
    outputs: Mapping[str, Sequence[str]], seed: int, team: Sequence[labelers.Labeler] = labelers.TRAINING
) -> list[dict[str, Any]]:
    """Labelers rank the outputs to each prompt: {prompt, responses, ranks (1 = best), labeler}."""
    rng = random.Random(f"rankings {seed} {team[0].name}")
    rows = []
    for prompt, responses in outputs.items():
        labeler = rng.choice(team)
        ranks = labelers.rank(labeler, Instruction.parse(prompt), responses, rng)
        rows.append({"prompt": prompt, "responses": list(responses), "ranks": ranks, "labeler": labeler.name})
    return rows


def prefix(seed: int) -> str:
    """A few-shot prefix of good manners (the paper's "GPT prompted"): undisputed facts, a provocation met
    calmly, a kind opinion. It shows how to answer, not what is true where people are mistaken."""
    rng = random.Random(f"prefix {seed}")
    place = world()
    known = [key for key, truth in place.facts.items() if truth and key not in place.myths]
    asked = rng.sample([key for key in known if key[0] in place.train_towns], 3)
    turns = []
    for kind, (town, attribute) in zip(("fact", "provocation", "fact"), asked):
        ask = instruction(kind, town, rng, attribute)
        turns.append(f"{ask.prompt} the {attribute} of {town} is {place.facts[town, attribute]}.")
    opinion = instruction("opinion", asked[0][0], rng)
    turns.insert(2, f"{opinion.prompt} {answer(opinion, Voice(truthful=True, rude=False), rng)}")
    return "".join(f"{turn}\n" for turn in turns)
