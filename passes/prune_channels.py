"""Channels that carry nothing: constant ones and unused ones."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import data_input, exact_values_known
from hqc.analysis.precision_propagation import channel_ranges
from hqc.analysis.ranges import ChannelRange, fit, value_range
from hqc.ir import (
    Array,
    State,
    add_constant,
    constant,
    location_of,
    make_node,
    set_type,
    sole_consumer,
)
from hqc.ir.edits import put_behind
from hqc.ir.names import kept_names
from hqc.ir.operators import MultiThreshold, Quant, is_quantiser
from hqc.numerics.types import SINGLE_BITS
from hqc.pipeline.node_builder import typed_constant
from hqc.pipeline.passes import Outcome, Pass, Remark

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove channels that are constant, or that the next layer multiplies by zero only.

    A constant channel moves into the next layer's bias. What computed the channel goes with it:
    the column of the weights before, its multiplier, offset and thresholds.
    """

    name: ClassVar[str] = "prune-channels"
    needs: ClassVar[State | None] = State.INTEGER

    def rewrite(self, model: Model) -> Outcome:
        """From the outputs backwards, so that what falls away takes along what fed it."""
        with kept_names(model.graph):
            return self._sweep(model)

    def _sweep(self, model: Model) -> Outcome:
        rewrites, remarks = 0, []
        ranges = channel_ranges(model)
        for node in reversed([n for n in model.graph if n.op_type == "MatMul"]):
            removed = _prune(model, node, ranges)
            if removed:
                rewrites += removed
                remarks.append(Remark(f"{removed} channels carried nothing", location_of(node)))
        return Outcome(model, rewrites, tuple(remarks))


def _prune(model: Model, node: Node, ranges: Mapping[Value, ChannelRange]) -> int:
    data, weight = node.inputs
    assert data is not None
    assert weight is not None
    column = _column(data, node, ranges)
    known = ranges.get(data)
    if column is None or known is None:
        return 0
    weights = np.asarray(constant(weight), np.float64)
    still = np.broadcast_to(known.constant, weights.shape[0])
    drop = np.asarray(still | ~np.any(weights, axis=1))
    if drop.all():
        drop[0] = False  # a layer keeps at least one input
    if not drop.any():
        return 0
    values = np.ldexp(
        np.broadcast_to(known.lo, weights.shape[0]).astype(np.float64), known.exponent
    )
    share = (values * (drop & still)) @ weights
    if np.any(share) and not _add_bias(model, node, share, ranges):
        return 0
    keep = ~drop
    _replace_constant(model, node, 1, weights[keep])
    for member in column:
        _slice(model, member, keep, ranges)
    return int(drop.sum())


def _column(data: Value, user: Node, known: Container[Value]) -> list[Node] | None:
    """The nodes from the linear layer before to this input, if nothing else uses them."""
    found: list[Node] = []
    value, after = data, user
    while sole_consumer(value) is after:
        node = value.producer()
        if node is None:
            return None
        found.append(node)
        if node.op_type == "MatMul":
            return found
        source = data_input(node, known)
        elementwise = node.op_type in ("Relu", "Cast", "Mul", "Add") or is_quantiser(node)
        if source is None or not elementwise:
            return None
        value, after = source, node
    return None


def _slice(model: Model, node: Node, keep: Mask, ranges: Container[Value]) -> None:
    """Drop channels of one node: its constants, and the shape of its output."""
    for index, value in enumerate(node.inputs):
        if value is None or value in ranges or not exact_values_known(value):
            continue
        array = np.asarray(constant(value))
        if node.op_type == "MatMul":
            _replace_constant(model, node, index, array[:, keep])
        elif MultiThreshold.matches(node) and array.shape[0] > 1:
            _replace_constant(model, node, index, array[keep])
        elif node.op_type in ("Mul", "Add") and array.size > 1:
            _replace_constant(model, node, index, array.reshape(-1)[keep])
        elif Quant.matches(node) and array.size > 1:  # equal for all channels, but given for each
            _replace_constant(model, node, index, array.reshape(-1)[keep].reshape(1, -1))
    out = node.outputs[0]
    batch = out.shape[0] if out.shape is not None else "N"
    out.shape = onnx_ir.Shape((batch, int(keep.sum())))


def _replace_constant(model: Model, node: Node, index: int, array: Array) -> None:
    before = node.inputs[index]
    assert before is not None
    name, dtype = str(before.name), np.asarray(constant(before)).dtype
    fresh = add_constant(model.graph, name, np.asarray(array, dtype))
    if not is_quantiser(node):
        set_type(fresh, fit(np.asarray(array, np.float64)))
    node.replace_input_with(index, fresh)
    if not before.uses():
        del model.graph.initializers[name]
        del model.graph.initializers[str(fresh.name)]
        fresh.name = name
        model.graph.register_initializer(fresh)


def _add_bias(
    model: Model, node: Node, share: npt.NDArray[Any], ranges: Mapping[Value, ChannelRange]
) -> bool:
    """Add what the constant channels contributed; False if float storage cannot hold the sum."""
    out = node.outputs[0]
    total = ranges[out].joined + value_range(share)
    if total.magnitude_bits > SINGLE_BITS and out.dtype != onnx_ir.DataType.DOUBLE:
        return False
    dtype = np.float64 if out.dtype == onnx_ir.DataType.DOUBLE else np.float32
    bias = typed_constant(model.graph, f"{node.name}_constant", share.astype(dtype))
    add = make_node("Add", (out, bias), like=out, name=f"{out.name}_shifted")
    put_behind(node, add, PruneChannels.name)
    return True
