"""From floats to firmware: sensitivities, the best bit widths, training, both backends, one table.

python examples/jets/paper.py --small        a minute, the embedded jets
python examples/jets/paper.py --data openml  the official set; needs the network once

The study of Campos et al. (arXiv:2304.06745) on the 16-64-32-32-5 jet tagger: traces of the
Hessian, the front of bit operations against predicted loss, training with quantisers at several
budgets, each set by uniform widths, and the best of them compiled and checked bit for bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tasks import Parts, Task, float_start, score, task_of, trained
from torch import nn
from train import class_aucs, logits, one_thread
from trials import CANDIDATES, Widths, pairs_of, uniform

import hqc
from hqc.codesign.allocation import Allocation
from hqc.codesign.allocation.plan import Choice, Measuring, Planner, measure
from hqc.codesign.hessian import Samples, Sensitivity
from hqc.codesign.workflow.plots import plot_bits, plot_front, plot_traces, plot_training
from hqc.diagnostics import HqcError
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.hawq.wrap import quantize_model

BACKENDS = ("vitis", "catapult")
SMALL_JETS, SMALL_EPOCHS, SMALL_BITS = 12_000, 10, [4, 6]


@dataclass(frozen=True)
class Row:
    """A trained network.

    Attributes:
        label: "float", "uniform" or "hessian".
        bits: uniform width that sets the budget; 0 for float.
        widths: by knob.
        costs: bit operations and bits of weights.
        valid, accuracy: on the validation and the test part.
        auc: mean over the classes, on the test part.
        model: the network.
        curve: validation losses by epoch.
    """

    label: str
    bits: int
    widths: Widths
    costs: dict[str, float]
    valid: float
    accuracy: float
    auc: float
    model: nn.Module = field(repr=False)
    curve: Sequence[float] = field(repr=False, default=())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description="The jet tagger, from float to firmware.")
    found.add_argument("--data", default="embedded", help="embedded, openml, or an .npz file")
    found.add_argument("--jets", type=int, help="how many jets")
    found.add_argument("--epochs", type=int, help="with quantisers; twice as many without")
    found.add_argument("--bits", type=int, nargs="+", help="uniform widths that set the budgets")
    found.add_argument(
        "--check",
        type=int,
        default=1000,
        help="test jets compared per backend, and as many generated samples",
    )
    found.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--small", action="store_true", help="few jets, few epochs, two budgets")
    found.add_argument("-o", "--output", type=Path, default=Path("build/paper"))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run everything; returns the exit status."""
    given = parser().parse_args(arguments)
    if given.small:
        given.jets = given.jets or SMALL_JETS
        given.epochs, given.bits = given.epochs or SMALL_EPOCHS, given.bits or SMALL_BITS
    try:
        with one_thread():
            return run(given)
    except HqcError as error:
        print(error, file=sys.stderr)
        return int(error.exit)


def run(given: argparse.Namespace) -> int:
    """Train, measure, allocate, train with quantisers, compile; print and save."""
    start = time.perf_counter()
    task = task_of(given.data, given.jets).with_epochs(given.epochs)
    parts = task.parts(given.seed)
    print(f"{task.name}: {len(parts.train[1]):,} jets to train on, {len(parts.test[1]):,} to test")
    net = float_start(task, parts, given.seed)
    samples = Samples.of(parts.train).part(0, min(4096, len(parts.train[1])))
    traces = [measure(net, samples, Measuring(), kind) for kind in ("weights", "activations")]
    for found in traces:
        print(trace_line(found))
    planner = Planner.of(net, samples, traces, Choice(CANDIDATES, CANDIDATES, per_channel=True))
    rows = [graded("float", 0, {}, {}, net, parts)]
    for bits in given.bits or (3, 4, 5, 6):
        rows += budget_rows(task, parts, net, planner, bits, given.seed)
    best = max((r for r in rows if r.label == "hessian"), key=lambda r: (r.valid, -r.bits))
    given.output.mkdir(parents=True, exist_ok=True)
    figures(given.output, traces, planner, rows, best)
    print("\n" + table(rows))
    print(f"\nbest on the validation part: hessian within {best.bits} bits; compiling it")
    for backend in given.backends:
        print(compiled(best, parts, given.output, backend, given.check))
    record(given.output / "paper.json", rows)
    print(f"figures, projects and numbers in {given.output}, {time.perf_counter() - start:.0f} s")
    return 0


