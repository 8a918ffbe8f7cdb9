"""Scale lowering: from float tensors on grids to an integer datapath."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import MERGES, chain_step, is_pass_through
from hqc.analysis.dependence import data_input
from hqc.analysis.linear import no_form
from hqc.analysis.partition import computed_nodes, first_quantisers, host_tail, is_linear
from hqc.analysis.rearrangements import data_sources, is_rearrangement
from hqc.diagnostics import reject
from hqc.ir import State, location_of
from hqc.ir.edits import remove_unused
from hqc.ir.names import kept_names, note_names
from hqc.ir.operators import is_quantiser
from hqc.numerics.activations import Rectifier
from hqc.numerics.monotone_chain import Step
from hqc.passes.lowering.integer_builder import Form, IntegerBuilder
from hqc.passes.lowering.linear import lower_average, lower_by_scale, lower_maximum, lower_weighted
from hqc.passes.lowering.merge import lower_merge, lower_rearrangement
from hqc.passes.lowering.rectifiers import straighten
from hqc.passes.lowering.requantisers import lower_port, lower_quantiser
from hqc.passes.lowering.sums import OpenSum, lower_quantised_sum, open_sum
from hqc.pipeline.passes import Outcome, Pass, Remark


@dataclass(frozen=True)
class LowerScales(Pass):
    """Move scales through linear operators into provably identical integer requantisers.

    Every value of the datapath becomes codes on a power-of-two step. Scales, biases and batch
    norm between an accumulator and the next quantiser become one multiplier, offset and shift per
    channel, the smallest for which each reachable accumulator gives the same code; or thresholds,
    where those are cheaper or nothing else is exact. What is left at the end goes to the host.
    """

    name: ClassVar[str] = "lower-scales"
    needs: ClassVar[State | None] = State.QUANTISED
    gives: ClassVar[State | None] = State.INTEGER

    max_bits: int = 32
    """Widest multiplier, in bits; thresholds take over beyond it."""

    def rewrite(self, model: Model) -> Outcome:
        """Build the integer graph beside the old one, then drop what is no longer used."""
        for node in model.graph:  # what is made is named after the node it is made from
            node.name = node.name or node.outputs[0].name
        with kept_names(model.graph):
            return self._lower(model)

    def _lower(self, model: Model) -> Outcome:
        lowering = _Lowering(model, self)
        for node in computed_nodes(model):
            lowering.lower(node)
        lowering.hand_over()
        remove_unused(model)
        lowering.emitter.settle()
        model.graph.sort()
        return Outcome(model, lowering.count, tuple(lowering.remarks))


_RULES: Mapping[str, Callable[[IntegerBuilder, Node, Form], Form]] = {
    **dict.fromkeys(("MatMul", "Conv", "ConvTranspose"), lower_weighted),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), lower_average),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), lower_maximum),
}


class _Lowering:
    """The integer graph, built beside the old one node by node."""

    def __init__(self, model: Model, options: LowerScales):
        self.model = model
        self.emitter = IntegerBuilder(model, options.name)
        self.count = 0
        self.remarks: list[Remark] = []
        self._max_bits = options.max_bits
        self._firsts = first_quantisers(model)
        self._tail = host_tail(model)
        self._forms: dict[Value, Form] = {}
        self._open: dict[Value, OpenSum] = {}

    def lower(self, node: Node) -> None:
        """Lower one node, unless it is the host's."""
        if node in self._tail:
            return
        self.emitter.at(node)
        out = node.outputs[0]
        if node in self._firsts:
            self._forms[out] = lower_port(self.emitter, node, self._firsts[node][1])
        elif is_quantiser(node):
            self._forms[out] = self._quantise(node)
        elif node.domain == "" and (rule := _RULES.get(node.op_type)) is not None:
            form = self._input(node)
            parts = lower_by_scale(self.emitter, node, form) if is_linear(node) else None
            if parts is not None:
                self._merge(node, *parts)
            else:
                self._forms[out] = rule(self.emitter, node, form)
        elif not self._simple(node):
            return  # before the first quantiser: the host's
        self.count += 1

    def _known(self, value: Value | None) -> bool:
        return value in self._forms or value in self._open

    def _form(self, value: Value) -> Form:
        """The form of a value; an open sum that something reads is closed."""
        if value not in self._forms:
            self._forms[value] = self._open[value].close(self.emitter)
        return self._forms[value]

    def _input(self, node: Node) -> Form:
        source = data_input(node, self.emitter.computed)
        if source is None or not self._known(source):
            raise reject(
                "HQC205",
                f"{node.op_type} reads a value that has no integer form",
                where=location_of(node),
                helps=("put a quantiser before it",),
            )
        return self._form(source)

    def _quantise(self, node: Node) -> Form:
        source = data_input(node, self.emitter.computed)
        done = None
        if source is not None and source in self._open and source not in self._forms:
            done = lower_quantised_sum(self.emitter, node, self._open[source], self._max_bits)
        if done is None:
            done = lower_quantiser(self.emitter, node, self._input(node), self._max_bits)
        form, remark = done
        if remark:
            self.remarks.append(Remark(remark, location_of(node)))
        return form

    def _simple(self, node: Node) -> bool:
        """Operators that move on with scales, or on several tensors; False if it reads no code."""
        known = [v for v in node.inputs if v is not None and self._known(v)]
        out = node.outputs[0]
        if not known:
            return False
        if is_rearrangement(node):
            forms = [self._form(v) for v in data_sources(node)]
            self._forms[out] = lower_rearrangement(self.emitter, node, forms)
        elif len(known) == 2 and node.op_type in MERGES:
            self._merge(node, self._form(known[0]), self._form(known[1]))
        elif is_pass_through(node) and known[0] in self._forms:
            self._forms[out] = self._forms[known[0]]
        elif is_pass_through(node):
            self._open[out] = self._open[known[0]]
        else:
            step = chain_step(node, self.emitter.computed) if len(known) == 1 else None
            self._step(node, known[0], step)
        return True

    def _merge(self, node: Node, x: Form, y: Form) -> None:
        found = open_sum(self.emitter, node, x, y)
        if found is not None:
            self._open[node.outputs[0]] = found
        else:
            self._forms[node.outputs[0]] = lower_merge(self.emitter, node, x, y)

    def _step(self, node: Node, source: Value, step: Step | None) -> None:
        if step is None:
            raise no_form(node)
        if source in self._forms:
            form = self._forms[source]
            self._forms[node.outputs[0]] = Form(form.value, form.chain.then(step))
        else:
            self._open[node.outputs[0]] = self._open[source].then(step)

    def hand_over(self) -> None:
        """Give the graph outputs and the host's operators their values in the model's units."""
        model, emitter = self.model, self.emitter
        for position, value in enumerate(tuple(model.graph.outputs)):
            if self._known(value):
                emitter.at(None)
                name = str(value.name)
                value.name = f"{name}__quantised"
                real = _real(emitter, self._form(value), value, name, own_node=True)
                real.name = name
                real.shape, real.type = value.shape, value.type
                note_names([p for v in (value, real) if (p := v.producer()) is not None])
                model.graph.outputs[position] = real
        for value in (*self._forms, *(v for v in self._open if v not in self._forms)):
            users = [(u.node, u.idx) for u in value.uses() if u.node in self._tail]
            if users:
                emitter.at(min((u for u, _ in users), key=tuple(model.graph).index))
                real = _real(emitter, self._form(value), value, f"{value.name}", own_node=False)
                for user, index in users:
                    user.replace_input_with(index, real)


def _real(emitter: IntegerBuilder, form: Form, like: Value, name: str, *, own_node: bool) -> Value:
    """The value that a form stands for, as a float tensor of the graph."""
    node = like.producer()
    if node is not None:
        form = straighten(emitter, node, form)
    value = form.value
    steps = list(form.chain.steps)
    while steps and (done := emitter.exact_step(value, steps[0], f"{name}_exact")) is not None:
        value = done
        steps.pop(0)
    if steps:
        for step in steps:
            if isinstance(step, Rectifier):
                raise reject("HQC205", f"{name} is rectified after scaling by a free factor")
        return emitter.dequantise(value, steps, like, name)
    if own_node and (value.is_graph_output() or value.is_graph_input()):
        return emitter.add(emitter.node("Identity", (value,), like, "_output"))
    return emitter.as_float(value, like)
