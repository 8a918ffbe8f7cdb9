"""The verifier: what must hold of every model between two passes, as a table of rules.

Each rule has a code, a sentence and a function that finds what breaks it. Rules come in stages:
contents are looked at only in a graph that is well formed, and the integer datapath only where
the contents make sense, so that one mistake is reported once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx_ir import AttributeType, Model, Node, Value
from onnx_ir import TensorProtocol as Tensor

from hqc.diagnostics import Diagnostic, HqcError, Location
from hqc.ir import QONNX, State, location_of, state_of
from hqc.ir.operators import BipolarQuant, MultiThreshold, Quant
from hqc.pipeline import integer_verifier as core
from hqc.pipeline.integer_verifier import Datapath, Finding, locate

#: QONNX operators of the dialect. Of ONNX it takes every operator of the imported version: what
#: has no integer form is the host's, or is refused by the pass that would need one.
QONNX_OPERATORS = frozenset({"BipolarQuant", "MultiThreshold", "Quant", "Trunc"})

#: Findings shown by `check`; the rest are counted.
SHOWN = 20

_SUBGRAPHS = (AttributeType.GRAPH, AttributeType.GRAPHS)


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        name: a short handle, for tests and people.
        code: of the diagnostics, unless a finding brings its own.
        description: what holds.
        find: yields every violation as a message and a place, or as a diagnostic.
        state: the only state it applies to, or None for all.
    """

    name: str
    code: str
    description: str
    find: Callable[[Facts], Iterator[Finding]]
    state: State | None = None

    def diagnose(self, facts: Facts) -> Iterator[Diagnostic]:
        """The violations of this rule."""
        if self.state is not None and state_of(facts.model) is not self.state:
            return
        for finding in self.find(facts):
            if isinstance(finding, Diagnostic):
                yield finding
            else:
                message, where = finding
                yield Diagnostic(self.code, message, where, (f"rule: {self.description}",))


