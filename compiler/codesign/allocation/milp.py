"""Choices of one width per knob as an integer program, solved by HiGHS (scipy.optimize.milp).

A binary x[k, w] says that knob k has width w; sum_w x[k, w] = 1. A product of several knobs'
choices is a variable y >= 0, one for each combination of their widths; summed over the combinations
in which knob k has width w, they are x[k, w]. With x binary, y is exactly the product, and the
relaxation is tighter than bounding each product by its factors.

HiGHS works in floats with absolute tolerances, so rows and objectives are scaled here: costs that
are whole numbers become multiples of their greatest common divisor with half a unit of slack, and
every answer is rounded and evaluated exactly before it is believed.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

from hqc.codesign.costs.tables import Table
from hqc.diagnostics import reject

#: Whole numbers up to this many units are kept as such.
_MOST_UNITS = 1 << 26
#: Other values span this range after scaling; HiGHS's tolerances are 1e-6 of one.
_SPAN = 1e6
_SECONDS = 60.0
_ATTEMPTS = 5

_Key = tuple[tuple[str, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Choices:
    """One width per knob.

    Attributes:
        widths: candidates by knob.
    """

    widths: Mapping[str, tuple[int, ...]]

    def minimise(
        self, objective: Table, limits: Sequence[tuple[Table, float]] = ()
    ) -> dict[str, int] | None:
        """The widths with the least objective whose costs are at most their limits, or None.

        Raises:
            HqcError: HQC614, HiGHS ended without a proven optimum.
        """
        tables = (objective, *(table for table, _ in limits))
        groups = tuple(dict.fromkeys(group for table in tables for group in table.joint))
        index = {key: i for i, key in enumerate(self._keys(groups))}
        goal = _Row.of(objective, index)
        slack = 0.0
        for _ in range(_ATTEMPTS):
            rows = [self._structure(groups, index)]
            for table, limit in limits:
                row = _Row.of(table, index)
                rows.append(LinearConstraint(row.scaled[None], -np.inf, row.bound(limit) - slack))
            found = self._solve(goal.scaled, rows, index)
            if found is None or all(table.value(found) <= limit for table, limit in limits):
                return found
            slack = 1e-5 if not slack else slack * 10
        raise reject("HQC614", "answers keep exceeding a budget by rounding")

    def _keys(self, groups: Sequence[tuple[str, ...]]) -> list[_Key]:
        keys: list[_Key] = [((k,), (w,)) for k, of in self.widths.items() for w in of]
        for group in groups:
            keys += [(group, of) for of in self._combinations(group)]
        return keys

    def _combinations(self, group: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(self.widths[knob] for knob in group))

    def _structure(
        self, groups: Sequence[tuple[str, ...]], index: Mapping[_Key, int]
    ) -> LinearConstraint:
        entries: list[tuple[int, int, float]] = []
        ends: list[float] = []
        for knob, candidates in self.widths.items():
            entries += [(len(ends), index[(knob,), (w,)], 1.0) for w in candidates]
            ends.append(1.0)
        for group in groups:
            rows = {}
            for place, knob in enumerate(group):
                for width in self.widths[knob]:
                    rows[place, width] = len(ends)
                    entries.append((len(ends), index[(knob,), (width,)], -1.0))
                    ends.append(0.0)
            for of in self._combinations(group):
                product = index[group, of]
                entries += [(rows[place], product, 1.0) for place in enumerate(of)]
        lines, columns, values = zip(*entries, strict=True)
        matrix = coo_matrix((values, (lines, columns)), shape=(len(ends), len(index))).tocsr()
        return LinearConstraint(matrix, ends, ends)

    def _solve(
        self,
        goal: NDArray[np.float64],
        rows: Sequence[LinearConstraint],
        index: Mapping[_Key, int],
    ) -> dict[str, int] | None:
        # Products would come out whole by themselves; HiGHS is faster when it is said so.
        whole = np.ones(len(index))
        options = {"mip_rel_gap": 0.0, "time_limit": _SECONDS}
        with _stdout_kept():
            found = milp(
                goal, integrality=whole, bounds=Bounds(0, 1), constraints=rows, options=options
            )
        if found.status == 2:
            return None
        if found.status != 0 or found.x is None:
            raise reject("HQC614", "HiGHS found no proven optimum", notes=(str(found.message),))
        chosen = {}
        for knob, candidates in self.widths.items():
            values = [found.x[index[(knob,), (w,)]] for w in candidates]
            chosen[knob] = candidates[int(np.argmax(values))]
        return chosen


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Within, what C code prints is dropped: HiGHS has a stray line, and programs read stdout.

    What is in C's own buffer is dropped with it, so Python's is emptied first.
    """
    try:
        kept = os.dup(1)
    except OSError:  # the process has no stdout
        yield
        return
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True)
class _Row:
    """A table as coefficients: `value = base + unit * (scaled . variables)`."""

    scaled: NDArray[np.float64]
    base: float
    unit: float
    whole: bool

    @classmethod
    def of(cls, table: Table, index: Mapping[_Key, int]) -> _Row:
        blocks: list[dict[_Key, float]] = [
            {((k,), (w,)): cost for w, cost in column.items() if ((k,), (w,)) in index}
            for k, column in table.single.items()
        ]
        blocks += [
            {(group, of): cost for of, cost in grid.items() if (group, of) in index}
            for group, grid in table.joint.items()
        ]
        least = [min(block.values()) for block in blocks]
        steps = [c - low for b, low in zip(blocks, least, strict=True) for c in b.values()]
        unit, whole = step(steps)
        scaled = np.zeros(len(index))
        for block, low in zip(blocks, least, strict=True):
            for key, cost in block.items():
                scaled[index[key]] += (cost - low) / unit
        return cls(scaled, math.fsum((table.constant, *least)), unit, whole)

    def bound(self, limit: float) -> float:
        """What `scaled . variables` may be at most."""
        units = (limit - self.base) / self.unit
        return math.floor(units + 1e-6) + 0.5 if self.whole else units + 1e-5


def step(differences: Sequence[float]) -> tuple[float, bool]:
    """The unit of a table from the differences of its entries, and whether they are multiples."""
    top = max((abs(d) for d in differences), default=0.0)
    if top == 0:
        return 1.0, True
    if all(d == int(d) for d in differences):
        unit = math.gcd(*(int(d) for d in differences))
        if top / unit <= _MOST_UNITS:
            return float(unit), True
    return top / _SPAN, False
