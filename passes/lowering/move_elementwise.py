"""What works element by element, in front of what only rearranges elements.

Such operators give the same numbers on either side of a rearrangement. Two kinds move: quantisers
of the inputs, so that the wires of the port carry their codes and what follows is hardware; and any
elementwise operator where the rearrangement mixes channels. Behind a transpose to channels-last
each index of axis 1 holds elements of every channel, so scales and offsets per channel have no
place there, while in front of it they meet one channel at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import computed_values, data_input, exact_values_known
from hqc.analysis.rearrangements import Rearrangement, data_sources, is_rearrangement, rearrangement
from hqc.ir import add_constant, bypass, constant, derive, nodes, sole_consumer
from hqc.ir.names import note_names
from hqc.ir.operators import BipolarQuant, Quant
from hqc.pipeline.node_builder import NodeBuilder

_UNARY = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
_BY = "normalize"

#: Whether a node, reading a rearrangement, moves in front of it; and what is known to be computed.
_Moves = Callable[[Node, Node, Container[Value]], bool]
#: A node again, reading another value: the node, that value, the rearrangement, and a suffix.
_Copy = Callable[[Node, Value, Node, str, Container[Value]], Sequence[Node]]


def hoist_quantisers(model: Model) -> int:
    """Move quantisers across the rearrangements between them and the inputs; how many moved."""
    return _hoist(model, _is_of_inputs, _requantised)


def hoist_elementwise(model: Model) -> int:
    """Move elementwise operators across rearrangements that mix channels; how many moved."""
    moved = _hoist(model, _meets_mixed_channels, _copied)
    if moved:
        model.graph.sort()  # constant operands may have stood behind the rearrangement
    return moved


def _hoist(model: Model, moves: _Moves, copy: _Copy) -> int:
    """Move nodes as far to the front as they go, in one sweep."""
    moved = 0
    computed = computed_values(model.graph)
    for root in nodes(model.graph):
        pending = [root]
        while pending:
            node = pending.pop(0)
            before = _rearranged(node, computed)
            if before is not None and moves(node, before, computed):
                pending = [*_cross(model, node, before, copy, computed), *pending]
                moved += 1
    return moved


def _rearranged(node: Node, computed: Container[Value]) -> Node | None:
    """The rearrangement whose only reader is this elementwise node."""
    source = data_input(node, computed) if _is_elementwise(node) else None
    before = source.producer() if source is not None else None
    if source is None or before is None or not is_rearrangement(before):
        return None
    return before if sole_consumer(source) is node else None


def _is_elementwise(node: Node) -> bool:
    if Quant.matches(node):
        quant = Quant.read(node)
        return quant.scale.size == quant.zero_point.size == 1
    if BipolarQuant.matches(node):
        return bool(BipolarQuant.read(node).scale.size == 1)
    return node.domain == "" and node.op_type in _UNARY | _BINARY


def _cross(
    model: Model, node: Node, before: Node, copy: _Copy, computed: Container[Value]
) -> list[Node]:
    """Put a node in front of a rearrangement, once for each tensor that it moves; the new ones."""
    made = []
    sources, data = data_sources(before), data_input(node, computed)
    for index, value in enumerate(tuple(before.inputs)):
        if value is None or value not in sources:
            continue
        new = copy(node, value, before, f"hoisted_{index}" if index else "hoisted", computed)
        derive(new, node, _BY)
        model.graph.insert_before(before, new)
        note_names(new)
        before.replace_input_with(index, new[-1].outputs[0])
        made.append(new[-1])
    node.replace_input_with(0, data)  # what passes through stands second in `2 * x`
    bypass(node)
    return made


# --- quantisers of the inputs -------------------------------------------------------------------


def _is_of_inputs(node: Node, before: Node, computed: Container[Value]) -> bool:
    if not (Quant.matches(node) or BipolarQuant.matches(node)) or not _from_inputs(before):
        return False
    found = rearrangement(before)
    return not _pads(found) or (found.fill == 0.0 and _keeps_zero(node))


def _pads(found: Rearrangement) -> bool:
    return bool(np.any(found.index < 0))


def _keeps_zero(node: Node) -> bool:
    if not Quant.matches(node):
        return False
    quant = Quant.read(node)
    lo, hi = quant.code_limits
    return lo <= int(quant.zero_point.ravel()[0]) <= hi and not quant.is_bipolar


def _from_inputs(node: Node) -> bool:
    """Whether nothing but rearrangements stands between a node and graph inputs."""
    pending: list[Value | None] = list(rearrangement(node).sources)
    while pending:
        value = pending.pop()
        assert value is not None
        producer = value.producer()
        if producer is None:
            if not value.is_graph_input() or exact_values_known(value):
                return False
        elif is_rearrangement(producer):
            pending += rearrangement(producer).sources
        else:
            return False
    return True


def _requantised(
    node: Node, source: Value, before: Node, suffix: str, computed: Container[Value]
) -> Sequence[Node]:
    view = Quant.read(node) if Quant.matches(node) else BipolarQuant.read(node)
    new = NodeBuilder.replacing(node)
    new.apply(view, source, suffix)
    return new.nodes


# --- any operator, where channels mix -----------------------------------------------------------


def _meets_mixed_channels(node: Node, before: Node, computed: Container[Value]) -> bool:
    found = rearrangement(before)
    if len(found.sources) != 1 or found.sources[0].producer() is None or _pads(found):
        return False
    channels = found.channels()
    mixes = channels is not None and any(len(row) > 1 for row in channels)
    data = data_input(node, computed)
    operands = [v for v in node.inputs if v is not None and v is not data]
    turns = before.op_type == "Transpose" and node.op_type in _BINARY
    return mixes and (turns or all(_is_single(v) for v in operands))


def _is_single(value: Value) -> bool:
    return value.shape is not None and all(d == 1 for d in value.shape)


def _copied(
    node: Node, source: Value, before: Node, suffix: str, computed: Container[Value]
) -> Sequence[Node]:
    """The operator on what lies in front, its constant operands as they lie there."""
    data, turned = data_input(node, computed), list[Node]()
    inputs: list[Value | None] = []
    for value in node.inputs:
        if value is None or value is data:
            inputs.append(source if value is data else None)
        elif _is_single(value):
            inputs.append(_number(node, value))
        else:
            turned += _turned_back(node, value, before)
            inputs.append(turned[-1].outputs[0])
    assert node.graph is not None
    new = NodeBuilder(node.graph, str(node.name), source)
    new.add(node.op_type, inputs, suffix, None, node.domain, **node.attributes)
    return (*turned, *new.nodes)


def _number(node: Node, value: Value) -> Value:
    """A constant of one element without its axes: in front there may be fewer."""
    array = constant(value)
    if array is None or array.ndim == 0:
        return value
    assert node.graph is not None
    return add_constant(node.graph, f"{value.name}_number", array.reshape(()))


def _turned_back(node: Node, value: Value, transpose: Node) -> Sequence[Node]:
    """A constant operand, turned back to how elements lie in front of a Transpose."""
    order = transpose.attributes["perm"].as_ints()
    dims = tuple(d for d in value.shape or () if isinstance(d, int))
    full = (1,) * (len(order) - len(dims)) + dims
    assert node.graph is not None
    new = NodeBuilder(node.graph, str(value.name), value)
    reshaped = new.add("Reshape", (value, new.integers(full, "full")), "reshaped")
    reshaped.shape = onnx_ir.Shape(full)
    new.transposed(reshaped, [int(i) for i in np.argsort(order)], "turned")
    return new.nodes
