"""The layers of Llama's family in few operations: what transformers' modules compute, in fewer calls.

A step of decoding a small model is mostly calls, some eighty in each of transformers' layers, most of them on
a few thousand numbers. Here a norm is one call and a rotation three, and residuals are added by the product
before them. Only ``LAYERS`` are taken, as a layer may have terms that few tokens do not show; that they give
the module's own states is tried all the same (``packed.supports``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from alignbench.engines.packed import Attend

LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Fused:
    """A model of Llama's family; see ``packed.Forward``. Its modules are held, not their weights, which
    training may replace.

    Args:
        module: a model with ``base_model``.

    Raises:
        TypeError: it is of another family, or not all of its layers are transformers' own.
    """

    def __init__(self, module: Any) -> None:
        self.base = getattr(module, "base_model", module)
        for layer in getattr(self.base, "layers", [None]):
            kind = type(layer)
            if kind.__name__ not in LAYERS or not kind.__module__.startswith("transformers.models."):
                raise TypeError(f"{kind.__name__} is none of {', '.join(LAYERS)}")
        self.layers = [_Layer(layer, self.base.config) for layer in self.base.layers]

    @property
    def usable(self) -> bool:
        """Whether nothing asks for the modules' own calls: autocast chooses dtypes by them, hooks see or
        change what goes through them, and an adapter may have taken the place of a layer."""
        hooked = any(getattr(module, kind) for module in self.base.modules() for kind in HOOKS)
        plain = all(type(linear) is nn.Linear for layer in self.layers for linear in layer.linears)
        return plain and not hooked and not torch.is_autocast_enabled("cpu")

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        x = self.base.embed_tokens(ids)
        cos, sin = (y[0, :, None] for y in self.base.rotary_emb(x[None], positions[None]))
        half = sin.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        for layer in self.layers:
            x = layer(x, cos, sin, attend)
        return _norm(self.base.norm, x)


class _Layer:
    def __init__(self, module: Any, config: Any) -> None:
        self.attention, self.mlp = module.self_attn, module.mlp
        self.before, self.behind = module.input_layernorm, module.post_attention_layernorm
        self.norms = [getattr(self.attention, name, None) for name in ("q_norm", "k_norm")]
        self.index, self.size = int(self.attention.layer_idx), int(self.attention.head_dim)
        self.scale = float(self.attention.scaling)
        # Mistral's layers all have the config's; those of other families say it themselves, if they have any
        everywhere = config.sliding_window if "Mistral" in type(module).__name__ else None
        self.window: int | None = getattr(self.attention, "sliding_window", everywhere)

    @property
    def linears(self) -> list[Any]:
        own = [getattr(self.attention, f"{x}_proj") for x in "qkvo"]
        return own + [getattr(self.mlp, f"{x}_proj") for x in ("gate", "up", "down")]

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        own, mlp = self.attention, self.mlp
        h = _norm(self.before, x)
        q, k, v = (_linear(m, h).view(len(x), -1, self.size) for m in (own.q_proj, own.k_proj, own.v_proj))
        q, k = (y if norm is None else _norm(norm, y) for norm, y in zip(self.norms, (q, k)))
        q, k = (torch.addcmul(y * cos, y.roll(self.size // 2, -1), sin) for y in (q, k))
        out = attend(
            self.index, q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), self.scale, self.window
        )
        x = _added(own.o_proj, x, out.reshape(len(x), -1))
        h = _norm(self.behind, x)
        return _added(mlp.down_proj, x, mlp.act_fn(_linear(mlp.gate_proj, h)).mul_(_linear(mlp.up_proj, h)))


def _norm(module: Any, x: Tensor) -> Tensor:
    """Root-mean-square normalisation (Zhang and Sennrich 2019, eq. 4)."""
    weight = module.weight
    return functional.rms_norm(x, weight.shape, weight, module.variance_epsilon)


def _linear(module: Any, x: Tensor) -> Tensor:
    return functional.linear(x, module.weight, module.bias)


def _added(module: Any, residual: Tensor, x: Tensor) -> Tensor:
    """``residual`` + linear (x)."""
    out = torch.addmm(residual, x, module.weight.t())
    return out if module.bias is None else out.add_(module.bias)
