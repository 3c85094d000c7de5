"""What a decoder's layers compute, read off transformers' modules: what compiled decoding needs to know.

Only modules that are transformers' own are read, and only where nothing (a hook, autocast) changes what they
do; that the numbers are the module's own is tried all the same (``native.agrees``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alignbench.engines.fused import HOOKS, Fused

Angles = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From positions, long [N], to the cosine and sine of each of a head's numbers [N, size]."""


@dataclass(frozen=True)
class Matrix:
    """Weights [outputs, inputs], a view of any strides, and a bias [outputs] or None."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, *linears: nn.Linear) -> Matrix:
        """Of modules with the same inputs, their outputs one behind the other."""
        weights = [linear.weight.detach() for linear in linears]
        biases = [linear.bias for linear in linears]
        if all(bias is None for bias in biases):
            return cls(torch.cat(weights), None)
        filled = [w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(weights, biases)]
        return cls(torch.cat(weights), torch.cat(filled))


@dataclass(frozen=True)
class LayerSpec:
    """``before``, ``behind``: norms before attention and before the MLP; ``query``, ``key``: norms of each
    head's, or None. ``qkv``: queries, keys, values; ``up``: gate and up, where the MLP is gated. ``window``:
    positions that a token sees, itself included; None: all. ``scale``: of the scores."""

    before: Any
    behind: Any
    query: Any
    key: Any
    qkv: Matrix
    out: Matrix
    up: Matrix
    down: Matrix
    window: int | None
    scale: float


@dataclass(frozen=True)
class Spec:
    """A decoder up to its last norm.

    ``width`` of the residual stream; ``heads`` of ``size``, which share the keys and values of ``groups``;
    ``inner`` of the MLP, which is ``gated`` (silu) or not (gelu by tanh). ``positions``: learned embeddings
    [N, width]; or ``angles`` of rotary ones.
    """

    width: int
    heads: int
    groups: int
    size: int
    inner: int
    gated: bool
    epsilon: float
    embedding: Tensor
    positions: Tensor | None
    angles: Angles | None
    layers: Sequence[LayerSpec]
    last: Any

    def fits(self, vocabulary: int, length: int) -> bool:
        """Whether all that is read has the shape that these numbers say: C does not look twice.

        Args:
            vocabulary: how many tokens may be chosen.
            length: tokens of the longest row.
        """
        heads, kept = self.heads * self.size, self.groups * self.size
        shapes = {
            "qkv": (heads + 2 * kept, self.width),
            "out": (self.width, heads),
            "up": ((1 + self.gated) * self.inner, self.width),
            "down": (self.width, self.inner),
        }
        right = self.heads % self.groups == 0 and all(
            getattr(layer, name).weight.shape == shape
            for layer in self.layers
            for name, shape in shapes.items()
        )
        norms = [(self.last, self.width)]
        for layer in self.layers:
            norms += [(layer.before, self.width), (layer.behind, self.width)]
            norms += [(norm, self.size) for norm in (layer.query, layer.key) if norm is not None]
        right &= all(norm.weight.shape == (size,) for norm, size in norms)
        right &= len(self.embedding) >= vocabulary and self.embedding.shape[1] == self.width
        if self.positions is not None:
            right &= len(self.positions) >= length and self.positions.shape[1] == self.width
        if self.angles is not None:
            right &= all(x.shape == (1, self.size) for x in self.angles(torch.zeros(1, dtype=torch.long)))
        return right


def spec_of(module: Any) -> Spec | None:
    """What the module computes; None: something else than is known here, or not now.

    Args:
        module: a causal language model.
    """
    base = getattr(module, "base_model", module)
    if torch.is_autocast_enabled("cpu") or not all(map(_plain, base.modules())):
        return None
    if type(base).__module__ == "transformers.models.gpt2.modeling_gpt2":
        return _gpt2(base)
    try:
        fused = Fused(module)
    except TypeError:
        return None
    return _llama(fused) if fused.usable else None


def hooked(module: nn.Module) -> bool:
    return any(getattr(module, kind) for kind in HOOKS)


def _plain(module: nn.Module) -> bool:
    """Whether a module is torch's or transformers' own and computes what its class does."""
    own = type(module).__module__.startswith(("torch.nn.", "transformers."))
    return own and not hooked(module) and "forward" not in vars(module)


def _llama(fused: Fused) -> Spec | None:
    """Llama, Mistral, Qwen 2 and 3."""
    base, config = fused.base, fused.base.config
    if any(type(layer.mlp.act_fn).__name__ not in ("SiLU", "SiLUActivation") for layer in fused.layers):
        return None
    layers = []
    for layer in fused.layers:
        own, mlp, (query, key) = layer.attention, layer.mlp, layer.norms
        layers.append(
            LayerSpec(
                layer.before, layer.behind, query, key,
                Matrix.of(own.q_proj, own.k_proj, own.v_proj), Matrix.of(own.o_proj),
                Matrix.of(mlp.gate_proj, mlp.up_proj), Matrix.of(mlp.down_proj),
                layer.window, layer.scale,
            )
        )  # fmt: skip
    first, like = fused.layers[0], torch.zeros(1, 1, 1)  # angles in float32, whatever the model's dtype

    def angles(positions: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = base.rotary_emb(like, positions[None])
        return cosine[0], sine[0]

    return Spec(
        width=config.hidden_size,
        heads=first.attention.q_proj.out_features // first.size,
        groups=first.attention.k_proj.out_features // first.size,
        size=first.size,
        inner=first.mlp.up_proj.out_features,
        gated=True,
        epsilon=float(config.rms_norm_eps),
        embedding=base.embed_tokens.weight,
        positions=None,
        angles=angles,
        layers=layers,
        last=base.norm,
    )


def _gpt2(base: Any) -> Spec | None:
    config = base.config
    tanh = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
    if (
        type(base).__name__ != "GPT2Model"
        or config.activation_function not in tanh
        or config.add_cross_attention
    ):
        return None

    def matrix(conv: Any) -> Matrix:
        return Matrix(conv.weight.detach().t(), conv.bias.detach())

    size = config.n_embd // config.n_head
    layers = []
    for i, block in enumerate(base.h):
        own, mlp = block.attn, block.mlp
        if any(type(conv).__name__ != "Conv1D" for conv in (own.c_attn, own.c_proj, mlp.c_fc, mlp.c_proj)):
            return None
        scale = size**-0.5 if config.scale_attn_weights else 1.0
        scale /= (i + 1) if config.scale_attn_by_inverse_layer_idx else 1
        qkv, out, up, down = map(matrix, (own.c_attn, own.c_proj, mlp.c_fc, mlp.c_proj))
        layers.append(LayerSpec(block.ln_1, block.ln_2, None, None, qkv, out, up, down, None, scale))
    return Spec(
        width=config.n_embd,
        heads=config.n_head,
        groups=config.n_head,
        size=size,
        inner=layers[0].up.weight.shape[0],
        gated=False,
        epsilon=float(config.layer_norm_epsilon),
        embedding=base.wte.weight,
        positions=base.wpe.weight,
        angles=None,
        layers=layers,
        last=base.ln_f,
    )
