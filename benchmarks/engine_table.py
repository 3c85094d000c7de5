"""The measurements as a page that a stranger can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PEERS = {
    "lm-eval": "lm-evaluation-harness, `hf`",
    "generate": "transformers, `generate`",
    "generate-passive": "transformers, `generate`, whose threads wait as ours do",
    "vllm": "vLLM, build for processors",
}

Line = dict[str, Any]


def written(report: dict[str, Any]) -> str:
    """The Markdown page of a report.

    Args:
        report: what ``engine.py`` wrote: name → line in ``lines``.
    """
    lines: dict[str, Line] = report["lines"]
    parts = [_HEAD]
    for peer, title in PEERS.items():
        against = {name: line for name, line in lines.items() if peer in line["peers"]}
        if against:
            parts += [f"## Beside {title}", _comparison(against, peer)]
            if peer == "lm-eval":
                parts += ["### Memory", _memory(against, peer)]
    parts += ["## Share of the machine", _shares(lines)]
    parts += ["## What was computed", _counted(lines)]
    parts += ["## What it ran on", _machine(lines)]
    return "\n\n".join(parts) + "\n"


_HEAD = """# The engine's speed, beside others

Made by `python benchmarks/engine.py`; every number is in `engine.json`. **Ratio** is the peer's time over
ours, round by round: above 1 ours is faster. It is given as median [least – most]; of five rounds, the least
and the most hold the true median with probability 0.94. Where both sides count the tokens that they produce,
times are for each token, else for the whole set of requests.

