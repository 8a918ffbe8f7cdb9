"""Patterns over the use-lists of a graph: what the rules of a `Rewriter` look for.

A pattern is a tree: its root is the node that a rule replaces, its leaves are tensors. Constants
are compared with `==`; there are no tolerances.

    Op("Mul", (Op("Relu", (Var("x"),)), Const("scale", 0.5)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_ir import Node, Value

from hqc.ir import Array, constant
from hqc.text.printer import PREFIXES

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})


@dataclass(frozen=True)
class Var:
    """Any tensor, computed or constant. The same name twice means the same tensor."""

    name: str


@dataclass(frozen=True)
class Const:
    """A constant tensor; `value` and `where` restrict it.

    Attributes:
        name: how the rule finds it.
        value: what every element equals.
        where: a condition on the array.
    """

    name: str
    value: float | None = None
    where: Callable[[Array], bool] | None = None

    def holds(self, array: Array) -> bool:
        """Whether an array is such a constant."""
        if self.value is not None and not np.all(array == self.value):
            return False
        return self.where is None or bool(self.where(array))


@dataclass(frozen=True)
class Op:
    """A node.

    Attributes:
        op: the operator as the textual IR writes it, such as "Relu" or "qonnx.Quant".
        inputs: patterns of its inputs, all of them; None for one that is left out. The two of
            Add, Mul, Max and Min are tried in both orders.
        name: how the rule finds the node and its output; may be left empty.
        attributes: values that attributes have; others are free.
        shared: whether its output may be used elsewhere too; the root's always may.
    """

    op: str
    inputs: tuple[Pattern | None, ...]
    name: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    shared: bool = False


Pattern = Var | Const | Op


@dataclass(frozen=True)
class Match:
    """Where a pattern fits: `match["x"]` is the tensor called x.

    Attributes:
        node: the root, whose output is replaced.
        values: tensors by the names in the pattern.
        nodes: all matched nodes; the root is the first.
    """

    node: Node
    values: Mapping[str, Value]
    nodes: tuple[Node, ...]

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def array(self, name: str) -> Array:
        """The data of a constant, at least of one that a `Const` matched."""
        found = constant(self.values[name])
        if found is None:
            raise ValueError(f"{name} is computed")
        return found

    def attribute(self, name: str, default: Any, node: str = "") -> Any:
        """An attribute of the root, or of the node of that name in the pattern, or the default."""
        owner = self.values[node].producer() if node else self.node
        found = owner.attributes.get(name) if owner is not None else None
        return default if found is None else found.value


def match(pattern: Op, node: Node) -> Match | None:
    """The first way in which a pattern fits with its root on a node, or None."""
    for found in _node(pattern, node, Match(node, {}, ())):
        return found
    return None


def _node(pattern: Op, node: Node, so_far: Match) -> Iterator[Match]:
    prefix, _, op = pattern.op.rpartition(".")
    if node.op_type != op or node.domain != PREFIXES.get(prefix, prefix):
        return
    for name, wanted in pattern.attributes.items():
        found = node.attributes.get(name)
        if found is None or _plain(found.value) != _plain(wanted):
            return
    inputs = _trimmed(node.inputs)
    wanted_inputs = _trimmed(pattern.inputs)
    if len(inputs) != len(wanted_inputs):
        return
    bound = _bind(so_far, pattern.name, node.outputs[0])
    if bound is None:
        return
    bound = Match(bound.node, bound.values, (*bound.nodes, node))
    orders = [inputs]
    if not node.domain and op in _COMMUTATIVE and len(inputs) == 2:
        orders.append(inputs[::-1])
    for order in orders:
        yield from _inputs(wanted_inputs, order, bound)


def _inputs(
    patterns: tuple[Any, ...], values: tuple[Value | None, ...], so_far: Match
) -> Iterator[Match]:
    if not patterns:
        yield so_far
        return
    for found in _value(patterns[0], values[0], so_far):
        yield from _inputs(patterns[1:], values[1:], found)


def _value(pattern: Pattern | None, value: Value | None, so_far: Match) -> Iterator[Match]:
    if pattern is None or value is None:
        if pattern is None and value is None:
            yield so_far
        return
    if isinstance(pattern, Op):
        producer = value.producer()
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if producer is not None and len(producer.outputs) == 1 and (pattern.shared or alone):
            yield from _node(pattern, producer, so_far)
        return
    if isinstance(pattern, Const):
        array = constant(value)
        if array is None or not pattern.holds(array):
            return
    if (bound := _bind(so_far, pattern.name, value)) is not None:
        yield bound


def _bind(so_far: Match, name: str, value: Value) -> Match | None:
    if not name:
        return so_far
    if so_far.values.get(name, value) is not value:
        return None
    return Match(so_far.node, {**so_far.values, name: value}, so_far.nodes)


def _trimmed(inputs: Any) -> tuple[Any, ...]:
    """Inputs without the optional ones that are left out at the end."""
    found = tuple(inputs)
    while found and found[-1] is None:
        found = found[:-1]
    return found


def _plain(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else value
