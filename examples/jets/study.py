"""Does the Hessian know where bits are needed? Allocations trained, and predictions measured.

python examples/jets/study.py compare --data embedded --jets 60000
python examples/jets/study.py compare --data digits
python examples/jets/study.py predict
python examples/jets/study.py luts --jets 60000
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gates import Gates, gates
from prediction import Prediction, plot, predict
from tasks import float_start, score, task_of
from train import one_thread
from trials import ARMS, CANDIDATES, MATTERS, Comparison, compare

from hqc.codesign.hessian import Samples
from hqc.diagnostics import HqcError
from hqc.frontends.hawq.wrap import layer_names

DATA = "embedded, openml, an .npz file, digits, or digits-images"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description="Hessian-aware bit widths, put to the test.")
    commands = found.add_subparsers(dest="command", required=True)
    one = commands.add_parser("compare", help="train allocations at equal bit operations")
    two = commands.add_parser("predict", help="predicted against measured rises of the loss")
    three = commands.add_parser("luts", help="budgets of LUTs against bit operations, counted")
    for command in (one, two, three):
        command.add_argument("--data", default="embedded", help=DATA)
        command.add_argument("--jets", type=int, help="how many jets")
        command.add_argument("--epochs", type=int, help="with quantisers; twice as many without")
        command.add_argument("-o", "--output", type=Path, default=Path("build/study"))
    one.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    one.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 5, 6], help="uniform widths")
    one.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--bits", type=int, nargs="+", default=list(CANDIDATES), help="candidates")
    two.add_argument("--count", type=int, default=50, help="assignments")
    two.add_argument("--samples", type=int, default=20_000, help="at most so many of training")
    three.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    three.add_argument("--luts", type=float, nargs="+", default=[10e3, 14e3, 20e3], help="budgets")
    three.add_argument(
        "--activations", type=int, nargs="+", default=list(CANDIDATES), help="candidates"
    )
    three.add_argument(
        "--control", action="store_true", help="for bit operations, the scales that LUTs chose"
    )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = parser().parse_args(arguments)
    try:
        with one_thread():
            return {"compare": compared, "predict": predicted, "luts": counted}[given.command](
                given
            )
    except HqcError as error:
        print(error, file=sys.stderr)
        return int(error.exit)


def compared(given: argparse.Namespace) -> int:
    """Train all arms and print a table."""
    start = time.perf_counter()
    task = task_of(given.data, given.jets).with_epochs(given.epochs)
    arms = ["uniform", *(arm for arm in given.arms if arm != "uniform")]
    found = compare(task, seeds=range(given.seeds), bits=given.bits, arms=arms)
    print("\n" + table(found, arms, given.bits))
    print(f"\n{len(found.trials)} trainings, {time.perf_counter() - start:.0f} s")
    keep(given.output / f"compare-{Path(given.data).stem}.json", asdict(found))
    return 0


def table(found: Comparison, arms: list[str], bits: list[int]) -> str:
    """Accuracies and paired gains in per cent, as Markdown."""
    floats = list(found.floats.values())
    lines = [
        f"Float: {mean_and_spread(floats)} %, {len(floats)} seeds.",
        "",
        "| uniform bits | BOPs allowed | widths | BOPs used | accuracy, % | gain, points |",
        "|---|---|---|---|---|---|",
    ]
    for b in bits:
        trials = [t for t in found.trials if t.bits == b]
        allowed = next(t.bops for t in trials if t.arm == "uniform")
        for arm in arms:
            used = min(t.bops for t in trials if t.arm == arm)
            gain = found.gain(arm, b)
            shown = f"{100 * gain.mean:+.2f} ± {100 * gain.error:.2f}"
            shown += f", less on {gain.negative} of {len(floats)}"
            accuracy = mean_and_spread(found.accuracies(arm, b))
            least = f"{used / allowed:.1%}"
            cells = (str(b), f"{allowed:,.0f}", arm, least, accuracy, shown)
            plain = (*cells[:3], "100 %", accuracy, f"float has {100 * found.lost(b):+.2f}")
            lines.append("| " + " | ".join(plain if arm == "uniform" else cells) + " |")
    told = [str(b) for b in bits if found.measurable(b)]
    lines += ["", f"Uniform loses more than {100 * MATTERS:.1f} points at {', '.join(told)} bits."]
    return "\n".join(lines)


def mean_and_spread(values: list[float]) -> str:
    """Mean and range over seeds, in per cent."""
    mean = sum(values) / len(values)
    return f"{100 * mean:.2f} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def predicted(given: argparse.Namespace) -> int:
    """Predict and measure, print rank correlations and save a figure."""
    task = task_of(given.data, given.jets).with_epochs(given.epochs)
    parts = task.parts(given.seed)
    net = float_start(task, parts, given.seed)
    print(f"{task.name}: float accuracy {score(net, parts.test)[1]:.4f}")
    samples = Samples.of(parts.train).part(0, min(given.samples, len(parts.train[1])))
    options = {"count": given.count, "candidates": given.bits, "seed": given.seed}
    found = predict(net, samples, layer_names(net), **options)
    print(told(found))
    keep(given.output / f"predict-{Path(given.data).stem}.json", asdict(found))
    plot(found).savefig(given.output / f"predict-{Path(given.data).stem}.png")
    return 0


def told(found: Prediction) -> str:
    """Correlations in words."""
    low, high = min(found.measured), max(found.measured)
    lines = [
        f"{len(found.measured)} random assignments, measured rises {low:+.4f} to {high:+.4f}; "
        f"{found.noise:.1e} at 16 bits",
    ]
    for name in found.predicted:
        rank, ratio = found.rank_correlation(name), found.ratio(name)
        lines.append(
            f"{name:10} rank correlation {rank:.3f}, median predicted/measured {ratio:.2f}"
        )
    return "\n".join(lines)


def counted(given: argparse.Namespace) -> int:
    """Train and count at budgets of LUTs, and print a table."""
    start = time.perf_counter()
    task = task_of(given.data, given.jets).with_epochs(given.epochs)
    found = gates(
        task,
        seeds=given.seeds,
        luts=given.luts,
        activations=given.activations,
        control=given.control,
    )
    print("\n" + gates_table(found))
    print(f"\n{time.perf_counter() - start:.0f} s")
    kind = "control" if given.control else "luts"
    keep(given.output / f"{kind}-{Path(given.data).stem}.json", asdict(found))
    return 0


def gates_table(found: Gates) -> str:
    """LUTs, accuracies and paired gains in per cent, as Markdown."""
    lines = [
        f"Float: {mean_and_spread(list(found.floats.values()))} %, {len(found.floats)} seeds.",
        "",
        "| budget | counted | accuracy | bit operations, equal LUTs | gain | more LUTs | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for budget in found.budgets:
        matches = found.of(budget)
        luts = [m.lut.measured for m in matches]
        cells = (
            f"{budget:,.0f}",
            f"{min(luts):,} to {max(luts):,}",
            mean_and_spread([m.lut.accuracy for m in matches]),
            mean_and_spread([m.at_equal for m in matches]),
            gained(found, [budget]),
            mean_and_spread([m.more.accuracy for m in matches]),
            gained(found, [budget], more=True),
        )
        lines.append("| " + " | ".join(cells) + " |")
    equal, over = (gained(found, found.budgets, more=more) for more in (False, True))
    lines += ["", f"All pairs: {equal}; over neighbours with more LUTs {over}."]
    return "\n".join(lines)


def gained(found: Gates, budgets: Sequence[float], *, more: bool = False) -> str:
    """A paired gain in points."""
    gain, count = found.gain(budgets, more=more), sum(len(found.of(b)) for b in budgets)
    return f"{100 * gain.mean:+.2f} ± {100 * gain.error:.2f}, less on {gain.negative} of {count}"


def keep(path: Path, document: dict[str, object]) -> None:
    """Write all numbers as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
