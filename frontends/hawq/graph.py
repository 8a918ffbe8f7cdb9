"""From a HAWQ network to ONNX + QONNX nodes on integer codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.hawq import fixed_point as fp
from hqc.frontends.hawq.fixed_point import Array, Double, Single
from hqc.frontends.hawq.network import Network, Scales, Step
from hqc.frontends.hawq.rescaling import Form, Ratio, Stage, Thresholds, find
from hqc.ir import QONNX, add_constant, make_node, set_source
from hqc.operators import MultiThreshold, Quant
from hqc.types import Codes, Rounding

OPSET = 17
_IR_VERSION = 8
BATCH = "batch"
_HELP = "hqc.frontends.hawq.evaluate computes its codes in numpy"


@dataclass(frozen=True)
class _Flow:
    """A tensor of the graph that holds integers: real value float32(integer * unit).

    Attributes:
        value: of the graph.
        lo, hi: proven bounds of the integers, (C,).
        unit: (1,) or (C,), float32.
        parts: of a residual sum that is not requantised yet.
        rectified: whether a rectifier came behind the sum.
    """

    value: Value
    lo: Codes
    hi: Codes
    unit: Single
    parts: tuple[_Flow, _Flow] | None = None
    rectified: bool = False

    def real(self, integers: Codes) -> Single:
        """HAWQ's float32 values of integers (N, C)."""
        return np.asarray(integers.astype(np.float32) * self.unit, np.float32)


def build(network: Network) -> Model:
    """The graph of a network of linear layers.

    Raises:
        HqcError: HQC602, a step has no exact form: convolutions, pooling, or sums beyond what
            HAWQ's own float arithmetic keeps exact.
    """
    builder = _Builder(network)
    for step in network.steps:
        builder.add(step)
    return builder.finish()


