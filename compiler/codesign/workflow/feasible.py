"""Before a run that takes long: whether it can end well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from hqc.codesign.allocation.plan import network
from hqc.codesign.allocation.problem import Problem, closest, solve
from hqc.codesign.costs.providers import Cost, cost_at
from hqc.codesign.costs.tables import Table
from hqc.codesign.hessian.objective import Samples
from hqc.diagnostics import HqcError, reject
from hqc.frontends.hawq.wrap import layer_names, quantize_model

if TYPE_CHECKING:
    from hqc.codesign.workflow.settings import Settings


def require_feasible(
    model: nn.Module, samples: Samples, settings: Settings, costs: Mapping[str, Cost]
) -> tuple[Problem, ...]:
    """See before any work that layers can be quantised, and that some widths keep the budgets.

    Returns:
        What was looked at: the costs of each scheme, without an objective.

    Raises:
        HqcError: HQC603, HQC611, HQC612 as `quantize`.
    """
    bits = dict.fromkeys(layer_names(model), (8, 8))
    _try(quantize_model(model, bits, settings.scheme), samples)
    net = network(model, samples, settings.choice, settings.bits)
    problems = []
    for scheme in settings.considered:
        tables = {name: cost_at(cost, scheme)(net) for name, cost in costs.items()}
        problems.append(Problem(net.widths, Table(), tables, net.ties))
    solve(closest(problems, next(iter(settings.budgets), "")), settings.budgets)
    return tuple(problems)


def _try(net: nn.Module, samples: Samples) -> None:
    """Run a quantised module once, as the training will."""
    try:
        with torch.no_grad():
            net.train()(*samples.part(0, 2).inputs)
    except HqcError:
        raise
    except Exception as error:  # the user's forward may raise anything
        raise reject(
            "HQC603",
            "the model fails once its layers are quantised",
            notes=(f"{type(error).__name__}: {error}"[:300],),
            helps=("sums are of two activations, not of an activation and a parameter",),
        ) from error
