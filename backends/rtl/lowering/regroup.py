"""The order of long sums: terms that only one sum uses are added narrow ones first.

A solver decides which sums are shared. What is left of each result is a sum of shared terms, of
any order; the order decides how wide its adders are.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.circuit import Add, Circuit, Wire, operands
from hqc.backends.rtl.lowering.scaled import Scaled, add
from hqc.numerics.types import Range

#: Bits that a sum may be wider for being a level of adders less deep.
_LEVEL = 1


def regrouped(
    sums: Sums, circuit: Circuit, wires: Sequence[Wire], outputs: Sequence[Scaled]
) -> list[list[Term]]:
    """The terms of each output, added up only where several outputs share them.

    Args:
        sums: get the adders.
        circuit: adders only, whose results are the wires of `outputs`.
        wires: that take the place of the circuit's inputs.
        outputs: powers and signs of the results.
    """
    uses = Counter(wire for op in circuit.ops for wire in operands(op))
    uses.update(circuit.outputs)
    made = {number: Term.of(sums, Scaled(wire)) for number, wire in enumerate(wires)}
    for wire, op in enumerate(circuit.ops):
        if isinstance(op, Add) and uses[wire] > 1:
            made[wire] = total(sums, _terms(circuit, wire, made))
    found = []
    for wire, output in zip(circuit.outputs, outputs, strict=True):
        terms = [made[wire]] if wire in made else _terms(circuit, wire, made)
        found.append([t.times(output.exponent, output.negative) for t in terms])
    return found


@dataclass(frozen=True)
class Term:
    """A value to be added, with its bounds (sign included, on its step) and depth of adders."""

    value: Scaled
    bounds: Range
    depth: int = 0

    @staticmethod
    def of(sums: Sums, value: Scaled, depth: int = 0) -> Term:
        """A value of a builder."""
        held = sums.builder.ranges[value.wire]
        return Term(value, -held if value.negative else held, depth)

    def times(self, exponent: int, negative: bool) -> Term:
        """Multiplied by `2**exponent`, and by -1 if `negative`."""
        bounds = -self.bounds if negative else self.bounds
        return Term(self.value.times(exponent, negative), bounds, self.depth)


def _terms(circuit: Circuit, wire: Wire, made: Mapping[Wire, Term]) -> list[Term]:
    """The terms of a sum, down to what is made already."""
    op = circuit.ops[wire]
    if not isinstance(op, Add):
        raise TypeError(f"{op} is no sum")
    found = []
    for part, shift, negative in ((op.x, op.left, False), (op.y, op.right, op.minus)):
        terms = [made[part]] if part in made else _terms(circuit, part, made)
        found += [t.times(shift, negative) for t in terms]
    return found


def total(sums: Sums, values: Sequence[Term]) -> Term:
    """The sum of some terms, each time of the two whose adder is the narrowest."""
    terms = dict(enumerate(values))
    queue = [_pair(terms, i, j) for j in terms for i in range(j)]
    heapq.heapify(queue)
    new = len(terms)
    while len(terms) > 1:
        _, i, j = heapq.heappop(queue)
        if i not in terms or j not in terms:
            continue
        x, y = terms.pop(i), terms.pop(j)
        terms[new] = Term.of(sums, add(sums, x.value, y.value), 1 + max(x.depth, y.depth))
        for other in terms:
            if other != new:
                heapq.heappush(queue, _pair(terms, other, new))
        new += 1
    return next(iter(terms.values()))


def _pair(terms: Mapping[int, Term], i: int, j: int) -> tuple[int, int, int]:
    """What the adder of two terms costs, in bits, and the terms."""
    x, y = terms[i], terms[j]
    exponent = min(x.value.exponent, y.value.exponent)
    a, b = x.value.exponent - exponent, y.value.exponent - exponent
    low = (x.bounds.lo << a) + (y.bounds.lo << b)
    high = (x.bounds.hi << a) + (y.bounds.hi << b)
    both = x.value.negative and y.value.negative
    if both:
        low, high = -high, -low
    bits = max(max(high, 0).bit_length(), (-low - 1).bit_length()) + (low < 0)
    lowest = x if a == 0 else y
    # What is subtracted has to be negated from its lowest bit on.
    passed = max(a, b) if both or not lowest.value.negative else 0
    return bits - passed + _LEVEL * max(x.depth, y.depth), i, j
