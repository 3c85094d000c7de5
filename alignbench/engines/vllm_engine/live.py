"""The engine of a module that is being trained: vLLM in this process samples from its weights as they are.

vLLM has a copy of the weights, in its own layout and dtype. ``push`` brings it up to date; the keys and
values of old weights are then forgotten. vLLM's kernels are others than the module's, so that its
log-probabilities differ from the module's even then: in float32 by rounding, in bfloat16 by more. They are
those of the distribution that was sampled from (``logprobs_mode="processed_logprobs"``), at any temperature.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench.engines.heads import eos_ids
from alignbench.engines.inputs import Inputs
from alignbench.engines.types import Generate, Sampling
from alignbench.engines.vllm_engine import versions
from alignbench.engines.vllm_engine.answers import reason_of
from alignbench.engines.vllm_engine.generating import Generating, close_other
from alignbench.errors import UsageError, WorkError

FARTHEST = 1.0
"""Nats that log-probabilities of a short sample may be from the module's own when the engine is made: beyond
bfloat16's noise, and far from what weights give that are not those of the module."""


class LiveEngine(Generating):
    """Sample from ``module``; ``push`` before it is asked again after an update.

    Args:
        module: a causal language model; it is only read.
        inputs: how prompts become token ids.
        length: tokens of the longest prompt with its completion.
        dtype: of vLLM's weights and arithmetic, ``"float32"`` or ``"bfloat16"``.
        memory: the part of a GPU's memory that vLLM takes.

    Raises:
        UsageError: vLLM is not installed, cannot load such a module or take its weights, computes on another
            device, or gives other numbers than the module.
    """

    mend = "take rollout_engine=hf"
    memory_mend = "lower batch_size, max_new_tokens or rollout_memory"

    def __init__(
        self, module: Any, inputs: Inputs, *, length: int, dtype: str = "float32", memory: float = 0.3
    ) -> None:
        super().__init__(inputs, "rollout_engine=vllm")
        versions.require(self.what, "take rollout_engine=hf")
        self.module, self.length, self._dtype, self._memory = module, length, dtype, memory
        self._warned = False
        self._check_device()
        close_other()
        try:
            self._hold(self._loaded())
            versions.push(self._llm, checkpoint_weights(module))
        except Exception as error:  # whatever vLLM says is no model that it can run
            self.close()
            raise UsageError(
                f"{self.what}: vLLM {versions.version()} cannot load the policy, a {type(module).__name__}: "
                f"{reason_of(error)}; take rollout_engine=hf"
            ) from error
        self._require_agreement()

    def push(self) -> None:
        """Give vLLM the module's weights as they are now.

        Raises:
            WorkError: vLLM fails.
        """
        try:
            versions.push(self._llm, checkpoint_weights(self.module))
        except Exception as error:
            raise WorkError(
                f"{self.what}: vLLM does not take the policy's weights ({reason_of(error)}); {self.mend}"
            ) from error

    def describe(self) -> dict[str, Any]:
        """What a run's record says of it."""
        return {"engine": "vllm", "vllm": versions.version(), "dtype": self._dtype}

    # ---- inside

    @property
    def _eos(self) -> tuple[int, ...]:
        known = eos_ids(self.module, self.tokenizer)
        return tuple(i for i in known if 0 <= i < self.module.config.get_text_config().vocab_size)

    def _load(self, needed: int) -> None:
        if self._llm is None or needed > self.length:
            raise WorkError(f"{self.what}: it is closed, or was made for texts of {self.length} tokens")

    def _loaded(self) -> Any:
        """vLLM with the module's architecture. All that it reads of files are config and tokenizer."""
        with tempfile.TemporaryDirectory(prefix="alignbench-rollouts-") as name:
            folder = Path(name)
            config = copy.deepcopy(self.module.config)
            config.architectures = [type(self.module).__name__]  # None where no checkpoint was loaded
            config.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            return versions.load(
                versions.Settings(folder, folder, self._dtype, self.length, live=True, memory=self._memory)
            )

    def _check_device(self) -> None:
        device, here = next(self.module.parameters()).device, "cpu" if versions.on_cpu() else "cuda"
        if device.type != here or device.index:
            raise UsageError(
                f"{self.what}: the policy is on {device}, but the vLLM that is installed computes on {here}; "
                f"write device={here} (CUDA_VISIBLE_DEVICES chooses a GPU), or rollout_engine=hf"
            )

    def _warn_cut(self, cuts: Sequence[int]) -> None:
        """Say it once: a live module's engine is asked again and again."""
        if not self._warned:
            super()._warn_cut(cuts)
            self._warned = any(cuts)

    def _step(self, engine: Any) -> list[Any]:
        # training in bfloat16 is autocast of float32 weights, which vLLM's own must not be
        with torch.autocast(next(self.module.parameters()).device.type, enabled=False):
            return super()._step(engine)

    def _logprobs(
        self, request: Generate, told: tuple[float, ...]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        sampling = request.sampling
        raw = sampling.temperature == 1 and sampling.top_k == 0 and sampling.top_p == 1
        return (told if raw else ()), told

    def _require_agreement(self) -> None:
        """Sample a little, and compare with the module: names that vLLM reads otherwise, or an option of the
        config that it does not know, would show in nothing else."""
        n = min(8, self.length - 1)
        ((_, row),) = next(iter(self.generate([Generate("", Sampling(n, temperature=1.0))])))
        ids, start = [*row.prompt_ids, *row.token_ids], len(row.prompt_ids)
        with torch.inference_mode():
            device = next(self.module.parameters()).device
            logits = self.module(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0]
            own = logits.float().log_softmax(-1)[range(start - 1, len(ids) - 1), ids[start:]].cpu()
        gap = float((own - torch.tensor(row.logprobs)).abs().max())
        if not gap <= FARTHEST:
            self.close()
            raise UsageError(
                f"{self.what}: from the policy's weights, a {type(self.module).__name__}, "
                f"vLLM {versions.version()} computes other numbers than transformers (log-probabilities that "
                f"differ by up to {gap:.1f} nats); take rollout_engine=hf"
            )


def checkpoint_weights(module: Any) -> Iterator[tuple[str, Tensor]]:
    """A module's weights as its checkpoint has them: under the checkpoint's names, and a tied weight once."""
    from transformers.core_model_loading import revert_weight_conversion

    state = {name: weight.detach() for name, weight in module.state_dict().items()}
    if getattr(module.config.get_text_config(), "tie_word_embeddings", False):
        first: dict[tuple[int, torch.Size], str] = {}
        for name, weight in state.items():
            first.setdefault((weight.data_ptr(), weight.shape), name)
        state = {name: state[name] for name in first.values()}
    yield from revert_weight_conversion(module, state).items()
