"""Keys and values of the rows that decode together, in memory that is allocated once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignbench.engines.packed import KeysValues

GRAIN = 32
"""Lengths are rounded up to it: kernels then meet few shapes, and compiled steps whole panels of keys."""


def rounded(columns: int) -> int:
    return -(-columns // GRAIN) * GRAIN


@dataclass
class Slots:
    """Keys and values of the rows that run: of each layer two tensors [S, Hkv, C, D]; and, kept once, those
    of the ``common`` beginning of all rows [Hkv, P, D]."""

    size: int
    capacity: int
    common: KeysValues | None = None
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def write(self, layer: int, slots: Tensor, columns: Tensor, k: Tensor, v: Tensor) -> None:
        """Put keys and values [Hkv, M, D] at ``columns`` of ``slots``, long [M] each."""
        if layer not in self.layers:
            # on a CPU, products of half precision with these shapes are slower than in float32
            dtype = torch.float32 if k.device.type == "cpu" else k.dtype
            shapes = [(self.size, len(x), self.capacity, x.shape[-1]) for x in (k, v)]
            # zeros, as what is hidden is still multiplied (by 0, which would keep a NaN)
            self.layers[layer] = k.new_zeros(shapes[0], dtype=dtype), v.new_zeros(shapes[1], dtype=dtype)
        self.put(layer, self.places(slots, columns, len(k)), k, v)

    def places(self, slots: Tensor, columns: Tensor, heads: int) -> Tensor:
        """Where ``put`` writes the columns of the slots: long [M × Hkv]."""
        head = torch.arange(heads, device=slots.device)
        return ((slots[:, None] * heads + head) * self.capacity + columns[:, None]).reshape(-1)

    def put(self, layer: int, places: Tensor, k: Tensor, v: Tensor) -> None:
        """Write keys and values [Hkv, M, D]: rows of a matrix, as copying by two indices is slow."""
        for kept, x in zip(self.layers[layer], (k, v)):
            rows = x.transpose(0, 1).reshape(len(places), -1)
            kept.view(-1, x.shape[-1]).index_copy_(0, places, rows.to(kept.dtype))

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first ``length`` columns of slots onto other slots."""
        for pair in self.layers.values():
            for x in pair:
                x[target, :, :length] = x[source, :, :length]
