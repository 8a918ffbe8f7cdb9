"""Scale lowering: from float tensors on grids to an integer datapath."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import onnx_ir as onnx_ir
from onnx_ir import Model, Node, Value

from hqc.chains import Affine, Chain, Rectifier
from hqc.diagnostics import HqcError, reject
from hqc.execute import column_units, common_unit, offset_sums
from hqc.ir import State, location_of
from hqc.operators import is_power_of_two, is_quantiser
from hqc.partition import LINEAR, computed_nodes, first_quantisers, host_tail
from hqc.passes.dce import remove_unused
from hqc.passes.emit import Emitter, Form
from hqc.passes.requantisers import lower_port, lower_quantiser
from hqc.passes_api import Outcome, Pass, Remark
from hqc.semantics import (
    chain_step,
    data_input,
    grid_constant,
    is_pass_through,
)
from hqc.types import SINGLE_BITS

#: Two tensors are added where their scales are at most this many times a common one.
MAX_RATIO = 256


@dataclass(frozen=True)
class LowerScales(Pass):
    """Move scales through linear operators into provably identical integer requantisers.

    Every value of the datapath becomes codes on a power-of-two step. Scales, biases and batch
    norm between an accumulator and the next quantiser become one multiplier, offset and shift per
    channel, the smallest for which each reachable accumulator gives the same code; or thresholds,
    where those are cheaper or nothing else is exact. What is left at the end goes to the host.
    """

    name: ClassVar[str] = "lower-scales"
    needs: ClassVar[State | None] = State.QUANTISED
    gives: ClassVar[State | None] = State.INTEGER

    max_bits: int = 32
    """Widest multiplier, in bits; thresholds take over beyond it."""

    def rewrite(self, model: Model) -> Outcome:
        """Build the integer graph beside the old one, then drop what is no longer used."""
        emitter = Emitter(model, self.name)
        firsts = first_quantisers(model)
        tail = host_tail(model)
        forms: dict[Value, Form] = {}
        count, remarks = 0, []
        for node in computed_nodes(model):
            if node in tail:
                continue
            out = node.outputs[0]
            emitter.at(node)
            if node in firsts:
                forms[out] = lower_port(emitter, node, firsts[node][1])
            elif is_quantiser(node):
                source = _input(node, forms)
                forms[out], remark = lower_quantiser(emitter, node, source, self.max_bits)
                remarks += [Remark(remark, location_of(node))] if remark else []
            elif node.domain == "" and node.op_type in LINEAR:
                forms[out] = _matmul(emitter, node, _input(node, forms))
            elif (form := _simple(emitter, node, forms)) is not None:
                forms[out] = form
            else:
                continue  # before the first quantiser: the host's
            count += 1
        _hand_over(emitter, model, forms, tail)
        remove_unused(model)
        emitter.settle()
        model.graph.sort()
        return Outcome(model, count, tuple(remarks))


def _input(node: Node, forms: dict[Value, Form]) -> Form:
    source = data_input(node)
    if source is None or source not in forms:
        raise reject(
            "HQC205",
            f"{node.op_type} reads a value that has no integer form",
            where=location_of(node),
            helps=("put a quantiser before it",),
        )
    return forms[source]


def _simple(emitter: Emitter, node: Node, forms: dict[Value, Form]) -> Form | None:
    known = [v for v in node.inputs if v is not None and v in forms]
    if not known:
        return None
    if len(known) == 2:
        return _merge(emitter, node, forms[known[0]], forms[known[1]])
    form = forms[known[0]]
    if is_pass_through(node):
        return _reshape(emitter, node, form)
    step = chain_step(node)
    if step is None:
        raise reject(
            "HQC205",
            f"{node.op_type} has no exact integer form here",
            where=location_of(node),
            notes=("it stands between quantisers, so it must be exact",),
            helps=("put a quantiser before it, or move it behind the last layer",),
        )
    return Form(form.value, form.chain.then(step))


def _reshape(emitter: Emitter, node: Node, form: Form) -> Form:
    if node.op_type in ("Identity", "Cast", "Dropout"):
        return form
    if form.chain.channels > 1:
        raise reject("HQC205", "a reshape of per-channel scales", where=location_of(node))
    new = emitter.node(node.op_type, (form.value, *node.inputs[1:]), node.outputs[0], "")
    for name, attribute in node.attributes.items():
        new.attributes[name] = attribute
    return Form(emitter.add(new), form.chain)


def _rectify(emitter: Emitter, node: Node, form: Form) -> Form:
    """Make pending rectifiers nodes, where the offsets before them lie on the value's grid."""
    if form.chain.affine is not None:
        return form
    steps, value, scale = form.chain.steps, form.value, Affine.of()
    last = max(i for i, step in enumerate(steps) if isinstance(step, Rectifier))
    for step in steps[: last + 1]:
        if isinstance(step, Affine):
            scale = scale.then(step)
            if min(scale.a) <= 0:
                raise _not_rectified(node)
            shift = _divided(scale)  # a * x + b = a * (x + b / a)
            scale = Affine(scale.a, (Fraction(0),))
            step = shift
        if not isinstance(step, Affine) or any(step.b):
            moved = emitter.exact_step(value, step, str(node.name))
            if moved is None:
                raise _not_rectified(node)
            value = moved
    chain = Chain().then(scale)
    for step in steps[last + 1 :]:
        chain = chain.then(step)
    return Form(value, chain)


def _divided(affine: Affine) -> Affine:
    """x -> x + b / a, for x -> a * x + b."""
    channels = range(max(len(affine.a), len(affine.b)))
    pairs = [affine.at(c) for c in channels]
    return Affine(tuple(Fraction(1) for _ in pairs), tuple(b / a for a, b in pairs))


