"""The integer core in plain ONNX operators on integer tensors, for any ONNX runtime.

Products of 8-bit codes are MatMulInteger and ConvInteger; everything else is integer arithmetic
in int32, or int64 where the proven ranges need it. Ports carry codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hqc.analysis.partition import Port
from hqc.backends.layers.layout import is_identity
from hqc.integrations import core
from hqc.integrations.core import Emitter, Held
from hqc.ir import Array
from hqc.ir.windows import Window
from hqc.numerics.types import INT64_BITS, Codes, Range, Rounding

OPSET, IR_VERSION = 18, 10
_PORTS = ("uint8", "int8", "uint16", "int16", "int32", "int64")
_BITS32 = 31


def export_onnx_integer(model: object, *, example_inputs: object = None) -> onnx.ModelProto:
    """The core of a model as an ONNX graph of integer operators.

    Inputs and outputs are codes, (N, *shape), named after the ports of `lowered(model)`, whose
    `encode` and `decode` are the host's part.

    Args:
        model: see `hqc.integrations.core.lowered`.
        example_inputs: for a module.

    Raises:
        HqcError: HQC401, something does not fit 62 bits.
    """
    cut = core.lowered(model, example_inputs=example_inputs)
    graph = _Graph()
    core.walk(cut, graph)
    return finish(graph.proto, core.port_properties(cut))


def finish(graph: onnx.GraphProto, properties: dict[str, str], **domains: int) -> onnx.ModelProto:
    """A checked model of a graph, with metadata."""
    opsets = [helper.make_opsetid("", OPSET)]
    opsets += [helper.make_opsetid(name, version) for name, version in domains.items()]
    proto = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hqc"
    )
    helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto, full_check=not domains)
    return proto


def narrowest(range_: Range, names: Sequence[str] = _PORTS) -> str:
    """The first of some numpy integer types that holds a range."""
    for name in names:
        limits = np.iinfo(name)
        if limits.min <= range_.lo and range_.hi <= limits.max:
            return name
    raise OverflowError(f"{range_} in {names}")


class _Graph(Emitter):
    """Writes the graph; a held tensor `x` is the ONNX tensor `x__codes`, of type `kinds[x]`."""

    target = "integer ONNX"

    def __init__(self) -> None:
        self.proto = onnx.GraphProto(name="core")
        self._kinds: dict[str, str] = {}
        self._made: set[str] = set()

    # --- writing ----------------------------------------------------------------------------

    def _op(self, op: str, out: str, *inputs: str, **attributes: Any) -> str:
        self.proto.node.append(helper.make_node(op, inputs, [out], name=out, **attributes))
        return out

    def _const(self, name: str, array: Array, kind: str = "int64") -> str:
        name = f"{name}__{len(self.proto.initializer)}"
        tensor = numpy_helper.from_array(np.asarray(array, np.dtype(kind), order="C"), name)
        self.proto.initializer.append(tensor)
        return name

    def _cast(self, tensor: str, kind: str) -> str:
        out = f"{tensor}__{kind}"
        if out not in self._made:
            self._made.add(out)
            self._op("Cast", out, tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
        return out

    def _as(self, x: Held, kind: str) -> str:
        tensor = f"{x.name}__codes"
        return tensor if self._kinds[x.name] == kind else self._cast(tensor, kind)

    def _define(self, out: Held, tensor: str, kind: str) -> None:
        wanted = _kind(out.range.magnitude_bits)
        self._kinds[out.name] = wanted
        if kind == wanted:
            self._op("Identity", f"{out.name}__codes", tensor)
        else:
            to = helper.np_dtype_to_tensor_dtype(np.dtype(wanted))
            self._op("Cast", f"{out.name}__codes", tensor, to=to)

    def _port(self, port: Port, kind: str) -> onnx.ValueInfoProto:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return helper.make_tensor_value_info(port.name, dtype, ["N", *port.shape])

    # --- operations -------------------------------------------------------------------------

    def input(self, out: Held, port: Port) -> None:
        """A port in the narrowest integer type."""
        kind = narrowest(port.type.limits)
        self.proto.input.append(self._port(port, kind))
        self._define(out, port.name, kind)

    def output(self, x: Held, port: Port) -> None:
        """A port in the narrowest integer type, named `<port>_codes` where it is an input too."""
        kind = narrowest(port.type.limits.join(Range(x.range.lo, x.range.hi, x.exponent)))
        both = any(port.name == given.name for given in self.proto.input)
        name = f"{port.name}_codes" if both else port.name
        self.proto.output.append(self._port(replace(port, name=name), kind))
        self._op("Identity", name, self._as(x, kind))

    def matmul(self, out: Held, x: Held, weight: Codes) -> None:
        """MatMulInteger where both sides have 8 bits, else MatMul of integers."""
        bits, name = core.sum_bits(x, weight.T), f"{out.name}__sum"
        if (small := _eight(x.range, weight)) is not None and bits <= _BITS32:
            w = self._const(f"{out.name}__weight", weight, small[1])
            self._op("MatMulInteger", name, self._as(x, small[0]), w)
            self._define(out, name, "int32")
            return
        kind = self._kind(bits)
        w = self._const(f"{out.name}__weight", weight, kind)
        self._define(out, self._op("MatMul", name, self._as(x, kind), w), kind)

    def conv(self, out: Held, x: Held, weight: Codes, window: Window) -> None:
        """ConvInteger of unsigned by 8-bit codes, else a MatMul of what the windows read."""
        bits, name = core.sum_bits(x, weight), f"{out.name}__sum"
        small = _eight(x.range, weight)
        if small is not None and small[0] == "uint8" and bits <= _BITS32:
            w = self._const(f"{out.name}__weight", weight, small[1])
            self._op("ConvInteger", name, self._as(x, "uint8"), w, **window.attributes())
            self._define(out, name, "int32")
            return
        kind = self._kind(bits)
        n_out, per_group = weight.shape[:2]
        taps = math.prod(window.kernel)
        read = self._windows(out, self._as(x, kind), x, window, 0, kind)
        rows = self._shape(out, 0, window.group, per_group * taps, -1)
        read = self._op("Reshape", f"{out.name}__rows", read, rows)
        matrix = weight.reshape(window.group, n_out // window.group, per_group * taps)
        w = self._const(f"{out.name}__weight", matrix, kind)
        total = self._op("MatMul", name, w, read)
        shape = self._shape(out, -1, *out.shape)
        self._define(out, self._op("Reshape", f"{out.name}__shaped", total, shape), kind)

    def maximum(self, out: Held, x: Held, window: Window) -> None:
        """ReduceMax of what each window reads."""
        kind = self._kinds[x.name]
        read = self._windows(out, self._as(x, kind), x, window, x.range.lo, kind)
        axes = self._const(f"{out.name}__axes", np.array([2]))
        best = self._op("ReduceMax", f"{out.name}__best", read, axes, keepdims=0)
        shape = self._shape(out, -1, *out.shape)
        self._define(out, self._op("Reshape", f"{out.name}__shaped", best, shape), kind)

    def _windows(
        self, out: Held, tensor: str, x: Held, window: Window, fill: int, kind: str
    ) -> str:
        """(N, C, taps, windows) of a tensor; what hangs over is `fill`."""
        taps = window.taps(x.shape[1:]).T
        name = f"{out.name}__flat"
        flat = self._op("Reshape", name, tensor, self._shape(out, 0, x.shape[0], -1))
        if np.any(taps < 0):
            end = self._const(f"{out.name}__end", np.array([0, 0, 0, 0, 0, 1]))
            value = self._const(f"{out.name}__fill", np.array(fill), kind)
            flat = self._op("Pad", f"{name}_padded", flat, end, value)
        taps = np.where(taps < 0, math.prod(x.shape[1:]), taps)
        index = self._const(f"{out.name}__taps", taps)
        return self._op("Gather", f"{out.name}__read", flat, index, axis=2)

    def _shape(self, out: Held, *dims: int) -> str:
        return self._const(f"{out.name}__dims", np.array(dims))

    def pair(self, op: str, out: Held, x: Held, y: Held) -> None:
        """Add or Mul."""
        kind = self._widest(out, x, y)
        self._define(
            out, self._op(op, f"{out.name}__{op}", self._as(x, kind), self._as(y, kind)), kind
        )

    def constant(self, op: str, out: Held, x: Held, codes: Codes) -> None:
        """Add or Mul with an initializer."""
        largest = int(np.abs(codes).max(initial=0)).bit_length()
        kind = _kind(max(largest, out.range.magnitude_bits, x.range.magnitude_bits))
        c = self._const(f"{out.name}__constant", codes, kind)
        self._define(out, self._op(op, f"{out.name}__{op}", self._as(x, kind), c), kind)

    def shift(self, out: Held, x: Held, bits: int, rounding: Rounding) -> None:
        """Nudge, then a floor division: (x - mod(x, d)) / d, mod with the sign of d."""
        kind = self._kind(max(bits, x.range.magnitude_bits) + 1)
        nudge, tensor = core.Nudge.of(rounding, bits), self._as(x, kind)
        original = tensor
        if nudge.always:
            always = self._const(f"{out.name}__nudge", np.array(nudge.always), kind)
            tensor = self._op("Add", f"{out.name}__nudged", tensor, always)
        if nudge.condition:
            where = self._condition(out, original, nudge.condition, bits, kind)
            extra = self._const(f"{out.name}__extra", np.array(nudge.extra), kind)
            more = self._op("Mul", f"{out.name}__more", where, extra)
            tensor = self._op("Add", f"{out.name}__sum", tensor, more)
        self._define(out, self._floor(f"{out.name}__floor", tensor, 1 << bits, kind), kind)

    def _floor(self, name: str, tensor: str, divisor: int, kind: str) -> str:
        d = self._const(f"{name}__by", np.array(divisor), kind)
        rest = self._op("Mod", f"{name}__rest", tensor, d)
        whole = self._op("Sub", f"{name}__whole", tensor, rest)
        return self._op("Div", name, whole, d)

    def _condition(self, out: Held, tensor: str, what: str, bits: int, kind: str) -> str:
        """1 where a condition of `Nudge` holds, else 0."""
        name = f"{out.name}__{what}"
        if what == "odd":
            quotient = self._floor(f"{name}_quotient", tensor, 1 << bits, kind)
            two = self._const(f"{name}_two", np.array(2), kind)
            return self._op("Mod", name, quotient, two)
        zero = self._const(f"{name}_zero", np.array(0), kind)
        compare = "Less" if what == "negative" else "Greater"
        return self._cast(self._op(compare, name, tensor, zero), kind)

    def clamp(self, out: Held, x: Held, lo: int, hi: int | None) -> None:
        """Max, then Min; ends that the range does not reach are left out."""
        kind, tensor = self._kinds[x.name], self._as(x, self._kinds[x.name])
        for op, end in (("Max", max(lo, x.range.lo)), ("Min", x.range.hi if hi is None else hi)):
            if (op == "Max" and end > x.range.lo) or (op == "Min" and end < x.range.hi):
                c = self._const(f"{out.name}__{op}", np.array(end), kind)
                tensor = self._op(op, f"{out.name}__{op}", tensor, c)
        self._define(out, tensor, kind)

    def thresholds(self, out: Held, x: Held, rows: Codes, bias: int) -> None:
        """Compare with all thresholds at once, and count."""
        wide = int(np.abs(rows).max(initial=0)).bit_length()
        kind = _kind(max(wide, x.range.magnitude_bits))
        last = self._const(f"{out.name}__axis", np.array([-1]))
        column = self._op("Unsqueeze", f"{out.name}__column", self._as(x, kind), last)
        shaped = rows.reshape(len(rows), *(1,) * (len(x.shape) - 1), rows.shape[1])
        c = self._const(f"{out.name}__thresholds", shaped, kind)
        hit = self._op("GreaterOrEqual", f"{out.name}__hit", column, c)
        total = self._op(
            "ReduceSum", f"{out.name}__count", self._cast(hit, "int32"), last, keepdims=0
        )
        offset = self._const(f"{out.name}__bias", np.array(bias), "int32")
        self._define(out, self._op("Add", f"{out.name}__total", total, offset), "int32")

    def move(self, out: Held, sources: Sequence[Held], index: Codes, fill: int) -> None:
        """A Reshape where elements stay in order, else a Gather of the flat samples."""
        kind = self._widest(out, *sources)
        flat, dims = index.ravel(), self._shape(out, -1, *index.shape)
        parts = [self._as(x, kind) for x in sources]
        total = sum(math.prod(x.shape) for x in sources)
        if len(parts) == 1 and is_identity(flat, total):
            self._define(out, self._op("Reshape", f"{out.name}__moved", parts[0], dims), kind)
            return
        row = [
            self._op("Flatten", f"{out.name}__row{i}", part, axis=1) for i, part in enumerate(parts)
        ]
        joined = row[0] if len(row) == 1 else self._op("Concat", f"{out.name}__all", *row, axis=1)
        if np.any(flat < 0):
            end = self._const(f"{out.name}__end", np.array([0, 0, 0, 1]))
            value = self._const(f"{out.name}__fill", np.array(fill), kind)
            joined = self._op("Pad", f"{out.name}__padded", joined, end, value)
        at = self._const(f"{out.name}__index", np.where(flat < 0, total, flat))
        taken = self._op("Gather", f"{out.name}__taken", joined, at, axis=1)
        self._define(out, self._op("Reshape", f"{out.name}__moved", taken, dims), kind)

    def _widest(self, *tensors: Held) -> str:
        return _kind(max(x.range.magnitude_bits for x in tensors))

    def _kind(self, bits: int) -> str:
        if bits > INT64_BITS:
            raise core.inexpressible(self.target, f"sums of {bits} bits", None, "use fewer bits")
        return _kind(bits)


def _kind(bits: int) -> str:
    return "int32" if bits <= _BITS32 else "int64"


def _eight(x: Range, weight: Codes) -> tuple[str, str] | None:
    """8-bit types of codes and weights, None where one needs more."""
    found = []
    for range_ in (x, Range(int(weight.min()), int(weight.max()))):
        kind = narrowest(range_)
        if kind not in ("uint8", "int8"):
            return None
        found.append(kind)
    return found[0], found[1]
