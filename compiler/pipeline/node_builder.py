"""New nodes in the place of one: named after it, made in order, put into the graph together.

Passes, rules and imports share this builder. Others are of other kinds on purpose: the emitter of
`lower-scales` attaches each node at once, because the range of one decides the next; the imports of
PyTorch and HAWQ grow whole graphs (`grow`); and what is written for an executor or for another
compiler are protos, without uses and annotations.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx_ir import Graph, Node, Value

from hqc.analysis.dependence import exact_values_known
from hqc.analysis.ranges import fit
from hqc.ir import Array, add_constant, fresh_name, make_node, set_source, set_type


class View(Protocol):
    """A view of a QONNX operator, such as `hqc.ir.operators.Quant`."""

    def build(self, graph: Graph, x: Value, name: str) -> Node:
        """The node on `x` whose output is called `name`."""
        ...


class NodeBuilder:
    """Nodes that take the place of one, in order.

    Attributes:
        graph: what they are for; constants enter it at once.
        name: what new names begin with.
        like: the tensor whose shape and element type new ones have unless told otherwise.
        computed: values that are known to be no constant expressions.
        nodes, constants: what was made so far.
    """

    def __init__(
        self, graph: Graph, name: str, like: Value, computed: Container[Value] = frozenset()
    ):
        self.graph, self.name, self.like, self.computed = graph, name, like, computed
        self.nodes: list[Node] = []
        self.constants: list[Value] = []

    @classmethod
    def replacing(cls, node: Node, computed: Container[Value] = frozenset()) -> NodeBuilder:
        """A builder whose nodes are named after one, and whose tensors are like its output."""
        assert node.graph is not None
        out = node.outputs[0]
        return cls(node.graph, node.name or str(out.name), out, computed)

    def is_constant(self, value: Value) -> bool:
        """Whether a tensor is a constant expression."""
        return exact_values_known(value, self.computed)

    def append(self, node: Node) -> Value:
        """Take a node that was made elsewhere; its output."""
        self.nodes.append(node)
        return node.outputs[0]

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        suffix: str,
        dims: Sequence[int] | None = None,
        domain: str = "",
        /,
        **attributes: Any,
    ) -> Value:
        """One more node.

        Args:
            op: of the operator set of ONNX, or of `domain`.
            inputs: in order.
            suffix: of its name; without one it has the name of what is replaced.
            dims: the shape of a sample, where it is not that of `like`.
            domain: of the operator.
            attributes: as ONNX names them.
        """
        name = self._named(suffix)
        made = make_node(
            op, inputs, like=self.like, name=name, attributes=attributes, domain=domain
        )
        if dims is not None:
            set_sample_shape(made.outputs[0], dims, self.like)
        return self.append(made)

    def apply(self, view: View, x: Value, suffix: str) -> Value:
        """A quantiser, or thresholds, of a tensor."""
        return self.append(view.build(self.graph, x, self._named(suffix)))

    def constant(self, array: Array, suffix: str) -> Value:
        """An array as it is."""
        self.constants.append(add_constant(self.graph, f"{self.name}_{suffix}", array))
        return self.constants[-1]

    def number(self, values: npt.ArrayLike, suffix: str) -> Value:
        """A float32 constant."""
        return self.constant(np.asarray(values, np.float32), suffix)

    def integers(self, values: Sequence[int], suffix: str) -> Value:
        """A list of whole numbers."""
        return self.constant(np.array(values, np.int64), suffix)

    def by(self, op: str, x: Value, operand: npt.ArrayLike, suffix: str) -> Value:
        """Arithmetic of a tensor with a float32 constant."""
        return self.add(op, (x, self.number(operand, f"{suffix}_by")), suffix)

    def reshaped(self, x: Value, dims: Sequence[int], suffix: str) -> Value:
        """Elements in order, in another shape per sample."""
        return self.add("Reshape", (x, self.integers([-1, *dims], f"{suffix}_shape")), suffix, dims)

    def constant_shape(self, x: Value, dims: Sequence[int], suffix: str) -> Value:
        """A constant expression in another shape."""
        value = self.add("Reshape", (x, self.integers(dims, f"{suffix}_shape")), suffix)
        value.shape = onnx_ir.Shape(tuple(dims))
        return value

    def transposed(self, x: Value, order: Sequence[int], suffix: str) -> Value:
        """A tensor with its axes in another order."""
        value = self.add("Transpose", (x,), suffix, perm=list(order))
        value.shape = None if x.shape is None else onnx_ir.Shape([x.shape[i] for i in order])
        return value

    def _named(self, suffix: str) -> str:
        if not suffix:
            return self.name
        wanted = f"{self.name}_{suffix}"
        taken = {node.name for node in self.nodes}
        name, number = wanted, 1
        while name in taken or fresh_name(self.graph, name) != name:
            number += 1
            name = f"{wanted}_{number}"
        return name


def typed_constant(graph: Graph, name: str, array: Array) -> Value:
    """A constant with the narrowest type that holds it, as the integer state wants it."""
    made = add_constant(graph, name, array)
    set_type(made, fit(np.asarray(array, np.float64)))
    return made


def codes_times_scale(graph: Graph, name: str, codes: Array, scale: Array) -> Node:
    """Codes times a scale: the form in which quantised weights are kept once they are folded."""
    value = typed_constant(graph, f"{name}_codes", codes.astype(np.float32))
    factor = add_constant(graph, f"{name}_scale", scale.astype(np.float32))
    return make_node("Mul", (value, factor), like=value, name=name)


def set_sample_shape(value: Value, dims: Sequence[int], like: Value) -> None:
    """Give a tensor this shape per sample, and the batch axis of another."""
    value.shape = onnx_ir.Shape(((like.shape or ("N",))[0], *dims))


def grow(graph: Graph, node: Node, source: str) -> Value:
    """Put a node at the end of a graph under construction; its output."""
    set_source(node, source)
    graph.append(node)
    return node.outputs[0]