def _not_rectified(node: Node) -> HqcError:
    return reject(
        "HQC205",
        "a rectified sum without a quantiser",
        where=location_of(node),
        helps=("put a quantiser behind the rectifier",),
    )


def _matmul(emitter: Emitter, node: Node, form: Form) -> Form:
    if node.op_type != "MatMul":
        raise reject("HQC102", f"{node.op_type} is not lowered", where=location_of(node))
    weight = grid_constant(node.inputs[1])
    if weight is None:
        raise reject(
            "HQC103",
            f"the weights of {node.name} are not quantised",
            where=location_of(node),
            helps=("quantise them in training, or pass --quantize 8",),
        )
    form = _rectify(emitter, node, form)
    affine = form.chain.affine
    if affine is None or not affine.has_one_factor:
        raise reject(
            "HQC205",
            f"{node.name} sums over channels of different scales",
            where=location_of(node),
            helps=("use one scale for the whole activation tensor before a linear layer",),
        )
    if weight.codes.ndim != 2 or len(form.value.shape or ()) != 2:
        raise reject(
            "HQC102",
            f"{node.name} multiplies {form.value.shape} by {weight.codes.shape}",
            where=location_of(node),
            notes=("linear layers take (batch, features) and weights (features, outputs)",),
        )
    codes, scales = column_units(weight.codes, weight.scale)
    total = tuple(affine.a[0] * s for s in scales)
    offset = offset_sums(codes, scales, affine)
    if all(is_power_of_two(t) for t in total):
        values = codes * np.array([float(t) for t in total])
        rest = Affine((Fraction(1),), offset)
    else:
        values = codes.astype(np.float64)
        rest = Affine(total, offset)
    out = emitter.linear(node, form.value, values)
    return Form(out, Chain().then(rest))


def _merge(emitter: Emitter, node: Node, x: Form, y: Form) -> Form:
    x, y = _rectify(emitter, node, x), _rectify(emitter, node, y)
    first, second = x.chain.affine, y.chain.affine
    unit = None
    if first is not None and second is not None:
        unit = _common_scale({*first.a, *second.a})
    if node.op_type != "Add" or first is None or second is None or unit is None:
        raise reject(
            "HQC205",
            f"{node.op_type} of two tensors on different scales",
            where=location_of(node),
            helps=("requantise both to one scale before adding them",),
        )
    terms = [
        _times(emitter, node, form.value, affine.a[0] / unit)
        for form, affine in ((x, first), (y, second))
    ]
    one, two = (emitter.ranges[v].joined for v in terms)
    bits = (one + two).magnitude_bits
    if any(v.dtype == onnx_ir.DataType.DOUBLE for v in terms):
        bits = max(bits, SINGLE_BITS + 1)
    terms = [emitter.widen(v, bits) for v in terms]
    new = emitter.node("Add", terms, node.outputs[0], "")
    total = Affine((unit,), first.add_offsets(second))
    return Form(emitter.add(new), Chain().then(total))


def _common_scale(factors: set[Fraction]) -> Fraction | None:
    """A scale of which all of these are small integers or powers of two, if there is one."""
    if all(is_power_of_two(abs(f)) for f in factors):
        return Fraction(1)
    if len(factors) == 1:
        return next(iter(factors))
    if not all(factors):
        return None
    unit = common_unit(tuple(abs(f) for f in factors))
    return unit if all(abs(f / unit) <= MAX_RATIO for f in factors) else None


def _times(emitter: Emitter, node: Node, value: Value, factor: Fraction) -> Value:
    """A value times an integer or a power of two, exactly."""
    if factor == 1:
        return value
    if not is_power_of_two(abs(factor)):
        bits = emitter.ranges[value].joined.magnitude_bits + factor.numerator.bit_length()
        value = emitter.widen(value, bits)
    constant = emitter.constant(f"{node.name}_factor", np.array(float(factor)), like=value)
    return emitter.add(emitter.node("Mul", (value, constant), value, "_rescale"))


def _hand_over(emitter: Emitter, model: Model, forms: dict[Value, Form], tail: set[Node]) -> None:
    """Give the graph outputs and the host's operators their values in the model's own units."""
    for position, value in enumerate(tuple(model.graph.outputs)):
        if value in forms:
            emitter.at(None)
            name = str(value.name)
            value.name = f"{name}__quantised"
            real = _real(emitter, forms[value], value, name, own_node=True)
            real.name = name
            real.shape, real.type = value.shape, value.type
            model.graph.outputs[position] = real
    for value, form in tuple(forms.items()):
        users = [(u.node, u.idx) for u in value.uses() if u.node in tail]
        if users:
            emitter.at(min((u for u, _ in users), key=tuple(model.graph).index))
            real = _real(emitter, form, value, f"{value.name}", own_node=False)
            for user, index in users:
                user.replace_input_with(index, real)


def _real(emitter: Emitter, form: Form, like: Value, name: str, *, own_node: bool) -> Value:
    """The value that a form stands for, as a float tensor of the graph."""
    node = like.producer()
    if node is not None:
        form = _rectify(emitter, node, form)
    value = form.value
    steps = list(form.chain.steps)
    while steps and (done := emitter.exact_step(value, steps[0], f"{name}_exact")) is not None:
        value = done
        steps.pop(0)
    if steps:
        for step in steps:
            if isinstance(step, Rectifier):
                raise reject("HQC205", f"{name} is rectified after scaling by a free factor")
        return emitter.dequantise(value, steps, like, name)
    if own_node and (value.is_graph_output() or value.is_graph_input()):
        return emitter.add(emitter.node("Identity", (value,), like, "_output"))
    return emitter.as_float(value, like)
