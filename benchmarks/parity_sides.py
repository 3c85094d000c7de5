"""The two sides: alignbench's engine in this process, lm-evaluation-harness in its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity_requests import RequestSet, free_text

from alignbench.engines.types import Engine, Generate, Sampling, Score

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Answers:
    """``plain``: in the peer's form, ``(logprob, greedy)``, a text or a number; ``raw``: as the engine gives
    them."""

    plain: list[Any]
    raw: list[Any]


def ask(engine: Engine, requests: RequestSet) -> Answers:
    """The engine's answers to the same requests."""
    if requests.verb == "generate_until":
        prompts = [
            Generate(prompt, Sampling(max_tokens=how["max_gen_toks"], stop=tuple(how["until"])))
            for prompt, how in requests.requests
        ]
        completions = _in_order(engine.generate(prompts))
        return Answers([completion.text for completion in completions], completions)
    if requests.verb == "loglikelihood_rolling":
        scored = _in_order(engine.score([Score("", text, rolling=True) for (text,) in requests.requests]))
        return Answers([each.logprob for each in scored], scored)
    scored = _in_order(engine.score([Score(*pair) for pair in requests.requests]))
    return Answers([(each.logprob, each.greedy) for each in scored], scored)


def _in_order(batches: Iterator[list[tuple[int, Any]]]) -> list[Any]:
    return [answer for _, answer in sorted((pair for batch in batches for pair in batch), key=lambda p: p[0])]


def stops_it_says(engine: Engine, data: Path) -> RequestSet:
    """Stop strings cut out of what the model says without them: they span tokens and end within them."""
    prompts = [prompt for prompt, _ in free_text(data, 16).requests]
    sampling = Sampling(max_tokens=32)
    said = _in_order(engine.generate([Generate(prompt, sampling) for prompt in prompts]))
    requests: list[tuple[Any, ...]] = []
    for i, prompt in enumerate(prompts):
        text = said[i].text
        middle = len(text) // 2
        stop = text[middle : middle + 7].strip("\ufffd") or "\n"
        requests.append((prompt, {"until": [stop, "<never>"], "max_gen_toks": 32}))
    return RequestSet("stops it says", "generate_until", requests)


def peer_jobs(
    folder: Path, sets: Sequence[RequestSet], *, tasks: dict[str, Any] | None, causal: bool
) -> list[dict[str, Any]]:
    """What ``peers/lm_eval_answers.py`` is given for one checkpoint.

    Two of lm-eval's habits are switched off where it lets us, so that the rest can be compared:

    - A rolling text's default BOS is scored as well, after another BOS; with ``add_bos_token=False`` both
      sides score the text's own tokens after one BOS.
    - The output of an encoder-decoder model may have as many tokens as the *encoder's* input besides
      ``max_gen_toks``; ``max_length`` counts the decoder's tokens (its start token too).
    """

    def job(chosen: Sequence[RequestSet], options: dict[str, Any], tasks: Any) -> dict[str, Any]:
        asked = [
            {
                "name": s.name,
                "verb": s.verb,
                "requests": [adapted(s, r) for r in s.requests],
                "apart": s.apart,
            }
            for s in chosen
        ]
        options = {"batch_size": 16, **options}
        return {"model": str(folder), "options": options, "sets": asked, "tasks": tasks}

    def adapted(requests: RequestSet, request: tuple[Any, ...]) -> tuple[Any, ...]:
        if causal or requests.verb != "generate_until":
            return request
        return request[0], {**request[1], "max_length": request[1]["max_gen_toks"] + 1}

    rolling = [s for s in sets if causal and s.verb == "loglikelihood_rolling"]
    jobs = [job([s for s in sets if s not in rolling], {}, tasks)]
    if rolling:
        jobs.append(job(rolling, {"add_bos_token": False}, None))
    return jobs


def ask_peer(python: Path, jobs: list[dict[str, Any]], scratch: Path) -> list[dict[str, Any]]:
    """The peer's answers to each job. They are kept in ``scratch`` by what was asked: another run asks
    only what is new.

    Raises:
        SystemExit: its process failed.
    """
    (scratch / "answers").mkdir(exist_ok=True)
    asked = [{**job, "out": str(scratch / "answers" / f"{_digest(python, job)}.json")} for job in jobs]
    new = [job for job in asked if not Path(job["out"]).exists()]
    path, log = scratch / "jobs.json", scratch / "peer.log"
    path.write_text(json.dumps(new))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(scratch / "datasets")}
    command = [str(python), str(HERE / "peers" / "lm_eval_answers.py"), str(path)]
    if new:
        with log.open("w") as file:
            done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        if done.returncode:
            tail = "\n".join(log.read_text().splitlines()[-15:])
            raise SystemExit(f"the peer failed (status {done.returncode}); the end of its log:\n{tail}")
    return [json.loads(Path(job["out"]).read_text()) for job in asked]


def _digest(python: Path, job: dict[str, Any]) -> str:
    """Of what the peer is asked: the job, and the files that it names."""
    found = hashlib.sha256(json.dumps([str(python), job]).encode())
    folders = [job["model"], *([job["tasks"]["folder"]] if job["tasks"] else [])]
    for path in sorted(path for folder in folders for path in Path(folder).iterdir() if path.is_file()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]
