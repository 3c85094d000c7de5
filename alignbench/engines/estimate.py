"""Time and memory that a run will take: arithmetic on the model's numbers and the machine's measured rates.

A forward pass computes two FLOPs a parameter and token (but for embeddings, which are looked up, and the
head, which only runs where logits are read), and attention's products with the tokens before. A step of
decoding also has to read all weights and the keys and values of every row: it takes as long as the slower of
the two. Both pay for the calls into the library, which is what small models spend most of their time on.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.5
"""Of a matrix product's rate that a whole layer reaches: norms, activations, copies are bound by memory."""
CALLS = 40
"""Calls into the library that a layer of a decoder makes."""
LOGITS_BYTES = 2**27
"""Logits are held some positions at a time; this much, with what they are computed from."""
LIBRARIES_BYTES = 45 * 10**7
"""What Python, torch and transformers occupy in main memory once a model runs."""


@dataclass(frozen=True)
class Size:
    """A model's numbers. ``parameters``: all, each once; ``body``: those that every token is multiplied with;
    ``head``: those that a position is multiplied with whose logits are read; ``width``: of a layer's queries;
    ``itemsize``: bytes a parameter; ``kv_bytes``: of one token's keys and values in all layers;
    ``forward_bytes``: what a token costs at the height of a forward pass."""

    parameters: int
    body: int
    head: int
    layers: int
    width: int
    itemsize: int
    kv_bytes: int
    forward_bytes: int

    @property
    def weight_bytes(self) -> int:
        return self.parameters * self.itemsize


@dataclass(frozen=True)
class Rates:
    """A machine's: FLOPs a second of a matrix product of the model's widths, bytes a second read from memory,
    seconds that a call into the library costs by itself."""

    flops: float
    bandwidth: float
    call: float


@dataclass(frozen=True)
class Work:
    """What is to be computed. ``total``: tokens of all texts; ``tokens``: put into the model, after sharing
    what texts begin with; ``length``: the mean length of the sequences that they stand in; ``unit``: tokens
    that are computed in one piece where texts share something, in which what a token does not see is masked,
    not skipped; ``read``: positions whose logits are read; ``rows``: completions, and ``new_tokens``
    of all of them together."""

    total: float
    tokens: float
    length: float
    unit: int = 0
    read: float = 0
    rows: int = 0
    new_tokens: int = 0


def seconds(work: Work, size: Size, rates: Rates, *, batch_tokens: int, in_flight: int) -> float:
    """Seconds of prefill (or scoring) and decoding.

    Args:
        batch_tokens: of a forward pass.
        in_flight: the most rows that are decoded at a time.
    """
    # a token sees half of a text's, on average; where beginnings are shared, the ends are what is computed
    seen = work.length * (1 - work.tokens / max(1, work.total) / 2)
    if work.tokens < work.total:
        seen = max(seen, work.unit)
    attended = 4 * size.layers * size.width * seen
    computed = work.tokens * (2 * size.body + attended) + 2 * size.head * (work.read + work.rows)
    passes = max(1.0, work.tokens / batch_tokens) if work.tokens else 0.0
    prefill = computed / (SHARE * rates.flops) + passes * size.layers * CALLS * rates.call
    return prefill + _decode(work, size, rates, in_flight)


def _decode(work: Work, size: Size, rates: Rates, in_flight: int) -> float:
    if not work.rows:
        return 0.0
    rows = min(work.rows, in_flight)
    steps = work.new_tokens / rows
    length = work.length + work.new_tokens / work.rows / 2
    computed = rows * (2 * (size.body + size.head) + 4 * size.layers * size.width * length)
    read = size.weight_bytes + rows * length * size.kv_bytes
    step = max(computed / (SHARE * rates.flops), read / rates.bandwidth) + size.layers * CALLS * rates.call
    return steps * step


def peak_bytes(size: Size, *, batch_tokens: float, kv_tokens: float = 0, on_cpu: bool = True) -> float:
    """Memory of the device at its height: the weights, a forward pass of ``batch_tokens`` or the keys and
    values of ``kv_tokens`` that are kept while decoding, whichever is larger, and the logits; on a CPU also
    the libraries."""
    activations = max(batch_tokens * size.forward_bytes, kv_tokens * size.kv_bytes)
    return size.weight_bytes + activations + LOGITS_BYTES + (LIBRARIES_BYTES if on_cpu else 0)


def extrapolate(half: float, whole: float, n: int, wanted: int) -> float:
    """What ``wanted`` documents cost, from what ``n // 2`` and ``n`` of them do: what they share is paid for
    once, the rest grows with their number."""
    if wanted <= n or n < 2:
        return whole
    return whole + (whole - half) / (n - n // 2) * (wanted - n)
