"""The verifier's rules for the integer datapath: types, ranges, grids and requantisation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import computed_values
from hqc.analysis.intervals import derive
from hqc.analysis.partition import computed_nodes, first_quantisers, host_tail
from hqc.analysis.rearrangements import is_rearrangement
from hqc.diagnostics import Diagnostic, HqcError, Location
from hqc.ir import constant, location_of, range_of, type_of
from hqc.ir.operators import MultiThreshold, Quant, is_quantiser
from hqc.numerics.types import Range
from hqc.text.printer import print_range

#: What breaks a rule: a message and its place, or a diagnostic with a code of its own.
Finding = tuple[str, Location] | Diagnostic


def locate(value: Value) -> Location:
    """The place of a value: its node, else the first node that uses it, else its name."""
    node = value.producer() or next((use.node for use in value.uses()), None)
    return location_of(node) if node is not None else Location(node=str(value.name))


class Datapath:
    """The part of an integer model that becomes hardware.

    It is what lies between the first quantisers and the host's tail, and whatever else has a type
    behind the first quantisers: dropping one annotation moves nothing out of the rules' sight.
    """

    def __init__(self, model: Model):
        self.model = model

    @cached_property
    def ports(self) -> dict[Node, bool]:
        """The first quantisers, and whether they see the model's input as it is.

        Raises:
            HqcError: an input does not reach a quantiser first.
        """
        heads = first_quantisers(self.model)
        return {node: not chain.steps for node, (_, chain) in heads.items()}

    @cached_property
    def core(self) -> tuple[Node, ...]:
        """Nodes behind the ports, in order."""
        before = set(self.ports)
        pending = list(self.ports)
        while pending:
            node = pending.pop()
            above = {p for v in node.inputs if v is not None and (p := v.producer())}
            pending += above - before
            before |= above
        tail = host_tail(self.model)
        return tuple(
            node
            for node in computed_nodes(self.model)
            if node not in before and (node not in tail or _is_typed(node))
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Ports and core, in order."""
        wanted = {*self.ports, *self.core}
        return tuple(node for node in self.model.graph if node in wanted)

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """What they compute."""
        return tuple(v for node in self.nodes for v in node.outputs if v.name)

    @property
    def is_annotated(self) -> bool:
        """Whether precision was propagated: some computed value has a type or a range."""
        return any(_is_typed(node) for node in self.nodes)


def _is_typed(node: Node) -> bool:
    return any(type_of(v) is not None or range_of(v) is not None for v in node.outputs)


def cut(datapath: Datapath) -> Iterator[Finding]:
    """Every input meets a quantiser before any other operator without an integer form."""
    try:
        _ = datapath.core
    except HqcError as error:
        yield from error.diagnostics


def shapes(datapath: Datapath) -> Iterator[Finding]:
    """Only the batch of a value of the datapath is dynamic."""
    for value in datapath.values:
        if value.shape is None or not all(isinstance(d, int) for d in list(value.shape)[1:]):
            yield f"{value.name} has shape {value.shape}", locate(value)


def typed(datapath: Datapath) -> Iterator[Finding]:
    """Every value of the datapath has a type and a range, or none has either.

    Between lowering and the propagation of precision there is nothing to hold against anything;
    whoever needs the types of the ports refuses such a model.
    """
    for value in datapath.values if datapath.is_annotated else ():
        missing = [
            what
            for what, found in (("type", type_of(value)), ("range", range_of(value)))
            if found is None
        ]
        if missing:
            yield f"{value.name} has no {' and no '.join(missing)}", locate(value)


def typed_constants(datapath: Datapath) -> Iterator[Finding]:
    """Every float operand of the datapath that is no computed value is a typed constant."""
    computed = computed_values(datapath.model.graph)
    for node in datapath.core:
        if is_quantiser(node) or (is_rearrangement(node) and node.op_type != "Pad"):
            continue  # what they are told, such as the factors of a Resize, is no operand
        for value in node.inputs:
            if value is None or value in computed:
                continue
            array = constant(value)
            if array is None:
                yield f"{value.name} is an expression of constants, not codes", location_of(node)
            elif array.dtype.kind == "f" and type_of(value) is None:
                yield f"constant {value.name} has no type", location_of(node)


