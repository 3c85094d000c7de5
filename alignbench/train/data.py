"""Rows of the common layouts → typed examples → token ids → the order in which they are trained on.

A data *spec* is ``pocket:NAME``, a file or folder, or a data-set name, with options as a policy has them:
``NAME[@revision][?split=test&config=en&files=GLOB&seed=1]`` (``seed`` for pocket data alone).
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from alignbench.errors import UsageError, nearest
from alignbench.sources import load_rows

Row = Mapping[str, Any]
T = TypeVar("T")

TURN = "\n\nAssistant:"
"""Begins the assistant's turn in Anthropic's HH dialogues, and here where no chat template is at hand."""

OPTIONS = ("split", "config", "files", "seed")
DEMONSTRATIONS = "{prompt, response}, {prompt, completion}, {instruction[, input], output} or {messages}"
COMPARISONS = "{prompt, chosen, rejected}, {chosen, rejected} dialogues or {prompt, responses, ranks}"


@dataclass(frozen=True)
class Demonstration:
    """What a labeler would answer."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Comparison:
    """All that is known about the responses to one prompt, from one labeler: ``pairs`` of indices into
    ``responses``, the better one first. Ties make no pair. One element of a reward model's batch."""

    prompt: str
    responses: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    labeler: str | None = None


def read_records(spec: str, mirror: Path | None = None) -> list[dict[str, Any]]:
    """The rows that a data spec names.

    Raises:
        UsageError: nothing found, no rows, or an unknown option.
    """
    body, _, query = spec.partition("?")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        if key not in OPTIONS or not value:
            raise UsageError(
                f"data {spec!r}: no option {part!r}{nearest(key, OPTIONS)}; known: {', '.join(OPTIONS)}"
            )
        options[key] = unquote(value)
    if body.startswith("pocket:"):
        from alignbench.pocket.data import records

        seed = options.get("seed", "0")
        if not seed.isdecimal():
            raise UsageError(f"data {spec!r}: seed is {seed!r}, not a number from 0 up")
        return records(body.removeprefix("pocket:"), int(seed))
    name, _, revision = body.partition("@") if not os.path.exists(body) else (body, "", "")
    return load_rows(
        name,
        split=options.get("split"),
        config=options.get("config"),
        revision=revision or None,
        mirror=mirror,
        files=(options["files"],) if "files" in options else (),
    )


def read_demonstrations(spec: str, mirror: Path | None = None, tokenizer: Any = None) -> list[Demonstration]:
    """Demonstrations in any of the layouts ``DEMONSTRATIONS``.

    Where the tokenizer has a chat template, it renders every layout, as in evaluation. Else prompt and
    response are joined as they stand, and instructions and messages are turns in HH's form
    (``\\n\\nHuman: …\\n\\nAssistant: …``).

    Raises:
        UsageError: unknown columns, or a row whose fields are not text.
    """
    rows = read_records(spec, mirror)
    columns = set(rows[0])
    if {"prompt", "response"} <= columns or {"prompt", "completion"} <= columns:
        answer = "response" if "response" in columns else "completion"
        return [_prompted(spec, i, row, answer, tokenizer) for i, row in enumerate(rows)]
    if {"instruction", "output"} <= columns:
        return [_instruction(spec, i, row, tokenizer) for i, row in enumerate(rows)]
    if "messages" in columns:
        return [_dialogue(spec, i, row.get("messages"), tokenizer) for i, row in enumerate(rows)]
    raise _unknown(spec, rows[0], "demonstrations", DEMONSTRATIONS)