class _Builder:
    def __init__(self, network: Network) -> None:
        self._network = network
        imports = {"": OPSET, QONNX: 1}
        self.graph = Graph([], [], nodes=[], opset_imports=imports, name="hawq")
        self._flows: list[_Flow | None] = []
        self._last: Value | None = None

    # --- steps ---

    def add(self, step: Step) -> None:
        """Append the nodes of one step."""
        if step.op == "input":
            self._flows.append(None)
            return
        given = [self._flows[i] for i in step.sources]
        if step.op == "act" and given[0] is None:
            self._flows.append(self._input(step))
            return
        flows = [self._known(flow, step) for flow in given]
        if step.op == "act":
            self._flows.append(self._activate(step, flows))
        elif step.op == "linear":
            self._flows.append(self._linear(step, flows[0]))
        elif step.op == "relu":
            self._flows.append(self._relu(flows[0]))
        elif step.op == "add":
            self._flows.append(replace(flows[0], parts=(flows[0], flows[1])))
        elif step.op == "flatten":
            self._flows.append(flows[0])  # linear layers see (N, C) already
        elif step.op in ("softmax", "log_softmax"):
            self._softmax(step, flows[0])
        else:
            raise _refuse(step, f"{step.op.replace('_', ' ')} layers are not compiled", _HELP)

    def _known(self, flow: _Flow | None, step: Step) -> _Flow:
        if flow is None:
            raise _refuse(step, f"a {step.op} reads a value that is not quantised")
        return flow

    def _input(self, step: Step) -> _Flow:
        """The input's quantiser: a float32 product with the reciprocal of the scale, rounded."""
        act = self._network.activations[step.name]
        users = [s for s in self._network.steps if s.op in ("linear", "conv")]
        features = self._network.layers[users[0].name].weight.shape
        if len(features) != 2:
            raise _refuse(users[0], "convolutions are not compiled", _HELP)
        x = Value(name="x", shape=onnx_ir.Shape([BATCH, features[1]]))
        x.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        self.graph.inputs.append(x)
        name = step.name
        factor = fp.reciprocal(act.scale).astype(np.float64)
        scaled = self._product(self._cast(x, f"{name}_wide"), factor, f"{name}_scaled")
        single = self._cast(scaled, f"{name}_single", onnx_ir.DataType.FLOAT)
        codes = self._quant(single, name, act.bits, act.signed)
        lo, hi = (np.full(features[1], end, np.int64) for end in act.limits)
        return _Flow(codes, lo, hi, act.scale.reshape(1))

    def _linear(self, step: Step, x: _Flow) -> _Flow:
        assert step.scales is not None
        layer = self._network.layers[step.name]
        pre = self._network.activations[step.scales.pre].scale
        weight, bias = layer.weight_codes.T, layer.bias_codes(pre)
        name = step.name
        w = self._constant(f"{name}.weight_integer", weight, layer.bits)
        product = self._node("MatMul", (self._codes(x), w), f"{name}/MatMul", name, len(bias))
        b = self._constant(f"{name}.bias_integer", bias, layer.bias_bits)
        total = self._node("Add", (product, b), f"{name}/Add", name, len(bias))
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        lo = x.lo @ up + x.hi @ down + bias
        hi = x.hi @ up + x.lo @ down + bias
        return _Flow(total, lo, hi, layer.sum_scale(pre))

    def _codes(self, x: _Flow) -> Value:
        """The integers of a flow behind a quantiser, as matrix products want them."""
        maker = x.value.producer()
        if maker is None or maker.op_type != "Relu":
            return x.value
        bits = max(1, int(x.hi.max()).bit_length())
        return self._quant(x.value, f"{x.value.name}_codes", bits, False)

    def _constant(self, name: str, codes: Codes, bits: int) -> Value:
        raw = add_constant(self.graph, name, codes.astype(np.float32))
        return self._quant(raw, f"{name}/Quant", bits, True)

    def _relu(self, x: _Flow) -> _Flow:
        if x.parts is not None:
            return replace(x, rectified=True)
        name = f"{x.value.name}/Relu"
        value = self._node("Relu", (x.value,), name, name, len(x.lo))
        return replace(x, value=value, lo=np.maximum(x.lo, 0), hi=np.maximum(x.hi, 0))

    # --- requantisation ---

    def _activate(self, step: Step, flows: list[_Flow]) -> _Flow:
        if flows[0].parts is not None:
            return self._residual(step, flows)
        act = self._network.activations[step.name]
        x = flows[0]
        to = act.scale.reshape(1)
        if step.scales is None:

            def meaning(n: Codes) -> Codes:
                return fp.quantise(x.real(n), to, act.limits)

            ratio = Ratio(x.unit, np.ones(1, np.float32), np.ones(1, np.float32), to)
        else:
            pre, weight = self._network.scale_of(step.scales)

            def meaning(n: Codes) -> Codes:
                return fp.requantise(x.real(n), pre, weight, to, act.limits)

            ratio = Ratio(x.unit, pre, weight, to)
        lo, hi = x.lo, x.hi
        if max(len(x.unit), len(ratio.weight)) == 1:
            lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)
        form = find(ratio, meaning, lo, hi, act.bits, signed=act.signed)
        if form is None:
            raise _refuse(
                step, f"no exact form of the requantisation to {act.bits} bits was found", _HELP
            )
        codes = self._apply(form, x.value, step.name, len(x.lo))
        return _Flow(codes, *self._clipped(meaning, x), to)

    def _clipped(self, meaning: Any, x: _Flow) -> tuple[Codes, Codes]:
        return meaning(x.lo[None])[0], meaning(x.hi[None])[0]

    def _apply(self, form: Form, x: Value, name: str, channels: int) -> Value:
        if isinstance(form, Thresholds):
            view = MultiThreshold(form.thresholds.astype(np.float32), 1.0, float(form.lo))
            node = view.build(self.graph, x, name)
            set_source(node, name)
            self.graph.append(node)
            return node.outputs[0]
        value = x
        for i, stage in enumerate(form):
            stem = name if i + 1 == len(form) else f"{name}_input_units"
            value = self._stage(stage, value, stem, channels)
        return value

    def _stage(self, stage: Stage, x: Value, name: str, channels: int) -> Value:
        wide = self._cast(x, f"{name}_wide")
        value = self._product(wide, stage.factor, f"{name}_scaled", channels)
        if np.any(stage.offset):
            offset = add_constant(self.graph, f"{name}_offset_by", _few(stage.offset))
            value = self._node("Add", (value, offset), f"{name}_offset", name, channels)
        return self._quant(value, name, stage.bits, stage.signed, stage.rounding)

    def _residual(self, step: Step, flows: list[_Flow]) -> _Flow:
        """Both parts of a sum on the activation's scale, each rounded; HAWQ does not clamp them."""
        total, other = flows[0], flows[1] if len(flows) > 1 else None
        assert total.parts is not None
        if total.rectified or step.identity is None or step.scales is None or other is None:
            raise _refuse(step, "a residual sum is requantised in a way that mixes its parts")
        left, right = total.parts
        main = right if left.value is other.value else left
        if other.value not in (left.value, right.value):
            raise _refuse(step, "the identity given is no part of the sum")
        to = self._network.activations[step.name].scale.reshape(1)
        self._check_apart(step, main, other)
        parts = [
            self._part(step, flow, scales, to, kind)
            for flow, scales, kind in (
                (main, step.scales, "main"),
                (other, step.identity, "identity"),
            )
        ]
        name, channels = f"{step.name}/Add", len(main.lo)
        value = self._node("Add", (parts[0].value, parts[1].value), name, step.name, channels)
        return _Flow(value, parts[0].lo + parts[1].lo, parts[0].hi + parts[1].hi, to)

    def _check_apart(self, step: Step, main: _Flow, other: _Flow) -> None:
        """HAWQ subtracts the identity from the float sum: its error must not reach a half step."""
        size = sum(
            np.maximum(np.abs(f.lo), np.abs(f.hi)) * f.unit.astype(float) for f in (main, other)
        )
        if np.any(8 * 2.0**-24 * 2 * size >= 0.5 * main.unit):
            raise _refuse(step, "the float32 residual sum of HAWQ may lose whole steps")

    def _part(self, step: Step, x: _Flow, scales: Scales, to: Single, kind: str) -> _Flow:
        pre, weight = self._network.scale_of(scales)

        def meaning(n: Codes) -> Codes:
            whole = fp.accumulator_codes(x.real(n), pre, weight)
            return np.asarray(fp.rescale(whole, pre, weight, to), np.int64)

        lo, hi = self._clipped(meaning, x)
        bits = 1 + int(max(np.abs(lo).max(), np.abs(hi).max()) + 1).bit_length()
        form = find(Ratio(x.unit, pre, weight, to), meaning, x.lo, x.hi, bits, signed=True)
        if form is None:
            raise _refuse(step, "no exact form of a residual branch was found")
        value = self._apply(form, x.value, f"{step.name}_{kind}", len(x.lo))
        return _Flow(value, lo, hi, to)

    # --- nodes ---

    def _node(
        self, op: str, inputs: tuple[Value, ...], name: str, source: str, channels: int = 0
    ) -> Value:
        node = make_node(op, inputs, like=inputs[0], name=name)
        if channels:
            node.outputs[0].shape = onnx_ir.Shape([BATCH, channels])
        set_source(node, source)
        self.graph.append(node)
        return node.outputs[0]

    def _cast(self, x: Value, name: str, to: onnx_ir.DataType = onnx_ir.DataType.DOUBLE) -> Value:
        node = make_node("Cast", (x,), like=x, name=name, attributes={"to": to.value})
        node.outputs[0].type = onnx_ir.TensorType(to)
        self.graph.append(node)
        return node.outputs[0]

    def _product(self, x: Value, factor: Double, name: str, channels: int = 0) -> Value:
        by = add_constant(self.graph, f"{name}_by", _few(factor))
        return self._node("Mul", (x, by), name, name, channels)

    def _quant(
        self, x: Value, name: str, bits: int, signed: bool, rounding: Rounding = Rounding.ROUND
    ) -> Value:
        one, zero = np.ones((), np.float32), np.zeros((), np.int64)
        node = Quant(one, zero, bits, signed, False, rounding).build(self.graph, x, name)
        node.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        set_source(node, name)
        self.graph.append(node)
        return node.outputs[0]

    def _softmax(self, step: Step, x: _Flow) -> None:
        real = self._real(x)
        op = "Softmax" if step.op == "softmax" else "LogSoftmax"
        node = make_node(op, (real,), like=real, name=op.lower(), attributes={"axis": 1})
        self.graph.append(node)
        self._last = node.outputs[0]
        self._flows.append(None)

    def _real(self, x: _Flow) -> Value:
        by = add_constant(self.graph, "output_scale", _few(x.unit))
        return self._node("Mul", (x.value, by), "scaled_output", "output", len(x.lo))

    def finish(self) -> Model:
        """The model, its last accumulators or codes scaled to real values."""
        if self._last is None:
            flow = self._flows[-1]
            if flow is None or flow.parts is not None:
                raise _refuse(self._network.steps[-1], "the output is not quantised")
            self._last = self._real(flow)
        self._last.name = "output"
        self.graph.outputs.append(self._last)
        return Model(self.graph, ir_version=_IR_VERSION, producer_name="hqc")


def _few(values: Array) -> Array:
    return values.reshape(()) if values.size == 1 else values.reshape(-1)


def _refuse(step: Step, message: str, *helps: str) -> HqcError:
    where = Location(node=step.name or step.op)
    return reject("HQC602", message, where=where, helps=helps)
