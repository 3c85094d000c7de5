"""Forward passes over packed tokens: no padding, and keys and values that several sequences share.

All tokens of a pass lie in one row ``[1, N]`` with positions of their own; what sees what is the business of
an attention function that is registered with transformers under ``NAME``. So every layer but attention runs
on exactly the tokens that are needed, and any architecture that takes its attention from transformers'
``AttentionInterface`` and its positions from ``position_ids`` can be run like this; ``supports`` tries it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alignbench.engines.lanes import Lanes
from alignbench.engines.memory import is_out_of_memory
from alignbench.engines.plan import Work
from alignbench.engines.trie import Trie, Unit

NAME = "alignbench_packed"
HARMLESS = frozenset(
    {"dropout", "is_causal", "position_ids", "use_cache", "output_attentions", "output_hidden_states"}
    | {"cache_position", "return_dict", "output_router_logits", "position_embeddings", "past_key_values"}
)
"""What modules hand to attention beside what ``_interface`` names, and what changes nothing here. Whatever
else there is (soft caps, sinks, biases, chosen indices) is not supported."""
LEAST_TOKENS = 64
"""Tokens of a lane at least."""
KEYS = 2**16
"""Rows of keys (units times what each of them sees) laid out at once: a trunk is copied for each unit."""
SLACK = 0.1
"""Rows of attention that may be padding, as a share of the real ones, where units are attended together."""

KeysValues = list[tuple[Tensor, Tensor]]
"""Of each layer, keys and values [Hkv, P, D]."""


class Attend(Protocol):
    """Attention of one layer: queries [H, N, D], keys and values [Hkv, N, D] → [N, H, D]."""

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int | None
    ) -> Tensor: ...


_attend: ContextVar[Attend] = ContextVar("attend")
_windows: ContextVar[set[int | None]] = ContextVar("windows")
"""The sliding windows that layers have told their attention of."""


class UnsupportedAttention(Exception):
    """The module's attention has terms that the packed one has not (soft caps, sinks)."""


