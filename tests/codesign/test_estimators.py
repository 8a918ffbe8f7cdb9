"""A few points of the front, without the whole of it."""

from __future__ import annotations

import pytest

from hqc.codesign.allocation.plan import Choice, Planner
from hqc.codesign.allocation.problem import Problem
from hqc.codesign.costs.tables import Table

LAYERS = ("a", "b", "c")
WIDTHS = {layer: tuple(range(2, 9)) for layer in LAYERS}
LOSS = Table({k: {w: (i + 1) * 4.0**-w for w in WIDTHS[k]} for i, k in enumerate(LAYERS)})
BITS = Table({k: {w: 10.0 * (i + 1) * w for w in WIDTHS[k]} for i, k in enumerate(LAYERS)})


def planner(widths: dict[str, tuple[int, ...]] = WIDTHS) -> Planner:
    return Planner(LAYERS, Choice(), Problem(widths, LOSS, {"bits": BITS}))


@pytest.mark.parametrize("points", [2, 5, 12])
def test_points_are_on_the_front_and_reach_its_end(points: int) -> None:
    whole = {p.costs["bits"]: p.loss_increase for p in planner().front("bits")}
    found = planner().sketch("bits", points)
    assert {p.costs["bits"]: p.loss_increase for p in found}.items() <= whole.items()
    assert 2 <= len(found) <= points
    costs = [p.costs["bits"] for p in found]
    assert costs == sorted(costs)
    assert costs[-1] == max(whole)


def test_one_answer_is_one_point() -> None:
    one = dict.fromkeys(LAYERS, (4,))
    tables = [Table({k: {4: column[4]} for k, column in t.single.items()}) for t in (LOSS, BITS)]
    found = Planner(LAYERS, Choice(), Problem(one, tables[0], {"bits": tables[1]})).sketch("bits")
    assert [p.costs["bits"] for p in found] == [240.0]
