"""Quantiser folding: constants become codes, redundant quantisers vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.ir import (
    Array,
    add_constant,
    bypass,
    location_of,
    make_node,
    nodes,
    replace_output,
    set_type,
)
from hqc.operators import BipolarQuant, Quant, is_power_of_two, is_quantiser
from hqc.passes_api import Outcome, Pass, Remark
from hqc.ranges import fit
from hqc.semantics import GridConstant, exact_values_known, grid_constant


@dataclass(frozen=True)
class FoldQuantizers(Pass):
    """Turn quantised constants into codes and drop quantisers that repeat the one before.

    A quantised constant becomes its integer codes times its scale (one typed constant where the
    scale is a power of two). A quantiser directly after an identical one changes nothing and goes.
    """

    name: ClassVar[str] = "fold-quantizers"

    def rewrite(self, model: Model) -> Outcome:
        """One sweep in topological order."""
        rewrites, remarks = 0, []
        for node in nodes(model.graph):
            if not is_quantiser(node):
                continue
            source = node.inputs[0]
            if source is None:
                continue
            if exact_values_known(source):
                rewrites += _fold(model, node)
            elif _repeats(node, source):
                bypass(node)
                rewrites += 1
                remarks.append(
                    Remark("dropped: it repeats the quantiser before", location_of(node))
                )
        return Outcome(model, rewrites, tuple(remarks))


def _fold(model: Model, node: Node) -> int:
    top = _last_transpose(node)
    grid = grid_constant(top.outputs[0])
    if grid is None or top.outputs[0].is_graph_output():
        return 0
    name = node.name or str(node.outputs[0].name)
    values = _on_grid(grid)
    if values is not None:
        folded = add_constant(model.graph, f"{name}_folded", values)
        set_type(folded, fit(values.astype(np.float64)))
        _replace(model, top, folded)
        return 1
    codes = add_constant(model.graph, f"{name}_codes", grid.codes.astype(np.float32))
    set_type(codes, fit(grid.codes.astype(np.float64)))
    scale = add_constant(model.graph, f"{name}_scale", grid.scale.astype(np.float32))
    product = make_node("Mul", (codes, scale), like=top.outputs[0], name=f"{name}_dequantise")
    replace_output(top, (product,), FoldQuantizers.name)
    return 1


def _on_grid(grid: GridConstant) -> Array | None:
    """The values themselves, if every scale is a power of two and float32 holds them."""
    if any(not is_power_of_two(s) for s in set(grid.scale.ravel())):
        return None
    values = grid.codes * grid.scale.astype(np.float64)
    single = np.asarray(values, np.float32)
    return single if np.array_equal(single.astype(np.float64), values) else None


def _last_transpose(node: Node) -> Node:
    """The constant transpose that alone uses a quantiser, if any: it folds along."""
    uses = node.outputs[0].uses()
    if len(uses) == 1 and not node.outputs[0].is_graph_output():
        user = next(iter(uses)).node
        if user.op_type == "Transpose":
            return user
    return node


def _replace(model: Model, node: Node, value: Value) -> None:
    import onnx_ir

    onnx_ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(node, safe=True)


def _repeats(node: Node, source: Value) -> bool:
    before = source.producer()
    if before is None:
        return False
    if Quant.matches(node) and Quant.matches(before):
        a, b = Quant.read(node), Quant.read(before)
        same_grid = np.array_equal(a.scale, b.scale) and np.array_equal(a.zero_point, b.zero_point)
        (a_lo, a_hi), (b_lo, b_hi) = a.code_limits, b.code_limits
        wider = a_lo <= b_lo and b_hi <= a_hi and a.is_bipolar == b.is_bipolar
        return same_grid and wider
    if BipolarQuant.matches(node) and BipolarQuant.matches(before):
        return np.array_equal(BipolarQuant.read(node).scale, BipolarQuant.read(before).scale)
    return False
