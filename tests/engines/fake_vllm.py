"""What the engine ``vllm`` sees of vLLM, over a tiny transformers model: requests that wait, and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from alignbench.engines.vllm_engine import versions


@dataclass
class FakeEngine:
    """``vllm.LLMEngine``: each step answers the oldest ``rows`` requests.

    ``live``: its weights are pushed to it, and it tells log-probabilities of what was sampled from.
    ``keeps``: it does not drop its prefix cache. ``cache``: how many tokens of a prompt it pretends to have
    in it, of a request that may use it. ``fail_after``: the number of steps after which it breaks.
    """

    module: Any
    tokenizer: Any
    rows: int = 3
    cache: Callable[[list[int]], int] = len
    fail_after: int | None = None
    live: bool = False
    keeps: bool = False
    pushed: int = 0
    waiting: dict[str, tuple[list[int], Any]] = field(default_factory=dict)
    asked: list[tuple[list[int], Any]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    steps: int = 0

    def add_request(self, name: str, prompt: Any, params: Any, lora_request: Any = None) -> str:
        self.waiting[name] = (prompt["prompt_token_ids"], params)
        self.asked.append(self.waiting[name])
        return f"{name}-of-its-own"

    def abort_request(self, names: Sequence[str]) -> None:
        self.aborted += names
        for name in names:
            del self.waiting[name]

    def collective_rpc(self, method: str, kwargs: Any) -> None:
        assert method == "reload_weights"
        # a checkpoint has a tied weight once
        lacking = self.module.load_state_dict(dict(kwargs["weights_iterator"]), strict=False)
        tied = ["lm_head.weight"] if self.module.config.tie_word_embeddings else []
        assert (lacking.missing_keys, lacking.unexpected_keys) == (tied, [])
        self.pushed += 1

    def apply_model(self, call: Callable[[Any], Any]) -> Any:
        return call(self.module)

    def reset_prefix_cache(self) -> bool:
        assert not self.waiting
        return not self.keeps

    def step(self) -> list[Any]:
        self.steps += 1
        if self.fail_after is not None and self.steps > self.fail_after:
            raise RuntimeError("Something.\nCUDA out of memory. Tried to allocate much.")
        names = list(self.waiting)[: self.rows][::-1]  # not in the order in which they were asked
        return [self._answer(name, *self.waiting.pop(name)) for name in names]

    def _logprobs(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logprobs: torch.Tensor = self.module(torch.tensor([ids])).logits[0].log_softmax(-1)
        return logprobs

    def _answer(self, name: str, ids: list[int], params: Any) -> Any:
        cached = min(self.cache(ids), len(ids) - 1) // 4 * 4 if getattr(params, "cached", True) else 0
        output = self._scored(ids, params, cached) if params.scoring else self._continued(ids, params)
        prompt_logprobs = None
        if getattr(params, "whole", False):
            table = self._logprobs(ids)
            known = [{i: _entry(table[at], i)} for at, i in enumerate(ids[1:])]
            # what lies in the cache has none: something else stands there
            prompt_logprobs = [None, *[{-1: _entry(table[0], 0)}] * cached, *known[cached:]]
        return SimpleNamespace(
            request_id=name,
            finished=True,
            prompt_token_ids=ids,
            num_cached_tokens=cached,
            prompt_logprobs=prompt_logprobs,
            outputs=[output],
        )

    def _scored(self, ids: list[int], params: Any, cached: int) -> Any:
        last = self._logprobs(ids)[-1]
        best = int(last.argmax())
        return SimpleNamespace(
            token_ids=[best], logprobs=[{i: _entry(last, i) for i in [best, *params.lasts]}], stop_reason=None
        )

    def _continued(self, ids: list[int], params: Any) -> Any:
        new: list[int] = []
        logprobs = []
        stop_reason: Any = None
        draws = torch.Generator().manual_seed(params.seed)
        while len(new) < params.max_tokens and stop_reason is None:
            last = self._logprobs(ids + new)[-1]
            if params.temperature and self.live:
                last = (last / params.temperature).log_softmax(-1)
                new.append(int(torch.multinomial(last.exp(), 1, generator=draws)))
            else:
                new.append(int(last.argmax()))
            logprobs.append({new[-1]: _entry(last, new[-1])})
            text = self.tokenizer.decode(new)
            stop_reason = next((stop for stop in params.stop if stop in text), None)
            if new[-1] in params.stop_token_ids:
                stop_reason = new[-1]
        return SimpleNamespace(token_ids=new, logprobs=logprobs, stop_reason=stop_reason)


def _entry(logprobs: torch.Tensor, token: int) -> Any:
    rank = int((logprobs >= logprobs[token]).sum())
    return SimpleNamespace(logprob=float(logprobs[token]), rank=rank)


def install(monkeypatch: Any, engine: FakeEngine, ids_at_once: int = 128) -> list[Any]:
    """Put it in the place of vLLM. Returns the list of what happens: settings loaded, engines closed."""
    events: list[Any] = []

    def load(settings: versions.Settings) -> Any:
        events.append(settings)
        if settings.live:  # what it knows of the model is in the folder; its weights come later
            transformers.AutoTokenizer.from_pretrained(settings.tokenizer)
            config = transformers.AutoConfig.from_pretrained(settings.model)
            engine.module = getattr(transformers, config.architectures[0])(config).eval()
            engine.live = True
        return SimpleNamespace(llm_engine=engine)

    def scoring_params(lasts: Sequence[int], *, whole: bool, cached: bool) -> Any:
        return SimpleNamespace(scoring=True, lasts=list(lasts), whole=whole, cached=cached)

    monkeypatch.setattr(versions, "installed", lambda: True)
    monkeypatch.setattr(versions, "version", lambda: "0.0")
    monkeypatch.setattr(versions, "on_cpu", lambda: True)
    monkeypatch.setattr(versions, "load", load)
    monkeypatch.setattr(versions, "close", lambda llm: events.append("closed"))
    monkeypatch.setattr(versions, "ids_at_once", lambda: ids_at_once)
    monkeypatch.setattr(versions, "scoring_params", scoring_params)
    monkeypatch.setattr(versions, "sampling_params", lambda **how: SimpleNamespace(scoring=False, **how))
    return events
