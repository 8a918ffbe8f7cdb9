"""Machine words: which integer type holds a value, and how a type's assignment is written in C.

Everything is decided by proven bounds. A value that fits 32 bits is computed in `int32_t`, any
other in `int64_t`, and one that fits neither is refused. Right shifts of negative numbers, whose
result C99 leaves to the compiler, are written so that they are never taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from hqc.numerics import FixedType, Overflow, Rounding

_WORDS = (32, 64)
#: Shifts by more have no word that holds the half.
_LONGEST_SHIFT = 62

_ROUNDED = {
    Rounding.FLOOR: "floor",
    Rounding.DOWN: "down",
    Rounding.ROUND: "even",
    Rounding.HALF_UP: "away",
    Rounding.HALF_DOWN: "inward",
}


class Unfit(Exception):
    """A value that no word of the target holds."""


@dataclass(frozen=True)
class Bounds:
    """Proven: every value is `code * 2**-fraction` with `lo <= code <= hi`."""

    lo: int
    hi: int
    fraction: int = 0

    def at(self, fraction: int) -> Bounds:
        """The same values on a finer step."""
        shift = fraction - self.fraction
        return Bounds(self.lo << shift, self.hi << shift, fraction)

    def join(self, other: Bounds) -> Bounds:
        """Both, on the finer step."""
        fraction = max(self.fraction, other.fraction)
        a, b = self.at(fraction), other.at(fraction)
        return Bounds(min(a.lo, b.lo), max(a.hi, b.hi), fraction)

    @classmethod
    def of(cls, type_: FixedType) -> Bounds:
        """All values of a type."""
        return cls(type_.limits.lo, type_.limits.hi, type_.fraction)


@dataclass(frozen=True)
class Target:
    """The widest word that the target computes with."""

    widest: int = 64

    def word(self, *bounds: Bounds) -> int:
        """The narrowest word, 32 or 64 bits, that holds all of these codes.

        Raises:
            Unfit: none does.
        """
        lo, hi = min(b.lo for b in bounds), max(b.hi for b in bounds)
        for bits in _WORDS:
            if -(1 << (bits - 1)) <= lo and hi < 1 << (bits - 1) and bits <= self.widest:
                return bits
        raise Unfit(f"codes from {lo} to {hi} need more than {self.widest} bits")

    def storage(self, bounds: Bounds) -> str:
        """The smallest C type that an array of such codes can have."""
        for bits in (8, 16):
            if bounds.lo >= 0 and bounds.hi < 1 << bits:
                return f"uint{bits}_t"
            if -(1 << (bits - 1)) <= bounds.lo and bounds.hi < 1 << (bits - 1):
                return f"int{bits}_t"
        return f"int{self.word(bounds)}_t"


@dataclass(frozen=True)
class Expression:
    """C text, the bounds of its value, and the word that the text has (0: as its operand is)."""

    text: str
    bounds: Bounds
    word: int = 0


def literal(code: int, word: int) -> str:
    """An integer constant of a word."""
    if code == -(1 << (word - 1)):
        return f"(-INT{word}_C({-(code + 1)}) - 1)"
    return f"INT{word}_C({code})" if code >= 0 else f"(-INT{word}_C({-code}))"


def cast(x: Expression, word: int) -> str:
    """The text as a value of a word."""
    return x.text if x.word == word else f"(int{word}_t){x.text}"


def align(x: Expression, fraction: int, target: Target) -> Expression:
    """The same value on a finer step."""
    if fraction == x.bounds.fraction:
        return x
    bounds = x.bounds.at(fraction)
    word = max(x.word, target.word(bounds))
    factor = literal(1 << (fraction - x.bounds.fraction), word)
    return Expression(f"({cast(x, word)} * {factor})", bounds, word)


def assign(x: Expression, type_: FixedType, target: Target) -> Expression:
    """What assignment to a type does: round, then saturate or wrap, as far as bounds allow.

    Raises:
        Unfit: a word is too small, or more bits are dropped than a word has.
    """
    shift = x.bounds.fraction - type_.fraction
    rounded = align(x, type_.fraction, target) if shift <= 0 else _round(x, shift, type_, target)
    return _limit(rounded, type_, target)


def _round(x: Expression, shift: int, type_: FixedType, target: Target) -> Expression:
    if shift > _LONGEST_SHIFT:
        raise Unfit(f"{shift} bits are rounded away at once")
    word = max(x.word, target.word(x.bounds), 32 if shift < 31 else 64)
    if word > target.widest:
        raise Unfit(f"{shift} bits are rounded away at once, with words of {target.widest}")
    lo, hi = (round_code(end, shift, type_.rounding) for end in (x.bounds.lo, x.bounds.hi))
    text = f"{_ROUNDED[type_.rounding]}{word}({cast(x, word)}, {shift})"
    return Expression(text, Bounds(lo, hi, type_.fraction), word)


def _limit(x: Expression, type_: FixedType, target: Target) -> Expression:
    limits = Bounds.of(type_)
    if limits.lo <= x.bounds.lo and x.bounds.hi <= limits.hi:
        return x
    word = max(x.word, target.word(x.bounds, limits))
    if type_.overflow is Overflow.WRAP:
        text = f"wrap{word}({cast(x, word)}, {type_.width}, {int(type_.signed)})"
        return Expression(text, limits, word)
    lo, hi = max(limits.lo, x.bounds.lo), min(limits.hi, x.bounds.hi)
    lo, hi = min(lo, limits.hi), max(hi, limits.lo)  # all of x on one side of the type
    text = f"clamp{word}({cast(x, word)}, {literal(lo, word)}, {literal(hi, word)})"
    return Expression(text, Bounds(lo, hi, type_.fraction), word)


def round_code(code: int, shift: int, rounding: Rounding) -> int:
    """A code divided by 2**shift, on Python's integers."""
    floor, rest = code >> shift, code & ((1 << shift) - 1)
    half = 1 << (shift - 1)
    up = {
        Rounding.FLOOR: False,
        Rounding.DOWN: rest > 0 and code < 0,
        Rounding.ROUND: rest > half or (rest == half and floor & 1 == 1),
        Rounding.HALF_UP: rest > half or (rest == half and code > 0),
        Rounding.HALF_DOWN: rest > half or (rest == half and code < 0),
    }[rounding]
    return floor + up


