"""One walk over the integer core for every target that computes on codes.

The walk reads each node of a partition's core once and says, in integers only, what has to be
computed: points are aligned, quantisers are a shift with a rounding and a clamp, thresholds are
codes. A target is an `Emitter`: one method per integer operation.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx_ir import Node, Value

from hqc.analysis.chain_steps import is_pass_through
from hqc.analysis.dependence import exact_values_known
from hqc.analysis.partition import MAXIMA, Partition, Port, partition
from hqc.analysis.precision_propagation import channel_ranges
from hqc.analysis.ranges import integers
from hqc.analysis.rearrangements import is_rearrangement, rearrangement, sample_shape
from hqc.diagnostics import HqcError, reject
from hqc.ir import constant, location_of, range_of, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.ir.windows import Window, spatial_shape
from hqc.numerics.types import INT64_BITS, Codes, FixedType, Range, Rounding


@dataclass(frozen=True)
class Held:
    """A tensor of codes: its name, its shape per sample, and the proven range of its codes."""

    name: str
    shape: tuple[int, ...]
    range: Range

    @property
    def exponent(self) -> int:
        """The step of the codes is 2**exponent."""
        return self.range.exponent


class Emitter(abc.ABC):
    """What a target provides; each method defines the codes of `out` from those of its inputs."""

    #: How messages call the target.
    target: str = ""

    @abc.abstractmethod
    def input(self, out: Held, port: Port) -> None:
        """An input port."""

    @abc.abstractmethod
    def output(self, x: Held, port: Port) -> None:
        """An output port; the codes are on the port's step."""

    @abc.abstractmethod
    def matmul(self, out: Held, x: Held, weight: Codes) -> None:
        """x (N, n_in) by a weight (n_in, n_out)."""

    @abc.abstractmethod
    def conv(self, out: Held, x: Held, weight: Codes, window: Window) -> None:
        """A convolution by a weight (n_out, n_in / group, *kernel), padded with 0."""

    @abc.abstractmethod
    def maximum(self, out: Held, x: Held, window: Window) -> None:
        """The maximum of each window; padding never wins."""

    @abc.abstractmethod
    def pair(self, op: str, out: Held, x: Held, y: Held) -> None:
        """ "Add" or "Mul" of two tensors of one shape."""

    @abc.abstractmethod
    def constant(self, op: str, out: Held, x: Held, codes: Codes) -> None:
        """ "Add" or "Mul" with codes (*shape), sizes 1 broadcast."""

    @abc.abstractmethod
    def shift(self, out: Held, x: Held, bits: int, rounding: Rounding) -> None:
        """Codes divided by 2**bits and rounded."""

    @abc.abstractmethod
    def clamp(self, out: Held, x: Held, lo: int, hi: int | None) -> None:
        """Codes not below `lo` and, where given, not above `hi`."""

    @abc.abstractmethod
    def thresholds(self, out: Held, x: Held, rows: Codes, bias: int) -> None:
        """`bias` + how many of rows (C or 1, K) are at most the code."""

    @abc.abstractmethod
    def move(self, out: Held, sources: Sequence[Held], index: Codes, fill: int) -> None:
        """Element i is element index[i] of the sources, one behind the other; -1 is `fill`."""

    def quantise(self, out: Held, x: Held, type_: FixedType) -> None:
        """Assignment to a saturating type: a shift, then a clamp."""
        bits, limits = -(x.exponent + type_.fraction), type_.limits
        moved = replace(x, name=f"{out.name}_moved", range=_assigned(x.range, type_))
        if bits < 0:
            self.constant("Mul", moved, x, np.array(1 << -bits).reshape((1,) * len(x.shape)))
        elif bits > x.range.magnitude_bits + 1:  # less than a quarter: only the sign matters
            sign = replace(x, name=f"{out.name}_sign", range=Range(-1, 1, 0))
            self.clamp(sign, x, -1, 1)
            self.shift(moved, sign, 2, type_.rounding)
        elif bits:
            self.shift(moved, x, bits, type_.rounding)
        else:
            moved = x
        self.clamp(out, moved, limits.lo, limits.hi)


def lowered(
    model: object, *, example_inputs: object = None, pipeline: str | None = None
) -> Partition:
    """Any model as a `Partition` of its integer form: the core, and the host's part around it.

    Args:
        model: what `hqc.load` takes, a directory that hqc compiled, or a `Partition`.
        example_inputs: for a module; see `hqc.load`.
        pipeline: passes to run, None for the default ones; an integer model runs none.

    Raises:
        HqcError: what keeps the model from being loaded or lowered.
    """
    if isinstance(model, Partition):
        return model
    from hqc.artifact import Artifact
    from hqc.driver import load, run_passes
    from hqc.ir import State, state_of
    from hqc.pipeline import DEFAULT

    if isinstance(model, str | Path) and Path(model).is_dir():
        return Artifact.open(model).partition
    loaded = load(model, example_inputs=example_inputs)
    if state_of(loaded) is State.QUANTISED or pipeline is not None:
        loaded = run_passes(loaded, pipeline or DEFAULT)
    return partition(loaded)


