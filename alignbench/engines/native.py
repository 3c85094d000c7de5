"""Decoding in compiled steps (native.c): models whose layers it knows, in float32 or bfloat16 on a CPU.

A step of decoding a small model is hundreds of operations on a few thousand numbers each, which take less
time than calling them. Here a call takes a thread's rows through several steps at once, their tokens
included. Matrices are copied into the layout that this reads fastest, for as long as a call of ``generate``
lasts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_void_p
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignbench.engines import memory
from alignbench.engines.compiled import CCache, CLayer, CLinear, CModel, CNorm, CRows, library
from alignbench.engines.lanes import THREADS, Lanes
from alignbench.engines.layers import LayerSpec, Matrix, Spec, hooked, spec_of
from alignbench.engines.sampling import Rows
from alignbench.engines.slots import Slots, rounded
from alignbench.engines.steps import REFILL, ROW, Running
from alignbench.engines.stops import Pauses, StopStrings
from alignbench.engines.types import Generate, Sampling

if TYPE_CHECKING:
    from alignbench.engines.hf import HFEngine

CPU = torch.device("cpu")
STEPS = 8
"""Steps of a call, at most: rows that end wait for it."""
LEAST_ROWS = 4
"""Rows of a lane at least: with fewer, a second thread reads the weights for nothing."""
PROBE = 6
"""Tokens of a row on which it is tried."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
"""Nats between two ways to compute the same, at most."""
SHARE = 1 / 8
"""Of the machine's memory, what the copy of the matrices may take."""


def native_for(engine: HFEngine, length: int) -> Native | None:
    """The engine's model for rows of at most ``length`` tokens. None: not on a CPU, neither in float32 nor in
    bfloat16, no compiler, layers that are not known here, a module with hooks, or weights that are too large
    to be copied."""
    lib, head = library(), engine.head
    if lib is None or engine.device.type != "cpu" or engine.scale is None or type(head) is not nn.Linear:
        return None
    weights = list(engine.module.parameters())
    if {weight.dtype for weight in weights} not in ({torch.float32}, {torch.bfloat16}):
        return None
    total, _ = memory.memory_of(engine.device)
    copied = 4 * (sum(weight.numel() for weight in weights) + head.weight.numel())
    spec = spec_of(engine.module) if copied <= SHARE * total else None
    if spec is None or spec.size % int(lib.vector_floats()) or hooked(head):
        return None
    if not spec.fits(len(head.weight), length):
        return None
    return Native(lib, spec, head, engine.scale, length)


def agrees(engine: HFEngine) -> bool:
    """Whether compiled steps give the module's own log-probabilities: tried on two rows, each of which goes
    on from one token. Call it in eval mode, without gradients, where ``native_for`` gives something."""
    try:
        native = native_for(engine, PROBE)
        return native is not None and _agrees(engine, native)
    except Exception as error:  # whatever a module that is not quite as its name says raises
        if memory.is_out_of_memory(error):
            raise
        return False


def _agrees(engine: HFEngine, native: Native) -> bool:
    requests = [Generate("", Sampling(PROBE)), Generate("", Sampling(PROBE, temperature=1.0), seed=1)]
    running = Running.none(Rows.of(requests, engine.vocabulary, engine.device), requests, engine.device)
    running.add([0, 1], [-1, -1])
    running.write(0, torch.tensor([1, 3], device=CPU) % engine.vocabulary, _zeros(2), _zeros(2))
    running.waiting = False
    slots = Slots(2, rounded(PROBE))
    shape = 2, native.model.groups, slots.capacity, native.model.size
    slots.layers = {i: (_zeros(*shape), _zeros(*shape)) for i in range(native.model.layers)}
    pauses = Pauses(engine.vocabulary, (), StopStrings(lambda rows: []), ())
    NativeSteps(native, Lanes(engine.device), slots, pauses).advance(running)
    want = engine.module(input_ids=running.tokens, use_cache=False).logits[:, :-1].float().log_softmax(-1)
    chosen = want.gather(-1, running.tokens[:, 1:, None])[..., 0]
    loose = TOLERANCE[engine.module.dtype]
    greedy = bool((chosen[0] >= want[0].amax(-1) - loose).all())
    return greedy and torch.allclose(running.logprobs[0, :, 1:], chosen, rtol=0, atol=loose)


