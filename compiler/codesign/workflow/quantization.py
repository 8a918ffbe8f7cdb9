"""All steps from a float model to a trained mixed-precision one, resumable at each epoch.

    data = load_dataset("digits")
    settings = Settings(budgets={"bops": 60_000}, float_epochs=20, epochs=20)
    found = quantize(model, data, settings, work=Path("out.pt.work"))
    save_trained(Path("out.pt"), found.net, data.x[:2], found.record)

The steps: float training, sensitivities, bit widths, quantisation-aware training. Each leaves its
state in the working directory, and a run that is repeated goes on from there to the same result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hqc.codesign.allocation.budget import bits_record, bits_text
from hqc.codesign.allocation.plan import Choice, Measuring, Plan, Planner, measure
from hqc.codesign.allocation.problem import Problem
from hqc.codesign.allocation.schemes import Candidate, alternatives, planned, scales_record
from hqc.codesign.costs.providers import COSTS, Cost
from hqc.codesign.costs.tables import Table
from hqc.codesign.hessian.objective import Samples
from hqc.codesign.hessian.sensitivity import Sensitivity
from hqc.codesign.training.datasets import Dataset
from hqc.codesign.training.loop import Epoch
from hqc.codesign.training.models import check_fit, digest
from hqc.codesign.workflow.feasible import require_feasible
from hqc.codesign.workflow.run import Run, quality
from hqc.codesign.workflow.settings import Settings
from hqc.codesign.workflow.workdir import Workdir
from hqc.diagnostics.events import Watch, ignore, stage
from hqc.frontends.hawq.layers import Scheme

_LIBRARIES = ("hqc", "numpy", "scipy", "torch")


@dataclass(frozen=True, eq=False)
class Quantized:
    """What `quantize` gives.

    Attributes:
        net: the trained module, in eval mode on the CPU.
        float_model: what it was made from.
        scheme: how it is quantised.
        plan: the bit widths, and what was expected of them.
        planner: answers the same question for other budgets.
        traces: of weights, and of activations where they were chosen.
        record: all of it, as JSON values: the same run gives the same record.
    """

    net: nn.Module
    float_model: nn.Module
    scheme: Scheme
    plan: Plan
    planner: Planner
    traces: tuple[Sensitivity, ...]
    record: Mapping[str, Any]


def quantize(
    model: nn.Module,
    data: Dataset,
    settings: Settings,
    *,
    costs: Mapping[str, Cost] = COSTS,
    work: Path | None = None,
    restart: bool = False,
    watch: Watch = ignore,
) -> Quantized:
    """Train, measure, choose and train again; see the head of this file.

    Args:
        model: float; it is left as it is.
        data: to train, measure and validate on.
        settings: what to do.
        costs: what budgets can be about.
        work: directory for the state; None: nothing is kept.
        restart: throw away what the directory holds.
        watch: receives the beginning and end of each step and epoch.

    Raises:
        HqcError: HQC605 the data do not fit the model; HQC603 the model cannot be quantised;
            HQC611 the budgets are too small, HQC612 they are about no known cost; HQC604 a
            training diverges; HQC606, HQC607 the working directory does not fit.
    """
    check_fit(model, data)
    samples = data.samples(settings.measuring.samples, settings.measuring.seed)
    problems = require_feasible(model, samples, settings, costs)
    key = _key(model, data, settings, problems)
    folder = None if work is None else Workdir.open(work, key, restart=restart)
    run = Run(data, settings, folder, watch)
    trained, float_epochs = run.train_float(model)
    with stage("float accuracy", watch) as note:
        float_accuracy = run.accuracy(trained)
        note.detail = _share(float_accuracy)
    traces = run.traces(trained, samples)
    with stage("bit widths", watch) as note:
        problem = trained, samples, traces, settings.choice, settings.considered, costs
        found = planned(alternatives(*problem, settings.bits), settings.budgets)
        note.detail = _summary(found)
    losses = run.try_out(trained, found)
    chosen = found[losses.index(min(losses))] if losses else found[0]
    plan = chosen.plan
    net, epochs = run.train_quantised(trained, chosen)
    accuracy = run.accuracy(net)
    record = {
        "seed": settings.options.seed,
        "bits": bits_record(plan.bits),
        "scales": scales_record(chosen, found, losses),
        "costs": dict(plan.costs),
        "loss_increase": {"predicted": plan.loss_increase, "by_knob": dict(plan.by_layer)},
        "accuracy": {"on": run.judge, "float": float_accuracy, "quantised": accuracy},
        "front": _front(chosen.planner, settings.budgets),
        "traces": [asdict(found) for found in traces],
        "history": {"float": _rows(float_epochs), "quantised": _rows(epochs)},
        "settings": key,
    }
    return Quantized(net, trained, chosen.scheme, plan, chosen.planner, traces, record)


def allocate(
    model: nn.Module,
    samples: Samples,
    choice: Choice,
    measuring: Measuring,
    *,
    traces: tuple[Sensitivity, ...] = (),
    schemes: Sequence[Scheme] = (),
    budgets: Mapping[str, float] | None = None,
    costs: Mapping[str, Cost] = COSTS,
    watch: Watch = ignore,
) -> tuple[Planner, tuple[Sensitivity, ...]]:
    """A planner for a float model, and the sensitivities it rests on: those given, or measured.

    Args:
        model: float, trained.
        samples: to measure on.
        choice: what may be chosen.
        measuring: of sensitivities that are not given.
        traces: those that are.
        schemes: to choose from by the budgets, the least predicted loss; none: that of `choice`
            and `costs`.
        budgets: upper limits by cost.
        costs: by name.
        watch: told of each measurement.

    Raises:
        HqcError: as `measure`, `Planner.of` and, with schemes, `planned`.
    """
    wanted = ["weights"]
    if len(choice.activation_bits) > 1 and not choice.uncoupled:
        wanted.append("activations")
    found = list(traces)
    for kind in wanted:
        if not any(t.kind == kind for t in found):
            with stage(f"traces of {kind}", watch) as note:
                found.append(measure(model, samples, measuring, kind))
                note.detail = quality(found[-1])
    if not schemes:
        return Planner.of(model, samples, found, choice, costs), tuple(found)
    several = alternatives(model, samples, found, choice, schemes, costs)
    return planned(several, budgets or {})[0].planner, tuple(found)


def untrained(accuracy: float, classes: int) -> bool:
    """Whether an accuracy is hardly better than a guess."""
    return accuracy < 2 / classes


def _key(
    model: nn.Module, data: Dataset, settings: Settings, problems: Sequence[Problem]
) -> dict[str, Any]:
    """All that decides the result, as JSON values."""
    tables = {
        name: [_table_digest(problem.costs[name]) for problem in problems]
        for name in settings.budgets
    }
    return {
        **_flat(asdict(settings)),
        "costs": tables,
        "model": digest(model),
        "data": f"{data.name} {data.digest}",
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted names, so that a difference can be named."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name in ("choice", "measuring", "options", "scheme"):
            found |= {f"{name}.{k}": v for k, v in value.items()}
        else:
            found[name] = value
    return found


def _table_digest(table: Table) -> str:
    joint = [[*knobs, *map(list, grid.items())] for knobs, grid in table.joint.items()]
    single = {knob: dict(column) for knob, column in table.single.items()}
    text = json.dumps([single, joint, table.constant])
    return hashlib.sha256(text.encode()).hexdigest()


def _front(planner: Planner, budgets: Mapping[str, float]) -> dict[str, Any] | None:
    """Points of the first budget's cost and the loss predicted for it; None without budgets."""
    if not budgets:
        return None
    cost = next(iter(budgets))
    points = [[plan.costs[cost], plan.loss_increase] for plan in planner.sketch(cost)]
    return {"cost": cost, "points": points}


def _rows(epochs: tuple[Epoch, ...]) -> list[dict[str, Any]]:
    return [asdict(epoch) for epoch in epochs]


def _summary(found: Sequence[Candidate]) -> str:
    if len(found) > 1:
        return f"{len(found)} kinds of scales within the budget"
    plan = found[0].plan
    return f"{bits_text(plan.bits)}; predicted increase of the loss {plan.loss_increase:.3g}"


def _share(accuracy: float) -> str:
    return f"{100 * accuracy:.2f} %"