class Facts:
    """What the rules ask of a model, computed when first asked."""

    def __init__(self, model: Model):
        self.model = model
        self.graph = model.graph

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node in graph order."""
        return tuple(self.graph)

    @cached_property
    def position(self) -> dict[Node, int]:
        """Index of every node."""
        return {node: i for i, node in enumerate(self.nodes)}

    @cached_property
    def given(self) -> tuple[Value, ...]:
        """Inputs and constants, each once."""
        return tuple(dict.fromkeys((*self.graph.inputs, *self.graph.initializers.values())))

    @cached_property
    def uses(self) -> tuple[tuple[Node, Value], ...]:
        """Every use of a value by a node."""
        return tuple((n, v) for n in self.nodes for v in n.inputs if v is not None)

    @cached_property
    def datapath(self) -> Datapath:
        """The part that becomes hardware, of an integer model."""
        return Datapath(self.model)

    @cached_property
    def constants(self) -> tuple[tuple[str, Tensor, Location], ...]:
        """Every constant with its name and place."""
        found = [
            (str(v.name), v.const_value, locate(v))
            for v in self.graph.initializers.values()
            if v.const_value is not None
        ]
        for node in self.nodes:
            for name, attribute in node.attributes.items():
                if attribute.type is AttributeType.TENSOR:
                    found.append((f"attribute {name}", attribute.as_tensor(), location_of(node)))
        return tuple(found)


def verify(model: Model) -> list[Diagnostic]:
    """Every violation of the first stage that has any; an empty list means the model is valid."""
    facts = Facts(model)
    for stage in STAGES:
        found = [diagnostic for rule in stage for diagnostic in rule.diagnose(facts)]
        if found:
            return found
    return []


def check(model: Model, after: str | None = None) -> None:
    """Raise if the model is not valid.

    Args:
        model: any model between two passes.
        after: the pass that made it, for the message.

    Raises:
        HqcError: HQC302 first, then the findings with their own codes.
    """
    found = verify(model)
    if not found:
        return
    count = f"{len(found)} violation{'s' if len(found) > 1 else ''}"
    head = Diagnostic(
        "HQC302",
        f"the model is not valid{f' after {after}' if after else ''}: {count}",
        notes=(f"the first {SHOWN} follow",) if len(found) > SHOWN else (),
    )
    raise HqcError((head, *found[:SHOWN]))


# --- structure ----------------------------------------------------------------------------------


def _names(facts: Facts) -> Iterator[Finding]:
    seen: dict[str, Value] = {}
    produced = (v for node in facts.nodes for v in node.outputs)
    for value in (*facts.given, *produced):
        if not value.name:
            if value.uses() or value.is_graph_output() or value.producer() is None:
                yield "a value in use has no name", locate(value)
        elif seen.setdefault(value.name, value) is not value:
            yield f"{value.name} names two values", locate(value)


def _interface(facts: Facts) -> Iterator[Finding]:
    known = {*facts.given, *(v for node in facts.nodes for v in node.outputs)}
    if not facts.graph.outputs:
        yield "the graph has no output", Location()
    for value in facts.graph.outputs:
        if value not in known:
            yield f"nothing produces the output {value.name}", locate(value)


def _order(facts: Facts) -> Iterator[Finding]:
    for node, value in facts.uses:
        producer = value.producer()
        at = facts.position.get(producer) if producer is not None else None
        if at is not None and at >= facts.position[node]:
            yield f"{value.name} is used before it is produced", location_of(node)


def _dangling(facts: Facts) -> Iterator[Finding]:
    given = set(facts.given)
    for node, value in facts.uses:
        producer = value.producer()
        if value not in given and (producer is None or producer not in facts.position):
            yield f"nothing in the graph produces {value.name}", location_of(node)


def _flat(facts: Facts) -> Iterator[Finding]:
    for identifier in facts.model.functions:
        yield f"local function {identifier[1]}", Location()
    for node in facts.nodes:
        if any(a.type in _SUBGRAPHS for a in node.attributes.values()):
            yield f"{node.op_type} holds a subgraph", location_of(node)


# --- contents -----------------------------------------------------------------------------------


def _operators(facts: Facts) -> Iterator[Finding]:
    for node in facts.nodes:
        if not _known(node, facts.graph.opset_imports.get("")):
            domain = f"{node.domain}." if node.domain else ""
            yield f"unknown operator {domain}{node.op_type}", location_of(node)


def _known(node: Node, version: int | None) -> bool:
    if node.domain == QONNX:
        return node.op_type in QONNX_OPERATORS
    if node.domain or version is None:  # a missing import is another rule's finding
        return not node.domain
    try:
        onnx.defs.get_schema(node.op_type, version)
    except onnx.defs.SchemaError:
        return False
    return True


def _opsets(facts: Facts) -> Iterator[Finding]:
    for domain in {node.domain: None for node in facts.nodes}:
        if domain not in facts.graph.opset_imports:
            yield f"the operator set {domain or 'of ONNX'} is used but not imported", Location()


def _declared(facts: Facts) -> Iterator[Finding]:
    for value in facts.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            yield f"constant {value.name} has no data", locate(value)
        elif value.dtype is not tensor.dtype:
            yield (
                f"{value.name} is declared {value.dtype}, its data is {tensor.dtype}",
                locate(value),
            )
        elif value.shape is None or list(value.shape) != list(tensor.shape):
            yield (
                f"{value.name} is declared {value.shape}, its data is {list(tensor.shape)}",
                locate(value),
            )


def _finite(facts: Facts) -> Iterator[Finding]:
    for name, tensor, where in facts.constants:
        if not tensor.dtype.is_floating_point():
            continue
        bad = ~np.isfinite(np.asarray(tensor.numpy()).astype(np.float64))
        if bad.any():
            yield f"{name} holds {np.count_nonzero(bad)} values that are NaN or infinite", where


def _quantisers(facts: Facts) -> Iterator[Finding]:
    for node in facts.nodes:
        for view in (Quant, BipolarQuant, MultiThreshold):
            if view.matches(node):
                try:
                    view.read(node)
                except HqcError as error:
                    yield from error.diagnostics


def _shapes(facts: Facts) -> Iterator[Finding]:
    interface = [v for v in facts.graph.inputs if not v.is_initializer()]
    for value in (*interface, *facts.graph.outputs):
        if value.shape is None or not all(isinstance(d, int) for d in list(value.shape)[1:]):
            yield f"{value.name} has shape {value.shape}", locate(value)


def _core(
    name: str, code: str, description: str, find: Callable[[Datapath], Iterator[Finding]]
) -> Rule:
    """A rule for the datapath of an integer model as a row of the table."""
    return Rule(name, code, description, lambda facts: find(facts.datapath), State.INTEGER)


_GRIDS = "quantisers have constant parameters, positive finite scales and whole bit widths"
_FIXED = "only the batch of a value of the datapath is dynamic"
_TYPED = "every value of the datapath has a type and a range, once one has"
_CONSTANTS = "every constant of the datapath has a type"
_RANGES = "ranges hold what interval arithmetic per channel derives"
_ACTS = "quantisers of the datapath act as assignment to a type, or count thresholds"

STAGES: tuple[tuple[Rule, ...], ...] = (
    (
        Rule("names", "HQC109", "values in use have names, each its own", _names),
        Rule("interface", "HQC109", "every output is produced", _interface),
        Rule("order", "HQC109", "values are produced before they are used", _order),
        Rule("dangling", "HQC109", "every value used is in the graph", _dangling),
        Rule("flat", "HQC102", "there are no subgraphs and no local functions", _flat),
    ),
    (
        Rule("operators", "HQC101", "operators are those of the dialect", _operators),
        Rule("opsets", "HQC109", "the operator sets in use are imported", _opsets),
        Rule("declared", "HQC109", "constants are what they are declared to be", _declared),
        Rule("finite", "HQC105", "constants are finite", _finite),
        Rule("quantisers", "HQC102", _GRIDS, _quantisers),
        Rule("shapes", "HQC104", "only the batch of an input or output is dynamic", _shapes),
    ),
    (_core("cut", "HQC103", "inputs meet a quantiser first", core.cut),),
    (
        _core(
            "core-shapes",
            "HQC104",
            _FIXED,
            core.shapes,
        ),
        _core(
            "typed",
            "HQC302",
            _TYPED,
            core.typed,
        ),
        _core(
            "typed-constants",
            "HQC302",
            "every constant of the datapath has a type",
            core.typed_constants,
        ),
        _core("requantisers", "HQC302", _ACTS, core.requantisers),
    ),
    (
        _core("fits", "HQC302", "types hold the ranges of their values", core.fits),
        Rule(
            "on-grid",
            "HQC201",
            "typed constants are codes of their type, within their range",
            lambda facts: core.on_grid(facts.datapath),
        ),
        _core("ports", "HQC302", "ranges at the inputs are what the quantisers give", core.ports),
        _core(
            "ranges",
            "HQC302",
            _RANGES,
            core.ranges,
        ),
    ),
)

#: The whole table.
RULES: tuple[Rule, ...] = tuple(itertools.chain.from_iterable(STAGES))
