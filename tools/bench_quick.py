"""Measure `hqc estimate --quick` against Yosys, beside what da4ml and alkaid say of their logic.

Each predicts the LUTs of what it would write, and Yosys counts what it did write: hqc's Verilog
layer by layer, as `hqc estimate` does, and the others' whole, with as many stages. da4ml and
alkaid have to solve for the adders first; hqc does not. Syntheses that `bench_hardware.py` has
made are remembered.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench_emulation import SIZES, SMALL, jet_tagger
from bench_hardware import (
    OURS,
    TIMEOUT,
    alkaid_figures,
    da4ml_figures,
    emit,
    progress,
    solved_by_alkaid,
    solved_by_da4ml,
)
from comparison import Comparison, Figure, versions

from hqc.analysis.partition import partition
from hqc.backends.estimate.estimate import estimate_project
from hqc.backends.estimate.figures import Figures
from hqc.backends.estimate.quick import quick_estimate
from hqc.backends.estimate.yosys import find
from hqc.backends.layers import Network
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.lowering.lower import lower

CLOCK_NS = 5.0
#: Seeds and shares of zero weights; the first is the network of `bench_hardware.py`.
NETWORKS = ((7, 0.5), (8, 0.8))
T = TypeVar("T")
#: Those that can say what their logic costs: the solver, and how Yosys is asked about it.
PEERS: dict[str, tuple[Callable[[Network], Any], Callable[[Any, int, Path], Figures]]] = {
    "da4ml": (solved_by_da4ml, lambda logic, stages, f: da4ml_figures(logic, stages, f)[0]),
    "alkaid": (solved_by_alkaid, alkaid_figures),
}


@dataclass(frozen=True)
class Prediction:
    """LUTs that one side predicted, what Yosys counted, and the seconds that predicting took."""

    predicted: float
    counted: float
    seconds: float

    @property
    def error(self) -> float:
        """How far off the prediction is, relative to the count."""
        return abs(self.predicted / self.counted - 1)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def warm_up() -> None:
    """Imports and tables, which the first call of each loads, are counted for none."""
    model = jet_tagger(1, 0.5, SMALL)
    network = read_network(model, partition(model))
    quick_estimate(network)
    for solve, _ in PEERS.values():
        solve(network)


def predictions(seed: int, zeros: float, sizes: tuple[int, ...]) -> dict[str, Prediction]:
    """By whom, hqc first."""
    model = jet_tagger(seed, zeros, sizes)
    parts = partition(model)
    network = read_network(model, parts)
    seconds, ours = timed(lambda: quick_estimate(network))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stages = emit(lower(network), parts, CLOCK_NS, folder / "hqc")
        counted = estimate_project(folder / "hqc", timeout=TIMEOUT, watch=progress).total
        found = {
            OURS: Prediction(ours.size, counted.lut, seconds),
            # what there is without any prediction
            "Yosys": Prediction(counted.lut, counted.lut, counted.seconds),
        }
        for name, (solve, figures) in PEERS.items():
            seconds, logic = timed(lambda solve=solve: solve(network))  # type: ignore[misc]
            lut = figures(logic, stages, folder / name).lut
            found[name] = Prediction(float(logic.cost), lut, seconds)
    return found


def compared(networks: tuple[tuple[int, float], ...], sizes: tuple[int, ...]) -> Comparison:
    """Errors and seconds, means over the networks."""
    with contextlib.redirect_stdout(sys.stderr):  # da4ml's pipeliner prints
        warm_up()
        found = [predictions(seed, zeros, sizes) for seed, zeros in networks]

    def mean(name: str, of: Callable[[Prediction], float]) -> float:
        return statistics.fmean(of(each[name]) for each in found)

    errors = {f"{name}, of its own logic": mean(name, lambda p: p.error) for name in PEERS}
    seconds = {f"{name}, with its solver": mean(name, lambda p: p.seconds) for name in PEERS}
    seconds["Yosys, layer by layer, processor time"] = mean("Yosys", lambda p: p.seconds)
    shape = "-".join(map(str, sizes))
    shares = " and ".join(f"{zeros:.0%}" for _, zeros in networks)
    notes = [
        "hqc's coefficients were fitted to random layers, as these are; the sums of trained "
        "networks are taken to be within 12 %. The others have solved for the adders that they "
        "count."
    ]
    for (_, zeros), each in zip(networks, found, strict=True):
        told = [f"{n} {p.predicted:,.0f} of {p.counted:,}" for n, p in each.items() if n != "Yosys"]
        notes.append(f"{zeros:.0%} zeros, LUTs predicted and counted: {', '.join(told)}.")
    return Comparison(
        f"Jet taggers {shape} with random 6-bit weights, {shares} of them 0; means over them.",
        (
            Figure(
                "relative error of the predicted LUTs against Yosys",
                mean(OURS, lambda p: p.error),
                errors,
            ),
            Figure("seconds to predict", mean(OURS, lambda p: p.seconds), seconds),
        ),
        {"synthesis": str(find()), **versions("da4ml", "alkaid")},
        notes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="how many of them")
    parser.add_argument("--small", action="store_true", help="one network of seconds")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    given = parser.parse_args()
    networks, sizes = (NETWORKS[:1], SMALL) if given.small else (NETWORKS[: given.networks], SIZES)
    found = compared(networks, sizes)
    print(found.json() if given.format == "json" else found.text())


if __name__ == "__main__":
    main()
