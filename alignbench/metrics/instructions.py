"""Whether an output follows verifiable instructions: the checks by name, strictly and loosely.

An instruction is a name and its parameters: one of ``CHECKS`` (the functions of ``instruction_checks``), or
an instruction id of IFEval's data set (Zhou et al. 2023, table 1) with that data set's ``kwargs``. Everything
that can be wrong with a name or a parameter is a UsageError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignbench.errors import UsageError, nearest
from alignbench.metrics import instruction_checks as checks
from alignbench.metrics.ifeval import IFEVAL
from alignbench.metrics.languages import known_languages

CHECKS: Mapping[str, Callable[..., bool]] = {
    name: getattr(checks, name)
    for name in (
        *("words", "sentences", "paragraphs", "characters"),
        *(
            "json_only",
            "bullets",
            "numbered_items",
            "headings",
            "sections",
            "highlights",
            "title",
            "placeholders",
        ),
        *("postscript", "quoted", "one_of", "holds_one_of", "no_commas", "upper_case", "lower_case"),
        *("english_upper_case", "english_lower_case", "capital_words", "two_responses", "repeats_prompt"),
        *("includes", "excludes", "keyword_frequency", "letter_frequency", "starts_with", "ends_with"),
        *("first_word", "last_word", "paragraph_starts_with", "language"),
    )
}
"""Name → check; its parameters are the function's, after the output."""
Instruction = tuple[str, Mapping[str, Any]]
_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "int": (
        "a whole number",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    ),
    "str": ("a text that is not empty", lambda value: isinstance(value, str) and bool(value.strip())),
    "Sequence[str]": (
        "a list of texts",
        lambda value: (
            isinstance(value, (list, tuple)) and bool(value) and all(isinstance(x, str) and x for x in value)
        ),
    ),
}


def check(name: str, output: str, **parameters: Any) -> bool:
    """Whether the output follows one instruction, to the letter. An empty output follows none.

    Args:
        name: one of ``CHECKS``, or an IFEval id ("length_constraints:number_words").
        parameters: the check's, or the id's ``kwargs``.

    Raises:
        UsageError: an unknown name or parameter, a parameter that is missing or of the wrong type.
    """
    own, given = resolve(name, parameters)
    return _passes(own, given, output)


def follows(output: str, instructions: Sequence[Instruction], loose: bool = False) -> list[bool]:
    """Which of the instructions the output follows, in order.

    Args:
        instructions: (name, parameters) each.
        loose: forgive what surrounds an answer (Zhou et al. 2023, section 2.3): an instruction counts as
            followed if it is by the output, or by it without its first line, its last line or both, each also
            without its asterisks.

    Raises:
        UsageError: as ``check``.
    """
    resolved = [resolve(name, parameters) for name, parameters in instructions]
    texts = _variants(output) if loose else [output]
    return [any(_passes(name, given, text) for text in texts) for name, given in resolved]


def instruction_scores(output: str, instructions: Sequence[Instruction]) -> dict[str, float]:
    """One prompt's scores: ``prompt_strict`` and ``prompt_loose`` are 1 if *all* its instructions are
    followed.

    Their means over prompts are IFEval's prompt-level accuracies. ``n``, ``followed_strict`` and
    ``followed_loose`` count instructions; IFEval's instruction-level accuracies are ratios of their sums over
    prompts (``corpus.ratio``).

    Raises:
        UsageError: as ``check``; also without any instruction.
    """
    if not instructions:
        raise UsageError("a prompt has no instruction to check; give one at least")
    strict, loose = follows(output, instructions), follows(output, instructions, loose=True)
    return {
        "prompt_strict": float(all(strict)),
        "prompt_loose": float(all(loose)),
        "n": float(len(strict)),
        "followed_strict": float(sum(strict)),
        "followed_loose": float(sum(loose)),
    }


def ifeval_instructions(row: Mapping[str, Any]) -> list[Instruction]:
    """The instructions of one row of IFEval's data set: its ``instruction_id_list`` beside its ``kwargs``.

    Raises:
        UsageError: one of the two is missing, or they are not of one length.
    """
    names, kwargs = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, Sequence) or not isinstance(kwargs, Sequence) or len(names) != len(kwargs):
        raise UsageError(
            f"row {row.get('key', '')!r} is none of IFEval's: 'instruction_id_list' and 'kwargs' are two "
            "lists of one length"
        )
    return [(name, given or {}) for name, given in zip(names, kwargs, strict=True)]


def resolve(name: str, parameters: Mapping[str, Any]) -> Instruction:
    """The check's own name and parameters, examined; an IFEval id becomes the check that it stands for.

    A parameter that is None counts as not given: the hub's copy of IFEval has every key in every row.

    Raises:
        UsageError: as ``check``.
    """
    given = {key: _whole(value) for key, value in parameters.items() if value is not None}
    if name in IFEVAL:
        wanted, translate = IFEVAL[name]
        _examine(name, given, wanted, required=set(wanted))
        name, given = translate(given)
    elif name not in CHECKS:
        known = [*CHECKS, *IFEVAL]
        raise UsageError(
            f"no instruction check is named {name!r}{nearest(name, known)}; known are {', '.join(known)}"
        )
    signature = list(inspect.signature(CHECKS[name]).parameters.values())[1:]
    types = {one.name: str(one.annotation).removesuffix(" | None") for one in signature}
    needed = {one.name for one in signature if one.default is inspect.Parameter.empty}
    _examine(name, given, types, needed)
    bounded = {"at_least", "at_most"} & types.keys()
    if bounded and not bounded & given.keys():
        raise UsageError(f"the check {name!r} needs 'at_least' or 'at_most'")
    if given.get("at_least", 0) > given.get("at_most", given.get("at_least", 0)):
        raise UsageError(
            f"the check {name!r} can never hold: at least {given['at_least']}, at most {given['at_most']}"
        )
    if name == "language" and str(given["code"]).strip().lower() not in known_languages():
        raise UsageError(
            f"the language {given['code']!r} is not known; known are {', '.join(known_languages())}"
        )
    return name, given


def _whole(value: Any) -> Any:
    """A whole number where a table's column with gaps made a float of it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _examine(name: str, given: Mapping[str, Any], types: Mapping[str, str], required: set[str]) -> None:
    for key, value in given.items():
        if key not in types:
            known = f"it has {', '.join(types)}" if types else "it has none"
            raise UsageError(
                f"the check {name!r} has no parameter {key!r}{nearest(key, list(types))}; {known}"
            )
        wanted, fits = _TYPES[types[key]]
        if not fits(value):
            raise UsageError(f"the check {name!r}: {key!r} is {wanted}, not {value!r}")
    missing = sorted(required - given.keys())
    if missing:
        raise UsageError(f"the check {name!r} needs {', '.join(map(repr, missing))}")


def _passes(name: str, given: Mapping[str, Any], output: str) -> bool:
    text = output.strip()
    return bool(text) and CHECKS[name](text, **given)


def _variants(output: str) -> list[str]:
    lines = output.split("\n")
    texts = [output, *("\n".join(part) for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*texts, *(text.replace("*", "") for text in texts)]
