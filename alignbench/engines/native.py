"""Decoding in compiled steps (native.c): models whose layers it knows, in float32 on a CPU.

A step of decoding a small model is hundreds of operations on a few thousand numbers each, which take less
time than calling them. Here a call takes a thread's rows through several steps at once, their tokens
included. Matrices are copied into the layout that this reads fastest, for as long as a call of ``generate``
lasts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_void_p
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from alignbench.engines import compiled, memory
from alignbench.engines.compiled import CCache, CLayer, CLinear, CModel, CNorm, CRows
from alignbench.engines.fused import Fused
from alignbench.engines.lanes import Lanes
from alignbench.engines.packed import KeysValues
from alignbench.engines.sampling import Rows

STEPS = 16
"""Steps of a call, at most: rows that end wait for it."""
SHARE = 1 / 8
"""Of the machine's memory, what the copy of the matrices may take."""


@dataclass(frozen=True)
class Matrix:
    """Weights [outputs, inputs] (a view, of any strides) and a bias [outputs] or None."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, *modules: Any) -> Matrix:
        """Of linear modules, one behind the other."""
        weight = torch.cat([m.weight for m in modules]) if len(modules) > 1 else modules[0].weight
        biases = [m.bias for m in modules]
        if all(bias is None for bias in biases):
            return cls(weight.detach(), None)
        filled = [m.weight.new_zeros(len(m.weight)) if m.bias is None else m.bias for m in modules]
        return cls(weight.detach(), torch.cat(filled).detach())


@dataclass(frozen=True)
class LayerSpec:
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
    """A decoder as native.c computes it. ``angles``: positions → cosine and sine [N, size]."""

    width: int
    heads: int
    groups: int
    size: int
    inner: int
    gated: bool
    epsilon: float
    embedding: Tensor
    positions: Tensor | None
    angles: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    layers: Sequence[LayerSpec]
    last: Any


def spec_of(forward: Any) -> Spec | None:
    """What there is to compute, or None where it is not known here.

    Args:
        forward: what runs the model's packed tokens.
    """
    return _llama(forward) if isinstance(forward, Fused) else None


def _llama(fused: Fused) -> Spec | None:
    base, config = fused.base, fused.base.config
    if config.hidden_act not in ("silu", "swish"):
        return None
    layers = []
    for layer in fused.layers:
        own, mlp = layer.attention, layer.mlp
        query, key = layer.norms
        layers.append(
            LayerSpec(
                layer.before, layer.behind, query, key,
                Matrix.of(own.q_proj, own.k_proj, own.v_proj), Matrix.of(own.o_proj),
                Matrix.of(mlp.gate_proj, mlp.up_proj), Matrix.of(mlp.down_proj),
                layer.window, layer.scale,
            )
        )  # fmt: skip
    size = fused.layers[0].size

    def angles(positions: Tensor) -> tuple[Tensor, Tensor]:
        like = base.embed_tokens.weight[:1, None]
        cosine, sine = base.rotary_emb(like, positions[None])
        return cosine[0], sine[0]

    return Spec(
        width=config.hidden_size,
        heads=fused.layers[0].attention.q_proj.out_features // size,
        groups=fused.layers[0].attention.k_proj.out_features // size,
        size=size,
        inner=fused.layers[0].mlp.up_proj.out_features,
        gated=True,
        epsilon=float(config.rms_norm_eps),
        embedding=base.embed_tokens.weight.detach(),
        positions=None,
        angles=angles,
        layers=layers,
        last=base.norm,
    )


class Native:
    """A model's weights, laid out for native.c.

    Args:
        spec: of its layers.
        head: its output embedding, a plain linear module.
        scale: of its logits.
        length: tokens of the longest row.
    """

    def __init__(self, lib: ctypes.CDLL, spec: Spec, head: nn.Linear, scale: float, length: int) -> None:
        self.lib = lib
        self._held: list[Any] = []
        self._panel = int(lib.panel_columns())
        self.size, self.groups = spec.size, spec.groups
        layers = (CLayer * len(spec.layers))(*map(self._layer, spec.layers))
        cosine, sine = spec.angles(torch.arange(length)) if spec.angles else (None, None)
        self.model = CModel(
            layers=len(spec.layers), width=spec.width, heads=spec.heads, groups=spec.groups, size=spec.size,
            inner=spec.inner, vocabulary=len(head.weight), gated=spec.gated, epsilon=spec.epsilon,
            scale=scale, embedding=self._pointer(spec.embedding), positions=self._pointer(spec.positions),
            cosine=self._pointer(cosine), sine=self._pointer(sine), layer=layers, last=self._norm(spec.last),
            head=self._linear(Matrix.of(head)),
        )  # fmt: skip
        self._held.append(layers)

    def panels(self, weight: Tensor) -> Tensor:
        """Weights [outputs, inputs] in panels of outputs, filled up with zeros."""
        outputs, inputs = weight.shape
        laid_out = torch.empty(-(-outputs // self._panel) * self._panel * inputs)
        self.lib.lay_panels(
            weight.data_ptr(), outputs, inputs, weight.stride(0), weight.stride(1), laid_out.data_ptr()
        )
        return laid_out

    # ---- inside

    def _pointer(self, x: Tensor | None) -> int | None:
        if x is None:
            return None
        held = x.detach().float().contiguous()
        self._held.append(held)
        return held.data_ptr()

    def _norm(self, module: Any) -> CNorm:
        if module is None:
            return CNorm(None, None)
        return CNorm(self._pointer(module.weight), self._pointer(getattr(module, "bias", None)))

    def _linear(self, matrix: Matrix) -> CLinear:
        outputs, inputs = matrix.weight.shape
        bias = None
        if matrix.bias is not None:
            bias = torch.zeros(-(-outputs // self._panel) * self._panel)
            bias[:outputs] = matrix.bias
        return CLinear(self._pointer(self.panels(matrix.weight)), self._pointer(bias), inputs, outputs)

    def _layer(self, spec: LayerSpec) -> CLayer:
        norms = {name: self._norm(getattr(spec, name)) for name in ("before", "behind", "query", "key")}
        linears = {name: self._linear(getattr(spec, name)) for name in ("qkv", "out", "up", "down")}
        return CLayer(**norms, **linears, window=spec.window or 0, scale=spec.scale)


class NativeSlots:
    """Takes the rows of a wave through steps of decoding.

    Args:
        native: the model.
        layers: of each layer keys and values of the slots [S, Hkv, C, D].
        common: of each layer keys and values [Hkv, P, D] of what all rows begin with, or None.
    """

    def __init__(
        self, native: Native, layers: Mapping[int, tuple[Tensor, Tensor]], common: KeysValues | None
    ) -> None:
        self.native = native
        ordered = [layers[i] for i in sorted(layers)]
        self._held: list[Any] = [ordered]
        shared: list[list[Tensor]] = [[], []]
        for k, v in common or ():
            shared[0].append(torch.cat([native.panels(head) for head in k]))
            shared[1].append(torch.cat([native.panels(head.t()) for head in v]))
        self.cache = CCache(
            self._pointers([k for k, _ in ordered]), self._pointers([v for _, v in ordered]),
            self._pointers(shared[0]), self._pointers(shared[1]),
            ordered[0][0].shape[2], common[0][0].shape[1] if common else 0,
        )  # fmt: skip

    def _pointers(self, tensors: Sequence[Tensor]) -> Any:
        self._held.append(tensors)
        array = (c_void_p * max(1, len(tensors)))(*(x.data_ptr() for x in tensors))
        self._held.append(array)
        return ctypes.cast(array, POINTER(c_void_p))

    def decode(self, rows: CRows, parts: Sequence[slice], lanes: Lanes, least: float, steps: int) -> int:
        return sum(lanes.run(partial(self._decode, rows, least, steps), parts))

    def _decode(self, rows: CRows, least: float, steps: int, part: slice) -> int:
        n = part.stop - part.start
        lib, model, cache = self.native.lib, byref(self.native.model), byref(self.cache)
        room = torch.empty(lib.scratch_floats(model, cache, n, rows.any_sampled))
        made: int = lib.decode(
            model, cache, byref(rows), part.start, part.stop, steps, max(1, round(least * n)), room.data_ptr()
        )
        return made
