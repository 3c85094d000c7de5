"""Models to train: loading, device and dtype, the reward head, dropout, the default learning rate."""

from __future__ import annotations

import os.path
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from alignbench.engines.heads import eos_ids
from alignbench.engines.identity import find_folder
from alignbench.engines.inputs import uses_template
from alignbench.engines.policy import parse_policy
from alignbench.errors import UsageError
from alignbench.train.config import TrainConfig


def load_tokenizer(spec: str, chat_template: str = "auto") -> Any:
    """The tokenizer of a model. Training ends every response with EOS, so it must have one.

    Where ``chat_template`` is ``off`` the template is dropped: a model that is saved with this tokenizer is
    then used without one, as it was trained.

    Raises:
        UsageError: no such model, no EOS token, or ``on`` and no template.
    """
    tokenizer = _load(AutoTokenizer, spec, _folder(spec))
    if tokenizer.eos_token_id is None:
        raise UsageError(f"model {spec}: its tokenizer has no EOS token, which training ends responses with")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not uses_template(tokenizer, chat_template):
        tokenizer.chat_template = None
    return tokenizer


def load_policy(spec: str, config: TrainConfig) -> Any:
    """A causal language model on the config's device, in float32 (see ``arithmetic``), in eval mode.

    Raises:
        UsageError: no such model, one that lacks weights, or one that is no causal language model.
    """
    folder = _folder(spec)
    architecture = _architecture(spec, folder)
    if architecture.endswith(("ForSequenceClassification", "ForMaskedLM")):
        raise UsageError(f"model {spec} is a {architecture}; give a causal language model")
    model = _load_model(AutoModelForCausalLM, spec, folder)
    return model.to(pick_device(config.device)).eval()


def load_reward_model(
    spec: str, config: TrainConfig, *, pad_id: int | None = None, trained: bool = False
) -> Any:
    """A scalar-head model, ``AutoModelForSequenceClassification`` with ``num_labels=1``, in eval mode.

    From a causal language model the body is taken and a head is drawn from N(0, 1/(d+1)) with the config's
    seed (Stiennon et al. 2020, whose reward models InstructGPT took over); from a reward model its head.

    Raises:
        UsageError: no such model, one that lacks weights, a classifier with several labels, or with
            ``trained`` a language model.
    """
    folder = _folder(spec)
    fresh = not _architecture(spec, folder).endswith("ForSequenceClassification")
    if fresh and trained:
        raise UsageError(f"reward_model {spec} has no reward head; train one with alignbench train rm")
    labels = {"num_labels": 1} if fresh else {}
    model = _load_model(AutoModelForSequenceClassification, spec, folder, headless=fresh, **labels)
    if model.config.num_labels != 1:
        raise UsageError(f"model {spec} classifies into {model.config.num_labels} labels; a reward has one")
    if fresh:
        _draw_head(model, config.seed)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id  # transformers pools batches by it
    return model.to(pick_device(config.device)).eval()


def reward_head(model: nn.Module) -> nn.Module:
    """The linear layer that turns a hidden state ``(d,)`` into a reward ``(1,)``.

    Raises:
        UsageError: an architecture whose head has another name.
    """
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Module):
        raise UsageError(
            f"{type(model).__name__} has no scalar head named `score`; take a decoder-only model"
        )
    return head


def default_lr(model: nn.Module) -> float:
    """1e-3·(10⁶/N)^⅔ for N parameters, at least 5e-6: 1e-3 at 1M, 4e-5 at 124M, and at 1.3B 8.4e-6, where
    the paper's search ended on 9.65e-6 (appendix C.1)."""
    parameters = sum(p.numel() for p in model.parameters())
    return float(max(5e-6, 1e-3 * (1e6 / parameters) ** (2 / 3)))


def fitting_length(model: Any, max_length: int) -> int:
    """``max_length``, but no more tokens than the model has positions for."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_length, positions) if isinstance(positions, int) else max_length


def prepare(config: TrainConfig) -> None:
    """Set torch's threads and seed the global random generators (dropout and new weights draw from them)."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA GPU where there is one, else the CPU.

    Raises:
        UsageError: an unknown device, or one that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device={name} cannot be used ({reason}); take cpu, cuda or auto") from error
    return device


def arithmetic(config: TrainConfig) -> torch.autocast:
    """A context in which the models compute in the config's dtype.

    The weights stay float32: at usual learning rates an update of a bfloat16 weight, and every step of an
    average of such, is less than half its last bit and would be lost. Casts are not cached, since the weights
    change while the context lasts.
    """
    device = pick_device(config.device).type
    return torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16", cache_enabled=False)


