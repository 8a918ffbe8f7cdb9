"""The builder of nodes that take the place of one."""

from __future__ import annotations

import numpy as np
from support.qonnx_graphs import Net

from hqc.analysis.grid_constants import grid_constant
from hqc.ir import constant, type_of
from hqc.passes.lowering.move_elementwise import hoist_elementwise
from hqc.pipeline.node_builder import NodeBuilder, codes_times_scale


def builder() -> NodeBuilder:
    net = Net()
    x = net.quant(net.input("x", 2, 3), 0.125, 6)
    model = net.raw(net.op("Relu", x, name="relu"))
    return NodeBuilder.replacing(next(n for n in model.graph if n.op_type == "Relu"))


def test_names_are_new_in_the_graph_and_among_what_was_made() -> None:
    new = builder()
    for _ in range(3):
        new.add("Neg", (new.like,), "part")
    assert [n.name for n in new.nodes] == [f"{new.name}_part{s}" for s in ("", "_2", "_3")]
    assert new.add("Neg", (new.like,), "").name == new.name


def test_nodes_stay_out_of_the_graph_and_constants_enter_it() -> None:
    new = builder()
    before = len(new.graph)
    new.reshaped(new.by("Mul", new.like, 0.5, "half"), (6,), "flat")
    assert len(new.graph) == before
    assert all(v.name in new.graph.initializers for v in new.constants)
    assert list(new.nodes[-1].outputs[0].shape or ())[1:] == [6]


def test_codes_times_a_scale_are_a_constant_on_a_grid() -> None:
    graph = builder().graph
    made = codes_times_scale(graph, "w", np.array([[3, -4]]), np.array([0.3, 0.7]))
    grid = grid_constant(made.outputs[0])
    assert grid is not None
    assert grid.codes.tolist() == [[3, -4]]
    value, factor = made.inputs
    assert value is not None
    assert str(type_of(value)).startswith("fixed<3")
    assert np.asarray(constant(factor)).dtype == np.float32


def test_a_constant_that_two_nodes_share_is_turned_back_twice() -> None:
    net = Net()
    x = net.quant(net.input("x", 2, 3, 3), 0.125, 6)
    bias = net.const([0.5, -0.25])
    ends = []
    for _ in range(2):
        scaled = net.op("Mul", x, net.const(0.5))
        turned = net.op("Transpose", scaled, perm=[0, 2, 3, 1])
        ends.append(net.op("Add", turned, bias))
    model = net.raw(*ends)
    assert hoist_elementwise(model) == 2
    names = [v.name for node in model.graph for v in node.outputs]
    assert len(set(names)) == len(names)