def walk(cut: Partition, emit: Emitter) -> None:
    """Say the whole core to an emitter, inputs first, output ports last.

    Raises:
        HqcError: HQC401, the target has no exact form of a node.
    """
    _Walk(cut, emit).run()


def inexpressible(target: str, what: str, node: Node | None = None, *helps: str) -> HqcError:
    """HQC401: a target cannot say this."""
    where = location_of(node) if node is not None else None
    return reject("HQC401", f"{target} has no exact form of {what}", where=where, helps=helps)


class _Walk:
    """The state of one walk: what is known of each value, and the names in use."""

    def __init__(self, cut: Partition, emit: Emitter):
        self.cut, self.emit = cut, emit
        self.ranges = _ranges(cut)
        self.known: dict[str, Held] = {}
        self.count = 0

    def run(self) -> None:
        for port in self.cut.inputs:
            held = Held(port.name, port.shape, port.type.limits)
            self.emit.input(held, port)
            self.known[port.name] = held
        for node in self.cut.core:
            self._node(node)
        for port in self.cut.outputs:
            self.emit.output(self.aligned(self.known[port.name], -port.type.fraction), port)

    def _node(self, node: Node) -> None:
        name = str(node.outputs[0].name)
        data = [v for v in node.inputs if v is not None and not exact_values_known(v)]
        if is_pass_through(node):
            self.known[name] = self.known[str(data[0].name)]
            return
        rule = _rule(node)
        if rule is None:
            raise self.inexpressible(node.op_type, node, "run the default pipeline")
        value = node.outputs[0]
        out = Held(name, sample_shape(value), self.ranges[value])
        if out.range.magnitude_bits > INT64_BITS:
            what = f"{out.range.magnitude_bits} bits in {name}"
            raise self.inexpressible(what, node, "use fewer bits for the inputs or weights")
        rule(self, node, out, [self.known[str(v.name)] for v in data])
        self.known[name] = out

    def inexpressible(self, what: str, node: Node | None = None, *helps: str) -> HqcError:
        """HQC401: the target cannot say this."""
        return inexpressible(self.emit.target, what, node, *helps)

    def aligned(self, x: Held, exponent: int) -> Held:
        """The same values on another step; finer steps multiply, coarser ones lose nothing."""
        shift = x.exponent - exponent
        if not shift:
            return x
        self.count += 1
        held = replace(x, name=f"{x.name}_step{self.count}")
        if shift > 0:
            held = replace(held, range=x.range.at(exponent))
            if held.range.magnitude_bits > INT64_BITS:
                raise self.inexpressible(f"{x.name} on a step of 2**{exponent}")
            self.emit.constant("Mul", held, x, np.array(1 << shift).reshape((1,) * len(x.shape)))
            return held
        ends = x.range.lo >> -shift, -(-x.range.hi >> -shift)
        held = replace(held, range=Range(*ends, exponent))
        self.emit.shift(held, x, -shift, Rounding.FLOOR)
        return held


def _ranges(cut: Partition) -> dict[Value, Range]:
    """The proven range of each value of the core: what propagate-precision noted, or anew."""
    values = [*(v for node in cut.core for v in node.outputs), *_port_values(cut)]
    noted = {v: r for v in values if (r := range_of(v)) is not None}
    if len(noted) == len(set(values)):
        return noted
    return {v: r.joined for v, r in channel_ranges(cut.model).items()}


def _port_values(cut: Partition) -> list[Value]:
    names = {port.name for port in (*cut.inputs, *cut.outputs)}
    return [v for node in cut.model.graph for v in node.outputs if v.name in names]


def _rule(node: Node) -> Callable[[_Walk, Node, Held, list[Held]], None] | None:
    if is_rearrangement(node):
        return _move
    if Quant.matches(node):
        return _quantise
    if MultiThreshold.matches(node):
        return _thresholds
    return _RULES.get(node.op_type) if node.domain == "" else None


