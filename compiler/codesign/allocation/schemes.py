"""Scales as part of the choice: schemes, and the best widths within budgets with each.

A scale per channel or per layer, free or a power of two: the finer ones disturb the network less at
equal widths, the coarser ones leave more logic for widths. A requantiser between free scales is a
multiplication, between powers of two a rounding, which bit operations do not tell apart: only costs
that know logic can choose here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from hqc.codesign.allocation.budget import Bits, bits_record
from hqc.codesign.allocation.plan import Choice, Plan, Planner
from hqc.codesign.allocation.problem import closest, solve
from hqc.codesign.costs.providers import COSTS, Cost, cost_at
from hqc.codesign.hessian.objective import Samples
from hqc.codesign.hessian.sensitivity import Sensitivity
from hqc.diagnostics import HqcError
from hqc.frontends.hawq.layers import Scheme


@dataclass(frozen=True, eq=False)
class Alternative:
    """A scheme, and the problem of choosing widths with it."""

    scheme: Scheme
    planner: Planner


@dataclass(frozen=True, eq=False)
class Candidate(Alternative):
    """An alternative with its best widths within budgets."""

    plan: Plan


def schemes_of(
    scheme: Scheme, per_channel: bool | None = None, power_of_two: bool | None = None
) -> tuple[Scheme, ...]:
    """A scheme with all kinds of scales, or those that are not None."""
    return tuple(
        replace(scheme, per_channel=channel, power_of_two=power)
        for channel in ((False, True) if per_channel is None else (per_channel,))
        for power in ((False, True) if power_of_two is None else (power_of_two,))
    )


def alternatives(
    model: nn.Module,
    samples: Samples,
    traces: Sequence[Sensitivity],
    choice: Choice,
    schemes: Sequence[Scheme],
    costs: Mapping[str, Cost] = COSTS,
    given: Bits | None = None,
) -> tuple[Alternative, ...]:
    """The problems of all schemes; arguments and errors as for `Planner.of`."""
    found = []
    for scheme in schemes:
        own = replace(choice, per_channel=scheme.per_channel, power_of_two=scheme.power_of_two)
        of_scheme = {name: cost_at(cost, scheme) for name, cost in costs.items()}
        planner = Planner.of(model, samples, traces, own, of_scheme, given)
        found.append(Alternative(scheme, planner))
    return tuple(found)


def planned(found: Sequence[Alternative], budgets: Mapping[str, float]) -> tuple[Candidate, ...]:
    """The best widths of all alternatives that keep the budgets, least predicted loss first.

    Raises:
        HqcError: HQC611, no scheme keeps the budgets: what the one that comes closest needs;
            HQC612, HQC614 as `solve`.
    """
    kept = []
    for one in found:
        try:
            kept.append(Candidate(one.scheme, one.planner, one.planner.solve(budgets)))
        except HqcError as error:
            if error.diagnostics[0].code != "HQC611":
                raise
    if not kept:  # it raises, and says what would do
        solve(closest([one.planner.problem for one in found], next(iter(budgets))), budgets)
    return tuple(sorted(kept, key=lambda one: one.plan.loss_increase))


def scales_record(
    chosen: Candidate, tried: Sequence[Candidate], losses: Sequence[float]
) -> dict[str, Any]:
    """The scales that were chosen, and those they were chosen from, as JSON values.

    Args:
        chosen: one of the others.
        tried: all candidates.
        losses: of each after its short training, infinite where it diverged; none: there was none.
    """
    found: dict[str, Any] = _scales(chosen.scheme)
    if len(tried) > 1:
        found["considered"] = [_row(one) for one in tried]
        for row, loss in zip(found["considered"], losses, strict=False):
            row["loss"] = loss if math.isfinite(loss) else None  # JSON has no infinity
    return found


def _row(one: Candidate) -> dict[str, Any]:
    return {
        **_scales(one.scheme),
        "bits": bits_record(one.plan.bits),
        "costs": dict(one.plan.costs),
        "loss_increase": one.plan.loss_increase,
    }


def _scales(scheme: Scheme) -> dict[str, bool]:
    return {"per_channel": scheme.per_channel, "power_of_two": scheme.power_of_two}
