"""The fast executor: the integer core as one onnxruntime session, with a certificate per node.

float32 holds every integer below 2**24 and float64 every integer below 2**53, so as long as the
proven ranges keep all partial sums of a node below that, floating-point arithmetic on its codes is
integer arithmetic: no rounding happens. Each node runs in the narrower of the two that suffices,
and the certificate says which and why. What fits neither is refused; the reference executor takes
over there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import is_pass_through
from hqc.analysis.dependence import exact_values_known
from hqc.analysis.partition import MAXIMA, Partition, partition
from hqc.analysis.precision_propagation import channel_ranges
from hqc.analysis.ranges import ChannelRange, integers
from hqc.analysis.rearrangements import is_rearrangement, rearrangement, sample_shape
from hqc.diagnostics import reject
from hqc.execution.im2col import unfold
from hqc.ir import Array, location_of
from hqc.ir.collector import collector_paused
from hqc.ir.onnxruntime_session import session
from hqc.ir.operators import MultiThreshold, Quant
from hqc.ir.windows import Window
from hqc.numerics.types import DOUBLE_BITS, SINGLE_BITS, Codes, Rounding

_SINGLE, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
_BITS = {_SINGLE: SINGLE_BITS, _DOUBLE: DOUBLE_BITS}
_OPSET = 18


class NodeCertificate(NamedTuple):
    """Why one node of the fast executor is exact.

    Attributes:
        node: its name.
        arithmetic: "float32" or "float64".
        reason: the bound that was proven.
    """

    node: str
    arithmetic: str
    reason: str


class Fast:
    """Fast exact executor of an integer model; values inside are codes, never scaled numbers."""

    @collector_paused()
    def __init__(self, model: Model | Partition, *, threads: int = 0):
        """Build the session.

        Raises:
            HqcError: HQC204, a value fits neither float32 nor float64; HQC205, an operator has no
                exact form.
        """
        self.partition = model if isinstance(model, Partition) else partition(model)
        builder = _Builder(channel_ranges(self.partition.model))
        for port in self.partition.inputs:
            builder.input(port.name, len(port.shape) + 1)
        for node in self.partition.core:
            builder.node(node)
        for port in self.partition.outputs:
            builder.output(port.name, port.type.fraction)
        self.certificate = tuple(builder.certificate)
        self._feeds = {
            i.name: helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
            for i in builder.graph.input
        }
        self._session: Any = session(builder.graph, _OPSET, threads=threads)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Model outputs of model inputs (N, ...), in the model's own units."""
        return self.partition.decode(self._run(self.partition.encode_floats(inputs)))

    def run_codes(self, codes: Mapping[str, Codes]) -> dict[str, Codes]:
        """Output port codes (N, *shape) of input port codes (N, *shape)."""
        return {name: found.astype(np.int64) for name, found in self._run(codes).items()}

    def _run(self, codes: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {n: codes[n].astype(dtype, copy=False) for n, dtype in self._feeds.items()}
        ports = [p.name for p in self.partition.outputs]
        results = self._session.run([f"{name}__codes" for name in ports], feeds)
        return dict(zip(ports, results, strict=True))


class _Builder:
    """Writes the ONNX graph; `kinds` is the float type in which each value's codes are held."""

    def __init__(self, ranges: Mapping[Value, ChannelRange]):
        self.graph = onnx.GraphProto(name="core")
        self.certificate: list[NodeCertificate] = []
        self._ranges = ranges
        self._named = {str(v.name): v for v in ranges}
        self._kinds: dict[str, int] = {}

    def input(self, name: str, rank: int) -> None:
        """A port, as codes in the float type that holds them all (ports have up to 32 bits)."""
        bits = self._ranges[self._named[name]].joined.magnitude_bits
        kind = _SINGLE if bits <= SINGLE_BITS else _DOUBLE
        self.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * rank))
        self._kinds[name] = kind

    def output(self, name: str, fraction: int) -> None:
        """A port's codes on the step 2**-fraction."""
        found = self._ranges[self._named[name]]
        shift = found.exponent + fraction
        kind = self._kinds[name]
        scaled = name
        if shift:
            scaled = self._op("Mul", f"{name}__scaled", kind, name, self._scalar(2.0**shift, kind))
        self._op("Identity", f"{name}__codes", kind, scaled)
        self.graph.output.append(helper.make_tensor_value_info(f"{name}__codes", kind, None))

    def node(self, node: Node) -> None:
        """One node of the core, on codes."""
        out = str(node.outputs[0].name)
        given = [v for v in node.inputs if v is not None]
        data = [v for v in given if v in self._ranges or not exact_values_known(v)]
        names = [str(v.name) for v in data]
        after = self._ranges[node.outputs[0]]
        if is_pass_through(node):
            self._op("Identity", out, self._kinds[names[0]], names[0])
        elif is_rearrangement(node):
            self._move(node, out, after)
        elif node.op_type in MAXIMA:
            self._maximum(node, out, names[0])
        elif node.op_type == "Conv":
            self._convolve(node, out, names[0], self._ranges[data[0]])
        elif node.op_type == "Relu":
            self._op("Relu", out, self._kinds[names[0]], names[0])
        elif Quant.matches(node):
            self._quant(node, out, names[0], self._ranges[data[0]])
        elif MultiThreshold.matches(node):
            self._thresholds(node, out, names[0], self._ranges[data[0]])
        elif node.op_type == "MatMul":
            self._matmul(node, out, names[0], self._ranges[data[0]])
        elif len(names) == 2:
            self._merge(node, out, names, [self._ranges[v] for v in data], after)
        else:
            self._constant(node, out, names[0], self._ranges[data[0]], after)

    def _op(self, op: str, out: str, kind: int, *inputs: str, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(op, inputs, [out], name=out, **attributes))
        self._kinds[out] = kind
        return out

    def _tensor(self, name: str, array: Array, kind: int) -> str:
        dtype = np.float32 if kind == _SINGLE else np.float64
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def _scalar(self, value: float, kind: int) -> str:
        name = f"scalar_{len(self.graph.initializer)}"
        return self._tensor(name, np.array(value), kind)

    def _choose(self, node: Node, largest: int, what: str, *inputs: str) -> int:
        bits = largest.bit_length()
        kind = _SINGLE if bits <= SINGLE_BITS else _DOUBLE
        if any(self._kinds[i] == _DOUBLE for i in inputs):
            kind = _DOUBLE
        if bits > _BITS[kind]:
            raise reject(
                "HQC204",
                f"{what} of {node.name} reach {bits} bits, float64 holds 53",
                where=location_of(node),
                helps=("use fewer bits for its inputs or weights",),
            )
        arithmetic = "float32" if kind == _SINGLE else "float64"
        self.certificate.append(
            NodeCertificate(
                str(node.name), arithmetic, f"{what} below 2**{bits} <= 2**{_BITS[kind]}"
            )
        )
        return int(kind)

    def _as(self, name: str, kind: int) -> str:
        if self._kinds[name] == kind:
            return name
        fresh = f"{name}__{'f64' if kind == _DOUBLE else 'f32'}"
        if fresh not in self._kinds:
            self._op("Cast", fresh, kind, name, to=kind)
        return fresh

    def _move(self, node: Node, out: str, after: ChannelRange) -> None:
        """A rearrangement as Reshape where elements stay in order, else as Gather."""
        found = rearrangement(node)
        names = [str(v.name) for v in found.sources]
        kind = max(self._kinds[n] for n in names)  # DOUBLE is the larger of the two
        dims = [-1, *found.index.shape]
        flat = found.index.ravel()
        parts = []
        for value, name in zip(found.sources, names, strict=True):
            shift = self._ranges[value].exponent - after.exponent
            parts.append(self._aligned(self._as(name, kind), shift, kind))
        if len(parts) == 1 and np.array_equal(flat, np.arange(math.prod(sample_shape(value)))):
            self._op("Reshape", out, kind, parts[0], self._integers(f"{out}__shape", dims))
            return
        rows = [
            self._op("Flatten", f"{out}__flat{i}", kind, x, axis=1) for i, x in enumerate(parts)
        ]
        if np.any(flat < 0):
            rows.append(self._filled(out, rows[0], found.fill * 2.0**-after.exponent, kind))
        joined = rows[0]
        if len(rows) > 1:
            joined = self._op("Concat", f"{out}__joined", kind, *rows, axis=1)
        last = sum(math.prod(sample_shape(v)) for v in found.sources)
        index = self._integers(f"{out}__index", np.where(flat < 0, last, flat))
        moved = self._op("Gather", f"{out}__moved", kind, joined, index, axis=1)
        self._op("Reshape", out, kind, moved, self._integers(f"{out}__shape", dims))

    def _filled(self, out: str, row: str, code: float, kind: int) -> str:
        """One column (N, 1) of a constant code."""
        first = self._op(
            "Gather", f"{out}__first", kind, row, self._integers(f"{out}__0", np.zeros(1)), axis=1
        )
        none = self._op("Mul", f"{out}__none", kind, first, self._scalar(0.0, kind))
        return self._op("Add", f"{out}__fill", kind, none, self._scalar(code, kind))

    def _integers(self, name: str, array: npt.ArrayLike) -> str:
        tensor = numpy_helper.from_array(np.asarray(array, np.int64), name)
        self.graph.initializer.append(tensor)
        return name

    def _maximum(self, node: Node, out: str, x: str) -> None:
        kind = self._kinds[x]
        if node.op_type == "GlobalMaxPool":
            self._op("GlobalMaxPool", out, kind, x)
            return
        window = Window.of(node)
        self._op("MaxPool", out, kind, x, **window.attributes(), ceil_mode=int(window.ceil))

    def _weights(self, node: Node, x: str, before: ChannelRange) -> tuple[Codes, int]:
        """The weights' codes, and the float type that holds all partial sums of products."""
        assert node.inputs[1] is not None
        codes, _ = integers(node.inputs[1])
        rows = codes.T if node.op_type == "MatMul" else codes.reshape(len(codes), -1)
        sums = int(np.abs(rows).sum(axis=1).max(initial=0))
        largest = max(abs(int(before.lo.min())), abs(int(before.hi.max()))) * sums
        return codes, self._choose(node, largest, "partial sums", x)

    def _convolve(self, node: Node, out: str, x: str, before: ChannelRange) -> None:
        codes, kind = self._weights(node, x, before)
        x = self._as(x, kind)
        window = Window.of(node)
        if kind == _SINGLE:
            weight = self._tensor(f"{out}__weight", codes, kind)
            self._op("Conv", out, kind, x, weight, **window.attributes())
            return
        made, constants = unfold(node, out, x, codes.astype(np.float64), window.group)
        self.graph.node.extend(made)
        self.graph.initializer.extend(constants)
        self._kinds[out] = kind

    def _quant(self, node: Node, out: str, x: str, before: ChannelRange) -> None:
        quant = Quant.read(node)
        type_ = quant.fixed_type
        assert type_ is not None
        shift = before.exponent + type_.fraction
        largest = before.joined.magnitude_bits + max(0, shift)
        if shift < 0 and quant.rounding is Rounding.HALF_UP:
            largest += 1  # the half that is added must not round the sum
        kind = self._choose(node, (1 << largest) - 1, "codes", x)
        x = self._as(x, kind)
        limits = type_.limits
        if shift:
            x = self._op("Mul", f"{out}__shifted", kind, x, self._scalar(2.0**shift, kind))
        ends = self._scalar(limits.lo, kind), self._scalar(limits.hi, kind)
        x = self._op("Clip", f"{out}__clipped", kind, x, *ends)
        if shift < 0:
            x = self._round(quant.rounding, f"{out}__rounded", kind, x)
        if limits.magnitude_bits <= SINGLE_BITS and self._kinds[x] == _DOUBLE:
            self._op("Cast", out, _SINGLE, x, to=_SINGLE)  # codes that fit float32 go on in it
        else:
            self._op("Identity", out, self._kinds[x], x)

    def _round(self, rounding: Rounding, out: str, kind: int, x: str) -> str:
        """Clipped codes to integers; ONNX Round is to nearest, ties to even."""
        if rounding is Rounding.ROUND:
            return self._op("Round", out, kind, x)
        if rounding is Rounding.FLOOR:
            return self._op("Floor", out, kind, x)
        sign = self._op("Sign", f"{out}_sign", kind, x)
        size = self._op("Abs", f"{out}_abs", kind, x)
        if rounding is Rounding.DOWN:
            size = self._op("Floor", f"{out}_floor", kind, size)
        else:
            half = self._scalar(0.5 if rounding is Rounding.HALF_UP else -0.5, kind)
            size = self._op("Add", f"{out}_half", kind, size, half)
            op = "Floor" if rounding is Rounding.HALF_UP else "Ceil"
            size = self._op(op, f"{out}_cut", kind, size)
        return self._op("Mul", out, kind, sign, size)

    def _thresholds(self, node: Node, out: str, x: str, before: ChannelRange) -> None:
        view = MultiThreshold.read(node)
        bounds = np.asarray(view.thresholds, np.float64) * 2.0**-before.exponent
        kind = self._choose(node, 1 << before.joined.magnitude_bits, "codes", x)
        x = self._as(x, kind)
        total = ""
        rank = max(2, len(node.outputs[0].shape or ()))
        for k in range(bounds.shape[1]):
            row = bounds[:, k] if bounds.shape[0] > 1 else bounds[0, k]
            shaped = np.reshape(row, (-1, *(1,) * (rank - 2))) if np.ndim(row) else row
            name = self._tensor(f"{out}__t{k}", np.ceil(shaped), kind)
            hit = self._op("GreaterOrEqual", f"{out}__ge{k}", kind, x, name)
            count = self._op("Cast", f"{out}__c{k}", _SINGLE, hit, to=_SINGLE)
            total = count if not total else self._op("Add", f"{out}__s{k}", _SINGLE, total, count)
        self._op("Add", out, _SINGLE, total, self._scalar(view.out_bias, _SINGLE))

    def _matmul(self, node: Node, out: str, x: str, before: ChannelRange) -> None:
        codes, kind = self._weights(node, x, before)
        weight = self._tensor(f"{out}__weight", codes, kind)
        self._op("MatMul", out, kind, self._as(x, kind), weight)

    def _merge(
        self,
        node: Node,
        out: str,
        names: list[str],
        before: list[ChannelRange],
        after: ChannelRange,
    ) -> None:
        if node.op_type == "Mul":
            largest = sum(b.joined.magnitude_bits for b in before)
            kind = self._choose(node, (1 << largest) - 1, "products", *names)
            self._op("Mul", out, kind, *(self._as(n, kind) for n in names))
            return
        largest = max(b.at(after.exponent).joined.magnitude_bits for b in before) + 1
        kind = self._choose(node, (1 << largest) - 1, "sums", *names)
        terms = [
            self._aligned(self._as(n, kind), b.exponent - after.exponent, kind)
            for n, b in zip(names, before, strict=True)
        ]
        self._op("Add", out, kind, *terms)

    def _aligned(self, name: str, shift: int, kind: int) -> str:
        if not shift:
            return name
        fresh = f"{name}__by{shift}_{len(self.graph.node)}"
        return self._op("Mul", fresh, kind, name, self._scalar(2.0**shift, kind))

    def _constant(
        self, node: Node, out: str, x: str, before: ChannelRange, after: ChannelRange
    ) -> None:
        constants = (v for v in node.inputs if v is not None and v not in self._ranges)
        other = next(v for v in constants if exact_values_known(v))
        codes, exponent = integers(other)
        if node.op_type == "Mul":
            largest = 1 << after.joined.magnitude_bits
            kind = self._choose(node, largest, "products", x)
        else:
            codes = codes << (exponent - after.exponent)
            wide = before.at(after.exponent).joined.magnitude_bits
            top = max(wide, int(np.max(np.abs(codes))).bit_length(), after.joined.magnitude_bits)
            kind = self._choose(node, (1 << top) - 1, "sums", x)
        name = self._as(x, kind)
        if node.op_type == "Add":
            name = self._aligned(name, before.exponent - after.exponent, kind)
        self._op(node.op_type, out, kind, name, self._tensor(f"{out}__constant", codes, kind))
