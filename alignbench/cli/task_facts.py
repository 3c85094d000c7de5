"""What ``alignbench tasks show`` prints: the facts of a task, and what of a document reaches a model."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

import click


def print_facts(facts: dict[str, Any]) -> None:
    """The facts of a task, as lines, then what of one document reaches a model."""
    prompt = facts.pop("prompt")
    left = ("metrics", "scorers", "headlines", "headline", "samples")
    shown = {key.replace("_", " "): value for key, value in facts.items() if key not in left}
    shown["headline"] = _headline_words(facts)
    if facts["samples"] > 1:
        shown["samples"] = f"{facts['samples']} outputs a document"
    shown |= {f"metric {metric['name']}": _metric_words(metric) for metric in facts["metrics"]}
    shown |= {f"scorer {each['name']}": _scorer_words(each) for each in facts["scorers"]}
    width = max(60, min(110, shutil.get_terminal_size().columns))
    for key, value in shown.items():
        if value in (None, "", [], {}, False):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{part} {inner!r}" for part, inner in value.items() if inner not in ((), []))
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        text = "yes" if value is True else str(value)
        start, rest = f"{key:22} ", " " * 23
        # a path or a hash is to be copied, so it is not broken
        for line in textwrap.wrap(
            text,
            width,
            initial_indent=start,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            click.echo(line)
    if "requests" in prompt:
        _print_requests(prompt)
        return
    click.echo(f"\n--- the prompt of document {prompt['doc_id']}, between the bars\n|{prompt['text']}|")
    for text in prompt["continuations"]:
        click.echo(f"--- then\n|{text}|")


def _print_requests(prompt: dict[str, Any]) -> None:
    """What reaches the model; a context that several requests have in common is printed once."""
    click.echo(f"\n--- what reaches {prompt['policy']} of document {prompt['doc_id']}")
    if "endpoint" in prompt:
        _print_sent(prompt)
        return
    for key, value in _how(prompt):
        click.echo(f"{key:22} {value}")
    context: list[int] = []
    for number, request in enumerate(prompt["requests"], 1):
        ids, tokens, start = request["token_ids"], request["tokens"], request["start"]
        lost = f", {request['cut']} more are cut on the left" if request["cut"] else ""
        click.echo(f"\n--- {request['kind']} {number} of {len(prompt['requests'])}: {len(ids)} tokens{lost}")
        if ids[:start] == context:
            click.echo(f"the same {start} tokens of context")
        else:
            context = ids[:start]
            click.echo(f"|{_visible(request['text'])}|")
            _print_tokens(tokens[:start], context)
        if start < len(ids):
            click.echo(f"the continuation, from token {start} on:")
            _print_tokens(tokens[start:], ids[start:])


def _print_sent(prompt: dict[str, Any]) -> None:
    """What a server gets: text, as its tokenizer is not here."""
    endpoint = prompt["endpoint"] or "completions where the server has them, else chat"
    rows = [("endpoint", f"{endpoint} (chat_template={prompt['chat_template']})")]
    if prompt["endpoint"] == "chat":
        rows.append(("template", "the server's own: it makes a text of the prompt, which is the user's turn"))
    else:
        rows.append(("BOS", "what the server puts in front of every text"))
    rows += _text_rows(prompt)
    for key, value in rows:
        click.echo(f"{key:22} {value}")
    context = None
    for number, request in enumerate(prompt["requests"], 1):
        text, start = request["text"], request["start"]
        click.echo(f"\n--- {request['kind']} {number} of {len(prompt['requests'])}: {len(text)} characters")
        if text[:start] == context:
            click.echo("the same context")
        else:
            context = text[:start]
            click.echo(f"|{_visible(context)}|")
        if start < len(text):
            click.echo(f"the continuation:\n|{_visible(text[start:])}|")


def _print_tokens(tokens: list[str], ids: list[int]) -> None:
    click.echo(f"tokens: {' '.join(map(_visible, tokens))}\nids: {' '.join(map(str, ids))}")


def _how(prompt: dict[str, Any]) -> list[tuple[str, str]]:
    """How the text and the ids come about, in words."""
    template, front = prompt["chat_template"], prompt["in_front"]
    reason = f"chat_template={template['choice']}"
    if template["choice"] == "auto":
        reason += f": the tokenizer has {'one' if template['has'] else 'none'}"
    ids = ", ".join(map(str, front["token_ids"]))
    if front["tokens"]:
        bos = f"the tokenizer puts {' '.join(front['tokens'])} (id {ids}) in front"
    else:
        bos = "what the template writes" if template["used"] else "the tokenizer puts nothing in front"
    length = prompt["context_length"]
    cut = sum(bool(request["cut"]) for request in prompt["requests"])
    fits = f"{cut} of {len(prompt['requests'])} requests are cut on the left" if cut else "all of it fits"
    rows = [
        ("chat template", f"{'on' if template['used'] else 'off'} ({reason})"),
        ("BOS", bos),
        ("context", f"{length} tokens; {fits}" if length else "no limit is known"),
    ]
    return rows + _text_rows(prompt)


def _text_rows(prompt: dict[str, Any]) -> list[tuple[str, str]]:
    """What of it is text, whatever runs the policy."""
    sampling = prompt["sampling"]
    rows = [("prefix", _visible(repr(prompt["prefix"])) if prompt["prefix"] else "none")]
    if prompt["delimiter"] is not None:
        rows.append(("delimiter", repr(prompt["delimiter"])))
    if sampling is not None:
        rest = ", ".join(f"{key} {value:g}" for key, value in sampling.items() if key != "stop")
        rows += [("sampling", rest), ("stop strings", ", ".join(map(repr, sampling["stop"])) or "none")]
    return rows


def _visible(text: str) -> str:
    """Text for a terminal: line breaks as they are, other control and invisible characters escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _metric_words(metric: dict[str, Any]) -> str:
    """A metric's direction and levels, a rate in percent."""
    direction = {True: "higher is better", False: "lower is better", None: "no better direction"}
    words = [] if metric["ideal"] is not None else [direction[metric["higher_is_better"]]]
    for key in ("ideal", "chance", "majority", "margin"):
        if metric[key] is not None:
            rate = metric["unit"] == "rate"
            words.append(f"{key} {metric[key] * 100:.1f} %" if rate else f"{key} {metric[key]:g}")
    if metric["scorers"]:
        words.append(
            f"by the scorer{'s' if len(metric['scorers']) > 1 else ''} {', '.join(metric['scorers'])}"
        )
    if metric["bounds"] not in (None, (0.0, 1.0)):
        words.append(f"from {metric['bounds'][0]:g} to {metric['bounds'][1]:g}")
    return ", ".join(words)


def _headline_words(facts: dict[str, Any]) -> str:
    """The metrics that may be the headline, in order, each with the scorers that must be given for it."""
    default = {each["name"] for each in facts["scorers"] if each["default"]}
    needed = {
        metric["name"]: [n for n in metric["scorers"] if n not in default] for metric in facts["metrics"]
    }
    words = []
    for name in facts["headlines"]:
        given = " ".join(f"--scorer {scorer}=SPEC" for scorer in needed[name])
        words.append(f"{name} (with {given})" if given else name)
    return ", else ".join(words)


def _scorer_words(scorer: dict[str, Any]) -> str:
    """What a scorer is by default, and what may be given."""
    name = scorer["name"]
    kinds = ["hf:MODEL", *(["judge:POLICY"] if scorer["question"] else []), "recorded"]
    given = f"--scorer {name}={'|'.join(kinds)}"
    if scorer["default"]:
        return f"{scorer['default']}; another with {given}"
    left = "is" if len(scorer["metrics"]) == 1 else "are"
    return f"none by default, and {', '.join(scorer['metrics'])} {left} left out; give {given}"
