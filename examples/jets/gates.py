"""Trainings at equal look-up tables: widths chosen for LUTs, and for bit operations.

A budget of LUTs gives scales and widths, and a trained network that Yosys counts. Of the widths
that are best for some budget of bit operations, two are trained as well: the next with fewer LUTs
and the next with more. The line between these two says what a budget of bit operations would have
given at the LUTs that were counted. All networks of a seed start from one float network.

Bit operations do not depend on scales: their networks have free ones, one per layer, which is the
default. As a control they have those that the budget of LUTs chose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks import Parts, Task, score, starts, trained
from torch import nn
from trials import CANDIDATES, Paired, paired

from hqc.artifact.page.numbers import scales_text
from hqc.codesign.allocation import schemes_of
from hqc.codesign.allocation.budget import Bits, bits_text
from hqc.codesign.allocation.plan import Choice, Measuring, Plan, measure
from hqc.codesign.allocation.schemes import Alternative, Candidate, alternatives, planned
from hqc.codesign.costs import COSTS, LutCost
from hqc.codesign.hessian import Samples
from hqc.codesign.workflow.budget_check import check_budget
from hqc.diagnostics import reject
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.hawq.wrap import quantize_model

APART = 0.03
"""How many LUTs fewer or more a neighbour has at least, as planned."""
SHORT = 2
"""Epochs of the short trainings by which scales are chosen."""
POINTS = 80
"""Budgets of bit operations that are tried for neighbours."""


@dataclass(frozen=True)
class Trial:
    """One training with quantisers.

    Attributes:
        seed: of the float network and the order of samples.
        arm: what the budget was of, "lut" or "bops".
        budget: LUTs that the widths were chosen for; of "bops", those of the trial that this one
            is a neighbour of.
        scheme: the kind of scales.
        bits: (weights, activations that enter) by layer.
        bops: bit operations.
        planned: LUTs that the plan expected, margin included.
        measured: LUTs that Yosys counts in the trained network.
        accuracy: on the test part.
    """

    seed: int
    arm: str
    budget: float
    scheme: Scheme
    bits: Bits
    bops: float
    planned: float
    measured: int
    accuracy: float


@dataclass(frozen=True)
class Match:
    """A network for LUTs and its two neighbours for bit operations, one on either side."""

    lut: Trial
    fewer: Trial
    more: Trial

    @property
    def at_equal(self) -> float:
        """Accuracy for bit operations at the LUTs of the other: on the line between the two."""
        whole = self.more.measured - self.fewer.measured
        part = (self.lut.measured - self.fewer.measured) / whole if whole else 0.5
        return self.fewer.accuracy + part * (self.more.accuracy - self.fewer.accuracy)


@dataclass(frozen=True)
class Gates:
    """All matches of a task, and the float networks' accuracies by seed."""

    task: str
    floats: Mapping[int, float]
    matches: tuple[Match, ...]

    @property
    def budgets(self) -> tuple[float, ...]:
        """Budgets of LUTs, ascending."""
        return tuple(sorted({match.lut.budget for match in self.matches}))

    def of(self, budget: float) -> tuple[Match, ...]:
        """The matches of one budget, by seed."""
        return tuple(match for match in self.matches if match.lut.budget == budget)

    def gain(self, budgets: Sequence[float], *, more: bool = False) -> Paired:
        """What budgets of LUTs have over bit operations.

        Args:
            budgets: of which matches count.
            more: over the neighbours with more LUTs, not at equal LUTs.
        """
        found = [match for budget in budgets for match in self.of(budget)]
        others = [m.more.accuracy if more else m.at_equal for m in found]
        return paired([m.lut.accuracy for m in found], others)


def gates(
    task: Task,
    *,
    seeds: Sequence[int],
    luts: Sequence[float],
    activations: Sequence[int] = CANDIDATES,
    control: bool = False,
    most: int = 4096,
    log: Callable[[str], None] = print,
) -> Gates:
    """Train and count at every budget of LUTs, and what bit operations give there.

    Args:
        task: what to train.
        seeds: of float networks.
        luts: the budgets.
        activations: widths that activations may have; one: it is given.
        control: whether networks for bit operations have the scales that LUTs chose.
        most: training samples on which sensitivities are measured.
        log: receives a line per training.

    Raises:
        HqcError: HQC430, there is no Yosys; HQC611, a budget that nothing keeps, or without
            neighbours on either side.
    """
    floats: dict[int, float] = {}
    matches: list[Match] = []
    for start in starts(task, seeds, most, log):
        floats[start.seed] = start.accuracy
        found = problems(start.net, start.samples, activations)
        one = _Seed(task, start.parts, start.net, found, start.seed, log)
        matches += one.matches(luts, control)
    return Gates(task.name, floats, tuple(matches))


