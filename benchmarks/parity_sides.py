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

from parity_requests import Question, RequestSet, free_text

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


def what_it_says(engine: Engine, data: Path) -> list[RequestSet]:
    """Two sets made of the model's own greedy text: its first words as continuations, which are greedy where
    they are encoded as they were said; and stop strings cut out of it, which span tokens and end within them.
    """
    prompts = [prompt for prompt, _ in free_text(data, 16).requests]
    short, long = ([Generate(prompt, Sampling(max_tokens=n)) for prompt in prompts] for n in (6, 32))
    pairs: list[tuple[Any, ...]] = []
    for prompt, said in zip(prompts, _in_order(engine.generate(short))):
        pairs += [(prompt, said.text), (prompt, f" {said.text}"), (prompt, f"{said.text}?")]
    stops: list[tuple[Any, ...]] = []
    for prompt, said in zip(prompts, _in_order(engine.generate(long))):
        middle = len(said.text) // 2
        stop = said.text[middle : middle + 7].strip("\ufffd") or "\n"
        stops.append((prompt, {"until": [stop, "<never>"], "max_gen_toks": 32}))
    questions = [Question(range(i, i + 1), 0) for i in range(len(pairs))]
    return [
        RequestSet("its own words", "loglikelihood", pairs, questions, apart=True),
        RequestSet("stops it says", "generate_until", stops),
    ]


def peer_jobs(
    folder: Path, sets: Sequence[RequestSet], *, tasks: dict[str, Any] | None, causal: bool
) -> list[dict[str, Any]]:
    """What ``peers/lm_eval_answers.py`` is given for one checkpoint: a job a set, and one for the tasks.

    Two of lm-eval's habits are switched off where it lets us, so that the rest can be compared:

    - A rolling text's default BOS is scored as well, after another BOS; with ``add_bos_token=False`` both
      sides score the text's own tokens after one BOS.
    - The output of an encoder-decoder model may have as many tokens as the *encoder's* input besides
      ``max_gen_toks``; ``max_length`` counts the decoder's tokens (its start token too).
    """

    def adapted(requests: RequestSet, request: tuple[Any, ...]) -> tuple[Any, ...]:
        if causal or requests.verb != "generate_until":
            return request
        return request[0], {**request[1], "max_length": request[1]["max_gen_toks"] + 1}

    jobs: list[dict[str, Any]] = []
    for each in sets:
        asked = [adapted(each, request) for request in each.requests]
        plain = {"add_bos_token": False} if causal and each.verb == "loglikelihood_rolling" else {}
        one = {"name": each.name, "verb": each.verb, "requests": asked, "apart": each.apart}
        jobs.append(
            {"model": str(folder), "options": {"batch_size": 16, **plain}, "sets": [one], "tasks": None}
        )
    if tasks:
        jobs.append({"model": str(folder), "options": {"batch_size": 16}, "sets": [], "tasks": tasks})
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
