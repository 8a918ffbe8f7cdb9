"""From a HAWQ network to ONNX + QONNX nodes on integer codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Model, Value

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.hawq import fixed_point as fp
from hqc.frontends.hawq.fixed_point import Single
from hqc.frontends.hawq.graph_images import average_pool, convolution, max_pool
from hqc.frontends.hawq.graph_nodes import Flow, Nodes
from hqc.frontends.hawq.network import Network, Scales, Step
from hqc.frontends.hawq.rescaling import Form, Meaning, Ratio, boundaries, find
from hqc.frontends.hawq.shapes import Shape, shapes
from hqc.numerics.types import Codes

_IR_VERSION = 8
_HELP = "hqc.frontends.hawq.evaluate computes its codes in numpy"


def build(network: Network) -> Model:
    """The graph of a network.

    Raises:
        HqcError: HQC602, a step has no exact form, such as sums beyond what HAWQ's own float
            arithmetic keeps exact, or the size of images is not known; HQC601, shapes do not fit.
    """
    builder = _Builder(network)
    for index, step in enumerate(network.steps):
        builder.add(index, step)
    return builder.finish()


class _Builder:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._shapes = shapes(network)
        self._nodes = Nodes()
        self._flows: list[Flow | None] = []
        self._last: Value | None = None

    # --- steps ---

    def add(self, index: int, step: Step) -> None:
        """Append the nodes of one step."""
        if step.op == "input":
            self._flows.append(None)
            return
        given = [self._flows[i] for i in step.sources]
        if step.op == "act" and given[0] is None:
            self._flows.append(self._input(step, self._shapes[index]))
            return
        flows = [self._known(flow, step) for flow in given]
        self._flows.append(self._flow(index, step, flows))

    def _flow(self, index: int, step: Step, flows: list[Flow]) -> Flow | None:
        x, shape = flows[0], self._shapes[index]
        if step.op == "act":
            return self._activate(step, flows)
        if step.op == "linear":
            return self._linear(step, x)
        if step.op == "conv":
            layer = self._network.layers[step.name]
            codes = replace(x, value=self._codes(x))
            return convolution(self._nodes, step, layer, codes, self._scale(step), shape)
        if step.op == "relu":
            return self._relu(x)
        if step.op == "add":
            return replace(x, parts=(x, flows[1]))
        if step.op in ("max_pool", "average_pool"):
            return self._pool(index, step, x)
        if step.op == "flatten":
            return self._flatten(index, step, x)
        self._softmax(step, x)
        return None

    def _known(self, flow: Flow | None, step: Step) -> Flow:
        if flow is None:
            raise _refuse(step, f"a {step.op} reads a value that is not quantised")
        if flow.parts is not None and step.op not in ("act", "relu"):
            raise _refuse(step, f"a {step.op} reads a residual sum that is not quantised")
        return flow

    def _scale(self, step: Step) -> Single:
        assert step.scales is not None
        return self._network.activations[step.scales.pre].scale

    def _input(self, step: Step, shape: Shape) -> Flow:
        """The input's quantiser: a float32 product with the reciprocal of the scale, rounded."""
        act, nodes, name = self._network.activations[step.name], self._nodes, step.name
        x = nodes.input(shape)
        factor = fp.reciprocal(act.scale).astype(np.float64)
        scaled = nodes.product(nodes.cast(x, f"{name}_wide"), factor, f"{name}_scaled")
        single = nodes.cast(scaled, f"{name}_single", onnx_ir.DataType.FLOAT)
        codes = nodes.quant(single, name, act.bits, act.signed)
        lo, hi = (np.full(shape[0], end, np.int64) for end in act.limits)
        return Flow(codes, lo, hi, act.scale.reshape(1))

    def _linear(self, step: Step, x: Flow) -> Flow:
        layer, pre = self._network.layers[step.name], self._scale(step)
        weight, bias = layer.weight_codes.T, layer.bias_codes(pre)
        name, nodes, shape = step.name, self._nodes, (len(bias),)
        w = nodes.constant(f"{name}.weight_integer", weight, layer.bits)
        product = nodes.node("MatMul", (self._codes(x), w), f"{name}/MatMul", name, shape)
        b = nodes.constant(f"{name}.bias_integer", bias, layer.bias_bits)
        total = nodes.node("Add", (product, b), f"{name}/Add", name, shape)
        up, down = np.maximum(weight, 0), np.minimum(weight, 0)
        lo = x.lo @ up + x.hi @ down + bias
        hi = x.hi @ up + x.lo @ down + bias
        return Flow(total, lo, hi, layer.sum_scale(pre))

    def _codes(self, x: Flow) -> Value:
        """The integers of a flow behind a quantiser, as sums of products want them."""
        maker = x.value.producer()
        if maker is None or maker.op_type != "Relu":
            return x.value
        bits = max(1, int(x.hi.max()).bit_length())
        return self._nodes.quant(x.value, f"{x.value.name}_codes", bits, False)

    def _relu(self, x: Flow) -> Flow:
        if x.parts is not None:
            return replace(x, rectified=True)
        name = f"{x.value.name}/Relu"
        value = self._nodes.node("Relu", (x.value,), name, name)
        return replace(x, value=value, lo=np.maximum(x.lo, 0), hi=np.maximum(x.hi, 0))

    def _pool(self, index: int, step: Step, x: Flow) -> Flow:
        name = self._name(index, step)
        codes = replace(x, value=self._codes(x))
        if step.op == "max_pool":
            return max_pool(self._nodes, step, codes, name, self._shapes[index])
        around = self._shapes[step.sources[0]], self._shapes[index]
        found = average_pool(self._nodes, step, codes, name, around)
        if found is None:
            raise _refuse(step, "no exact form of the average pooling was found", _HELP)
        return found

    def _flatten(self, index: int, step: Step, x: Flow) -> Flow:
        before, after = self._shapes[step.sources[0]], self._shapes[index]
        if before == after:
            return x
        name, each = self._name(index, step), after[0] // before[0]
        value = self._nodes.node("Flatten", (x.value,), name, name, after, {"axis": 1})
        lo, hi = (np.repeat(end, each) for end in (x.lo, x.hi))
        unit = x.unit if len(x.unit) == 1 else np.repeat(x.unit, each)
        return Flow(value, lo, hi, unit)

    def _name(self, index: int, step: Step) -> str:
        return step.name or f"{step.op}_{index}"

    # --- requantisation ---

    def _activate(self, step: Step, flows: list[Flow]) -> Flow:
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
        form = self._find(ratio, meaning, x, act.bits, act.signed)
        if form is None:
            raise _refuse(
                step, f"no exact form of the requantisation to {act.bits} bits was found", _HELP
            )
        return Flow(self._nodes.apply(form, x.value, step.name), *_clipped(meaning, x), to)

    def _find(
        self, ratio: Ratio, meaning: Meaning, x: Flow, bits: int, signed: bool
    ) -> Form | None:
        lo, hi = x.lo, x.hi
        if max(len(ratio.unit), len(ratio.weight)) == 1:
            lo, hi = lo.min(keepdims=True), hi.max(keepdims=True)
        return find(ratio, meaning, lo, hi, bits, signed=signed)

    def _residual(self, step: Step, flows: list[Flow]) -> Flow:
        """Both parts of a sum on the activation's scale, each rounded; HAWQ does not clamp them."""
        total, other = flows[0], flows[1] if len(flows) > 1 else None
        assert total.parts is not None
        if step.identity is None or step.scales is None or other is None:
            raise _refuse(step, "a residual sum is requantised in a way that mixes its parts")
        left, right = total.parts
        main = right if left.value is other.value else left
        if other.value not in (left.value, right.value):
            raise _refuse(step, "the identity given is no part of the sum")
        to = self._network.activations[step.name].scale.reshape(1)
        self._check_apart(step, main, other)
        one = self._part(step, main, step.scales, to, "main")
        two = self._part(step, other, step.identity, to, "identity")
        if not total.rectified:
            return self._plus(one, two, f"{step.name}/Add")
        return self._rectified(step, one, two, other)

    def _plus(self, x: Flow, y: Flow, name: str) -> Flow:
        value = self._nodes.node("Add", (x.value, y.value), name, name)
        return Flow(value, x.lo + y.lo, x.hi + y.hi, x.unit)

    def _rectified(self, step: Step, one: Flow, two: Flow, other: Flow) -> Flow:
        """A residual sum that was rectified in float before its parts were requantised.

        HAWQ takes the identity i off the rectified sum: max(m, -i) is left of the main part m. It
        is rescaled as m is, by a monotone and odd function f, and g(i) is added:

            max(f(m), f(-i)) + g(i) = relu(f(m) + f(i)) + (g(i) - f(i)).

        Both ways to rescale i mean the same and mostly are; where they differ, it is by one.
        """
        assert step.scales is not None
        f = self._rescaling(other, step.scales, one.unit)
        g = self._rescaling(other, step.identity or step.scales, one.unit)
        points = _turning_points((f, g), other)
        apart = g(points) - f(points)
        if not np.any(apart):
            return self._relu(self._plus(one, two, f"{step.name}/Add"))
        again = self._part(step, other, step.scales, one.unit, "rectifier")
        kept = self._relu(self._plus(one, again, f"{step.name}/Add"))
        both = two.value, again.value
        name = f"{step.name}/Sub"
        difference = self._nodes.node("Sub", both, name, name)
        value = self._nodes.node("Add", (kept.value, difference), f"{step.name}/Out", step.name)
        lo = np.maximum(one.lo + two.lo, apart.min(axis=0))
        hi = np.maximum(one.hi + two.hi, apart.max(axis=0))
        return Flow(value, lo, hi, one.unit)

    def _check_apart(self, step: Step, main: Flow, other: Flow) -> None:
        """HAWQ subtracts the identity from the float sum: its error must not reach a half step."""
        size = sum(
            np.maximum(np.abs(f.lo), np.abs(f.hi)) * f.unit.astype(float) for f in (main, other)
        )
        if np.any(8 * 2.0**-24 * 2 * size >= 0.5 * main.unit):
            raise _refuse(step, "the float32 residual sum of HAWQ may lose whole steps")

    def _rescaling(self, x: Flow, scales: Scales, to: Single) -> Meaning:
        """How HAWQ rescales a part of a residual sum."""
        pre, weight = self._network.scale_of(scales)

        def meaning(n: Codes) -> Codes:
            whole = fp.accumulator_codes(x.real(n), pre, weight)
            return np.asarray(fp.rescale(whole, pre, weight, to), np.int64)

        return meaning

    def _part(self, step: Step, x: Flow, scales: Scales, to: Single, kind: str) -> Flow:
        meaning = self._rescaling(x, scales, to)
        lo, hi = _clipped(meaning, x)
        bits = 1 + int(max(np.abs(lo).max(), np.abs(hi).max()) + 1).bit_length()
        ratio = Ratio(x.unit, *self._network.scale_of(scales), to)
        form = self._find(ratio, meaning, x, bits, True)
        if form is None:
            raise _refuse(step, "no exact form of a residual branch was found")
        value = self._nodes.apply(form, x.value, f"{step.name}_{kind}")
        return Flow(value, lo, hi, to)

    # --- results ---

    def _softmax(self, step: Step, x: Flow) -> None:
        op = "Softmax" if step.op == "softmax" else "LogSoftmax"
        name = op.lower()
        self._last = self._nodes.node(op, (self._real(x),), name, name, (), {"axis": 1})

    def _real(self, x: Flow) -> Value:
        return self._nodes.product(x.value, x.unit, "scaled_output")

    def finish(self) -> Model:
        """The model, its last accumulators or codes scaled to real values."""
        if self._last is None:
            flow = self._flows[-1]
            if flow is None or flow.parts is not None:
                raise _refuse(self._network.steps[-1], "the output is not quantised")
            self._last = self._real(flow)
        self._last.name = "output"
        self._nodes.graph.outputs.append(self._last)
        return Model(self._nodes.graph, ir_version=_IR_VERSION, producer_name="hqc")


def _clipped(meaning: Meaning, x: Flow) -> tuple[Codes, Codes]:
    return meaning(x.lo[None])[0], meaning(x.hi[None])[0]


def _turning_points(functions: tuple[Meaning, ...], x: Flow) -> Codes:
    """Integers (K, C) in the range of x, with all at which one of the functions steps."""
    points = [x.lo[None], x.hi[None]]
    for f in functions:
        low, high = _clipped(f, x)
        if np.all(low == high):
            continue
        steps = boundaries(f, x.lo, x.hi, (int(low.min()), int(high.max()))).thresholds.T
        points += [np.clip(steps, x.lo, x.hi), np.clip(steps - 1, x.lo, x.hi)]
    return np.concatenate(points)


def _refuse(step: Step, message: str, *helps: str) -> HqcError:
    where = Location(node=step.name or step.op)
    return reject("HQC602", message, where=where, helps=helps)
