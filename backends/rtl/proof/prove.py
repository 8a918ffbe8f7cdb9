"""Prove that a design computes its network for all inputs, layer by layer.

Each layer is proven for everything its sources can be, which the proofs before it established.
Nothing that the lowering knew is used: not its ranges, not its sharing, not its choices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hqc.backends.layers import Activation, Layer, Network, Rearrange
from hqc.backends.layers import Input as Port
from hqc.backends.layers.layers import kind_of
from hqc.backends.rtl.circuit import Input, Wire
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.proof.certificate import Certificate, LayerProof
from hqc.backends.rtl.proof.layers import Task
from hqc.backends.rtl.proof.specs import spec_of
from hqc.backends.rtl.proof.subject import Claim, Refuted, Subject, Undecided
from hqc.backends.rtl.proof.wiring import Elements, Wiring, grouped, wire_up
from hqc.diagnostics import Diagnostic, Exit, HqcError, Location
from hqc.numerics.types import Range

#: Where a wire of a block stands, for messages: (block, wire) to a file and a line.
Places = Mapping[tuple[str, Wire], str]


def prove(network: Network, design: Design, places: Places | None = None) -> Certificate:
    """Prove a design.

    Args:
        network: what it must compute.
        design: its blocks carry the names of the layers.
        places: of the wires in a text the design was read from.

    Raises:
        HqcError: HQC424 with one diagnostic per layer that is wrong.
    """
    proof = _Proof(network, design, places or {})
    return proof.run()


class _Proof:
    def __init__(self, network: Network, design: Design, places: Places) -> None:
        self.network = network = _with_casts(network, [block.name for block in design.blocks])
        self.design = design
        self.places = places
        self.layers = {layer.name: layer for layer in network.layers}
        self.ranges: dict[str, tuple[Range, ...]] = {}
        self.found: list[Diagnostic] = []

    def run(self) -> Certificate:
        self._check_names()
        if self.found:
            raise HqcError(self.found, Exit.NOT_EXACT)
        for port in self.design.inputs:
            self.ranges[port.name] = port.ranges
        done = [self._block(block) for block in self.design.blocks]
        if self.found:
            raise HqcError(self.found, Exit.NOT_EXACT)
        return Certificate(tuple(proof for proof in done if proof is not None), "circuits", ())

    # --- the whole ----------------------------------------------------------------------------

    def _check_names(self) -> None:
        """Ports and blocks are those of the network, each once, sources first."""
        ports = [port.name for port in self.design.inputs]
        blocks = [block.name for block in self.design.blocks]
        logic = [layer.name for layer in self.network.layers if not isinstance(layer, Port)]
        self._same("input ports", tuple(ports), self.network.inputs)
        self._same("output ports", self.design.outputs, self.network.outputs)
        self._same("layers", sorted(blocks), sorted(logic))
        for port in self.design.inputs:
            layer = self.layers.get(port.name)
            if layer is not None:
                limits = layer.result.limits
                wanted = (layer.size, limits.lo, limits.hi, layer.result.fraction)
                held = port.type.limits
                given = (port.size, held.lo, held.hi, port.type.fraction)
                self._same(f"port {port.name}", given, wanted)
        known = set(ports)
        for block in self.design.blocks:
            if not known.issuperset(block.sources):
                self._report(block.name, f"it reads {block.sources} before they are computed")
            known.add(block.name)

    def _same(self, what: str, got: object, want: object) -> None:
        if got != want:
            self._report("", f"{what}: {got} in the design, {want} in the network")

    def _report(
        self, name: str, message: str, notes: Sequence[str] = (), wire: Wire | None = None
    ) -> None:
        layer = self.layers.get(name)
        where = layer.where if layer is not None else Location()
        place = self.places.get((name, wire)) if wire is not None else None
        at = f" ({place})" if place else ""
        text = f"layer {name}: {message}{at}" if name else message
        self.found.append(Diagnostic("HQC424", text, where, tuple(notes)))

    # --- one layer ----------------------------------------------------------------------------

    def _block(self, block: Block) -> LayerProof | None:
        """The proof of a layer; None behind one that is wrong, of which nothing follows."""
        if not self.ranges.keys() >= set(block.sources):
            return None
        layer = self.layers[block.name]
        try:
            claims, open_ = self._claims(block, layer)
        except Refuted as reason:
            self._report(block.name, str(reason), reason.notes, reason.wire)
            return None
        held = self.ranges[block.name]
        return LayerProof(
            name=block.name,
            kind=kind_of(layer),
            where=layer.where.node or layer.name,
            instances=len(block.index),
            range=Range(min(r.lo for r in held), max(r.hi for r in held)),
            claims=tuple(claims),
            open=open_,
        )

    def _claims(self, block: Block, layer: Layer) -> tuple[list[Claim], str]:
        """What is proven of a layer, and why that is not all."""
        if block.type.fraction != layer.result.fraction:
            raise Refuted(f"its codes are of {block.type}, the layer's of {layer.result}")
        if block.constants:
            self.ranges[block.name] = block.ranges
            return [], "its multipliers are shared, one product after the other"
        types = [self.layers[name].result for name in layer.sources]
        sizes = [self.layers[name].size for name in layer.sources]
        spec = spec_of(layer, types, sizes)
        block = grouped(block, spec.width)
        elements = Elements.of(self.ranges)
        wiring = wire_up(block, layer, spec, elements, self.design)
        subject = Subject(block.circuit, wiring.inputs)
        task = Task(block, spec, wiring, elements, subject)
        found = [Claim("wiring", "comparison of every index", block.index.size)]
        open_ = ""
        try:
            found += task.claims()
        except Undecided as reason:
            open_ = str(reason)
        found.append(subject.check_ranges())
        self._check_results(block, subject)
        self.ranges[block.name] = _results(block, subject, elements, wiring)
        return found, open_

    def _check_results(self, block: Block, subject: Subject) -> None:
        """The results are codes of the block's type, as others read them."""
        limits = block.type.limits
        for number, bounds in enumerate(subject.results()):
            if not (limits.lo <= bounds.lo and bounds.hi <= limits.hi):
                message = f"output {number} may be {bounds.lo}..{bounds.hi}"
                wire = block.circuit.outputs[number]
                raise Refuted(f"{message}, which {block.type} does not hold", wire)


def _results(
    block: Block, subject: Subject, elements: Elements, wiring: Wiring
) -> tuple[Range, ...]:
    """What each element of a block's result can be; one that is only wired, what it is wired to."""
    results, ops = subject.results(), block.circuit.ops
    found: list[Range] = []
    columns = [ops[subject.known.same[wire]] for wire in block.circuit.outputs]
    held = {
        op.index: elements.hull(wiring.given[None, :, op.index], block.fill)
        for op in columns
        if isinstance(op, Input)
    }
    for instance in range(len(block.index)):
        for op, bounds in zip(columns, results, strict=True):
            found.append(held[op.index][instance] if isinstance(op, Input) else bounds)
    return tuple(found)


def _with_casts(network: Network, names: Collection[str]) -> Network:
    """The network with the assignments in front of a rearrangement as layers, where blocks are."""
    found: list[Layer] = []
    for layer in network.layers:
        sources = list(layer.sources)
        for number, source in enumerate(layer.sources):
            name = f"{layer.name}_cast{number}"
            if isinstance(layer, Rearrange) and name in names:
                shape = (layer.sizes[number],)
                cast = Activation(
                    name, (source,), shape, layer.result, layer.where, function="cast"
                )
                found.append(cast)
                sources[number] = name
        found.append(replace(layer, sources=tuple(sources)))
    return replace(network, layers=tuple(found))