def _empty(*shape: int) -> Tensor:
    """What C reads as floats, whatever torch's defaults are."""
    return torch.empty(shape, dtype=torch.float32, device=CPU)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float32, device=CPU)


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
        self._halves = bool(lib.multiplies_halves()) and head.weight.dtype == torch.bfloat16
        layers = (CLayer * len(spec.layers))(*map(self._layer, spec.layers))
        cosine, sine = spec.angles(torch.arange(length, device=CPU)) if spec.angles else (None, None)
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
        weight = weight.float()
        outputs, inputs = weight.shape
        laid_out = _empty(self._padded(outputs) * inputs)
        lay = self.lib.lay_panels
        lay(weight.data_ptr(), outputs, inputs, weight.stride(0), weight.stride(1), laid_out.data_ptr())
        return laid_out

    def turn_keys(self, keys: Tensor, columns: int) -> None:
        """Bring the first ``columns`` of keys [S, Hkv, C, D], a view of whole slots, into panels of columns,
        where they lie."""
        slots, groups, capacity, size = keys.shape
        room = _empty(self._panel * size)
        self.lib.turn_keys(keys.data_ptr(), slots * groups, capacity, columns, size, room.data_ptr())

    # ---- inside

    def _padded(self, outputs: int) -> int:
        return -(-outputs // self._panel) * self._panel

    def _halves_of(self, weight: Tensor) -> Tensor:
        """The same in bfloat16, as pairs of inputs."""
        outputs, inputs = weight.shape
        laid_out = torch.empty(
            self._padded(outputs) * (inputs + inputs % 2), dtype=torch.bfloat16, device=CPU
        )
        lay = self.lib.lay_halves
        lay(weight.data_ptr(), outputs, inputs, weight.stride(0), weight.stride(1), laid_out.data_ptr())
        return laid_out

    def _pointer(self, x: Tensor | None) -> int | None:
        """Of contiguous numbers in float32, held as long as this is."""
        return None if x is None else self._hold(x.detach().float().contiguous())

    def _hold(self, x: Tensor) -> int:
        self._held.append(x)
        return x.data_ptr()

    def _norm(self, module: Any) -> CNorm:
        if module is None:
            return CNorm(None, None)
        return CNorm(self._pointer(module.weight), self._pointer(getattr(module, "bias", None)))

    def _linear(self, matrix: Matrix) -> CLinear:
        outputs, inputs = matrix.weight.shape
        bias = None
        if matrix.bias is not None:
            bias = _zeros(self._padded(outputs))
            bias[:outputs] = matrix.bias
        laid_out = (self._halves_of if self._halves else self.panels)(matrix.weight)
        return CLinear(self._hold(laid_out), self._pointer(bias), inputs, outputs, self._halves)

    def _layer(self, spec: LayerSpec) -> CLayer:
        norms = {name: self._norm(getattr(spec, name)) for name in ("before", "behind", "query", "key")}
        linears = {name: self._linear(getattr(spec, name)) for name in ("qkv", "out", "up", "down")}
        return CLayer(**norms, **linears, window=spec.window or 0, scale=spec.scale)


class NativeSteps:
    """Takes the rows of a wave through several steps a call; see ``steps.Steps``.

    Args:
        native: the model.
        lanes: the threads that share the rows.
        slots: of the rows. Their keys lie in panels of columns from when rows have entered.
        pauses: behind which tokens a row is to be looked at.
    """

    ordered = False

    def __init__(self, native: Native, lanes: Lanes, slots: Slots, pauses: Pauses) -> None:
        self.native, self.lanes, self.slots, self.pauses = native, lanes, slots, pauses
        self._cache: CCache | None = None
        self._held: list[Any] = []

    def entered(self, first: int, n: int, columns: int) -> None:
        for keys, _ in self.slots.layers.values():
            self.native.turn_keys(keys[first : first + n], columns)

    def advance(self, running: Running) -> int:
        if self._cache is None:  # now that there are rows
            self._cache = self._filled()
            chosen = running.parameters
            self._temperature = chosen.temperature.masked_fill(chosen.greedy, 0.0)
        # with fewer than `going` of a lane's rows it comes back, so that waiting rows can enter
        going = 1 - 1 / REFILL if running.waiting else 0.0
        cost = running.column + ROW
        parts = self.lanes.share((cost / cost.double().mean()).tolist(), LEAST_ROWS, THREADS)
        made = sum(self.lanes.run(partial(self._decode, self._rows(running), self._cache, going), parts))
        self.pauses.learn(running.newest.tolist())
        return made

    # ---- inside

    def _decode(self, rows: CRows, kept: CCache, going: float, part: slice) -> int:
        lib, n = self.native.lib, part.stop - part.start
        model, cache, least = byref(self.native.model), byref(kept), round(going * n)
        room = _empty(lib.scratch_floats(model, cache, n, rows.any_sampled))
        made: int = lib.decode(
            model, cache, byref(rows), part.start, part.stop, STEPS, least, room.data_ptr()
        )
        return made

    def _rows(self, running: Running) -> CRows:
        chosen = running.parameters
        tensors = (
            running.column, running.step, running.row, running.limits, running.tokens, *running.logprobs,
            self._temperature, chosen.top_k, chosen.top_p, chosen.uniform, self.pauses.mask,
        )  # fmt: skip
        return CRows(
            *(x.data_ptr() for x in tensors),
            running.tokens.shape[1], chosen.uniform.shape[1], chosen.sampled,
        )  # fmt: skip

    def _filled(self) -> CCache:
        layers = [self.slots.layers[i] for i in sorted(self.slots.layers)]
        common = self.slots.common or []
        keys = [torch.cat([self.native.panels(head) for head in k]) for k, _ in common]
        values = [torch.cat([self.native.panels(head.t()) for head in v]) for _, v in common]
        kept = ([k for k, _ in layers], [v for _, v in layers], keys, values)
        shared = common[0][0].shape[1] if common else 0
        return CCache(*map(self._pointers, kept), self.slots.capacity, shared)

    def _pointers(self, tensors: Sequence[Tensor]) -> Any:
        array = (c_void_p * max(1, len(tensors)))(*(x.data_ptr() for x in tensors))
        self._held += [tensors, array]
        return ctypes.cast(array, POINTER(c_void_p))
