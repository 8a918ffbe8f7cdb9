"""Operations of a layer's logic, counted from its numbers without building the logic.

What is counted, in all instances of a layer together:

    adder     bits of sums of two values; those of matrices and requantisers are not among them
    offset    bits of adders of a constant, `moved` of those in front of a shift and a clamp
    round     bits of values that are rounded other than downwards
    sticky    bits that such a rounding drops
    clamp     bits that pass a limit, and `bound` bits that are looked at to find it crossed
    compare   bits of comparisons with thresholds
    larger    bits of maxima, and `longer` those beyond the second of each
    product   products of the widths of two factors
    table     distinct tables of 64 bits, and `select` joints of such tables
    flip      entries of such tables that differ from the one before: what they are in gates
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from hqc.backends.estimate.features import Matrix, bits_of, digit_planes
from hqc.backends.rtl.emission.delays import CARRY, LEVEL
from hqc.ir import Array
from hqc.numerics.types import Codes, FixedType, Overflow, Rounding, round_shift

#: Address bits of one look-up table.
_INPUTS = 6


@dataclass(frozen=True, eq=False)
class Bounds:
    """What each element of a value can be: codes with so many fractional bits."""

    lo: Codes
    hi: Codes
    fraction: int

    @property
    def bits(self) -> Codes:
        """Width of each element."""
        return bits_of(self.lo, self.hi)

    def at(self, fraction: int) -> Bounds:
        """The same with more fractional bits."""
        shift = fraction - self.fraction
        return Bounds(self.lo << shift, self.hi << shift, fraction)


@dataclass(frozen=True)
class Scaling:
    """Requantisers of a layer that are not constant: products with a constant, sums, roundings.

    Attributes:
        elements: how many, in all instances.
        width_in, width_out: mean width of the argument and of the result.
        active: mean bits of the arguments that are not limited.
        digits: mean signed digits of the multiplier.
        dropped: mean bits that the rounding drops, behind the multiplier's own zeros.
    """

    elements: int
    width_in: float
    width_out: float
    active: float
    digits: float
    dropped: float


@dataclass(eq=False)
class OperationCounts:
    """What a layer's logic consists of.

    Attributes:
        counts: see the head of this file.
        matrices: constant matrices, each with the number of its copies.
        scalings: requantisers with a multiplier.
        levels: picoseconds of the longest path, without the matrices.
        copies: instances; what is counted from now on counts so often.
        bits_in, bits_out: of all elements that it reads, and of its results.
    """

    copies: int = 1
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    matrices: list[tuple[Matrix, int]] = field(default_factory=list)
    scalings: list[Scaling] = field(default_factory=list)
    levels: int = 0
    bits_in: int = 0
    bits_out: int = 0

    def count(self, name: str, number: float) -> None:
        """Add to a count."""
        self.counts[name] += self.copies * number

    def chain(self, bits: Codes, adders: int = 1) -> None:
        """A path through adders of so many bits, one behind the other."""
        self.levels += adders * (LEVEL + CARRY * int(bits.max(initial=0)))

    def gates(self, levels: int = 1) -> None:
        """A path through look-up tables."""
        self.levels += levels * LEVEL

    # --- operations -------------------------------------------------------------------------

    def add_constant(
        self, x: Bounds, constant: Codes, zeros: Codes, name: str = "offset"
    ) -> Bounds:
        """`x + constant`, element by element; so many low bits of x are 0, or count for nothing."""
        sums = Bounds(x.lo + constant, x.hi + constant, x.fraction)
        added = (constant != 0) & (x.lo < x.hi)
        if added.any():
            passing = np.maximum(zeros_of(constant[added]), zeros[added])
            self.count(name, float(np.maximum(0, sums.bits[added] - passing).sum()))
            self.chain(sums.bits)
        return sums

    def assign(self, x: Bounds, type_: FixedType) -> Bounds:
        """`x` as a code of a type: rounded, then kept within its limits."""
        drops = x.fraction - type_.fraction
        lo, hi = (round_shift(end, drops, type_.rounding) for end in (x.lo, x.hi))
        result = Bounds(lo, hi, type_.fraction)
        if drops > 0 and type_.rounding is not Rounding.FLOOR:
            varies = lo < hi
            self.count("round", float(result.bits[varies].sum()))
            self.count("sticky", float(np.minimum(drops, x.bits[varies]).sum()))
            self.chain(result.bits)
            self.gates()
        if type_.overflow is Overflow.WRAP:
            limits = type_.limits
            inside = (lo >= limits.lo) & (hi <= limits.hi)
            kept = np.where(inside, lo, limits.lo), np.where(inside, hi, limits.hi)
            return Bounds(*kept, type_.fraction)
        return self.clamp(result, type_.limits.lo, type_.limits.hi)

    def clamp(self, x: Bounds, least: int, most: int | None) -> Bounds:
        """`x` within limits."""
        top = np.int64(most) if most is not None else np.iinfo(np.int64).max
        result = Bounds(np.clip(x.lo, least, top), np.clip(x.hi, least, top), x.fraction)
        low, high = x.lo < least, x.hi > top
        varies = (low | high) & (result.lo < result.hi)
        if varies.any():
            self.count("clamp", float(result.bits[varies].sum()))
            over = np.maximum(0, x.bits - result.bits)
            self.count("bound", float((over * high)[varies].sum()))
            self.count("bound", float((over * low)[varies].sum()) if least else 0.0)
            self.gates(2 if high.any() else 1)
        return result

    def requantise(self, x: Bounds, scale: Codes, total: Bounds, result: Bounds) -> None:
        """`x * scale` and a constant, which is `total`; assigned to a type it gives `result`."""
        digits = np.abs(digit_planes(scale)).sum(axis=0)
        used = (result.lo < result.hi) & (digits > 1)  # one digit is wires, one code nothing
        if not used.any():
            return
        drops = total.fraction - result.fraction
        steps = np.log2(np.abs(scale[used])) - drops
        codes = np.log2(result.hi[used] - result.lo[used] + 1)
        active = np.clip(codes - steps, 1, x.bits[used])
        dropped = np.maximum(drops - zeros_of(scale[used]), 0)
        means = (x.bits[used], result.bits[used], active, digits[used], dropped)
        elements = self.copies * int(used.sum())
        self.scalings.append(Scaling(elements, *(float(m.mean()) for m in means)))
        self.chain(x.bits[used] + result.bits[used], int(digits.max()))
        self.gates(2)

    def compare(self, x: Bounds, rows: Codes, bits: int) -> None:
        """How many thresholds of its row (elements, thresholds) each element reaches."""
        inside = (rows > x.lo[:, None]) & (rows <= x.hi[:, None])
        used = np.clip(x.bits[:, None] - zeros_of(np.where(rows == 0, 1, rows)), 1, None)
        compared = (used * inside).sum(axis=1)
        # what few bits decide is a table of them, at about four bits compared in one; mappers
        # take comparisons apart, and find about twice the tables that are needed
        table = 2 * bits * 2.0 ** np.clip(x.bits - _INPUTS, 0, None)
        tabled = 4 * table < compared
        self.count("compare", float(compared[~tabled].sum()))
        self.count("table", float(table[tabled].sum()))
        self.gates(2 + int(inside.sum(axis=1).max(initial=0)).bit_length())

    def look_up(self, x: Bounds, rows: Codes, first: int) -> None:
        """Results from tables (elements, codes), `first` the code of the first entry."""
        cases = Counter(zip(x.lo.tolist(), x.hi.tolist(), map(bytes, rows), strict=True))
        kept = {bytes(row): row for row in rows}
        for (lo, hi, row), number in cases.items():
            codes = np.clip(np.arange(lo, hi + 1) - first, 0, rows.shape[1] - 1)
            width = int(bits_of(np.array([lo]), np.array([hi]))[0])
            tables, joints, flips = _tables(kept[row][codes], lo, width)
            self.count("table", number * tables)
            self.count("select", number * joints)
            self.count("flip", number * flips)
            self.gates(1 + max(0, width - _INPUTS + 1) // 2)


def zeros_of(codes: Codes) -> Codes:
    """Low bits that are 0, of codes that are not."""
    found: Codes = np.frexp((codes & -codes).astype(np.float64))[1].astype(np.int64) - 1
    return found


def _tables(values: Codes, lo: int, width: int) -> tuple[int, int, int]:
    """Distinct 64-bit tables of all result bits that are not constant, joints of them, and flips.

    Entries are in the order of the address as the hardware has it: two's complement.
    """
    common = np.bincount(values - values.min()).argmax() + values.min()
    whole = np.full(1 << width, common, np.int64)
    whole[np.arange(lo, lo + len(values)) & ((1 << width) - 1)] = values
    top = int(max(abs(int(values.min())), abs(int(values.max())))).bit_length() + 1
    planes: Array = ((whole >> np.arange(top)[:, None]) & 1).astype(np.uint8)
    tables = _blocks(planes, min(width, _INPUTS))
    joints = sum(len(_blocks(planes, held)) for held in range(_INPUTS + 2, width + 2, 2))
    return len(tables), joints, int(np.abs(np.diff(tables.astype(np.int8))).sum())


def _blocks(planes: Array, held: int) -> Array:
    """Distinct functions (n, 2**held) of the low address bits that are not constant."""
    held = min(held, planes.shape[1].bit_length() - 1)
    blocks = planes.reshape(-1, 1 << held)
    blocks = blocks ^ blocks[:, :1]  # a function and its inverse are one table
    packed = np.packbits(blocks, axis=1)
    found = sorted({bytes(row) for row in packed[packed.any(axis=1)]})
    rows = np.frombuffer(b"".join(found), np.uint8).reshape(-1, packed.shape[1])
    return np.unpackbits(rows, axis=1, count=1 << held)
