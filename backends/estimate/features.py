"""What a constant matrix looks like to a circuit of adders, counted without building one.

Weights are counted in signed digits (canonical: no two adjacent, as few as there can be). Each
digit is a term to add, so a column of d digits takes d - 1 adders if nothing is shared. How much
can be shared shows in how often pairs of digits recur: two inputs at one distance of powers of two
and of signs are one adder wherever they are met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hqc.ir import Array
from hqc.numerics.types import Codes

#: Inputs that pairs are counted among; more of them say the same at a quadratic price.
_ROWS = 192
#: Columns among which near ones are looked for.
_COLUMNS = 128


@dataclass(frozen=True)
class Matrix:
    """Counts of a matrix of distinct columns, each without its common power of two and sign.

    Attributes:
        inputs: that vary and have a weight.
        columns: distinct ones with two digits or more.
        digits: signed digits in those columns.
        adders: of a sum of all digits, column by column: digits - columns.
        span: mean distance from a column's lowest to its highest digit, in bits.
        width_in: mean width of the inputs, weighted by digits.
        width_out: mean width of the columns' results.
        sharing: how often a digit pair occurs, on average over all pairs that are there.
        common: the same for the most frequent pairs, a quarter as many as there are adders.
        tree: digits of the columns if each is told by its difference from another, in the tree of
            least total, as a share of `digits`.
        deepest: digits of the longest column.
        turned: bits of results that are needed with both signs, or are an input negated.
        signed: whether inputs can be negative.
    """

    inputs: int = 0
    columns: int = 0
    digits: int = 0
    adders: int = 0
    span: float = 0.0
    width_in: float = 0.0
    width_out: float = 0.0
    sharing: float = 1.0
    common: float = 1.0
    tree: float = 1.0
    deepest: int = 1
    turned: int = 0
    signed: bool = False


def bits_of(lo: Codes, hi: Codes) -> Codes:
    """Bits of wires with these bounds: two's complement where lo is below 0, at least 1."""
    signed = lo < 0
    above = _bit_length(np.maximum(hi, 0))
    below = _bit_length(np.maximum(-lo - 1, 0))
    found: Codes = np.maximum(1, np.maximum(above, below) + signed)
    return found


def _bit_length(codes: Codes) -> Codes:
    found: Codes = np.frexp(codes.astype(np.float64))[1].astype(np.int64)
    return found


def digit_planes(codes: Codes) -> Array:
    """Signed digits (planes, ...) of codes, -1, 0 or 1, lowest place first."""
    size = np.abs(codes)
    thrice = 3 * size
    positive, negative = (thrice & ~size) >> 1, (size & ~thrice) >> 1
    top = int(max(positive.max(initial=0), negative.max(initial=0))).bit_length()
    places = np.arange(max(1, top)).reshape(-1, *[1] * codes.ndim)
    found: Array = (((positive >> places) & 1) - ((negative >> places) & 1)).astype(np.int8)
    return found * np.sign(codes).astype(np.int8)


