"""Which bit widths: the least disturbance of the loss within budgets, exactly.

    problem = Problem(
        {"fc1": range(4, 9), "fc2": range(4, 9)},
        omega_table(traces, perturbations),
        {"bops": bops_table(...), "size": size_table(...)},
    )
    best = solve(problem, {"bops": 350_000})
    points = front(problem, "bops")

The paper's answer for the jet tagger (Campos et al., arXiv:2304.06745), (8, 5, 5, 5) at 349,248 bit
operations, follows from its traces (6.451, 0.898, 0.184, 0.0855), its uncoupled table, and the
authors' budget of 350,000:

* with HAWQ-V3's objective, where the traces are those of whole layers and the mean trace, per
  weight, multiplies |Q(w) - w|^2: for weights of one common range it needs no trained net (then
  |Q(w) - w|^2 is the number of weights times a step squared, over 12), and holds for all budgets
  from 349,248 to 351,807; on trained weights the four ranges are close enough, with a scale per
  tensor or per channel;
* with the traces as they stand times |Q(w) - w|^2 too, on trained weights, whose first layer spans
  a wider range than the second; for one common range (7, 6, 4, 4) would be better.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Context, Decimal
from typing import TypeVar

from hqc.codesign.allocation.milp import Choices, step
from hqc.codesign.costs.tables import UNITS, Table
from hqc.diagnostics import reject

_W = TypeVar("_W")
#: What numbers in messages count, where the name of the cost does not say so.
_UNITS = {**UNITS, "area": " um2"}


@dataclass(frozen=True)
class Problem:
    """Knobs, what is to be least, and what budgets are about.

    Attributes:
        widths: candidate widths by knob.
        objective: what to minimise; knobs may interact.
        costs: what may be limited, by name. Objective and costs are interchangeable: put
            `omega_table` here and a cost there to find the cheapest net of a given quality.
        ties: groups of knobs that have one width: the inputs of a residual sum, say.
    """

    widths: Mapping[str, Sequence[int]]
    objective: Table
    costs: Mapping[str, Table] = field(default_factory=dict)
    ties: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Allocation:
    """An answer.

    Attributes:
        widths: bits by knob.
        objective: the value of the problem's objective.
        costs: the values of all its costs, by name.
    """

    widths: Mapping[str, int]
    objective: float
    costs: Mapping[str, float]


def solve(problem: Problem, budgets: Mapping[str, float] | None = None) -> Allocation:
    """The least objective within the budgets; of equals, one with the least first budget's cost.

    Args:
        problem: see `Problem`.
        budgets: upper limits, inclusive, by the name of a cost; none: no limits.

    Raises:
        HqcError: HQC611, no assignment keeps the budgets: the message says which budgets would do;
            HQC612, the problem is not well formed; HQC614, HiGHS gave up.
    """
    budgets = dict(budgets or {})
    for name, budget in budgets.items():
        if name not in problem.costs or math.isnan(budget):
            known = ", ".join(problem.costs) or "none"
            raise reject("HQC612", f"budget {budget} for {name!r}; costs are: {known}")
    reduced = _Reduced.of(problem, budgets)
    found = reduced.best(budgets, next(iter(budgets), None))
    if found is None:
        raise _infeasible(reduced, budgets)
    return reduced.answer(problem, found)


def closest(problems: Sequence[Problem], cost: str) -> Problem:
    """The problem that can do with least of a cost; the first, where it is about no known one."""

    def least(problem: Problem) -> float:
        return solve(replace(problem, objective=problem.costs.get(cost, Table()))).objective

    return min(problems, key=least)


def front(
    problem: Problem, cost: str, budgets: Mapping[str, float] | None = None
) -> tuple[Allocation, ...]:
    """All Pareto-optimal values of the objective and one cost, ascending in cost.

    Each point is an optimum under a budget just below the cost of the next one, so the front has
    its points off the convex hull too. Where costs are not whole numbers, points closer than
    about 1e-10 of the table's span count as one.

    Args:
        problem, budgets: as for `solve`; the budgets hold at each point.
        cost: the name of the cost.

    Raises:
        HqcError: as for `solve`.
    """
    limits = dict(budgets or {})
    first = solve(problem, {cost: math.inf, **limits})
    reduced = _Reduced.of(problem, (cost, *limits))
    unit = reduced.step(cost)
    points = [first]
    while True:
        below = points[-1].costs[cost] - unit
        found = reduced.best({**limits, cost: min(below, limits.get(cost, below))}, cost)
        if found is None:
            break
        points.append(reduced.answer(problem, found))
    return tuple(_undominated(points[::-1], cost))


def _undominated(points: list[Allocation], cost: str) -> list[Allocation]:
    """Points ascending in cost without those that a cheaper one equals or betters."""
    kept: list[Allocation] = []
    for point in sorted(points, key=lambda p: (p.costs[cost], p.objective)):
        if not kept or point.objective < kept[-1].objective:
            kept.append(point)
    return kept


@dataclass(frozen=True)
class _Reduced:
    """A problem after ties: one knob, the first, stands for each group; costs that are limited."""

    leader: Mapping[str, str]
    choices: Choices
    objective: Table
    costs: Mapping[str, Table]

    @classmethod
    def of(cls, problem: Problem, limited: Iterable[str]) -> _Reduced:
        given = {knob: tuple(dict.fromkeys(w)) for knob, w in problem.widths.items()}
        leader = _leaders(given, problem.ties)
        widths: dict[str, tuple[int, ...]] = {}
        for knob, candidates in given.items():
            held = widths.setdefault(leader[knob], candidates)
            widths[leader[knob]] = tuple(w for w in held if w in candidates)
        for knob, candidates in widths.items():
            if not candidates:
                raise reject("HQC612", f"{knob}, and what is tied to it, share no width")
        objective = _reduce(problem.objective, leader, widths, "the objective")
        costs = {n: _reduce(problem.costs[n], leader, widths, f"cost {n}") for n in limited}
        return cls(leader, Choices(widths), objective, costs)

    def best(self, budgets: Mapping[str, float], then: str | None) -> dict[str, int] | None:
        """Widths of leaders with the least objective, and of these, the least of one cost."""
        limits = [(self.costs[n], b) for n, b in budgets.items() if b < math.inf]
        found = self.choices.minimise(self.objective, limits)
        if found is None or then is None:
            return found
        least = self.objective.value(found)
        cheaper = self.choices.minimise(self.costs[then], [*limits, (self.objective, least)])
        return found if cheaper is None else cheaper

    def step(self, name: str) -> float:
        """Less than the least difference of two values of a cost that matters."""
        table = self.costs[name]
        blocks = [list(column.values()) for column in table.single.values()]
        blocks += [list(grid.values()) for grid in table.joint.values()]
        unit, whole = step([cost - min(block) for block in blocks for cost in block])
        return unit / 2 if whole else unit * 1e-6

    def answer(self, problem: Problem, found: Mapping[str, int]) -> Allocation:
        widths = {knob: found[self.leader[knob]] for knob in problem.widths}
        costs = {name: table.value(widths) for name, table in problem.costs.items()}
        return Allocation(widths, problem.objective.value(widths), costs)


def _leaders(
    widths: Mapping[str, tuple[int, ...]], ties: tuple[tuple[str, ...], ...]
) -> dict[str, str]:
    leader = {knob: knob for knob in widths}
    for group in ties:
        for knob in group:
            if knob not in widths:
                raise reject("HQC612", f"{knob} is tied, but has no candidate widths")
        merged = {leader[knob] for knob in group}
        first = min(merged, key=list(widths).index, default="")
        leader = {knob: first if of in merged else of for knob, of in leader.items()}
    return leader


def _reduce(
    table: Table, leader: Mapping[str, str], widths: Mapping[str, tuple[int, ...]], what: str
) -> Table:
    """The table over leaders and their candidates."""
    for knob in table.knobs:
        if knob not in leader:
            raise reject("HQC612", f"{what} is about {knob}, which has no candidate widths")
    found = Table(constant=table.constant)
    for knob, column in table.single.items():
        of = leader[knob]
        entries = {w: _entry(column, w, what, knob) for w in widths[of]}
        found = found + Table({of: entries})
    for group, grid in table.joint.items():
        leaders = tuple(sorted({leader[knob] for knob in group}, key=list(widths).index))
        joint = {}
        for chosen in itertools.product(*(widths[knob] for knob in leaders)):
            held = dict(zip(leaders, chosen, strict=True))
            key = tuple(held[leader[knob]] for knob in group)
            joint[chosen] = _entry(grid, key, what, " and ".join(group))
        if len(leaders) == 1:
            found = found + Table({leaders[0]: {w: cost for (w,), cost in joint.items()}})
        else:
            found = found + Table(joint={leaders: joint})
    return found


def _entry(column: Mapping[_W, float], width: _W, what: str, knob: str) -> float:
    cost = column.get(width)
    if cost is None or not math.isfinite(cost):
        raise reject("HQC612", f"{what} of {knob} at {width} bits is {cost}")
    return cost


def _infeasible(reduced: _Reduced, budgets: Mapping[str, float]) -> Exception:
    """What the nearest budgets would be: of each cost alone, and with the others kept."""
    notes, helps = [], []
    for name, budget in budgets.items():
        table = reduced.costs[name]
        others = [(reduced.costs[n], b) for n, b in budgets.items() if n != name and b < math.inf]
        alone = reduced.choices.minimise(table)
        within = reduced.choices.minimise(table, others)
        unit = _UNITS.get(name, "")
        if alone is not None:
            least = f"{_at_least(table.value(alone))}{unit} is the least"
            notes.append(f"{name}: {budget:,.15g}{unit} asked for, {least}")
        if within is not None:
            nearest = f"{_at_least(table.value(within))}{unit}"
            helps.append(f"the nearest feasible budget for {name} is {nearest}")
    if not helps:
        helps.append("no single budget can be raised enough: raise several, or add narrower widths")
    return reject(
        "HQC611", "no assignment of bit widths keeps the budgets", notes=notes, helps=helps
    )


def _at_least(value: float) -> str:
    """A cost rounded up, so that it is a budget when it is typed: to four digits or a whole."""
    exact = Decimal(value)
    if abs(exact) >= 1000:
        return f"{exact.to_integral_value(ROUND_CEILING):,f}"
    return f"{Context(prec=4, rounding=ROUND_CEILING).create_decimal(exact).normalize():,f}"