def problems(
    net: nn.Module, samples: Samples, activations: Sequence[int]
) -> tuple[Alternative, ...]:
    """The problem of a float network with each kind of scales, by traces of the Hessian."""
    choice = Choice(CANDIDATES, tuple(activations))
    kinds = ["weights", "activations"] if len(activations) > 1 else ["weights"]
    traces = [measure(net, samples, Measuring(), kind) for kind in kinds]
    costs = {**COSTS, "lut": LutCost()}
    return alternatives(net, samples, traces, choice, schemes_of(Scheme()), costs)


_Known = dict[tuple[Scheme, tuple[tuple[int, int], ...]], Trial]


@dataclass(frozen=True, eq=False)
class _Seed:
    """The trainings of one float network; what is known already is not trained again."""

    task: Task
    parts: Parts
    net: nn.Module
    problems: tuple[Alternative, ...]
    seed: int
    log: Callable[[str], None]
    known: _Known = field(default_factory=dict)

    def matches(self, luts: Sequence[float], control: bool) -> Iterator[Match]:
        """A match for each budget."""
        fronts: dict[Scheme, tuple[Plan, ...]] = {}
        for budget in luts:
            chosen = min(planned(self.problems, {"lut": budget}), key=self.short)
            mine = self.trial("lut", budget, chosen.scheme, chosen.plan)
            wanted = chosen.scheme if control else Scheme()
            other = next(p for p in self.problems if p.scheme == wanted)
            if other.scheme not in fronts:
                fronts[other.scheme] = other.planner.sketch("bops", POINTS)
            fewer, more = (
                self.neighbour(mine, side, other.scheme, fronts[other.scheme]) for side in (-1, 1)
            )
            yield Match(mine, fewer, more)

    def short(self, one: Candidate) -> float:
        """The least validation loss of a short training, as `hqc quantize` chooses scales."""
        model = quantize_model(self.net, dict(one.plan.bits), one.scheme)
        schedule = replace(self.task.schedule, epochs=SHORT)
        return min(trained(model, self.parts, schedule, self.seed, quantised=True))

    def neighbour(self, mine: Trial, side: int, scheme: Scheme, front: Sequence[Plan]) -> Trial:
        """The next plan for bit operations that has fewer LUTs (side -1), or more (1).

        Raises:
            HqcError: HQC611, there is none.
        """
        for plan in sorted(front, key=lambda plan: side * plan.costs["lut"]):
            if side * (plan.costs["lut"] - mine.planned) < APART * mine.planned:
                continue
            found = self.trial("bops", mine.budget, scheme, plan)
            if side * (found.measured - mine.measured) >= 0:
                return found
        what = "fewer" if side < 0 else "more"
        raise reject(
            "HQC611", f"no budget of bit operations gives {what} than {mine.measured} LUTs"
        )

    def trial(self, arm: str, budget: float, scheme: Scheme, plan: Plan) -> Trial:
        """A plan trained and counted."""
        key = scheme, tuple(plan.bits.values())
        if key in self.known:
            return replace(self.known[key], arm=arm, budget=budget)
        model = quantize_model(self.net, dict(plan.bits), scheme)
        trained(model, self.parts, self.task.schedule, self.seed, quantised=True)
        accuracy = score(model, self.parts.test)[1]
        planned, example = plan.costs["lut"], self.parts.test[0][:2]
        counted = check_budget(
            "lut", model.eval(), example, math.inf, planned=planned, measured=True
        )
        bops, measured = plan.costs["bops"], counted["measured"]
        found = Trial(self.seed, arm, budget, scheme, plan.bits, bops, planned, measured, accuracy)
        scales = scales_text(scheme.per_channel, scheme.power_of_two)
        self.log(
            f"  {arm}, {budget:,.0f} LUTs: {bits_text(plan.bits)}, {scales}, "
            f"{planned:,.0f} planned, {measured:,} counted, {bops:,.0f} BOPs, "
            f"accuracy {accuracy:.4f}"
        )
        self.known[key] = found
        return found
