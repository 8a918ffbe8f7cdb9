"""From expressions back to operations.

An operation is found if its exact integer result is, modulo 2**width, what the expression gives
for every value of its operands. Whether the result fits the width is for the proof to show.
Nothing is taken from comments.
"""

from __future__ import annotations

from collections.abc import Callable

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.circuit import Op, Wire
from hqc.backends.rtl.reading import terms
from hqc.backends.rtl.reading.gates import rounding_of, threshold_of
from hqc.backends.rtl.reading.terms import Malformed, Term, as_slice, cat, code_of
from hqc.backends.rtl.reading.text import Table

#: Adds an operation that no line of the text has, and gives its wire.
Emit = Callable[[Op], Wire]


def operation(term: Term, signed: bool, emit: Emit) -> Op:
    """The operation of an expression.

    Args:
        term: of the width of the wire it drives.
        signed: whether that wire is.
        emit: for operations that stand within the expression.

    Raises:
        Malformed: there is none.
    """
    width = term.width
    if isinstance(term, terms.Number):
        return ops.Constant(code_of(term.value, width, signed))
    if (held := as_slice(term)) is not None:
        return _slice(held, signed)
    match term:
        case terms.Binary("plus" | "minus"):
            found = _rounding(term)
            return found or _sum(term, None, 0, emit)
        case terms.Binary("differ", width=1) if (found := _rounding(term)) is not None:
            return found
        case terms.Binary("times", x, y):
            return ops.Product(_whole(_unsigned(x)), _whole(_unsigned(y)))
        case terms.Cat(parts, _):
            return _shifted(parts, emit)
        case terms.Choice():
            return _choice(term, signed, emit)
        case terms.Call(table, x, _):
            return _lookup(table, x, signed)
    if width == 1 and not signed and (found_ := threshold_of(term)) is not None:
        return ops.AtLeast(*found_)
    if isinstance(term, terms.Binary) and term.kind == "and_":
        return _rectifier(term)
    raise Malformed("an expression that hqc does not write")


def _slice(held: terms.Slice, signed: bool) -> Op:
    if held.low:
        return ops.RoundShift(held.signal.wire, held.low)
    return ops.Wrap(held.signal.wire, held.width, signed)


def _lowest(term: Term) -> terms.Slice:
    """A term as the low bits of a wire, extended."""
    held = as_slice(term)
    if held is None or held.low:
        raise Malformed("an operand that is not the low bits of a wire")
    return held


def _whole(term: Term) -> Wire:
    return _lowest(term).signal.wire


# --- sums -------------------------------------------------------------------------------------


def _shifted(parts: tuple[Term, ...], emit: Emit) -> Op:
    """`{HIGH, low bits, zeros}`."""
    zeros, low = 0, None
    *rest, last = parts
    if isinstance(last, terms.Number) and last.value == 0:
        zeros, parts = last.width, tuple(rest)
    if isinstance(parts[0], terms.Binary):
        if len(parts) > 2:
            raise Malformed("a sum with more than one part below it")
        low = _lowest(parts[1]) if len(parts) == 2 else None
        return _sum(parts[0], low, zeros, emit)
    held = as_slice(cat(parts))
    if held is not None and not held.low:
        return ops.RoundShift(held.signal.wire, -zeros)
    for split in range(1, len(parts)):  # the higher operand may have a part for its sign
        high = as_slice(cat(parts[:split]))
        below = as_slice(cat(parts[split:]))
        if high is not None and below is not None and not high.low and not below.low:
            x = _only(below, emit)
            return ops.Add(high.signal.wire, x, zeros + below.width, zeros)
    raise Malformed("a concatenation that hqc does not write")


def _only(held: terms.Slice, emit: Emit) -> Wire:
    """The wire of the value that some low bits are."""
    x = held.signal
    if not x.signed and x.width <= held.width:
        return x.wire
    return emit(ops.Wrap(x.wire, held.width, False))


def _sum(term: Term, low: terms.Slice | None, zeros: int, emit: Emit) -> Op:
    """A sum of bits above the low bits of one operand, above zeros."""
    if not isinstance(term, terms.Binary) or term.kind not in ("plus", "minus"):
        raise Malformed("a part that is no sum")
    minus = term.kind == "minus"
    if low is not None and _is_above(term.x, low):
        return ops.Add(low.signal.wire, _whole(term.y), zeros, zeros + low.width, minus)
    if low is not None and _is_above(term.y, low) and not minus:
        return ops.Add(_whole(term.x), low.signal.wire, zeros + low.width, zeros)
    if low is not None:
        raise Malformed("low bits of another operand than that of the sum")
    (x, left), (y, right) = _term(term.x), _term(term.y)
    if x.low or y.low:
        raise Malformed("a sum without the low bits of an operand")
    return ops.Add(x.signal.wire, y.signal.wire, zeros + left, zeros + right, minus)


def _is_above(term: Term, low: terms.Slice) -> bool:
    """Whether a term is the bits of a signal above some low bits."""
    x, gap = low.signal, low.width
    if isinstance(term, terms.Number):
        return term.value == 0 and not x.signed and gap >= x.width
    held = as_slice(term)
    beyond = held is not None and x.signed and held.low == x.width - 1 and gap >= held.low
    return held is not None and held.signal == x and (held.low == gap or beyond)


