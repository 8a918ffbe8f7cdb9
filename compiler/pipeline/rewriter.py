"""Passes made of rules: a pattern, and what takes the place of a node where it fits.

    @dataclass(frozen=True)
    class HalfTwice(Rewriter):
        \"\"\"Write two halvings as one.\"\"\"

        name: ClassVar[str] = "half-twice"

        @rule(Op("Mul", (Op("Mul", (Var("x"), Const("a", 0.5))), Const("b", 0.5))))
        def halves(self, match: Match, new: Builder) -> Value | Decline | None:
            return new.op("Mul", match["x"], 0.25)

A rewriter goes through the graph once, in order, and tries its rules on each node in the order in
which they are written; nodes that it made itself are roots only in another run (`repeat(...)`), so
that it ends. What is new has the provenance of what it replaces, and the name and the uses of the
replaced output; in the integer state types and ranges are derived anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir import DataType, Graph, Model, Node, Shape, Value

from hqc.analysis import precision_propagation
from hqc.analysis.ranges import fit
from hqc.ir import (
    Array,
    State,
    constant,
    fresh_name,
    location_of,
    make_node,
    nodes,
    replace_output,
    set_type,
    state_of,
    type_of,
)
from hqc.ir.names import kept_names
from hqc.pipeline.node_builder import NodeBuilder
from hqc.pipeline.passes import Change, Outcome, Pass, Remark
from hqc.pipeline.patterns import Const, Match, Op, Pattern, Var, match
from hqc.text.printer import PREFIXES

__all__ = [
    "Builder",
    "Const",
    "Decline",
    "Match",
    "Op",
    "Pattern",
    "Rewriter",
    "Rule",
    "Var",
    "rule",
]


@dataclass(frozen=True)
class Decline:
    """A rule's answer where its pattern fits and it must not act: the reason, for a remark."""

    reason: str


Answer = Value | Decline | None
RuleFunction = Callable[[Any, Match, "Builder"], Answer]


@dataclass(frozen=True)
class Rule:
    """A pattern and the function that answers it.

    The function gets the pass, the match and a builder, and returns the tensor that replaces the
    root's output, a `Decline`, or None where the rule does not apply after all.
    """

    pattern: Op
    answer: RuleFunction

    @property
    def name(self) -> str:
        """The function's name, in kebab-case."""
        return self.answer.__name__.strip("_").replace("_", "-")


def rule(pattern: Op) -> Callable[[RuleFunction], Rule]:
    """Make a method of a `Rewriter` one of its rules."""
    return lambda answer: Rule(pattern, answer)


class Builder:
    """Makes the nodes that take the place of one; they enter the graph only if they are used.

    What rules and plug-ins see of `hqc.pipeline.node_builder.NodeBuilder`: names and shapes are
    not their affair.
    """

    def __init__(self, graph: Graph, root: Node, typed: bool):
        """`typed`: constants get types, as the integer state wants them."""
        out = root.outputs[0]
        self._new = NodeBuilder(graph, str(out.name), out)
        self._typed = typed
        self.nodes, self.constants = self._new.nodes, self._new.constants

    def op(self, op: str, *inputs: Value | float | Array | None, **attributes: Any) -> Value:
        """The output of a new node.

        Args:
            op: the operator as the textual IR writes it, such as "Relu" or "qonnx.Quant".
            inputs: tensors; numbers and arrays become constants of the root's type.
            attributes: as ONNX names them.
        """
        prefix, _, plain = op.rpartition(".")
        values = [v if v is None or isinstance(v, Value) else self.constant(v) for v in inputs]
        domain = PREFIXES.get(prefix, prefix)
        made = self._new.add(plain, values, plain.lower(), None, domain, **attributes)
        _infer(self.nodes[-1], self._new.graph.opset_imports.get("", 1))
        return made

    def constant(self, number: float | Array) -> Value:
        """A constant; a number of Python's has the element type of the root's output."""
        array = np.asarray(number)
        if not isinstance(number, np.ndarray | np.generic):
            array = array.astype((self._new.like.dtype or DataType.FLOAT).numpy())
        made = self._new.constant(array, "const")
        if self._typed and array.dtype.kind == "f":
            set_type(made, fit(array.astype(np.float64)))
        return made