def trace_line(found: Sensitivity) -> str:
    """Traces and their standard errors."""
    shown = "  ".join(f"{x.name} {x.trace:.3g} ± {x.error:.1g}" for x in found.layers)
    return f"Hessian traces of {found.kind}: {shown}"


def budget_rows(
    task: Task, parts: Parts, net: nn.Module, planner: Planner, bits: int, seed: int
) -> list[Row]:
    """Uniform widths, and the allocation within their bit operations, both trained."""
    costs = planner.problem.costs
    even = uniform(planner.problem, bits)
    plan = planner.solve({"bops": costs["bops"].value(even)})
    rows = []
    for label, widths in (("uniform", even), ("hessian", plan.allocation.widths)):
        model = quantize_model(net, pairs_of(widths), Scheme(per_channel=True))
        curve = trained(model, parts, task.schedule, seed, quantised=True)
        used = {name: cost.value(widths) for name, cost in costs.items()}
        rows.append(graded(label, bits, widths, used, model, parts, curve))
    return rows


def graded(
    label: str,
    bits: int,
    widths: Widths,
    costs: dict[str, float],
    model: nn.Module,
    parts: Parts,
    curve: Sequence[float] = (),
) -> Row:
    """A network with its accuracies."""
    x, y = (part.numpy() for part in parts.test)
    auc = float(np.mean(class_aucs(logits(model, x), y)))
    valid, test = score(model, parts.valid)[1], score(model, parts.test)[1]
    return Row(label, bits, widths, costs, valid, test, auc, model, curve)


def table(rows: Sequence[Row]) -> str:
    """All networks, as Markdown; widths are of weights / of what enters, by layer."""
    lines = [
        "| widths | within | weights / inputs, by layer | BOPs | weights, bits | accuracy | AUC |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        widths = " ".join(f"{w}/{a}" for w, a in pairs_of(row.widths).values()) or "32/32"
        costs = [f"{row.costs[n]:,.0f}" if row.costs else "" for n in ("bops", "size")]
        within = f"{row.bits} bits" if row.bits else ""
        cells = (row.label, within, widths, *costs, f"{row.accuracy:.4f}", f"{row.auc:.4f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figures(
    folder: Path, traces: Sequence[Sensitivity], planner: Planner, rows: Sequence[Row], best: Row
) -> None:
    """Save traces, the front with the best, its widths, and the training curves."""
    front = [plan.allocation for plan in planner.front("bops")]
    value = planner.problem.objective.value(best.widths)
    chosen = Allocation(best.widths, value, best.costs)
    shown = {r.label: Allocation(r.widths, 0.0, r.costs) for r in rows if r.bits == best.bits}
    curves = {f"{r.label}, {r.bits} bits": r.curve for r in rows if r.curve}
    made: dict[str, Any] = {
        "traces": plot_traces(*traces),
        "front": plot_front(front, "bops", chosen, label="bit operations"),
        "bits": plot_bits(shown),
        "training": plot_training(curves, "validation loss"),
    }
    for name, figure in made.items():
        figure.savefig(folder / f"{name}.png")


def compiled(row: Row, parts: Parts, folder: Path, backend: str, check: int) -> str:
    """Compile a network and say what the check found; HqcError if it is not bit-exact."""
    start = time.perf_counter()
    x = parts.test[0][:check]
    artifact = hqc.compile(
        row.model, backend, folder / backend, example_inputs=(x[:2],), samples=x.numpy(),
        check=check,
    )  # fmt: skip
    text = artifact.manifest.verdict.text
    return f"{backend}: {text}, {time.perf_counter() - start:.0f} s, {artifact.path}"


def record(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as JSON."""
    names = ("label", "bits", "widths", "costs", "valid", "accuracy", "auc")
    document = [{name: getattr(row, name) for name in names} for row in rows]
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