def require_room(model: Any, max_new_tokens: int) -> None:
    """Refuse before anything is trained what the engine would refuse when it first samples.

    Raises:
        UsageError: answers of ``max_new_tokens`` leave no room for a prompt.
    """
    window = fitting_length(model, max_new_tokens + 1)
    if window <= max_new_tokens:
        raise UsageError(
            f"max_new_tokens={max_new_tokens} leaves no room for a prompt in the model's context of {window} "
            "tokens; lower it"
        )


def stop_at_eos(model: Any, tokenizer: Any) -> None:
    """Let generation stop at the tokenizer's EOS, which training ends responses with, also where the model's
    own configs name another token only. It is saved with the model."""
    known = eos_ids(model, tokenizer)
    if tokenizer.eos_token_id not in known:
        model.generation_config.eos_token_id = [*known, tokenizer.eos_token_id]


def world_of(model: Any) -> str | None:
    """The embedded world that a checkpoint belongs to (``"pocket"``), else None."""
    world: str | None = getattr(model.config, "alignbench_world", None)
    return world


def add_residual_dropout(model: nn.Module, p: float) -> None:
    """Dropout, while training, on what each attention and MLP adds to the residual stream.

    Llama and its relatives in transformers have dropout on attention weights alone; the paper regularises SFT
    by residual dropout of 0.2 (appendix C.1).

    Raises:
        UsageError: an architecture whose branches are not recognised.
    """
    if p == 0:
        return
    own = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and name.endswith(("resid_dropout", "mlp.dropout"))
    ]
    if own:  # GPT-2 and its relatives have the layers already
        for layer in own:
            layer.p = p
        return
    names = {"self_attn", "attn", "attention", "mlp", "feed_forward", "block_sparse_moe"}
    blocks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    branches = [
        child
        for block in blocks
        for layer in block
        for name, child in layer.named_children()
        if name in names
    ]
    if not branches:
        raise UsageError(f"residual_dropout: branches of {type(model).__name__} are not known; set it to 0")

    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (nn.functional.dropout(output[0], p, module.training), *output[1:])
        return nn.functional.dropout(output, p, module.training)

    for branch in branches:
        branch.register_forward_hook(drop)


def last_rewards(model: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
    """Raw rewards ``(B,)``, float32, of right-padded ``ids`` ``(B, T)`` at their last tokens, no offset.

    Causal attention never looks right, so padding needs no mask; transformers' own pooling is not used, since
    it takes the last id that differs from pad, and many tokenizers pad with EOS.
    """
    body: Any = model.base_model
    hidden: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
    states = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
    rewards: Tensor = reward_head(model)(states)[:, 0]
    return rewards.float()


def _draw_head(model: Any, seed: int) -> None:
    head: Any = reward_head(model)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(head.weight.shape, generator=generator) / (head.weight.shape[1] + 1) ** 0.5
    with torch.no_grad():
        head.weight.copy_(drawn)
        if head.bias is not None:
            head.bias.zero_()


def _folder(spec: str) -> Path:
    if os.path.exists(spec):  # a path may hold what a policy's specification gives a meaning
        return find_folder(spec, None, f"model {spec}")
    policy = parse_policy(spec)
    return find_folder(policy.target, policy.revision, f"model {spec}")


def _architecture(spec: str, folder: Path) -> str:
    names = _load(AutoConfig, spec, folder).architectures
    return str(names[0]) if names else ""


def _load(loader: Any, spec: str, folder: Path, **options: Any) -> Any:
    try:
        with quiet_transformers():
            return loader.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"model {spec}: what lies in {folder} cannot be loaded ({reason})") from error


def _load_model(loader: Any, spec: str, folder: Path, *, headless: bool = False, **options: Any) -> Any:
    """In float32. ``headless``: the head is drawn afterwards, so only the body must be there."""
    model, report = _load(loader, spec, folder, dtype=torch.float32, output_loading_info=True, **options)
    body = f"{model.base_model_prefix}."
    lacking = sorted(name for name in report["missing_keys"] if name.startswith(body) or not headless)
    if lacking:
        raise UsageError(
            f"model {spec}: what lies in {folder} lacks the weights {', '.join(lacking[:3])}; save it whole"
        )
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' bars and its notes on new heads, which are what we ask for."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
