"""All steps from a float model to a trained mixed-precision one, resumable at each epoch.

    data = load_dataset("digits")
    settings = Settings(budgets={"bops": 60_000}, float_epochs=20, epochs=20)
    found = quantize(model, data, settings, work=Path("out.pt.work"))
    save_trained(Path("out.pt"), found.net, data.x[:2], found.record)

The steps: float training, sensitivities, bit widths, quantisation-aware training. Each leaves its
state in the working directory, and a run that is repeated goes on from there to the same result.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hqc.diagnostics import HqcError, reject
from hqc.events import Event, Watch, ignore, stage
from hqc.frontends.hawq.allocation import Problem, solve
from hqc.frontends.hawq.budget import Bits
from hqc.frontends.hawq.costs import Table
from hqc.frontends.hawq.datasets import Dataset
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.hawq.models import check_fit, digest
from hqc.frontends.hawq.objective import Samples
from hqc.frontends.hawq.plan import Choice, Measuring, Plan, Planner, measure, network
from hqc.frontends.hawq.providers import COSTS, Cost
from hqc.frontends.hawq.sensitivity import Sensitivity
from hqc.frontends.hawq.train import Epoch, Options, evaluate, train
from hqc.frontends.hawq.workdir import Workdir
from hqc.frontends.hawq.wrap import layer_names, quantize_model

__all__ = ["Quantized", "Settings", "allocate", "quantize", "require_feasible", "untrained"]

_LIBRARIES = ("hqc", "numpy", "scipy", "torch")


@dataclass(frozen=True)
class Settings:
    """What to do; with the model and the data it decides the result.

    Attributes:
        budgets: upper limits by cost; the widths are then chosen.
        bits: the widths by layer, given in place of budgets.
        choice: what may be chosen.
        measuring: of sensitivities.
        float_epochs: of training before anything is quantised; 0: the model is trained.
        float_rate: learning rate of that.
        options: of the quantisation-aware training, its seed and device for both trainings. Batch
            norms are best folded from the first epoch: their statistics are those of the float
            training, and what is trained is what is evaluated.
        batch: samples in one step.
        scheme: how weights and activations are quantised.
    """

    budgets: Mapping[str, float] = field(default_factory=dict)
    bits: Bits | None = None
    choice: Choice = field(default_factory=Choice)
    measuring: Measuring = field(default_factory=Measuring)
    float_epochs: int = 0
    float_rate: float = 1e-3
    options: Options = field(default_factory=lambda: Options(fold_norms=1))
    batch: int = 256
    scheme: Scheme = field(default_factory=Scheme)

    def __post_init__(self) -> None:
        if bool(self.budgets) == (self.bits is not None):
            raise reject("HQC001", "give budgets or bit widths, one of the two")
        if self.batch < 1 or self.float_epochs < 0:
            raise reject("HQC001", f"batches of {self.batch}, {self.float_epochs} float epochs")


@dataclass(frozen=True, eq=False)
class Quantized:
    """What `quantize` gives.

    Attributes:
        net: the trained module, in eval mode on the CPU.
        float_model: what it was made from.
        plan: the bit widths, and what was expected of them.
        planner: answers the same question for other budgets.
        traces: of weights, and of activations where they were chosen.
        record: all of it, as JSON values: the same run gives the same record.
    """

    net: nn.Module
    float_model: nn.Module
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
    require_feasible(model, samples, settings, costs)
    key = _key(model, data, samples, settings, costs)
    folder = None if work is None else Workdir.open(work, key, restart=restart)
    run = _Run(data, settings, folder, watch)
    trained, float_epochs = run.train_float(model)
    with stage("float accuracy", watch) as note:
        float_accuracy = run.accuracy(trained)
        note.detail = _share(float_accuracy)
    traces = run.traces(trained, samples)
    with stage("bit widths", watch) as note:
        choice = settings.choice
        planner = Planner.of(trained, samples, traces, choice, costs, settings.bits)
        plan = planner.solve(settings.budgets)
        note.detail = _summary(plan)
    net, epochs = run.train_quantised(trained, plan)
    accuracy = run.accuracy(net)
    record = {
        "seed": settings.options.seed,
        "bits": {n: {"weights": w, "activations": a} for n, (w, a) in plan.bits.items()},
        "costs": dict(plan.costs),
        "loss_increase": {"predicted": plan.loss_increase, "by_knob": dict(plan.by_layer)},
        "accuracy": {"on": run.judge, "float": float_accuracy, "quantised": accuracy},
        "front": _front(planner, settings.budgets),
        "traces": [asdict(found) for found in traces],
        "history": {"float": _rows(float_epochs), "quantised": _rows(epochs)},
        "settings": key,
    }
    return Quantized(net, trained, plan, planner, traces, record)


def allocate(
    model: nn.Module,
    samples: Samples,
    choice: Choice,
    measuring: Measuring,
    *,
    traces: tuple[Sensitivity, ...] = (),
    costs: Mapping[str, Cost] = COSTS,
    watch: Watch = ignore,
) -> tuple[Planner, tuple[Sensitivity, ...]]:
    """A planner for a float model, and the sensitivities it rests on: those given, or measured.

    Raises:
        HqcError: as `measure` and `Planner.of`.
    """
    wanted = ["weights"]
    if len(choice.activation_bits) > 1 and not choice.uncoupled:
        wanted.append("activations")
    found = list(traces)
    for kind in wanted:
        if not any(t.kind == kind for t in found):
            with stage(f"traces of {kind}", watch) as note:
                found.append(measure(model, samples, measuring, kind))
                note.detail = _quality(found[-1])
    return Planner.of(model, samples, found, choice, costs), tuple(found)


def require_feasible(
    model: nn.Module, samples: Samples, settings: Settings, costs: Mapping[str, Cost]
) -> None:
    """See before any work that layers can be quantised, and that some widths keep the budgets.

    Raises:
        HqcError: HQC603, HQC611, HQC612 as `quantize`.
    """
    bits = dict.fromkeys(layer_names(model), (8, 8))
    _try(quantize_model(model, bits, settings.scheme), samples)
    net = network(model, samples, settings.choice, settings.bits)
    tables = {name: cost(net) for name, cost in costs.items()}
    cheapest = tables.get(next(iter(settings.budgets), ""), Table())
    solve(Problem(net.widths, cheapest, tables, net.ties), settings.budgets)


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


def untrained(accuracy: float, classes: int) -> bool:
    """Whether an accuracy is hardly better than a guess."""
    return accuracy < 2 / classes


class _Run:
    """The steps that take long, with the state of each in a file."""

    def __init__(
        self, data: Dataset, settings: Settings, folder: Workdir | None, watch: Watch
    ) -> None:
        self._data, self._settings, self._watch = data, settings, watch
        self._folder = folder
        self.judge = "training" if data.valid is None else "validation"

    def _file(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder.file(name)

    def train_float(self, model: nn.Module) -> tuple[nn.Module, tuple[Epoch, ...]]:
        """The model after its float training, and the epochs of that."""
        chosen = self._settings
        model = copy.deepcopy(model)
        if not chosen.float_epochs:
            return model.eval(), ()
        options = Options(
            epochs=chosen.float_epochs,
            learning_rate=chosen.float_rate,
            seed=chosen.options.seed,
            device=chosen.options.device,
        )
        return self._train("float", model, options, "float.pt")

    def train_quantised(self, model: nn.Module, plan: Plan) -> tuple[nn.Module, tuple[Epoch, ...]]:
        """The model with quantisers, after its training."""
        net = quantize_model(model, dict(plan.bits), self._settings.scheme)
        return self._train("quantised", net, self._settings.options, "quantised.pt")

    def _train(
        self, name: str, model: nn.Module, options: Options, file: str
    ) -> tuple[nn.Module, tuple[Epoch, ...]]:
        def watch(event: Event) -> None:
            self._watch(replace(event, name=f"{name}, {event.name}"))

        found = train(
            model,
            self._data.batches(self._settings.batch),
            self._data.valid_batches(),
            options=options,
            checkpoint=self._file(file),
            watch=watch,
        )
        return model.cpu(), found.epochs

    def traces(self, model: nn.Module, samples: Samples) -> tuple[Sensitivity, ...]:
        """Sensitivities of weights, and of activations if their widths are chosen."""
        choice, kinds = self._settings.choice, ["weights"]
        several = len(choice.activation_bits) > 1 and not choice.uncoupled
        if self._settings.bits is None and several:
            kinds.append("activations")
        return tuple(self._trace(model, samples, kind) for kind in kinds)

    def _trace(self, model: nn.Module, samples: Samples, kind: str) -> Sensitivity:
        file = self._file(f"{kind}.json")
        with stage(f"traces of {kind}", self._watch) as note:
            if file is not None and file.exists():
                note.detail = f"from {file.name}"
                return _loaded(file)
            found = measure(model, samples, self._settings.measuring, kind)
            if file is not None:
                fresh = file.with_name(f".{file.name}-")
                found.save(fresh)
                fresh.replace(file)
            note.detail = _quality(found)
        return found

    def accuracy(self, model: nn.Module) -> float:
        """On the validation samples, or the training ones where there are no others."""
        batches = self._data.valid_batches() or replace(self._data.batches(4096), shuffle=False)
        return float(evaluate(model, batches)[1])


def _loaded(file: Path) -> Sensitivity:
    try:
        return Sensitivity.load(file)
    except HqcError as error:
        notes = [note for d in error.diagnostics for note in d.notes]
        helps = ("--restart throws that state away and starts afresh",)
        raise reject("HQC606", f"{file} is damaged", notes=notes, helps=helps) from error


def _key(
    model: nn.Module,
    data: Dataset,
    samples: Samples,
    settings: Settings,
    costs: Mapping[str, Cost],
) -> dict[str, Any]:
    """All that decides the result, as JSON values."""
    net = network(model, samples, settings.choice, settings.bits)
    tables = {name: _table_digest(costs[name](net)) for name in settings.budgets}
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
    pairs = [[*knobs, *map(list, grid.items())] for knobs, grid in table.pairs.items()]
    single = {knob: dict(column) for knob, column in table.single.items()}
    text = json.dumps([single, pairs, table.constant])
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


def _quality(found: Sensitivity) -> str:
    worst = max((x.error / abs(x.trace) for x in found.layers if x.trace), default=0.0)
    text = f"{found.samples} samples, largest standard error {100 * worst:.1f} %"
    return text if found.converged else f"{text}, more than asked for: allow more probes"


def _summary(plan: Plan) -> str:
    bits = " ".join(f"{w}/{a}" for w, a in plan.bits.values())
    return f"{bits}; predicted increase of the loss {plan.loss_increase:.3g}"


def _share(accuracy: float) -> str:
    return f"{100 * accuracy:.2f} %"