def _interface(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    unknown = [term for term, value in others.items() if value is not None and term not in HARMLESS]
    if unknown:
        raise UnsupportedAttention(", ".join(unknown))
    _windows.get().add(sliding_window)
    out = _attend.get()(module.layer_idx, query[0], key[0], value[0], scaling, sliding_window)
    return out[None], None


class Forward(Protocol):
    """A model up to its last hidden states, on packed tokens: ids and positions, long [N] → states [N, D].
    Several threads may call it at once."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor: ...


class ModuleForward:
    """Transformers' own module, with ``attend`` as the attention of every layer.

    Args:
        module: a model or its base.
    """

    def __init__(self, module: Any) -> None:
        self.base = getattr(module, "base_model", module)
        self._lock = Lock()
        self._running = 0
        self._before: str | None = None

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """See ``Forward``.

        Raises:
            UnsupportedAttention: a layer's attention has terms that ``attend`` has not.
        """
        config = self.base.config
        token, told = _attend.set(attend), _windows.set(set())
        try:
            with self._switched(config):
                out = self.base(input_ids=ids[None], position_ids=positions[None], use_cache=False)
            window = getattr(config.get_text_config(), "sliding_window", None)
            if window and _windows.get() == {None} and _windowed(config):
                raise UnsupportedAttention("a window that only masks tell of")
        finally:
            _attend.reset(token)
            _windows.reset(told)
        states: Tensor = out.last_hidden_state[0]
        return states

    @contextmanager
    def _switched(self, config: Any) -> Iterator[None]:
        """The config names our attention, from the first thread's entry to the last one's exit."""
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, _interface)
        with self._lock:
            if not self._running:
                self._before, config._attn_implementation = config._attn_implementation, NAME
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    config._attn_implementation = self._before


def _windowed(config: Any) -> bool:
    """Whether some layer may have the config's window: all have it where no list of layer types says so."""
    types = getattr(config.get_text_config(), "layer_types", None)
    return types is None or any("sliding" in kind for kind in types)


# ---- attention of a pack


@dataclass(frozen=True)
class _Bucket:
    """Units of similar length that are attended together: ``index`` long [U, T] into the packed tokens;
    ``mask`` bool [U or 1, 1, T, P + T] (None: causal); ``prefix`` keys and values of what is before."""

    index: Tensor
    mask: Tensor | None
    prefix: KeysValues | None
    positions: Tensor


class PackAttention:
    """Attention of one pack: each unit sees itself and the trunks before it.

    Args:
        units: in the order of the packed tokens.
        prefixes: by trunk, the keys and values of all that is before the trunk's end.
        device: of the tokens.
        sink: gets each layer's keys and values [Hkv, N, D].
    """

    def __init__(
        self,
        units: Sequence[Unit],
        prefixes: Mapping[int, KeysValues],
        device: torch.device,
        sink: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.sink = sink
        self.device = device
        self.padding = 0
        self._longest = max(int(unit.positions.max()) for unit in units) + 1
        offsets = np.cumsum([0, *(len(unit.ids) for unit in units)])
        back = np.empty(offsets[-1], dtype=np.int64)
        self._buckets: list[_Bucket] = []
        at = 0
        sizes_before = {t: kept[0][0].shape[1] for t, kept in prefixes.items()}
        for members in _similar(units, sizes_before):
            width = max(len(units[i].ids) for i in members)
            own = np.arange(width)
            sizes = np.array([len(units[i].ids) for i in members])
            index = offsets[members][:, None] + np.minimum(own, sizes[:, None] - 1)
            for row, i in enumerate(members):
                back[offsets[i] : offsets[i + 1]] = at + row * width + own[: sizes[row]]
            at += index.size
            self.padding += index.size - int(sizes.sum())
            self._buckets.append(self._bucket([units[i] for i in members], index, prefixes))
        self._back = torch.from_numpy(back).to(device)
        self._in_order = not self.padding and bool((back == np.arange(len(back))).all())

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        if self.sink is not None:
            self.sink[layer] = k, v
        outs = [self._attended(bucket, layer, q, k, v, scale, window) for bucket in self._buckets]
        out = torch.cat(outs) if len(outs) > 1 else outs[0]
        return out if self._in_order else out[self._back]

    def _attended(
        self,
        bucket: _Bucket,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float | None,
        window: int | None,
    ) -> Tensor:
        """[U × T, H, D] of one bucket."""
        n, width = bucket.index.shape
        flat = bucket.index.reshape(-1)

        def gather(x: Tensor) -> Tensor:  # [H, N, D] → [U, H, T, D]
            return x[:, flat].view(len(x), n, width, -1).transpose(0, 1)

        keys, values = gather(k), gather(v)
        if bucket.prefix is not None:
            before = bucket.prefix[layer]
            keys = torch.cat([before[0].expand(n, -1, -1, -1), keys], dim=2)
            values = torch.cat([before[1].expand(n, -1, -1, -1), values], dim=2)
        if len(q) != len(k):
            keys, values = (x.repeat_interleave(len(q) // len(k), dim=1) for x in (keys, values))
        mask = bucket.mask
        if window is not None and window < self._longest:
            mask = _within(bucket, keys.shape[2] - width, window)
        out = functional.scaled_dot_product_attention(
            gather(q), keys, values, attn_mask=mask, is_causal=mask is None, scale=scale
        )
        return out.transpose(1, 2).reshape(n * width, len(q), -1)

    def _bucket(
        self, units: Sequence[Unit], index: np.ndarray, prefixes: Mapping[int, KeysValues]
    ) -> _Bucket:
        prefix = prefixes[units[0].trunk] if units[0].trunk >= 0 else None
        n, width = index.shape
        positions = np.zeros((n, width), dtype=np.int64)
        for row, unit in zip(positions, units):
            row[: len(unit.ids)] = unit.positions
            row[len(unit.ids) :] = unit.positions[-1]
        mask = None
        own = np.arange(width)
        if not units[0].chain:
            ends = np.zeros((n, width), dtype=np.int64)
            for row, unit in zip(ends, units):
                row[: len(unit.ids)] = unit.ends
                row[len(unit.ids) :] = width  # padding sees itself, so that no row is empty
            mask = (own <= own[:, None]) & (own[:, None] < ends[:, None, :])
        elif prefix is not None:
            mask = (own <= own[:, None])[None]
        if mask is not None and prefix is not None:
            before = np.ones((*mask.shape[:2], prefix[0][0].shape[1]), dtype=bool)
            mask = np.concatenate([before, mask], axis=2)
        tensor = None if mask is None else torch.from_numpy(mask[:, None]).to(self.device)
        return _Bucket(
            torch.from_numpy(index).to(self.device),
            tensor,
            prefix,
            torch.from_numpy(positions).to(self.device),
        )


def _similar(units: Sequence[Unit], before: Mapping[int, int]) -> Iterator[list[int]]:
    """Groups of units that are attended together: of one trunk (with ``before`` tokens up to its end), all or
    none with branches, with little padding. In the order of the units where that is all the same."""
    kinds: dict[tuple[int, bool], list[int]] = {}
    for i, unit in enumerate(units):
        kinds.setdefault((unit.trunk, unit.chain), []).append(i)
    for members in kinds.values():
        members.sort(key=lambda i: -len(units[i].ids))
        group: list[int] = []
        real = 0
        for i in members:
            size = len(units[i].ids)
            width, n = len(units[group[0]].ids) if group else size, len(group) + 1
            seen = n * (before.get(units[i].trunk, 0) + width)
            if group and (width * n > (1 + SLACK) * (real + size) or seen > KEYS):
                yield group
                group, real = [], 0
            group.append(i)
            real += size
        yield group


def _within(bucket: _Bucket, before: int, window: int) -> Tensor:
    """The bucket's mask where a token sees only the last ``window`` positions, itself included."""
    n, width = bucket.positions.shape
    mask = bucket.mask
    if mask is None:
        mask = torch.ones(width, width, dtype=torch.bool, device=bucket.positions.device).tril()[None, None]
    prefix = torch.arange(before, device=bucket.positions.device).expand(n, -1)
    keys = torch.cat([prefix, bucket.positions], dim=1)
    near = bucket.positions[:, :, None] - keys[:, None, :] < window
    return mask & near[:, None]


# ---- a trie's packs


class TriePass:
    """Runs the packs of a trie, and keeps the trunks' keys and values as long as they are used.

    Args:
        forward: the model.
        trie: the plan.
        lanes: the threads that share a pack's units.
        work: counts what is computed.
    """

    def __init__(self, forward: Forward, trie: Trie, lanes: Lanes, work: Work) -> None:
        self.forward, self.trie, self.lanes, self.work = forward, trie, lanes, work
        self._prefixes: dict[int, KeysValues] = {}

    def __call__(
        self, rows: Sequence[int], sink: dict[int, tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, dict[int, np.ndarray], dict[int, int]]:
        """Hidden states behind the last layer of the sequences at ``rows``, which are (part of) one pack.

        Args:
            rows: sequences.
            sink: gets each layer's keys and values [Hkv, N, D] of the units' tokens.

        Returns:
            States [N, D]; of each row, the places in them of its tokens behind its trunk; and its trunk.
        """
        units: list[Unit] = []
        where: dict[int, np.ndarray] = {}
        trunk_of: dict[int, int] = {}
        offset = 0
        for unit, owners in self.trie.units(rows):
            for path, members in zip(unit.paths, owners):
                where.update((row, path + offset) for row in members)
                trunk_of.update((row, unit.trunk) for row in members)
            units.append(unit)
            offset += len(unit.ids)
        self._prepare({unit.trunk for unit in units})
        return self._run(units, sink), where, trunk_of

    def prefix(self, trunk: int) -> KeysValues:
        """Keys and values of all that is before the end of a trunk of the last pack."""
        return self._prefixes[trunk]

    def _run(self, units: Sequence[Unit], sink: dict[int, tuple[Tensor, Tensor]] | None) -> Tensor:
        sizes = [len(unit.ids) for unit in units]
        parts = [units[part] for part in self.lanes.share(sizes, LEAST_TOKENS)]
        states, sinks, padding = zip(*self.lanes.run(partial(self._run_part, sink is not None), parts))
        self.work.computed_tokens += sum(sizes)
        self.work.padding_tokens += sum(padding)
        if sink is not None:
            for layer in sinks[0]:
                k, v = zip(*(each[layer] for each in sinks))
                sink[layer] = _joined(k, 1), _joined(v, 1)
        return _joined(states, 0)

    def _run_part(
        self, keep: bool, units: Sequence[Unit]
    ) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]], int]:
        device = self.lanes.device
        ids = torch.from_numpy(np.concatenate([unit.ids for unit in units])).long().to(device)
        positions = torch.from_numpy(np.concatenate([unit.positions for unit in units])).long().to(device)
        sink: dict[int, tuple[Tensor, Tensor]] = {}
        attend = PackAttention(units, self._prefixes, device, sink if keep else None)
        return self.forward(ids, positions, attend), sink, attend.padding

    def _prepare(self, trunks: set[int]) -> None:
        """Compute the trunks' keys and values that are not there yet, parents first; let go of the others."""
        wanted = {t for trunk in trunks for t in self.trie.chain_of(trunk)}
        self._prefixes = {t: kept for t, kept in self._prefixes.items() if t in wanted}
        while missing := sorted(wanted - self._prefixes.keys()):
            have = {-1, *self._prefixes}
            ready = [t for t in missing if self.trie.trunks[t].parent in have]
            units = [_as_unit(self.trie, t) for t in ready]
            layers: dict[int, tuple[Tensor, Tensor]] = {}
            self._run(units, layers)
            at = 0
            for trunk, unit in zip(ready, units):
                span = slice(at, at := at + len(unit.ids))
                own = [(layers[i][0][:, span], layers[i][1][:, span]) for i in sorted(layers)]
                before = self._prefixes.get(unit.trunk)
                if before is None:
                    self._prefixes[trunk] = [(k.clone(), v.clone()) for k, v in own]
                else:
                    pairs = zip(before, own)
                    self._prefixes[trunk] = [
                        (torch.cat([a, k], 1), torch.cat([b, v], 1)) for (a, b), (k, v) in pairs
                    ]


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]


def _as_unit(trie: Trie, index: int) -> Unit:
    trunk = trie.trunks[index]
    n = len(trunk.ids)
    positions = np.arange(trunk.start, trunk.end, dtype=np.int32)
    return Unit(trunk.parent, trunk.ids, positions, np.full(n, n, dtype=np.int32), [np.arange(n)])


# ---- whether a module can be run packed


def supports(module: Any, forward: Forward, device: torch.device) -> bool:
    """Whether packed passes of ``forward`` give this module's own hidden states: tried on a few tokens with a
    trunk, a branch and a second sequence, instead of read from a list of names. Call it in eval mode, without
    gradients."""
    base = getattr(module, "base_model", module)
    config = module.config.get_text_config()
    if base is module or getattr(config, "attention_chunk_size", None):  # chunks are made by masks, not told
        return False
    rope = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None))
    if "dynamic" in rope or "longrope" in rope:  # angles that depend on the longest sequence of a pass
        return False
    vocabulary = config.vocab_size
    trunk = [(7 * i + 3) % vocabulary for i in range(6)]
    sequences = [
        [*trunk, 1 % vocabulary, 5 % vocabulary],
        [*trunk, 1 % vocabulary, 2 % vocabulary],
        [*trunk, 4 % vocabulary],
        [(5 * i + 2) % vocabulary for i in range(9)],
    ]
    trie = Trie(sequences, [7, 7, 6, 0], budget=64, unit=4, worthwhile=4)
    try:
        # autocast, in training, would compare one rounding with another
        with torch.autocast(device.type, enabled=False):
            return _agrees(base, forward, trie, sequences, device)
    except Exception as error:  # whatever a foreign module raises: it is then run the plain way
        if is_out_of_memory(error):
            raise
        return False


def _agrees(
    base: Any, forward: Forward, trie: Trie, sequences: list[list[int]], device: torch.device
) -> bool:
    run = TriePass(forward, trie, Lanes(device), Work())
    for pack in trie.packs:
        states, where, _ = run(pack)
        for row in pack:
            ids = torch.tensor([sequences[row]], device=device)
            want = base(input_ids=ids, use_cache=False).last_hidden_state[0].float()
            got = states[torch.from_numpy(where[row]).long().to(device)].float()
            loose = 1e-4 if states.dtype == torch.float32 else 5e-2
            scale = float(want.abs().max())
            if not torch.allclose(got, want[-len(got) :], rtol=loose, atol=loose * max(1.0, scale)):
                return False
    return True
