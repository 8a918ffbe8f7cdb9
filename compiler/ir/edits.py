"""Edits of a graph that several layers make: nodes swapped, put behind others, and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.ir.names import note_names
from hqc.ir.store import derive, location_of, set_source


def replace_output(old: Node, new: Sequence[Node], by: str) -> None:
    """Put `new` where `old` stands; the last new output takes over name, uses and annotations."""
    graph = old.graph
    assert graph is not None
    derive(new, old, by)
    before, after = old.outputs[0], new[-1].outputs[0]
    name = before.name
    graph.insert_before(old, new)
    onnx_ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    before.name, after.name = f"{name}__replaced", name
    after.shape, after.type = before.shape, before.type
    graph.remove(old, safe=True)
    note_names(new)


def bypass(node: Node) -> None:
    """Remove a node whose output equals its first input."""
    graph = node.graph
    assert graph is not None
    source = node.inputs[0]
    out = node.outputs[0]
    assert source is not None
    if out.is_graph_output():
        if source.is_graph_input() or source.is_initializer() or source.is_graph_output():
            return  # an interface keeps its own name: there must be a node between the two
        source.name, out.name = out.name, f"{out.name}__replaced"
        note_names([p for p in [source.producer()] if p is not None])
    onnx_ir.convenience.replace_all_uses_with(out, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def remove_unused(model: Model) -> int:
    """Drop what no output needs; the number of nodes and constants dropped."""
    removed = 0
    for node in reversed(tuple(model.graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            model.graph.remove(node, safe=True)
            removed += 1
    for name, value in tuple(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
            removed += 1
    return removed


def redirect(value: Value, new: Node) -> None:
    """Let what uses a tensor use the output of a new node, which reads it, instead."""
    for user, index in tuple(value.uses()):
        if user is not new:
            user.replace_input_with(index, new.outputs[0])


def put_behind(node: Node, new: Node, by: str) -> None:
    """Let a new node that reads another take over all its uses, and its name at an output."""
    graph = node.graph
    assert graph is not None
    before, after = node.outputs[0], new.outputs[0]
    derive((new,), node, by)
    redirect(before, new)
    for position, value in enumerate(tuple(graph.outputs)):
        if value is before:
            before.name, after.name = f"{before.name}_sum", before.name
            graph.outputs[position] = after
    graph.insert_after(node, new)
    note_names((node, new))


def swap(old: Node, new: Sequence[Node]) -> None:
    """Put nodes where one of a file stands; the last output takes over its name and uses.

    Unlike `replace_output` it leaves shapes to the inference that follows an import.
    """
    graph = old.graph
    assert graph is not None
    before, after = old.outputs[0], new[-1].outputs[0]
    graph.insert_before(old, new)
    name, before.name = before.name, f"{before.name}__replaced"
    onnx_ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    after.name = name
    graph.remove(old, safe=True)
    note_names(new)


def keep_source(new: Iterable[Node], old: Node) -> None:
    """Give nodes the place in the user's model of one that they stand for."""
    for node in new:
        set_source(node, str(location_of(old).source or old.name or ""))
