"""What the source will hold: a kernel for each layer, and where its result lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hqc.backends.layers import Conv, Dense, Input, Layer, Network, Requantise, Threshold
from hqc.diagnostics import Diagnostic, HqcError
from hqc.numerics import FixedType
from hqc.pipeline import EmittedLayer
from hqc_c99.kernels import Context, Kernel, Operand, kernel
from hqc_c99.tables import width
from hqc_c99.words import Bounds, Target, Unfit


@dataclass(frozen=True, eq=False)
class Step:
    """A layer, its kernel, what it reads, and the C type of its elements."""

    layer: Layer
    kernel: Kernel
    sources: tuple[Operand, ...]
    ctype: str

    @property
    def bytes(self) -> int:
        """What its result takes of the RAM."""
        return self.layer.size * width(self.ctype) // 8


@dataclass
class Slot:
    """Arrays that are never needed at once, in one place."""

    members: list[Step] = field(default_factory=list)
    free_after: int = -1  # the last step that reads the newest member

    @property
    def bytes(self) -> int:
        """Those of the largest member."""
        return max(step.bytes for step in self.members)


@dataclass(frozen=True, eq=False)
class Plan:
    """All of the source.

    Attributes:
        inputs: layer and C type of each input port.
        steps: in the order they run.
        outputs: the steps that are the output ports.
        slots: working memory.
    """

    inputs: tuple[tuple[Input, str], ...]
    steps: tuple[Step, ...]
    outputs: tuple[Step, ...]
    slots: tuple[Slot, ...]

    def place(self, name: str) -> str:
        """The C expression of a layer's array, in the top function."""
        for index, (layer, _) in enumerate(self.inputs):
            if layer.name == name:
                return f"in{index}"
        for index, step in enumerate(self.outputs):
            if step.layer.name == name:
                return f"out{index}"
        number = next(
            n for n, s in enumerate(self.slots) if any(m.layer.name == name for m in s.members)
        )
        return f"slot{number}.{name}"

    def sizes(self) -> dict[str, int]:
        """Bytes of constants and of working memory, multiplications per sample."""
        return {
            "table_bytes": sum(t.bytes for s in self.steps for t in s.kernel.tables),
            "buffer_bytes": sum(slot.bytes for slot in self.slots),
            "multiplications": sum(s.kernel.products for s in self.steps),
        }


def make_plan(network: Network, target: Target) -> Plan:
    """Kernels and memory of a network.

    Raises:
        HqcError: HQC401 for each layer that has no C, or a value that no word holds.
    """
    known: dict[str, Operand] = {}
    inputs, steps, found = [], [], []
    for layer in network.layers:
        if any(source not in known for source in layer.sources):
            continue  # it reads one that was refused
        try:
            if isinstance(layer, Input):
                bounds = Bounds.of(layer.result)
                known[layer.name] = Operand(target.storage(bounds), bounds)
                inputs.append((layer, known[layer.name].ctype))
                continue
            step = _step(layer, known, target)
        except Unfit as reason:
            helps = ("narrow the types of the model, or compile for a wider word",)
            found.append(Diagnostic("HQC401", f"{layer.name}: {reason}", layer.where, helps=helps))
            continue
        known[layer.name] = Operand(step.ctype, step.kernel.bounds)
        steps.append(step)
    if found:
        raise HqcError(found)
    outputs = tuple(next(s for s in steps if s.layer.name == name) for name in network.outputs)
    return Plan(tuple(inputs), tuple(steps), outputs, _slots(steps, set(network.outputs)))


def _step(layer: Layer, known: dict[str, Operand], target: Target) -> Step:
    sources = tuple(known[name] for name in layer.sources)
    made = kernel(layer, Context(target, sources, layer.name))
    fraction = layer.result.fraction
    if made.bounds.fraction != fraction:
        raise AssertionError(f"{layer.name}: {made.bounds.fraction} fraction bits, not {fraction}")
    return Step(layer, made, sources, target.storage(made.bounds))


def _slots(steps: Sequence[Step], outputs: set[str]) -> tuple[Slot, ...]:
    """Arrays share a place when none of them is read after the next is written."""
    last = {name: at for at, step in enumerate(steps) for name in step.layer.sources}
    slots: list[Slot] = []
    for at, step in enumerate(steps):
        if step.layer.name in outputs:
            continue
        free = [slot for slot in slots if slot.free_after < at]
        if free:
            slot = min(free, key=lambda s: (abs(s.bytes - step.bytes), slots.index(s)))
        else:
            slot = Slot()
            slots.append(slot)
        slot.members.append(step)
        slot.free_after = last.get(step.layer.name, at)
    return tuple(slots)


# --- what is reported of each layer -------------------------------------------------------------


def emitted(plan: Plan) -> tuple[EmittedLayer, ...]:
    """The layers with their types, as hqc's report has them."""
    found = [
        EmittedLayer(layer.name, "input", str(layer.where), (("result", layer.result),))
        for layer, _ in plan.inputs
    ]
    for step in plan.steps:
        layer = step.layer
        roles = (*constants_of(layer), ("result", layer.result))
        kind = type(layer).__name__.lower()
        found.append(EmittedLayer(layer.name, kind, str(layer.where), roles))
    return tuple(found)


def constants_of(layer: Layer) -> tuple[tuple[str, FixedType], ...]:
    """Roles and types of what a layer holds beside its result."""
    if isinstance(layer, Dense | Conv):
        return (
            ("weight", layer.weight.type),
            ("bias", layer.bias.type),
            ("accum", layer.accum),
        )
    if isinstance(layer, Requantise):
        return ("scale", layer.scale.type), ("bias", layer.bias.type)
    if isinstance(layer, Threshold):
        return (("threshold", layer.thresholds.type),)
    return ()
