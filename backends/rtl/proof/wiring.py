"""Which elements each instance of a block reads, against what its layer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hqc.backends.layers import Layer
from hqc.backends.rtl.circuit import Circuit, Input, Op, Wire, Wrap
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.proof.specs import PADDING, Spec
from hqc.backends.rtl.proof.subject import Refuted
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Codes, Range

#: A circuit input that no tap feeds: it is the fill in every instance.
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Elements:
    """Every element of every port and block, under one number.

    Attributes:
        first: number of element 0 of each port and block.
        low, high: what each element can be, by number.
        names: of the element's owner and its place there, for messages.
    """

    first: Mapping[str, int]
    low: Array
    high: Array

    @classmethod
    def of(cls, ranges: Mapping[str, Sequence[Range]]) -> Elements:
        """Number the elements of everything that has ranges."""
        first, count = {}, 0
        for name, held in ranges.items():
            first[name] = count
            count += len(held)
        all_ = [bounds for held in ranges.values() for bounds in held]
        bits = max((bounds.magnitude_bits for bounds in all_), default=0)
        kind: type = np.int64 if bits <= INT64_BITS else object
        low: Array = np.array([bounds.lo for bounds in all_], kind)
        high: Array = np.array([bounds.hi for bounds in all_], kind)
        return cls(first, low, high)

    def numbers(self, index: Codes, sources: Sequence[str], sizes: Sequence[int]) -> Codes:
        """Numbers of elements given by their place among some sources; `PADDING` stays."""
        spans = [
            np.arange(self.first[name], self.first[name] + size)
            for name, size in zip(sources, sizes, strict=True)
        ]
        table = np.append(np.concatenate(spans), PADDING)
        found: Codes = table[index]
        return found

    def hull(self, numbers: Codes, fill: int) -> tuple[Range, ...]:
        """What each column of a table of numbers can be, over all rows; padding is the fill."""
        low, high = np.append(self.low, fill)[numbers], np.append(self.high, fill)[numbers]
        ends = zip(low.min(axis=0).tolist(), high.max(axis=0).tolist(), strict=True)
        return tuple(Range(int(lo), int(hi)) for lo, hi in ends)

    def name(self, number: int) -> str:
        """An element in words."""
        if number == PADDING:
            return "padding"
        owner = max((n for n in self.first if self.first[n] <= number), key=self.first.__getitem__)
        return f"{owner}[{number - self.first[owner]}]"


@dataclass(frozen=True, eq=False)
class Wiring:
    """How the inputs of a circuit and the taps of its layer belong together.

    Attributes:
        reads: (instances, taps of one instance): numbers of elements.
        given: (instances, inputs): numbers of elements.
        taps: of each input: the tap that feeds it in every instance, or `NOTHING`.
        inputs: what each input of the circuit can be.
    """

    reads: Codes
    given: Codes
    taps: Codes
    inputs: tuple[Range, ...]

    def missing(self) -> list[int]:
        """Taps that no input is fed by."""
        every = np.arange(self.reads.shape[1])
        found: list[int] = np.setdiff1d(every, self.taps).tolist()
        return found

    def input_of(self, tap: int) -> int | None:
        """An input that a tap feeds, or another tap that always reads the same."""
        found = np.flatnonzero(self.taps == tap)
        if len(found):
            return int(found[0])
        if tap == NOTHING:
            return None
        for index, other in enumerate(self.taps.tolist()):
            if other >= 0 and np.array_equal(self.reads[:, other], self.reads[:, tap]):
                return index
        return None


def grouped(block: Block, width: int) -> Block:
    """The block with as many results in an instance as its layer has in a group.

    Wires are read back one by one, whatever layer they were made for: a dense layer of one-hot
    rows, a depthwise identity. Instances of wires side by side are one instance of more wires.
    """
    circuit = block.circuit
    copies, rest = divmod(width, len(circuit.outputs))
    wires = all(isinstance(op, Input | Wrap) for op in circuit.ops)
    if not wires or rest or copies < 2 or len(block.index) % copies:
        return block
    inputs = block.index.shape[1]
    columns, place = np.unique(
        block.index.reshape(-1, copies * inputs), axis=1, return_inverse=True
    )
    ops: list[Op] = [Input(number) for number in range(columns.shape[1])]
    ranges = [circuit.inputs[int(np.argmax(place == n)) % inputs] for n in range(len(ops))]
    outputs: list[Wire] = []
    for copy in range(copies):
        here: list[Wire] = []
        for op, bounds in zip(circuit.ops, circuit.ranges, strict=True):
            if isinstance(op, Wrap):
                ops.append(replace(op, x=here[op.x]))
                ranges.append(bounds)
                here.append(len(ops) - 1)
            elif isinstance(op, Input):
                here.append(int(place[op.index + copy * inputs]))
        outputs += [here[wire] for wire in circuit.outputs]
    wider = Circuit(tuple(ops), tuple(ranges), tuple(outputs))
    return replace(block, circuit=wider, index=columns)


def wire_up(block: Block, layer: Layer, spec: Spec, elements: Elements, design: Design) -> Wiring:
    """Find the tap behind each input of a block's circuit, the same one in all instances.

    Raises:
        Refuted: an instance reads another element than its layer, or there are not as many
            results as the layer has elements.
    """
    _check_size(block, layer, spec)
    instances = len(block.index)
    sizes = [design.of(name).size for name in layer.sources]
    reads = elements.numbers(spec.reads, layer.sources, sizes).reshape(instances, -1)
    own = [design.of(name).size for name in block.sources]
    _check_index(block, sum(own))
    given = elements.numbers(block.index, block.sources, own)
    taps = np.array([_tap(given[:, i], reads, i) for i in range(given.shape[1])], np.int64)
    wrong = np.flatnonzero(taps == _WRONG)
    if len(wrong):
        raise _misread(int(wrong[0]), given, reads, elements)
    return Wiring(reads, given, taps, elements.hull(given, block.fill))


#: The tap of an input that no tap explains.
_WRONG = -2


def _check_size(block: Block, layer: Layer, spec: Spec) -> None:
    results = len(block.circuit.outputs)
    if block.size != layer.size or results % spec.width:
        raise Refuted(
            f"{len(block.index)} instances of {results} results each, "
            f"where the layer has {layer.size} elements in groups of {spec.width}"
        )


def _check_index(block: Block, size: int) -> None:
    if block.index.size and not -1 <= block.index.min() <= block.index.max() < size:
        raise Refuted(f"an instance reads beyond the {size} elements of its sources")


def _tap(column: Codes, reads: Codes, number: int) -> int:
    """The tap that feeds an input in every instance."""
    if number < reads.shape[1] and np.array_equal(column, reads[:, number]):
        return number
    if np.all(column == PADDING):
        return NOTHING
    real = int(np.argmax(column != PADDING))
    for tap in np.flatnonzero(reads[real] == column[real]).tolist():
        if np.array_equal(column, reads[:, tap]):
            return int(tap)
    return _WRONG


def _misread(number: int, given: Codes, reads: Codes, elements: Elements) -> Refuted:
    """Name an instance in which an input is fed by what its layer does not read there."""
    column = given[:, number]
    same = reads == column[:, None]
    tap = int(np.argmax(same.sum(axis=0)))
    row = int(np.argmax(~same[:, tap]))
    return Refuted(
        f"instance {row} reads {elements.name(int(column[row]))} as its input {number}, "
        f"the layer {elements.name(int(reads[row, tap]))}"
    )
