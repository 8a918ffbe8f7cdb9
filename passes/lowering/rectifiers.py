"""Bends of a chain as nodes, where a linear operator or a sum needs a straight line."""

from __future__ import annotations

from onnx_ir import Node

from hqc.diagnostics import HqcError, reject
from hqc.ir import location_of
from hqc.numerics.activations import Rectifier
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.passes.lowering.integer_builder import Form, IntegerBuilder


def straighten(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """Make pending rectifiers nodes, where the offsets before them lie on the value's grid.

    Raises:
        HqcError: HQC205, another bend is pending, or a rectifier that is off the grid.
    """
    if form.chain.affine is not None:
        return form
    steps, value, scale = form.chain.steps, form.value, Affine.of()
    last = max(i for i, step in enumerate(steps) if not isinstance(step, Affine))
    for step in steps[: last + 1]:
        if isinstance(step, Affine):
            scale = scale.then(step)
            if min(scale.a) <= 0:
                raise _not_straight(node)
            step = scale.divided  # a * x + b = a * (x + b / a)
            scale = scale.through_zero
        elif not isinstance(step, Rectifier):
            raise _not_straight(node)
        if not isinstance(step, Affine) or any(step.b):
            moved = emitter.exact_step(value, step, str(node.name))
            if moved is None:
                raise _not_straight(node)
            value = moved
    return Form(value, Chain().then(scale).extended(steps[last + 1 :]))


def from_zero(emitter: IntegerBuilder, node: Node, form: Form) -> Form | None:
    """A straight form as a factor times a value, so that code 0 stands for 0.

    None where the offset is no multiple of the step.
    """
    affine = form.affine
    if not any(affine.b):
        return form
    moved = emitter.exact_step(form.value, affine.divided, str(node.name))
    return None if moved is None else Form(moved, Chain().then(affine.through_zero))


def _not_straight(node: Node) -> HqcError:
    return reject(
        "HQC205",
        f"{node.op_type} of an activation without a quantiser",
        where=location_of(node),
        helps=("put a quantiser behind the activation",),
    )
