"""Products by constants that stand alone: signed digits, balanced sums."""

from __future__ import annotations

from collections.abc import Sequence

from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.lowering.scaled import Scaled, add


def digits(number: int) -> list[tuple[int, bool]]:
    """(power of two, whether it is subtracted), no two of them adjacent: as few as there can be."""
    found, place = [], 0
    while number:
        if number & 1:
            negative = number & 3 == 3
            found.append((place, negative))
            number += 1 if negative else -1
        number >>= 1
        place += 1
    return found


def dot(sums: Sums, inputs: Sequence[Scaled], weights: Sequence[int]) -> Scaled | None:
    """The sum of inputs times weights, None if all weights are 0."""
    terms = [
        x.times(place, negative)
        for x, w in zip(inputs, weights, strict=True)
        for place, negative in digits(w)
    ]
    while len(terms) > 1:
        terms.sort(key=lambda t: sums.builder.ranges[t.wire].magnitude_bits + t.exponent)
        pairs = zip(terms[::2], terms[1::2], strict=False)
        rest = terms[len(terms) - len(terms) % 2 :]
        terms = [*(add(sums, x, y) for x, y in pairs), *rest]
    return terms[0] if terms else None