def matrix_features(weight: Codes, lo: Codes, hi: Codes, offset: Codes | None = None) -> Matrix:
    """Count a matrix.

    Args:
        weight: (n_in, n_out) codes.
        lo, hi: (n_in,) bounds of the inputs.
        offset: (n_out,) constants that are added; a result that is subtracted from one needs no
            other sign. None: none.
    """
    varies = (lo < hi) & np.any(weight != 0, axis=1)
    weight, lo, hi = weight[varies], lo[varies], hi[varies]
    columns, turned = _distinct(weight, None if offset is None else offset != 0)
    up, down = np.maximum(columns, 0), np.minimum(columns, 0)
    widths = bits_of(lo @ up + hi @ down, hi @ up + lo @ down)
    planes = digit_planes(columns)
    digits = np.abs(planes).sum(axis=(0, 1), dtype=np.int64)
    several = digits > 1
    needed = int(widths[turned & (several | (digits == 1))].sum())
    if not several.any():
        return Matrix(inputs=len(weight), turned=needed)
    columns, planes, digits = columns[:, several], planes[:, :, several], digits[several]
    by_row = np.abs(planes).sum(axis=(0, 2), dtype=np.int64)
    adders = int((digits - 1).sum())
    sharing, common = _pairs(planes, max(1, adders // 4))
    return Matrix(
        inputs=int((by_row > 0).sum()),
        columns=columns.shape[1],
        digits=int(digits.sum()),
        adders=adders,
        span=float(_spans(planes).mean()),
        width_in=float(np.average(bits_of(lo, hi), weights=by_row)),
        width_out=float(widths[several].mean()),
        sharing=sharing,
        common=common,
        tree=_tree(columns),
        deepest=int(digits.max()),
        turned=needed,
        signed=bool((lo < 0).any()),
    )


def _distinct(weight: Codes, free: Array | None) -> tuple[Codes, Array]:
    """Distinct columns, in units of their lowest digit, their first weight positive.

    Beside them, which are needed negated as well; `free` tells columns of either sign.
    """
    held = np.bitwise_or.reduce(weight, axis=0) if len(weight) else np.zeros(0, np.int64)
    used = held != 0
    if not used.any():
        return np.zeros((len(weight), 0), np.int64), np.zeros(0, bool)
    weight, held = weight[:, used], held[used]
    signs = np.sign(np.take_along_axis(weight, (weight != 0).argmax(axis=0)[None], axis=0)[0])
    columns, place = np.unique(weight * signs // (held & -held), axis=1, return_inverse=True)
    fixed = np.ones(len(signs), bool) if free is None else ~free[used]
    place = place.reshape(-1)
    signed = [np.bincount(place[fixed & (signs == s)], minlength=columns.shape[1]) for s in (1, -1)]
    single = (columns != 0).sum(axis=0) == 1
    turned = (signed[1] > 0) & (single | (signed[0] > 0))
    return columns, turned


def _spans(planes: Array) -> Codes:
    """(columns,): places from the lowest digit to the highest."""
    places = np.any(planes != 0, axis=1)
    last: Codes = len(places) - 1 - places[::-1].argmax(axis=0) - places.argmax(axis=0)
    return last


def _pairs(planes: Array, most: int) -> tuple[float, float]:
    """Mean occurrences of a digit pair: over all pairs that are there, and over the top ones.

    A pair is two inputs, the distance of their places, and whether their signs are equal.
    """
    rows = planes.shape[1]
    if rows > _ROWS:
        planes = _sampled(planes.swapaxes(0, 1), _ROWS).swapaxes(0, 1)
        most = max(1, most * _ROWS // rows)
    signs = planes.transpose(1, 0, 2).astype(np.float32)
    sizes = np.abs(signs)
    rows, places, _ = signs.shape
    counts = []
    for distance in range(places):
        parts = []
        for held in (signs, sizes):
            low = held[:, : places - distance].reshape(rows, -1)
            high = held[:, distance:].reshape(rows, -1)
            parts.append(low @ high.T)
        signed, all_ = parts
        if not distance:
            upper = np.triu_indices(rows, 1)
            signed, all_ = signed[upper], all_[upper]
        equal = (all_ + signed).ravel() / 2
        counts += [equal, all_.ravel() - equal]
    found = np.concatenate(counts)
    found = found[found > 0]
    if not found.size:
        return 1.0, 1.0
    top = found if found.size <= most else np.partition(found, found.size - most)[-most:]
    return float((found**2).sum() / found.sum()), float(top.mean())


def _tree(columns: Codes) -> float:
    """Digits of the tree of least total in which each column is another one plus a difference."""
    columns = _sampled(columns, _ROWS).T
    columns = _sampled(columns, _COLUMNS)
    alone = _digit_count(columns).sum(axis=1)
    near, total = alone.copy(), 0  # from no column at all, and from those in the tree
    left = np.ones(len(columns), bool)
    for _ in range(len(columns)):
        place = int(np.where(left, near, np.iinfo(np.int64).max).argmin())
        total += int(near[place])
        left[place] = False
        rest = np.flatnonzero(left)
        for other in (columns[rest] - columns[place], columns[rest] + columns[place]):
            near[rest] = np.minimum(near[rest], _digit_count(other).sum(axis=1) + 1)
    return total / int(alone.sum())


def _sampled(rows: Codes, most: int) -> Codes:
    if len(rows) <= most:
        return rows
    found: Codes = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    return found


def _digit_count(codes: Codes) -> Codes:
    """Signed digits of each code."""
    size = np.abs(codes)
    found: Codes = np.bitwise_count(size ^ (3 * size)).astype(np.int64)
    return found
