"""The way along the nodes of a core: layers so far, and the nodes that the next one may join.

It knows no operator but quantisers and what changes nothing; which layer a node becomes stands in
`hqc.backends.layers.lowering`, and `hqc.backends.layers.network` goes through all nodes.
"""

from __future__ import annotations

import math
from dataclasses import replace

from onnx_ir import DataType, Node, Value

from hqc.analysis.chain_steps import is_pass_through
from hqc.analysis.partition import Partition
from hqc.analysis.rearrangements import is_rearrangement, rearrangement, sample_shape
from hqc.backends.layers.constants import Illegal, c_name
from hqc.backends.layers.layers import Layer
from hqc.backends.layers.layout import hardware_index, hardware_shape, is_identity
from hqc.ir import range_of
from hqc.ir.operators import Quant
from hqc.numerics.types import FixedType, Range


class Skip(Exception):
    """The node reads one that was already reported."""


class Walk:
    """Layers by name in the order they were added, and which of them computes each value."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.core = frozenset(id(node) for node in partition.core)
        self.ports = frozenset(port.name for port in partition.outputs)
        self.layers: dict[str, Layer] = {}
        self.layer_of: dict[str, str] = {}
        self.ranges: dict[str, Range] = {}
        self.done: set[int] = set()

    def source(self, value: Value | None) -> Layer:
        """The layer that computes a value.

        Raises:
            Illegal: the hardware does not hold it.
        """
        name = self.layer_of.get(str(value.name)) if value is not None else None
        if name is None:
            raise Illegal(
                f"it reads {value.name if value else 'nothing'}, which the hardware does not hold",
                notes=("hardware values begin at an input quantiser",),
            )
        if not name:
            raise Skip
        return self.layers[name]

    def follow(self, value: Value) -> tuple[Value, Node | None]:
        """The next node that computes, past those that change nothing in hardware."""
        node = self._next(value)
        while node is not None and changes_nothing(node):
            self.done.add(id(node))
            value = node.outputs[0]
            node = self._next(value)
        return value, node

    def _next(self, value: Value) -> Node | None:
        """The one core node that uses a value; None if it is a port or has other users."""
        uses = value.uses()
        if len(uses) != 1 or value.is_graph_output() or value.name in self.ports:
            return None
        user = next(iter(uses)).node
        return user if id(user) in self.core else None

    def finish(self, layer: Layer, value: Value, node: Node | None) -> None:
        """Add a layer whose result is `value`, or that of the quantiser that follows, if any."""
        if node is not None and Quant.matches(node):
            self.done.add(id(node))
            value = node.outputs[0]
        self.add(layer, value)

    def add(self, layer: Layer, value: Value) -> None:
        """Add a layer under a name of its own; its shape is that of `value`."""
        name = f"l{len(self.layers)}_{c_name(str(value.name))}"
        self.layers[name] = replace(layer, name=name, shape=hardware_shape(sample_shape(value)))
        self.layer_of[str(value.name)] = name
        self.ranges[name] = range_of(value) or layer.result.limits


def quantiser_type(node: Node) -> FixedType:
    """The hardware type of a Quant node.

    Raises:
        Illegal: it has none.
    """
    view = Quant.read(node)
    if view.fixed_type is None:
        raise Illegal(
            "this Quant has no hardware type",
            notes=(
                "a type has one power-of-two step, zero point 0, a rounding mode that "
                "ap_fixed and ac_fixed know, and a two's-complement or symmetric range",
            ),
            helps=("run the default pipeline, which lowers scales, zero points and roundings",),
        )
    return view.fixed_type


def changes_nothing(node: Node) -> bool:
    """Whether each sample's elements stay as they are, where the hardware holds them."""
    if is_rearrangement(node):
        found = rearrangement(node)
        if len(found.sources) != 1:
            return False
        shape = sample_shape(found.sources[0])
        return is_identity(hardware_index(found, [shape]), math.prod(shape))
    if node.op_type == "Cast":
        to = node.attributes["to"].as_int()
        return to in (int(DataType.FLOAT), int(DataType.DOUBLE))
    return is_pass_through(node)
