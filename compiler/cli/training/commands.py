"""The commands that measure, choose and train: sensitivity, allocate, quantize.

They translate options and draw results; the work is in `hqc.codesign.workflow.quantization`.
"""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqc.cli.console import Console
from hqc.cli.result import Result
from hqc.cli.training.figures import draw, draw_training
from hqc.cli.training.text import front_text, plan_document, plan_text, record_text, traces_text
from hqc.diagnostics.events import stage
from hqc.ir.array_files import cannot_write
from hqc.pipeline.options import usage

if TYPE_CHECKING:
    from torch import nn

    from hqc.codesign.allocation.plan import Choice, Measuring
    from hqc.codesign.costs.providers import Cost
    from hqc.codesign.training.datasets import Dataset
    from hqc.codesign.workflow.settings import Settings
    from hqc.frontends.hawq.layers import Scheme


def sensitivity_command(options: Namespace, console: Console) -> Result:
    """`hqc sensitivity`."""
    from hqc.codesign.allocation.plan import measure
    from hqc.codesign.workflow.plots import plot_traces, require_matplotlib

    if options.plot:
        require_matplotlib()
    how = _measuring(options)
    with _threads(options):
        model, data = _subject(options, console)
        kind = "activations" if options.activations else "weights"
        _say_if_untrained(model, data, console)
        samples = data.samples(how.samples, how.seed)
        with stage(f"traces of {kind}", console.watch):
            found = measure(model, samples, how, kind)
    if options.output:
        try:
            found.save(Path(options.output))
        except OSError as error:
            raise cannot_write(Path(options.output), error) from error
    if options.plot:
        draw(Path(options.plot), plot_traces(found))
    return Result(traces_text(found), {**asdict(found), "converged": found.converged})


def allocate_command(options: Namespace, console: Console) -> Result:
    """`hqc allocate`."""
    from hqc.codesign.allocation.budget import parse_budgets, parse_candidates
    from hqc.codesign.hessian.sensitivity import Sensitivity
    from hqc.codesign.workflow.plots import plot_front, require_matplotlib
    from hqc.codesign.workflow.quantization import allocate

    budgets = parse_budgets(options.budget)
    if not budgets and not options.front:
        raise usage("allocate needs a --budget, or --front for all compromises of bit operations")
    if options.plot:
        require_matplotlib()
    choice = _choice(options, parse_candidates(options.bits))
    how, costs = _measuring(options), _costs(options)
    schemes = _schemes(options, costs)
    traces = tuple(Sensitivity.load(Path(file)) for file in options.traces)
    with _threads(options):
        model, data = _subject(options, console)
        _say_if_untrained(model, data, console)
        samples = data.samples(how.samples, how.seed)
        planner, _ = allocate(
            *(model, samples, choice, how),
            traces=traces,
            schemes=schemes,
            budgets=budgets,
            costs=costs,
            watch=console.watch,
        )
    plan = planner.solve(budgets) if budgets else None
    axis = next(iter(budgets), "bops")
    others = {name: budget for name, budget in budgets.items() if name != axis}
    points = planner.front(axis, others) if options.front or options.plot else ()
    if options.plot:
        chosen = plan.allocation if plan else None
        draw(Path(options.plot), plot_front([p.allocation for p in points], axis, chosen))
    parts = [plan_text(plan, planner.choice)] if plan else []
    document: dict[str, Any] = plan_document(plan) if plan else {}
    document["scales"] = {
        "per_channel": planner.choice.per_channel,
        "power_of_two": planner.choice.power_of_two,
    }
    if options.front:
        parts.append(front_text(points, axis))
        document["front"] = [plan_document(point) for point in points]
    return Result("\n\n".join(parts), document)


def quantize_command(options: Namespace, console: Console) -> Result:
    """`hqc quantize`."""
    from hqc.codesign.costs.lut_cost import PredictedCost
    from hqc.codesign.training.models import check_fit
    from hqc.codesign.training.record import check_output, save_trained
    from hqc.codesign.workflow.budget_check import UNITS, check_budget
    from hqc.codesign.workflow.plots import require_matplotlib
    from hqc.codesign.workflow.quantization import quantize, untrained

    output = Path(options.output)
    work = Path(options.work or f"{output}.work")
    if options.plots:
        require_matplotlib()
    check_output(output)
    costs = _costs(options)
    schemes = _schemes(options, costs)
    with _threads(options), _resumable(work, options.argv):
        model, data = _subject(options, console)
        classes, settings = check_fit(model, data), _settings(options, model, schemes)
        found = quantize(
            *(model, data, settings),
            costs=costs,
            work=work,
            restart=options.restart,
            watch=console.watch,
        )
        record = {"model": options.model, "data": data.name, **found.record}
        for name, cost in costs.items():
            if isinstance(cost, PredictedCost):
                record[name] = check_budget(
                    *(name, found.net, data.x[:2], settings.budgets[name]),
                    planned=found.plan.costs[name],
                    measured=options.measure,
                    watch=console.watch,
                )
        save_trained(output, found.net, data.x[:2], record)
        if options.plots:
            draw_training(Path(options.plots), found, data, console)
    if untrained(record["accuracy"]["float"], classes):
        warning = "the float model is hardly better than a guess: --float-epochs N trains it first"
        console.line(console.style(warning, "warning"))
    for name, unit in UNITS.items():
        if name in record and not record[name]["kept"]:
            warning = f"the budget of {unit} is not sure to be kept: ask for less, or --measure it"
            console.line(console.style(warning, "warning"))
    console.line()
    console.line(f"{output}: the trained program; its state was in {work}")
    return Result(record_text(output, record), {"output": str(output), **record})