def requantisers(datapath: Datapath) -> Iterator[Finding]:
    """Quantisers act as assignment to a fixed-point type with their own step, or count."""
    for node in datapath.nodes:
        if is_quantiser(node) and (problem := _requantiser(node)):
            yield problem, location_of(node)


def _requantiser(node: Node) -> str:
    if MultiThreshold.matches(node):
        table = MultiThreshold.read(node)
        if table.out_scale == 1 and table.out_bias == int(table.out_bias):
            return ""
        return f"thresholds count in steps of {table.out_scale:g} from {table.out_bias:g}"
    fixed = Quant.read(node).fixed_type if Quant.matches(node) else None
    if fixed is None:
        return f"no fixed-point type does what this {node.op_type} does"
    annotated = type_of(node.outputs[0])
    if annotated is not None and annotated.fraction != fixed.fraction:
        return f"the result is annotated {annotated}, the quantiser gives {fixed}"
    return ""


def fits(datapath: Datapath) -> Iterator[Finding]:
    """Types hold the ranges of their values."""
    given = (*datapath.model.graph.inputs, *datapath.model.graph.initializers.values())
    for value in (*given, *datapath.values):
        type_, range_ = type_of(value), range_of(value)
        if type_ is not None and range_ is not None and not type_.contains(range_):
            yield f"{value.name} reaches {print_range(range_)}, {type_} does not", locate(value)


def on_grid(datapath: Datapath) -> Iterator[Finding]:
    """Typed constants are codes of their type, within their range."""
    for value in datapath.model.graph.initializers.values():
        type_, range_, array = type_of(value), range_of(value), constant(value)
        if type_ is None or array is None or array.size == 0:
            continue
        codes = np.ldexp(np.asarray(array, np.float64), type_.fraction).ravel()
        off = np.flatnonzero(codes != np.rint(codes))
        if len(off):
            worst = float(array.ravel()[off[0]])
            yield f"{value.name} holds {worst!r}, which is no value of {type_}", locate(value)
            continue
        reached = Range(int(codes.min()), int(codes.max()), -type_.fraction)
        if not type_.contains(reached):
            yield f"{value.name} reaches {print_range(reached)}, {type_} does not", locate(value)
        elif range_ is not None and not _spans(range_, reached):
            yield (
                f"{value.name} reaches {print_range(reached)}, beyond {print_range(range_)}",
                locate(value),
            )


def ports(datapath: Datapath) -> Iterator[Finding]:
    """Ranges at the ports are what the quantisers give to inputs that can be anything."""
    for node, bare in datapath.ports.items():
        annotated = range_of(node.outputs[0])
        if Quant.matches(node):
            fixed = Quant.read(node).fixed_type
            limits = fixed.limits if fixed is not None else None
        else:
            table = MultiThreshold.read(node)
            bias = int(table.out_bias)
            limits = Range(bias, bias + table.thresholds.shape[1])
        if annotated is None or limits is None:
            continue
        if not _spans(limits, annotated) or (bare and not _spans(annotated, limits)):
            yield (
                f"{node.outputs[0].name} is annotated {print_range(annotated)}, "
                f"its quantiser gives {print_range(limits)}",
                location_of(node),
            )


def ranges(datapath: Datapath) -> Iterator[Finding]:
    """Ranges hold what interval arithmetic derives from the ports, channel by channel."""
    for value, interval in derive(datapath.nodes, set(datapath.ports)).items():
        annotated = range_of(value)
        if annotated is not None and not _spans(annotated, interval.join()):
            yield (
                f"{value.name} is annotated {print_range(annotated)}, "
                f"interval arithmetic gives {print_range(interval.join())}",
                locate(value),
            )


def _spans(outer: Range, inner: Range) -> bool:
    """Whether the real bounds of one range lie within those of another, whatever their steps."""
    exponent = min(outer.exponent, inner.exponent)
    a, b = outer.at(exponent), inner.at(exponent)
    return a.lo <= b.lo and b.hi <= a.hi