@dataclass(frozen=True)
class Rewriter(Pass):
    """Base of passes made of rules: see the module.

    Attributes:
        max_rewrites: how many rewrites are done in a run; negative for all. `hqc bisect` finds the
            first wrong one with it.
    """

    max_rewrites: int = field(default=-1, kw_only=True)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The rules in the order in which they are written; those of base classes first."""
        found = [vars(base).items() for base in reversed(cls.__mro__)]
        named = {name: x for items in found for name, x in items if isinstance(x, Rule)}
        return tuple(named.values())

    def rewrite(self, model: Model) -> Outcome:
        """One sweep in topological order."""
        with kept_names(model.graph):
            return self._sweep(model)

    def _sweep(self, model: Model) -> Outcome:
        changes: list[Change] = []
        remarks: list[Remark] = []
        for node in nodes(model.graph):
            for one in self.rules():
                if len(changes) == self.max_rewrites:
                    break
                if node.graph is None:  # an earlier rewrite took it away
                    break
                found = match(one.pattern, node)
                if found is None:
                    continue
                where = location_of(node)
                answer = self._apply(one, found, model)
                if isinstance(answer, Decline):
                    remarks.append(Remark(f"{one.name}: {answer.reason}", where, one.name))
                elif answer is not None:
                    changes.append(Change(one.name, where))
                    break
        if changes:
            _annotate(model)
        return Outcome(model, len(changes), tuple(remarks), tuple(changes))

    def _apply(self, one: Rule, found: Match, model: Model) -> Answer:
        """Ask a rule, and put its answer in the place of the root."""
        new = Builder(model.graph, found.node, typed=state_of(model) is State.INTEGER)
        try:
            answer = one.answer(self, found, new)
            if isinstance(answer, Value):
                _check(answer, found.node)
                _put(answer, found, new, self.name)
            elif answer is not None and not isinstance(answer, Decline):
                raise TypeError(f"it answers {answer!r}: a tensor, a Decline or None is wanted")
        except Exception as error:
            error.add_note(f"rule {one.name} on {location_of(found.node)}")
            raise
        _forget(model.graph, new.constants)
        return answer


def _check(answer: Value, root: Node) -> None:
    out = root.outputs[0]
    if answer.dtype is not None and out.dtype is not None and answer.dtype != out.dtype:
        raise TypeError(f"the replacement is {answer.dtype}, {out.name} is {out.dtype}")
    if answer.shape is not None and out.shape is not None and not _fits(answer.shape, out.shape):
        raise ValueError(f"the replacement has shape {answer.shape}, {out.name} has {out.shape}")


def _fits(a: Shape, b: Shape) -> bool:
    """Whether two shapes can be the same; what is symbolic may be anything."""
    pairs = zip(a, b, strict=False)
    known = [(m, n) for m, n in pairs if isinstance(m, int) and isinstance(n, int)]
    return len(a) == len(b) and all(m == n for m, n in known)


def _put(answer: Value, found: Match, new: Builder, by: str) -> None:
    root = found.node
    out, graph = root.outputs[0], root.graph
    assert graph is not None
    if answer is out:
        raise ValueError(f"the replacement of {out.name} is {out.name} itself")
    made = _ancestors(answer, new.nodes)
    if not made and out.is_graph_output():  # an interface keeps its own name
        made = [make_node("Identity", (answer,), like=out, name=fresh_name(graph, f"{by}_out"))]
    if made:
        replace_output(root, made, by)
    else:
        onnx_ir.convenience.replace_all_uses_with(out, answer)
        graph.remove(root, safe=True)
    for node in found.nodes[1:]:  # consumers come before producers
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    _forget(graph, found.values.values())


def _ancestors(value: Value, among: list[Node]) -> list[Node]:
    """The new nodes that a value needs, in the order in which they were made."""
    needed, pending = set(), [value]
    while pending:
        producer = pending.pop().producer()
        if producer is not None and producer in among and producer not in needed:
            needed.add(producer)
            pending += [v for v in producer.inputs if v is not None]
    for node in among:
        if node not in needed:  # made and not used: it must not count as a user of its inputs
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
    return [node for node in among if node in needed]


def _forget(graph: Graph, values: Any) -> None:
    """Drop constants that nothing uses any more."""
    for value in values:
        known = graph.initializers.get(value.name) is value
        if known and not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name]


def _infer(node: Node, opset: int) -> None:
    """Set the output's shape and type where ONNX can tell; they were those of the root's output."""
    out = node.outputs[0]
    if node.domain:  # QONNX operators keep the shape of their data
        source = node.inputs[0]
        out.shape = source.shape if source is not None else out.shape
        return
    types, data = {}, {}
    for value in node.inputs:
        if value is not None and value.shape is not None and value.dtype is not None:
            types[value.name] = onnx_ir.serde.serialize_value(value).type
            if (array := constant(value)) is not None:
                data[value.name] = onnx.numpy_helper.from_array(array, value.name)
    if any(value is not None and value.name not in types for value in node.inputs):
        out.shape = None  # a graph as it was read: its import infers shapes
        return
    schema = onnx.defs.get_schema(node.op_type, opset)
    proto = onnx_ir.serde.serialize_node(node)
    found = onnx.shape_inference.infer_node_outputs(
        schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)]
    )
    if (type_ := found.get(out.name)) is not None:
        told = onnx_ir.serde.deserialize_type_proto_for_shape(type_)
        out.shape = told if told is not None else out.shape
        out.type = onnx_ir.serde.deserialize_type_proto_for_type(type_) or out.type


def _annotate(model: Model) -> None:
    """Derive types and ranges anew where the datapath has them."""
    typed = any(type_of(v) is not None for node in model.graph for v in node.outputs)
    if state_of(model) is State.INTEGER and typed:
        precision_propagation.annotate(model)
