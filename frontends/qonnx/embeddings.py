"""Look-ups in a constant table (Gather, embeddings), as sums over thresholds of the index.

With t_k = 1 where the index is at least k, else 0, row i of a table is

    table[i] = table[0] + sum over k of t_k * (table[k] - table[k - 1])

so a look-up is a `MultiThreshold` and a linear layer, and everything that is known of these holds.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import exact_values_known
from hqc.analysis.grid_constants import GridConstant, grid_constant
from hqc.diagnostics import reject
from hqc.ir import constant, location_of, nodes, replace_output, sole_consumer
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.types import Rounding
from hqc.pipeline.node_builder import NodeBuilder, codes_times_scale
from hqc.pipeline.passes import Remark

#: Rows beyond this are no comparators.
MAX_ROWS = 1024


def rewrite_embeddings(model: Model) -> list[Remark]:
    """Replace look-ups of a graph input in constant tables, in place.

    The input becomes float32 with an unsigned port; indices beyond the table read its last row.

    Raises:
        HqcError: HQC102, the index is computed, or the table is too long; HQC103, the table is not
            quantised.
    """
    remarks = []
    for node in nodes(model.graph):
        if node.op_type != "Gather" or node.domain or not _looks_up(node):
            continue
        ids = _graph_input(node)
        _quantiser_first(node)
        table = _table(node)
        bits = max(1, (len(table.codes) - 1).bit_length())
        _replace(model, node, ids, table, bits)
        remarks.append(
            Remark(f"input {ids.name} holds indices of {len(table.codes)} rows: a {bits}-bit port")
        )
    return remarks


def _looks_up(node: Node) -> bool:
    table, ids = node.inputs
    known = table is not None and exact_values_known(table)
    return known and ids is not None and not exact_values_known(ids)


def _graph_input(node: Node) -> Value:
    """The graph input that holds the indices, behind casts."""
    value = node.inputs[1]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in ("Cast", "Identity"):
            value = None
            break
        value = producer.inputs[0]
    if value is None or node.attributes.get_int("axis", 0) != 0:
        raise reject(
            "HQC102",
            "a look-up with a computed index, or along another axis than the first",
            where=location_of(node),
            helps=("look up a graph input in the rows of the table",),
        )
    return value


def _quantiser_first(node: Node) -> None:
    """A quantiser of looked-up values may as well quantise the table."""
    user = sole_consumer(node.outputs[0])
    table = node.inputs[0]
    if user is None or not Quant.matches(user) or constant(table) is None:
        return
    quant = Quant.read(user)
    if quant.scale.size != 1 or quant.zero_point.size != 1:
        return
    graph = node.graph
    assert graph is not None
    assert table is not None
    moved = quant.build(graph, table, f"{node.name}_table")
    graph.insert_before(node, moved)
    node.replace_input_with(0, moved.outputs[0])


def _table(node: Node) -> GridConstant:
    grid = grid_constant(node.inputs[0])
    if grid is None or grid.scale.size != 1:
        raise reject(
            "HQC103",
            "the table of a look-up is not quantised with one scale",
            where=location_of(node),
            helps=("put a quantiser with one scale on the table, or right behind the look-up",),
        )
    if grid.codes.ndim != 2 or not 2 <= len(grid.codes) <= MAX_ROWS:
        raise reject(
            "HQC102",
            f"a look-up in a table of shape {grid.codes.shape}",
            where=location_of(node),
            notes=(f"tables have rows and columns, and 2 to {MAX_ROWS} rows",),
        )
    return grid


def _replace(model: Model, node: Node, ids: Value, table: GridConstant, bits: int) -> None:
    graph, name = model.graph, str(node.name)
    rows, columns = table.codes.shape
    dims = [d for d in tuple(ids.shape or ())[1:] if isinstance(d, int)]
    count = math.prod(dims)
    ids.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    new = NodeBuilder(graph, name, ids)
    port = Quant(np.ones(()), np.zeros((), np.int64), bits, False, False, Rounding.ROUND)
    flat = new.reshaped(new.apply(port, ids, "index"), (1, count), "flat")
    full = (rows - 1, count)
    spread = new.add("Expand", (flat, new.integers([1, *full], "spread_shape")), "spread", full)
    steps = np.arange(1, rows, dtype=np.float32).reshape(-1, 1)
    reached = new.apply(MultiThreshold(steps), spread, "reached")
    differences = np.diff(table.codes, axis=0).T.reshape(columns, rows - 1, 1)
    scale = table.scale.reshape(())
    weights = new.append(codes_times_scale(graph, f"{name}_differences", differences, scale))
    sums = new.add("Conv", (reached, weights), "sums", (columns, count))
    start = table.codes[0].reshape(1, columns, 1)
    first = new.append(codes_times_scale(graph, f"{name}_first", start, scale))
    added = new.add("Add", (sums, first), "rows", (columns, count))
    turned = new.transposed(added, [0, 2, 1], "turned")
    shape = new.integers([-1, *dims, columns], "shape")
    new.add("Reshape", (turned, shape), "found", (*dims, columns))
    replace_output(node, new.nodes, "import")
