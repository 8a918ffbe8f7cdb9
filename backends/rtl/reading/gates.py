"""Gates over the bits of one wire, read as the comparison or the rounding that they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.reading import terms
from hqc.backends.rtl.reading.terms import Malformed, Term, as_slice, code_of
from hqc.numerics.types import Rounding, round_shift

# --- comparisons ------------------------------------------------------------------------------


def threshold_of(term: Term) -> tuple[Wire, int] | None:
    """The wire and the number of `wire >= number`; None if the gates are something else.

    From the highest bit down, `bits & (rest)` is a run of ones of the number and `bits | (rest)`
    a run of zeros; the last run is of ones, and zeros follow. With a sign, 2**(width - 1) is
    added on both sides, which inverts the highest bit.
    """
    runs = list(_runs(term))
    if not all(run is not None for run in runs):
        return None
    number, below, signal = 0, None, None
    for run in runs:
        assert run is not None
        held, ones, inverted = run
        signal = signal or held.signal
        top = held.signal.width - 1
        if below is None:
            below = top + 1
            if inverted != held.signal.signed:
                return None
        elif inverted:
            return None
        if held.signal != signal or held.low + held.width != below:
            return None
        number += ((1 << held.width) - 1 << held.low) if ones else 0
        below = held.low
    if signal is None:
        return None
    return signal.wire, number - ((1 << (signal.width - 1)) if signal.signed else 0)


def _runs(term: Term) -> Iterator[tuple[terms.Slice, bool, bool] | None]:
    """(bits, whether they are ones, whether they are inverted), from the highest down."""
    while isinstance(term, terms.Binary) and term.kind in ("and_", "or_") and term.width == 1:
        yield _run(term.x, term.kind == "and_")
        term = term.y
    yield _run(term, True)


def _run(term: Term, ones: bool) -> tuple[terms.Slice, bool, bool] | None:
    inverted = isinstance(term, terms.Not)
    if isinstance(term, terms.Not):
        term = term.x
    if isinstance(term, terms.Reduce):
        if inverted or (term.kind == "all") != ones:
            return None
        term = term.x
    elif term.width != 1:
        return None
    held = as_slice(term)
    if held is None or held.low + held.width > held.signal.width:
        return None
    return held, ones, inverted


# --- roundings --------------------------------------------------------------------------------


def rounding_of(floor: terms.Slice | terms.Number, bit: Term) -> tuple[Wire, int, Rounding] | None:
    """The wire, shift and mode of `floor + bit`; None if it is no rounding.

    The bit may depend on the highest bit of the fraction, on whether a lower one is set, on the
    lowest bit of the floor and on the sign. It is computed for one wire value of each kind.
    """
    if isinstance(floor, terms.Slice):
        signal, shifts = floor.signal, [floor.low]
        if signal.signed and floor.low == signal.width - 1:
            shifts += [signal.width, signal.width + 1]  # beyond it, all bits are the sign
    else:
        found = _signal(bit)
        if floor.value or found is None or found.signed:
            return None
        signal, shifts = found, [found.width]
    for shift in shifts:
        for rounding in Rounding:
            if shift and _rounds(signal, shift, rounding, bit):
                return signal.wire, shift, rounding
    return None


def _rounds(signal: terms.Signal, shift: int, rounding: Rounding, bit: Term) -> bool:
    try:
        kinds = _kinds(signal, shift)
        given = [_value(bit, code, signal, shift) for code in kinds]
    except Malformed:
        return False
    codes = np.array([code_of(code, signal.width, signal.signed) for code in kinds], np.int64)
    wanted = round_shift(codes, shift, rounding) - (codes >> shift)
    return bool(given == wanted.tolist())


def _kinds(signal: terms.Signal, shift: int) -> list[int]:
    """Bits of wire values that have every combination of what a rounding depends on."""
    places = {0, shift - 2, shift - 1, shift, signal.width - 1}
    inside = [place for place in sorted(places) if 0 <= place < signal.width]
    found = [0]
    for place in inside:
        found += [code | 1 << place for code in found]
    return found


def _value(term: Term, code: int, signal: terms.Signal, shift: int) -> int:
    """A bit for the bits of a wire."""
    match term:
        case terms.Binary("and_", x, y, 1):
            return _value(x, code, signal, shift) & _value(y, code, signal, shift)
        case terms.Binary("or_", x, y, 1):
            return _value(x, code, signal, shift) | _value(y, code, signal, shift)
        case terms.Not(x, 1):
            return 1 - _value(x, code, signal, shift)
        case terms.Reduce("any", x):
            held = as_slice(x)
        case _:
            held = as_slice(term) if term.width == 1 else None
    if held is None or held.signal != signal or held.low + held.width > signal.width:
        raise Malformed("a bit of something else")
    _check_kind(held, shift)
    return int(code >> held.low & (1 << held.width) - 1 != 0)


def _check_kind(held: terms.Slice, shift: int) -> None:
    """The bits are all of those whose kind decides, so that one value of each kind suffices."""
    width = held.signal.width
    single = held.width == 1 and held.low in (shift - 1, shift, width - 1)
    rest = held.low == 0 and held.width in (shift - 1, min(shift, width))
    if not single and not rest:
        raise Malformed("a bit that no rounding depends on")


def _signal(term: Term) -> terms.Signal | None:
    """The first wire of some gates."""
    while isinstance(term, terms.Binary):
        term = term.x
    held = as_slice(term.x if isinstance(term, terms.Reduce | terms.Not) else term)
    return None if held is None else held.signal