def _quantise(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    type_ = Quant.read(node).fixed_type
    x = data[0]
    if (
        type_ is None
        or max(x.range.magnitude_bits, x.range.magnitude_bits + x.exponent + type_.fraction)
        > INT64_BITS
    ):
        raise walk_.inexpressible("this quantiser", node, "run the default pipeline")
    walk_.emit.quantise(out, x, type_)


def _thresholds(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    view, x = MultiThreshold.read(node), data[0]
    if view.out_scale != 1 or view.out_bias != int(view.out_bias):
        raise walk_.inexpressible("scaled thresholds", node, "run the default pipeline")
    rows = np.ceil(np.ldexp(view.thresholds.astype(np.float64), -x.exponent))
    rows = np.clip(rows, x.range.lo, x.range.hi + 1).astype(np.int64)
    walk_.emit.thresholds(out, x, rows, int(view.out_bias))


def _matmul(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    weight, _ = integers(_weight(walk_, node))
    if weight.ndim != 2 or len(data[0].shape) != 1:
        raise walk_.inexpressible("a MatMul of this rank", node, "flatten first")
    walk_.emit.matmul(out, data[0], weight)


def _conv(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    weight, _ = integers(_weight(walk_, node))
    walk_.emit.conv(out, data[0], weight, Window.of(node))


def _weight(walk_: _Walk, node: Node) -> Value:
    weight = node.inputs[1]
    if weight is None or constant(weight) is None or type_of(weight) is None:
        raise walk_.inexpressible(f"{node.op_type} of two computed values", node)
    return weight


def _maximum(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    if node.op_type == "GlobalMaxPool":
        spatial = spatial_shape(node)
        none, one = (0,) * len(spatial), (1,) * len(spatial)
        walk_.emit.maximum(out, data[0], Window(spatial, one, one, none, none))
        return
    spatial = spatial_shape(node)
    walk_.emit.maximum(out, data[0], Window.of(node).closed(spatial))


def _arithmetic(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    adds = node.op_type == "Add"
    terms = [walk_.aligned(x, out.exponent) for x in data] if adds else data
    if sum(v is not None and not exact_values_known(v) for v in node.inputs) == 2:
        x, y = terms[0], terms[-1]
        if x.shape != y.shape:
            raise walk_.inexpressible("a sum that broadcasts", node, "expand first")
        walk_.emit.pair(node.op_type, out, x, y)
        return
    other = next(v for v in node.inputs if v is not None and exact_values_known(v))
    codes, exponent = integers(other)
    if adds:
        codes = codes << (exponent - out.exponent)
    walk_.emit.constant(node.op_type, out, terms[0], _per_element(codes, terms[0].shape))


def _per_element(codes: Codes, shape: tuple[int, ...]) -> Codes:
    """A constant that broadcasts against (N, *shape), with the axes of `shape` only."""
    full = codes.reshape((1,) * (len(shape) + 1 - codes.ndim) + codes.shape)
    return full.reshape(full.shape[1:])


def _relu(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    walk_.emit.clamp(out, data[0], 0, None)


def _move(walk_: _Walk, node: Node, out: Held, data: list[Held]) -> None:
    found = rearrangement(node)
    sources = [walk_.aligned(walk_.known[str(v.name)], out.exponent) for v in found.sources]
    fill = int(np.ldexp(found.fill, -out.exponent)) if np.any(found.index < 0) else 0
    walk_.emit.move(out, sources, found.index, fill)


_RULES: Mapping[str, Callable[[_Walk, Node, Held, list[Held]], None]] = {
    "MatMul": _matmul,
    "Conv": _conv,
    "Add": _arithmetic,
    "Mul": _arithmetic,
    "Relu": _relu,
    **dict.fromkeys(MAXIMA, _maximum),
}


def _assigned(range_: Range, type_: FixedType) -> Range:
    """The range after rounding to a type's step, before it saturates."""
    bits = -(range_.exponent + type_.fraction)
    if bits <= 0:
        return Range(range_.lo << -bits, range_.hi << -bits, -type_.fraction)
    return Range(range_.lo >> bits, -(-range_.hi >> bits), -type_.fraction)


def port_properties(cut: Partition) -> dict[str, str]:
    """The types of the ports, as metadata of exported files: value = code * 2**-fraction."""
    return {f"hqc.port.{p.name}": str(p.type) for p in (*cut.inputs, *cut.outputs)}


@dataclass(frozen=True)
class Nudge:
    """Rounding as a sum before a floor: floor((x + always + extra * [condition]) / 2**bits).

    Attributes:
        always: added to every code.
        condition: "odd" (floor(x / 2**bits) is), "negative", "positive", or "" for none.
        extra: added where the condition holds.
    """

    always: int
    condition: str = ""
    extra: int = 0

    @classmethod
    def of(cls, rounding: Rounding, bits: int) -> Nudge:
        """How a rounding mode nudges codes before `bits` >= 1 bits are dropped."""
        half, rest = 1 << (bits - 1), (1 << bits) - 1
        return {
            Rounding.ROUND: cls(half - 1, "odd", 1),
            Rounding.HALF_UP: cls(half, "negative", -1),
            Rounding.HALF_DOWN: cls(half, "positive", -1),
            Rounding.FLOOR: cls(0),
            Rounding.CEIL: cls(rest),
            Rounding.DOWN: cls(0, "negative", rest),
            Rounding.UP: cls(0, "positive", rest),
        }[rounding]


def sum_bits(x: Held, weight: Codes) -> int:
    """Bits of the largest partial sum of codes times weights (n_out, ...), in any order."""
    largest = int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0))
    return (max(abs(x.range.lo), abs(x.range.hi)) * largest).bit_length()
