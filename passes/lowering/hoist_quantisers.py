"""Quantisers of the inputs, in front of what only rearranges elements.

A quantiser with one scale works element by element, so it may stand on either side of a
rearrangement. In front of it the wires of the port carry its codes, and what follows is hardware.
"""

from __future__ import annotations

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.analysis.rearrangements import is_movement, movement
from hqc.analysis.semantics import exact_values_known
from hqc.ir import bypass, derive, nodes, sole_consumer
from hqc.ir.operators import BipolarQuant, Quant


def hoist_quantisers(model: Model) -> int:
    """Move quantisers across the rearrangements between them and the graph's inputs."""
    moved = 0
    for _ in range(len(tuple(model.graph))):
        found = next((n for n in nodes(model.graph) if _hoistable(n)), None)
        if found is None:
            return moved
        _hoist(model, found)
        moved += 1
    return moved


def _hoistable(node: Node) -> bool:
    if not (Quant.matches(node) or BipolarQuant.matches(node)) or not _elementwise(node):
        return False
    source = node.inputs[0]
    before = source.producer() if source is not None else None
    if before is None or source is None or not is_movement(before):
        return False
    if sole_consumer(source) is not node or not _from_inputs(before):
        return False
    found = movement(before)
    return not np.any(found.index < 0) or (found.fill == 0.0 and _keeps_zero(node))


def _elementwise(node: Node) -> bool:
    quant = Quant.read(node) if Quant.matches(node) else BipolarQuant.read(node)
    single = quant.scale.size == 1
    return single and (not isinstance(quant, Quant) or quant.zero_point.size == 1)


def _keeps_zero(node: Node) -> bool:
    if not Quant.matches(node):
        return False
    quant = Quant.read(node)
    lo, hi = quant.code_limits
    return lo <= int(quant.zero_point.ravel()[0]) <= hi and not quant.is_bipolar


def _from_inputs(node: Node) -> bool:
    """Whether nothing but rearrangements stands between a node and graph inputs."""
    pending: list[Value | None] = list(movement(node).sources)
    while pending:
        value = pending.pop()
        assert value is not None
        producer = value.producer()
        if producer is None:
            if not value.is_graph_input() or exact_values_known(value):
                return False
        elif is_movement(producer):
            pending += movement(producer).sources
        else:
            return False
    return True


def _hoist(model: Model, node: Node) -> None:
    source = node.inputs[0]
    assert source is not None
    before = source.producer()
    assert before is not None
    view = Quant.read(node) if Quant.matches(node) else BipolarQuant.read(node)
    for index, value in enumerate(tuple(before.inputs)):
        if value is None or value not in movement(before).sources:
            continue
        suffix = f"_{index}" if index else ""
        made = view.build(model.graph, value, f"{node.name}_hoisted{suffix}")
        derive((made,), node, "normalize")
        model.graph.insert_before(before, made)
        before.replace_input_with(index, made.outputs[0])
    bypass(node)