def _term(term: Term) -> tuple[terms.Slice, int]:
    """An operand of a sum and how far it is shifted."""
    held = as_slice(term)
    if held is not None:
        return held, 0
    if (
        isinstance(term, terms.Cat)
        and isinstance(term.parts[-1], terms.Number)
        and not term.parts[-1].value
    ):
        return _lowest(cat(term.parts[:-1])), term.parts[-1].width
    raise Malformed("an operand of a sum that hqc does not write")


def _rounding(term: terms.Binary) -> Op | None:
    """`floor + {zeros, bit}`, of one bit `floor ^ (bit)`; None if it is another sum."""
    if term.kind == "minus":
        return None
    bit = term.y
    if isinstance(bit, terms.Cat):
        first, *rest = bit.parts
        zeros = isinstance(first, terms.Number) and first.value == 0 and len(rest) == 1
        if not zeros or rest[0].width != 1:
            return None
        bit = rest[0]
    if bit.width != 1:
        return None
    floor = term.x if isinstance(term.x, terms.Number) else as_slice(term.x)
    found = rounding_of(floor, bit) if floor is not None else None
    return None if found is None else ops.RoundShift(*found)


# --- choices ----------------------------------------------------------------------------------


def _choice(term: terms.Choice, signed: bool, emit: Emit) -> Op:
    condition = term.condition
    if isinstance(condition, terms.Binary) and condition.kind == "at_least":
        return _larger(condition, term)
    if isinstance(condition, terms.Slice) and condition.signal.width == 1:
        if condition.signal.signed:
            raise Malformed("a choice by a signed bit")
        x, y = _whole(term.x), _whole(term.y)
        return ops.Select(condition.signal.wire, x, y)
    found = _clamp(term, signed)
    return found if found is not None else _select(term, signed, emit)


def _clamp(term: terms.Choice, signed: bool) -> Op | None:
    """A saturation; None if its thresholds are not those of its bounds."""
    hi, inner = None, term
    wires = set()
    if isinstance(term.x, terms.Number):
        hi = code_of(term.x.value, term.width, signed)
        found = threshold_of(term.condition)
        if found is None or found[1] not in (hi, hi + 1):
            return None
        wires.add(found[0])
        if not isinstance(term.y, terms.Choice):
            wires.add(_whole(term.y))
            return ops.Clamp(found[0], None, hi) if len(wires) == 1 else None
        inner = term.y
    if not isinstance(inner.y, terms.Number):
        return None
    lo = code_of(inner.y.value, term.width, signed)
    found = threshold_of(inner.condition)
    if found is None or found[1] not in (lo, lo + 1) or (hi is not None and lo > hi):
        return None
    wires |= {found[0], _whole(inner.x)}
    return ops.Clamp(found[0], lo, hi) if len(wires) == 1 else None


def _select(term: terms.Choice, signed: bool, emit: Emit) -> Op:
    """A choice by a threshold, part by part."""
    found = threshold_of(term.condition)
    if found is None:
        raise Malformed("a condition that hqc does not write")
    sides = [_side(side, signed, emit) for side in (term.x, term.y)]
    return ops.Select(emit(ops.AtLeast(*found)), *sides)


def _side(term: Term, signed: bool, emit: Emit) -> Wire:
    if isinstance(term, terms.Number):
        return emit(ops.Constant(code_of(term.value, term.width, signed)))
    if isinstance(term, terms.Choice):
        return emit(_select(term, signed, emit))
    return _whole(term)


def _rectifier(term: terms.Binary) -> Op:
    """`operand & {w{~sign}}`."""
    mask = term.y.bit if isinstance(term.y, terms.Repeat) else term.y
    held = _lowest(term.x)
    x = held.signal
    if isinstance(mask, terms.Not) and mask.width == 1:
        sign = as_slice(mask.x)
        if sign is not None and (sign.signal, sign.low) == (x, x.width - 1) and x.signed:
            return ops.Clamp(x.wire, 0, None)
    raise Malformed("an expression that hqc does not write")


def _larger(condition: terms.Binary, term: terms.Choice) -> Op:
    """A maximum; the comparison must hold both operands as numbers of its kind."""
    left, right = condition.x, condition.y
    compared = [_lowest(_unsigned(side)).signal for side in (left, right)]
    signed = all(
        isinstance(side, terms.Signed) or (isinstance(side, terms.Slice) and side.signed)
        for side in (left, right)
    )
    for x in compared:
        bits = x.width + (signed and not x.signed)
        if bits > left.width or (x.signed and not signed):
            raise Malformed("a comparison of numbers that it does not hold")
    chosen = [_whole(term.x), _whole(term.y)]
    if chosen != [x.wire for x in compared]:
        raise Malformed("a choice of other wires than those compared")
    return ops.Larger(chosen[0], chosen[1])


def _unsigned(term: Term) -> Term:
    return term.x if isinstance(term, terms.Signed) else term


def _lookup(table: Table, x: Term, signed: bool) -> Op:
    held = _lowest(x)
    wire = held.signal
    if wire.width != table.codes:
        raise Malformed("a table of another width than the wire it is asked for")
    values = tuple(code_of(value, table.width, signed) for value in table.values)
    if not wire.signed:
        return ops.Lookup(wire.wire, 0, values)
    half = 1 << (table.codes - 1)
    return ops.Lookup(wire.wire, -half, values[half:] + values[:half])