@contextmanager
def _resumable(work: Path, argv: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        if not (work / "run.json").is_file():
            raise
        again = shlex.join(a for a in ["hqc", *argv] if a != "--restart")
        text = f"interrupted; the state is in {work}, and the same command goes on from there:"
        raise KeyboardInterrupt(f"{text}\n  {again}") from error


# --- options ---


def _subject(options: Namespace, console: Console) -> tuple[nn.Module, Dataset]:
    """The model and the data, which fit each other."""
    from hqc.codesign.training.datasets import load_dataset
    from hqc.codesign.training.models import check_fit, load_model

    with stage("model", console.watch):
        model = load_model(options.model, options.seed)
    with stage("data", console.watch) as note:
        data = load_dataset(options.data, options.seed)
        held = 0 if data.valid is None else len(data.valid[1])
        note.detail = f"{len(data.y)} samples to train on, {held} to validate"
    check_fit(model, data)
    return model, data


def _say_if_untrained(model: nn.Module, data: Dataset, console: Console) -> None:
    """Sensitivities are about the very weights: those of a fresh model say little."""
    from hqc.codesign.training.loop import evaluate
    from hqc.codesign.training.models import check_fit
    from hqc.codesign.workflow.quantization import untrained

    with stage("float accuracy", console.watch) as note:
        accuracy = evaluate(model, data.valid_batches() or data.batches(4096))[1]
        note.detail = f"{100 * accuracy:.2f} %"
        if untrained(accuracy, check_fit(model, data)):
            note.remarks.append("hardly better than a guess: is the model trained?")


@contextmanager
def _threads(options: Namespace) -> Iterator[None]:
    """The threads asked for: by default one, so that sums have one order on every machine."""
    import torch

    if options.threads < 1:
        raise usage(f"--threads {options.threads}: one or more")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measuring(options: Namespace) -> Measuring:
    from hqc.codesign.allocation.plan import Measuring

    return Measuring(
        options.method,
        options.relative_error,
        options.max_probes,
        options.samples,
        options.seed,
    )


def _choice(options: Namespace, candidates: tuple[int, ...]) -> Choice:
    from hqc.codesign.allocation.budget import parse_candidates
    from hqc.codesign.allocation.plan import Choice

    if options.uncoupled and options.activation_bits:
        raise usage("--uncoupled says what activations have: leave --activation-bits out")
    activations = parse_candidates(options.activation_bits or "8")
    scales = bool(options.per_channel), bool(options.power_of_two)
    return Choice(candidates, activations, options.uncoupled, *scales)


def _costs(options: Namespace) -> Mapping[str, Cost]:
    """Costs by name: those of a file before those that are predicted, which take their time."""
    from hqc.codesign.allocation.budget import parse_budgets
    from hqc.codesign.costs.lut_cost import PREDICTED
    from hqc.codesign.costs.providers import COSTS, cost_file

    found = dict(COSTS)
    asked = parse_budgets(options.budget)
    found |= {name: make() for name, make in PREDICTED.items() if name in asked}
    return found | (cost_file(Path(options.cost_table)) if options.cost_table else {})


def _settings(options: Namespace, model: nn.Module, schemes: tuple[Scheme, ...]) -> Settings:
    from hqc.codesign.allocation.budget import parse_assignment, parse_budgets, parse_candidates
    from hqc.codesign.training.loop import Options
    from hqc.codesign.workflow.settings import Settings
    from hqc.frontends.hawq.wrap import layer_names

    budgets, bits = parse_budgets(options.budget), None
    candidates = parse_candidates(options.bits or "2..8") if budgets else ()
    choice = _choice(options, candidates)
    if not budgets:
        if not options.bits:
            raise usage("quantize needs a --budget to choose bit widths by, or the --bits")
        if options.uncoupled or len(choice.activation_bits) > 1:
            raise usage("without a --budget nothing is chosen: give the widths as --bits 6/8")
        bits = parse_assignment(options.bits, layer_names(model), choice.activation_bits[0])
    return Settings(
        budgets=budgets,
        bits=bits,
        choice=choice,
        measuring=_measuring(options),
        float_epochs=options.float_epochs,
        float_rate=options.float_lr,
        options=Options(
            epochs=options.epochs,
            learning_rate=options.lr,
            l1=options.l1,
            seed=options.seed,
            freeze_ranges=options.freeze_ranges,
            fold_norms=options.fold_norms or None,
            patience=options.patience,
            device=options.device,
        ),
        batch=options.batch,
        scheme=schemes[0],
        schemes=schemes if len(schemes) > 1 else (),
        trial_epochs=options.trial_epochs,
    )


def _schemes(options: Namespace, costs: Mapping[str, Cost]) -> tuple[Scheme, ...]:
    """How things are quantised: with the scales that are asked for, or those to choose from.

    What is left open is chosen where a budget is about a cost that tells scales apart, as logic
    does. `allocate` asks only for part of the scheme.
    """
    from hqc.codesign.allocation.budget import parse_budgets
    from hqc.codesign.allocation.schemes import schemes_of
    from hqc.codesign.costs.providers import SchemeCost
    from hqc.frontends.hawq.layers import Scheme

    names = ("mode", "ranges", "percentile", "bias_bits")
    known = {name: getattr(options, name) for name in names if hasattr(options, name)}
    scales = options.per_channel, options.power_of_two
    if not any(isinstance(costs.get(name), SchemeCost) for name in parse_budgets(options.budget)):
        scales = bool(scales[0]), bool(scales[1])
    return schemes_of(Scheme(**known), *scales)