def read_comparisons(spec: str, mirror: Path | None = None, tokenizer: Any = None) -> list[Comparison]:
    """Comparisons in any of the layouts ``COMPARISONS``, in the order in which their prompts first occur.

    Rows of one prompt and one labeler are one ``Comparison``, in which each distinct response occurs once.
    What yields no pair (all ranks tied, or twice the same response) is left out.

    Raises:
        UsageError: unknown columns, a broken row, or no pair at all.
    """
    rows = read_records(spec, mirror)
    columns = set(rows[0])
    if {"prompt", "responses", "ranks"} <= columns:
        ranked = [_ranking(spec, i, row, tokenizer) for i, row in enumerate(rows)]
    elif {"chosen", "rejected"} <= columns:
        ranked = [_pair(spec, i, row, tokenizer) for i, row in enumerate(rows)]
    else:
        raise _unknown(spec, rows[0], "comparisons", COMPARISONS)
    merged: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
    for (prompt, pairs), row in zip(ranked, rows, strict=True):
        labeler = row.get("labeler")
        merged.setdefault((prompt, None if labeler is None else str(labeler)), []).extend(pairs)
    comparisons = []
    for (prompt, labeler), pairs in merged.items():
        places = {text: i for i, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
        indices = tuple((places[better], places[worse]) for better, worse in pairs)
        if indices:
            comparisons.append(Comparison(prompt, tuple(places), indices, labeler))
    if not comparisons:
        raise UsageError(f"data {spec!r}: no row prefers one response to another; give rows that do")
    return comparisons


def read_texts(spec: str, mirror: Path | None = None) -> list[str]:
    """Plain texts for the pretraining term: the column ``text``.

    Raises:
        UsageError: no such column, or a row without text.
    """
    rows = read_records(spec, mirror)
    if "text" not in rows[0]:
        raise _unknown(spec, rows[0], "texts", "{text}")
    return [_text(spec, i, row, "text") for i, row in enumerate(rows)]


def read_prompts(spec: str, mirror: Path | None = None, tokenizer: Any = None) -> list[str]:
    """Prompts: the column ``prompt``, or those of demonstrations or comparisons, each once, in order.

    Raises:
        UsageError: unknown columns, or a row without text.
    """
    return list(dict.fromkeys(_prompts(spec, mirror, tokenizer)))


def prompts_for(spec: str, mirror: Path | None, tokenizer: Any, reader: Any) -> dict[str, str]:
    """Each prompt of the data as ``tokenizer``'s chat template renders it → as ``reader``'s does, for a
    reward model that answers are shown to; empty where the two render alike.

    Raises:
        UsageError: see ``read_prompts``.
    """
    if tokenizer.chat_template == reader.chat_template:
        return {}
    return dict(zip(_prompts(spec, mirror, tokenizer), _prompts(spec, mirror, reader), strict=True))


def split_by_prompt(
    examples: Sequence[T], prompt: Callable[[T], str], fraction: float, seed: int
) -> tuple[list[T], list[T]]:
    """Split into ``(kept, held out)`` so that no prompt is on both sides; about ``fraction`` of the distinct
    prompts (at least one, unless there is only one, or ``fraction`` is 0) are held out, drawn by ``seed``."""
    prompts = list(dict.fromkeys(prompt(example) for example in examples))
    n = min(max(1, round(fraction * len(prompts))), len(prompts) - 1) if fraction > 0 else 0
    drawn = np.random.default_rng([seed, 1]).permutation(len(prompts))[:n]
    held = {prompts[i] for i in drawn}
    return (
        [example for example in examples if prompt(example) not in held],
        [example for example in examples if prompt(example) in held],
    )


class Order:
    """Which examples each step sees: shuffled epochs, one after the other, cut into batches.

    A step's batch follows from ``(n, batch_size, seed, step)`` alone, so a resumed run needs no state for it.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, *, steps: int | None = None, epochs: float | None = None
    ) -> None:
        self.n, self.seed = n, seed
        self.batch_size = min(batch_size, n)
        self.total = steps * self.batch_size if steps is not None else max(1, round((epochs or 1.0) * n))
        self.steps = -(-self.total // self.batch_size)
        self.steps_per_epoch = -(-n // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """Indices of step ``step`` (counted from 0); the last one may be shorter, to end with the epoch."""
        start = step * self.batch_size
        places = range(start, min(start + self.batch_size, self.total))
        return [int(_shuffled(self.n, self.seed, place // self.n)[place % self.n]) for place in places]


def pad_right(sequences: Sequence[Sequence[int]], value: int, device: torch.device) -> Tensor:
    """Long ``(B, T)`` with ``value`` behind the shorter sequences."""
    rows = [torch.tensor(ids, dtype=torch.long) for ids in sequences]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(device)


@lru_cache(maxsize=4)
def _shuffled(n: int, seed: int, epoch: int) -> Any:
    return np.random.default_rng([seed, 0, epoch]).permutation(n)


def _prompts(spec: str, mirror: Path | None, tokenizer: Any) -> list[str]:
    """The prompt of each row."""
    rows = read_records(spec, mirror)
    if "prompt" in rows[0]:
        asked = [{"prompt": row.get("prompt"), "response": ""} for row in rows]
        return [_prompted(spec, i, row, "response", tokenizer).prompt for i, row in enumerate(asked)]
    if {"chosen", "rejected"} <= set(rows[0]):
        return [_pair(spec, i, row, tokenizer)[0] for i, row in enumerate(rows)]
    return [one.prompt for one in read_demonstrations(spec, mirror, tokenizer)]


def _prompted(spec: str, i: int, row: Row, answer: str, tokenizer: Any) -> Demonstration:
    """The columns ``prompt`` and ``answer``: texts, or lists of turns."""
    turns = _turns(spec, i, row, "prompt", "user") + _turns(spec, i, row, answer, "assistant")
    if _has_template(tokenizer) or any(isinstance(row.get(column), list) for column in ("prompt", answer)):
        return _dialogue(spec, i, turns, tokenizer)
    return Demonstration(_text(spec, i, row, "prompt"), _text(spec, i, row, answer))


def _has_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def _instruction(spec: str, i: int, row: Row, tokenizer: Any) -> Demonstration:
    asked = _text(spec, i, row, "instruction")
    if row.get("input"):
        asked = f"{asked}\n\n{row['input']}"
    turns = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": _text(spec, i, row, "output")},
    ]
    return _dialogue(spec, i, turns, tokenizer)


def _turns(spec: str, i: int, row: Row, column: str, role: str) -> list[Any]:
    turns = row.get(column)
    return turns if isinstance(turns, list) else [{"role": role, "content": _text(spec, i, row, column)}]


def _dialogue(spec: str, i: int, messages: Any, tokenizer: Any) -> Demonstration:
    good = isinstance(messages, list) and all(
        isinstance(turn, Mapping) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
        for turn in messages
    )
    if not good or len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise UsageError(
            f"data {spec!r}, row {i + 1}: messages must be {{role, content}} turns, the last an assistant's"
        )
    if _has_template(tokenizer):
        from jinja2 import TemplateError

        try:
            return _templated(messages, tokenizer)
        except TemplateError as error:
            raise UsageError(
                f"data {spec!r}, row {i + 1}: the tokenizer's chat template refuses the turns ({error}); "
                "mend the row"
            ) from error
    names = {"assistant": "Assistant", "user": "Human", "system": "System"}
    turns = [
        f"\n\n{names.get(turn['role'], turn['role'].title())}: {turn['content']}" for turn in messages[:-1]
    ]
    return Demonstration("".join(turns) + TURN, f" {messages[-1]['content']}")


def _templated(messages: list[Any], tokenizer: Any) -> Demonstration:
    asked: str = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    whole: str = tokenizer.apply_chat_template(messages, tokenize=False)
    answered = whole[len(asked) :] if whole.startswith(asked) else messages[-1]["content"]
    # BOS and EOS are added when the pair is encoded
    if tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        asked = asked.removeprefix(tokenizer.bos_token)
    return Demonstration(asked, answered.rstrip().removesuffix(tokenizer.eos_token))


def _ranking(spec: str, i: int, row: Row, tokenizer: Any) -> tuple[str, list[tuple[str, str]]]:
    responses: Any = row.get("responses")
    ranks: Any = row.get("ranks")
    good = (
        isinstance(responses, list)
        and isinstance(ranks, list)
        and len(responses) == len(ranks)
        and all(isinstance(text, str) for text in responses)
        and all(isinstance(rank, (int, float)) for rank in ranks)
    )
    if not good:
        raise UsageError(
            f"data {spec!r}, row {i + 1}: responses (texts) and ranks (numbers, 1 = best) must pair up"
        )
    asked = {"prompt": row.get("prompt")}
    read = [_prompted(spec, i, {**asked, "response": text}, "response", tokenizer) for text in responses]
    answered = [(one.response, rank) for one, rank in zip(read, ranks, strict=True)]
    pairs = [(a, b) for a, rank_a in answered for b, rank_b in answered if rank_a < rank_b and a != b]
    return read[0].prompt if read else "", pairs


def _pair(spec: str, i: int, row: Row, tokenizer: Any) -> tuple[str, list[tuple[str, str]]]:
    if isinstance(row.get("chosen"), list):
        better, worse = (_side(spec, i, row, side, tokenizer) for side in ("chosen", "rejected"))
        prompt = better.prompt
        if worse.prompt != prompt:
            raise UsageError(
                f"data {spec!r}, row {i + 1}: chosen and rejected differ before their last turn; mend the row"
            )
        chosen, rejected = better.response, worse.response
    elif row.get("prompt") is not None:
        better, worse = (_prompted(spec, i, row, side, tokenizer) for side in ("chosen", "rejected"))
        prompt, chosen, rejected = better.prompt, better.response, worse.response
    elif _has_template(tokenizer):
        raise UsageError(
            f"data {spec!r}, row {i + 1}: a dialogue in HH's form has turns of its own, which do not go into "
            "the model's chat template; write chat_template=off, and the trained model is used without one"
        )
    else:
        prompt, chosen, rejected = _shared_dialogue(spec, i, row)
    return prompt, [(chosen, rejected)] if chosen != rejected else []


def _side(spec: str, i: int, row: Row, side: str, tokenizer: Any) -> Demonstration:
    turns = row.get(side)
    if not isinstance(turns, list):
        raise UsageError(
            f"data {spec!r}, row {i + 1}: {side!r} is {turns!r:.60}, no list of turns; mend the row"
        )
    if isinstance(row.get("prompt"), list):
        turns = row["prompt"] + turns
    elif turns and isinstance(turns[0], Mapping) and turns[0].get("role") == "assistant":
        turns = _turns(spec, i, row, "prompt", "user") + turns
    return _dialogue(spec, i, turns, tokenizer)


def _shared_dialogue(spec: str, i: int, row: Row) -> tuple[str, str, str]:
    """Split HH's two dialogues at the last assistant's turn that begins in what they share."""
    chosen, rejected = _text(spec, i, row, "chosen"), _text(spec, i, row, "rejected")
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 (characters are meant)
    at = shared.rfind(TURN)
    if at < 0:
        raise UsageError(
            f"data {spec!r}, row {i + 1}: chosen and rejected share no {TURN!r}; add a column prompt"
        )
    cut = at + len(TURN)
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _text(spec: str, i: int, row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise UsageError(f"data {spec!r}, row {i + 1}: {column!r} is {value!r:.60}, not text; mend the row")
    return value


def _unknown(spec: str, row: Row, what: str, known: str) -> UsageError:
    columns = ", ".join(map(str, row))
    return UsageError(f"data {spec!r} has the columns {columns}; {what} need {known}")
