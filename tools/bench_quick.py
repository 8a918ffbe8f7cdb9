"""Measure `hqc estimate --quick` against Yosys, beside da4ml's own estimate of its own logic.

Both sides predict the LUTs of what they would write, and Yosys counts what they did write: hqc's
Verilog layer by layer, as `hqc estimate` does, and da4ml's whole, with as many stages. Syntheses
that `bench_hardware.py` has made are remembered.
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
from typing import TypeVar

from bench_emulation import SIZES, SMALL, jet_tagger
from bench_hardware import TIMEOUT, da4ml_figures, emit, progress, solved_by_da4ml
from comparison import Comparison, Figure, versions

from hqc.analysis.partition import partition
from hqc.backends.estimate.estimate import estimate_project
from hqc.backends.estimate.quick import quick_estimate
from hqc.backends.estimate.yosys import find
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.lowering.lower import lower

CLOCK_NS = 5.0
#: Seeds and shares of zero weights; the first is the network of `bench_hardware.py`.
NETWORKS = ((7, 0.5), (8, 0.8))
T = TypeVar("T")


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
    """Imports and tables, which the first call of each side loads, are counted for neither."""
    model = jet_tagger(1, 0.5, SMALL)
    network = read_network(model, partition(model))
    quick_estimate(network)
    solved_by_da4ml(network)


def both(seed: int, zeros: float, sizes: tuple[int, ...]) -> tuple[Prediction, Prediction, float]:
    """hqc's prediction, da4ml's, and the processor seconds of hqc's synthesis."""
    model = jet_tagger(seed, zeros, sizes)
    parts = partition(model)
    network = read_network(model, parts)
    seconds, ours = timed(lambda: quick_estimate(network))
    solving, logic = timed(lambda: solved_by_da4ml(network))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stages = emit(lower(network), parts, CLOCK_NS, folder / "hqc")
        total = estimate_project(folder / "hqc", timeout=TIMEOUT, watch=progress).total
        counted = da4ml_figures(logic, stages, folder / "da4ml")[0].lut
    theirs = Prediction(float(logic.cost), counted, solving)
    return Prediction(ours.size, total.lut, seconds), theirs, total.seconds


def compared(networks: tuple[tuple[int, float], ...], sizes: tuple[int, ...]) -> Comparison:
    """Errors and seconds, means over the networks."""
    with contextlib.redirect_stdout(sys.stderr):  # da4ml's pipeliner prints
        warm_up()
        found = [both(seed, zeros, sizes) for seed, zeros in networks]
    ours, theirs, syntheses = zip(*found, strict=True)
    mean = statistics.fmean
    seconds = {
        "da4ml's solver and estimate": mean(p.seconds for p in theirs),
        "Yosys, layer by layer, processor time": mean(syntheses),
    }
    shape = "-".join(map(str, sizes))
    shares = ", ".join(f"{zeros:.0%}" for _, zeros in networks)
    return Comparison(
        f"Jet taggers {shape} with random 6-bit weights, {shares} of them 0; means over them.",
        (
            Figure(
                "relative error of the predicted LUTs against Yosys",
                mean(p.error for p in ours),
                {"da4ml's estimate of its own logic": mean(p.error for p in theirs)},
            ),
            Figure("seconds to predict", mean(p.seconds for p in ours), seconds),
        ),
        {"synthesis": str(find()), **versions("da4ml")},
        tuple(
            f"{zeros:.0%} zeros: hqc predicts {o.predicted:,.0f} of {o.counted:,} LUTs, da4ml "
            f"{t.predicted:,.0f} of {t.counted:,}."
            for (_, zeros), o, t in zip(networks, ours, theirs, strict=True)
        ),
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