Measured: the same requests, text in, text or log-probabilities out, the sides in turns, each in a process of
its own with the same number of threads and the same dtype. Threads wait for one another as each library has
it: those of the peers spin for a while, which is fast as long as nothing else runs on the machine; ours sleep
(`OMP_WAIT_POLICY=PASSIVE`, which alignbench sets), which is slower on an idle machine and several times as
fast on a busy one. `generate` is measured both ways. Not measured: starting, loading and a first small turn
of each side. *Rows* is the peer's batch: as many rows as our budget of tokens holds of the longest request;
vLLM decides by itself. The models' weights are random, and the scale of EOS's embedding makes answers end at
ragged lengths; the tokenizers are trained on the same real text that the requests are made of. *Same answers*
is the largest difference of a log-probability (nats), or the share of
texts that are equal to the last character. bfloat16 is measured only on processors that multiply it."""


def _comparison(lines: dict[str, Line], peer: str) -> str:
    rows = []
    for name, line in lines.items():
        found, ours, theirs = line["peers"][peer], line["sides"]["alignbench"], line["sides"][peer]
        ratio, least = found["ratio"], line["aims"].get(peer)
        rows.append(
            [
                f"`{name}`",
                line["what"],
                f"{line['checkpoint']}, {_dtype(line)}",
                str(line["requests"]),
                "–" if theirs["rows"] is None else str(theirs["rows"]),
                _speed(line, ours, found["per_token"]),
                _speed(line, theirs, found["per_token"]),
                f"**{_span(ratio)}**",
                "–" if least is None else f"≥ {least:g}: {_verdict(ratio, least)}",
                _same(found["agreement"]),
                str(line["rounds"]),
            ]
        )
    head = ["case", "what", "model", "requests", "rows", "ours", "theirs"]
    head += ["ratio", "aim", "same answers", "rounds"]
    return _table(head, rows)


def _memory(lines: dict[str, Line], peer: str) -> str:
    rows = []
    for name, line in lines.items():
        ratio = line["peers"][peer]["memory_ratio"]
        if ratio is None:
            continue
        ours, theirs = line["sides"]["alignbench"], line["sides"][peer]
        cells = [_mib(side[key]) for key in ("peak_bytes", "work_bytes") for side in (ours, theirs)]
        rows.append([f"`{name}`", *cells, f"{ratio['process']:.2f}", f"{ratio['work']:.2f}"])
    whole, work = ["process, ours", "process, theirs"], ["work, ours", "work, theirs"]
    head = ["case", *whole, *work, "ours / theirs, process", "ours / theirs, work"]
    note = (
        "The most memory that was resident during the turns (MiB); *work* is that less what was resident "
        "after loading."
    )
    return f"{note}\n\n{_table(head, rows)}"


def _shares(lines: dict[str, Line]) -> str:
    rows = [
        [
            f"`{name}`",
            f"{line['checkpoint']}, {_dtype(line)}",
            f"{line['gemm_flops']['median'] / 1e9:.0f}",
            _span(line["share_of_gemm"]),
        ]
        for name, line in lines.items()
    ]
    note = (
        "Operations of the model's matrix products (two for each weight and computed token, and the head "
        "where it ran; attention, norms and sampling count as nothing) over the rate of a 2048³ matrix "
        "product, measured between the rounds."
    )
    return f"{note}\n\n{_table(['case', 'model', 'product, GFLOP/s', 'share'], rows)}"


def _counted(lines: dict[str, Line]) -> str:
    rows = []
    for name, line in lines.items():
        work = line["work"]
        ran = work["computed_tokens"] + work["decoded_tokens"]
        keys = ("total_tokens", "computed_tokens", "decoded_tokens", "padding_tokens")
        cells = [f"{work[key]:,}" for key in keys]
        seconds = f"{line['sides']['alignbench']['seconds']['median']:.1f}"
        waste = f"{work['padding_tokens'] / ran:.1%}"
        answers = _tokens(line["answer_tokens"]) if "answer_tokens" in line else "–"
        rows.append([f"`{name}`", line["what"], str(line["requests"]), answers, *cells, waste, seconds])
    head = ["case", "what", "requests", "answer", "read", "computed", "decoded", "padding", "waste", "s"]
    note = (
        "As the engine counts: tokens of all requests, as if nothing were shared; those that went through "
        "the model, each once; those that were generated one by one; and those that only filled a batch. "
        "*Waste* is padding over computed and decoded; *answer* the tokens of one, median [least – most]."
    )
    return f"{note}\n\n{_table(head, rows)}"


def _machine(lines: dict[str, Line]) -> str:
    seen: dict[str, list[str]] = {}
    for name, line in lines.items():
        hardware = line["hardware"]
        where = f"{hardware['processor'] or hardware['machine']}, {hardware['cpus']} cores, {line['device']}"
        seen.setdefault(where, []).append(f"`{name}` {line['measured']}")
        for side, each in line["sides"].items():
            packages = ", ".join(f"{package} {version}" for package, version in each["versions"].items())
            seen.setdefault(f"{side}: {packages}; {each['threads']} threads", []).append(f"`{name}`")
        for peer in line["left_out"]:
            seen.setdefault(f"{peer}: left out, its Python was not given", []).append(f"`{name}`")
    return "\n".join(f"- {about}\n  - {', '.join(names)}" for about, names in seen.items())


def _speed(line: Line, side: dict[str, Any], per_token: bool) -> str:
    seconds = side["seconds"]["median"]
    return f"{side['tokens'] / seconds:,.0f} tokens/s" if per_token else f"{seconds:.2f} s"


def _span(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} [{values['min']:.2f} – {values['max']:.2f}]"


def _tokens(values: dict[str, float]) -> str:
    return f"{values['median']:g} [{values['min']} – {values['max']}]"


def _verdict(ratio: dict[str, float], least: float) -> str:
    """Reached or missed only where every round says so."""
    if ratio["min"] >= least:
        return "reached"
    return "missed" if ratio["max"] < least else "not told apart"


def _same(agreement: dict[str, float]) -> str:
    if "largest_difference" in agreement:
        return f"{agreement['largest_difference']:.1e}"
    return f"{agreement['equal_texts']:.0%}"


def _dtype(line: Line) -> str:
    return {"float32": "fp32", "bfloat16": "bf16"}.get(line["dtype"], str(line["dtype"]))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