# --- the functions that expressions call --------------------------------------------------------

_FLOOR = """\
static inline int{w}_t floor{w}(int{w}_t x, int shift)
{{
    return x < 0 ? ~(~x >> shift) : x >> shift;
}}
"""
_REST = """\
static inline int{w}_t rest{w}(int{w}_t x, int shift)
{{
    return (int{w}_t)((uint{w}_t)x & ((UINT{w}_C(1) << shift) - 1u));
}}
"""
_HALF = """\
/* {what} */
static inline int{w}_t {name}{w}(int{w}_t x, int shift)
{{
    const int{w}_t floor = floor{w}(x, shift), rest = rest{w}(x, shift);
    const int{w}_t half = (int{w}_t)(UINT{w}_C(1) << (shift - 1));
    return floor + (rest > half || (rest == half && {tie}));
}}
"""
_DOWN = """\
/* towards zero */
static inline int{w}_t down{w}(int{w}_t x, int shift)
{{
    return floor{w}(x, shift) + (x < 0 && rest{w}(x, shift) != 0);
}}
"""
_CLAMP = """\
static inline int{w}_t clamp{w}(int{w}_t x, int{w}_t lo, int{w}_t hi)
{{
    return x < lo ? lo : x > hi ? hi : x;
}}
"""
_WRAP = """\
/* the lowest bits of x, as a number of that width */
static inline int{w}_t wrap{w}(int{w}_t x, int width, int is_signed)
{{
    const uint{w}_t mask = ~UINT{w}_C(0) >> ({w} - width);
    const uint{w}_t low = (uint{w}_t)x & mask;
    if (is_signed && (low >> (width - 1)) != 0)
        return -(int{w}_t)(mask - low) - 1;
    return (int{w}_t)low;
}}
"""
_NEAREST = {
    "even": ("to nearest, ties to even", "(floor & 1) != 0"),
    "away": ("to nearest, ties away from zero", "x > 0"),
    "inward": ("to nearest, ties towards zero", "x < 0"),
}


def functions(text: str) -> str:
    """The definitions of those that a text calls."""
    found: list[str] = []
    for word in _WORDS:
        rounded = [name for name in _NEAREST if f"{name}{word}(" in text]
        down = f"down{word}(" in text
        if rounded or down or f"floor{word}(" in text:
            found.append(_FLOOR.format(w=word))
        if rounded or down:
            found.append(_REST.format(w=word))
        for name in rounded:
            what, tie = _NEAREST[name]
            found.append(_HALF.format(w=word, name=name, what=what, tie=tie))
        for name, body in (("down", _DOWN), ("clamp", _CLAMP), ("wrap", _WRAP)):
            if f"{name}{word}(" in text:
                found.append(body.format(w=word))
    return "\n".join(found)
