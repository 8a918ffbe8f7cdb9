"""How a simulated design is driven, what it did, and whether that is what it promises.

A run feeds samples in cycles that a pattern offers, and takes results in cycles that a pattern
takes. Two runs are made: without a pause, where latency and initiation interval show, and with
pauses on both sides from another state at power-up. Results may depend on neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hqc.backends.rtl.simulation.wrapper import Interface
from hqc.diagnostics import HqcError, reject
from hqc.ir import Array
from hqc.numerics.types import Codes

#: Cycles of a pattern of pauses, about; it begins again behind them.
_PERIOD = 1021
#: How often there is no pause, a short one, and one in which everything leaves the pipeline.
_PAUSES = (0.6, 0.37, 0.03)


@dataclass(frozen=True, eq=False)
class Drive:
    """One run.

    Attributes:
        offer, take: one byte per cycle, again from the start: whether a sample is offered, if one
            is left, and whether a result would be taken.
        settle: cycles of rubbish in front of the reset.
        patience: cycles without progress after which the design is said to hang.
        tail: cycles watched behind the last result.
        seed: of the state of the registers at power-up.
    """

    offer: Array
    take: Array
    settle: int
    patience: int
    tail: int
    seed: int


@dataclass(frozen=True, eq=False)
class Trace:
    """What a run saw.

    Attributes:
        accepted: cycle in which each sample went in.
        produced: cycle in which each result was taken.
        results: codes (N, size) of each output port; rows that never came are undefined.
        extra: results beyond the last sample.
        unstable: cycles in which a result that was not yet taken changed or went away.
        unknown: results with bits that are neither 0 nor 1, where the simulator knows those.
    """

    accepted: Codes
    produced: Codes
    results: tuple[Codes, ...]
    extra: int
    unstable: int
    unknown: int = 0


class Simulator(Protocol):
    """A design made ready to run."""

    @property
    def title(self) -> str:
        """Product and version."""

    @property
    def parallel(self) -> bool:
        """Whether several runs at once are quicker than one behind the other."""

    def run(self, codes: Sequence[Codes], drive: Drive) -> Trace:
        """Run it on codes (N, size) of each input port, in hardware order."""


@dataclass(frozen=True)
class Timing:
    """Measured latency and initiation interval in cycles."""

    latency: int
    ii: int


def steady(interface: Interface, seed: int) -> Drive:
    """Samples as fast as the design takes them, results taken at once."""
    always = np.ones(1, np.uint8)
    return _drive(interface, always, always, seed)


def pauses(interface: Interface, seed: int) -> Drive:
    """Pauses between samples, and with a handshake stalls of the receiver, of many lengths."""
    random = np.random.default_rng(seed)
    offer = _bursts(random, interface.latency)
    take = np.ones(1, np.uint8)
    if interface.handshake:
        take = np.resize(_bursts(random, interface.latency), len(offer))
    return _drive(interface, offer, take, seed)


def _bursts(random: np.random.Generator, latency: int) -> Array:
    """Ones with pauses between them, some long enough for everything to leave the pipeline."""
    pattern: list[int] = []
    while len(pattern) < max(_PERIOD, 4 * latency):
        kind = random.choice(3, p=_PAUSES)
        pause = (0, int(random.integers(1, 4)), latency + 2)[kind]
        pattern += [1, *[0] * pause]
    return np.array(pattern, np.uint8)


def _drive(interface: Interface, offer: Array, take: Array, seed: int) -> Drive:
    period = int(np.lcm(len(offer), len(take)))
    span = interface.latency + interface.ii
    return Drive(
        offer=np.resize(offer, period),
        take=np.resize(take, period),
        settle=span + 1,
        patience=4 * span + 2 * period + 64,
        tail=2 * span + 16,
        seed=seed,
    )


# --- judging --------------------------------------------------------------------------------


def timing_of(interface: Interface, trace: Trace, samples: int, steady: bool) -> Timing | None:
    """What a run shows about time; None where a run with pauses shows nothing.

    Args:
        interface: what is promised.
        trace: the run.
        samples: how many were to go in, at least 2.
        steady: whether it was a run without pauses.

    Raises:
        HqcError: HQC423, latency, initiation interval or the number of results are not those
            promised; HQC426, a stalled result changed.
    """
    known = min(len(trace.produced), len(trace.accepted))
    latencies = trace.produced[:known] - trace.accepted[:known]
    if trace.unstable:
        message = f"{trace.unstable} times a result changed while the receiver stalled"
        raise reject("HQC426", message)
    constant = steady or not interface.handshake
    if constant and len(latencies):
        _check_latency(interface, latencies)
    _check_count(interface, trace, samples)
    if not steady:
        return None
    gaps = np.diff(trace.produced)
    if (gaps != interface.ii).any():
        at = int(np.argmax(gaps != interface.ii))
        raise _late(
            f"II = {int(gaps[at])} measured, {interface.ii} promised",
            f"results {at} and {at + 1} came in cycles {int(trace.produced[at])} and "
            f"{int(trace.produced[at + 1])}",
        )
    return Timing(int(latencies[0]), int(gaps[0]))


def _check_latency(interface: Interface, latencies: Codes) -> None:
    wrong = latencies != interface.latency
    if wrong.any():
        at = int(np.argmax(wrong))
        raise _late(
            f"latency {int(latencies[at])} cycles measured, {interface.latency} promised",
            f"that of sample {at} behind the reset; "
            f"{int(wrong.sum())} of {len(latencies)} differ from the promise",
        )


def _check_count(interface: Interface, trace: Trace, samples: int) -> None:
    came = len(trace.produced) + trace.extra
    if len(trace.accepted) != samples:
        raise _late(
            f"{len(trace.accepted)} of {samples} samples were accepted",
            "in_ready stayed low: the design hangs",
        )
    if came != samples:
        took = f"; II = {interface.ii} is promised" if came < samples else ""
        raise _late(f"{came} results measured for {samples} samples{took}", *_gaps(trace))


def _gaps(trace: Trace) -> list[str]:
    gaps = np.diff(trace.produced)
    if not len(gaps):
        return ["out_valid never came" if not len(trace.produced) else "one result came"]
    return [f"results came every {int(gaps.min())} to {int(gaps.max())} cycles"]


def _late(message: str, *notes: str) -> HqcError:
    return reject(
        "HQC423",
        f"the Verilog does not keep its timing: {message}",
        notes=notes,
        helps=("if files in project/ were edited, compile again; else please report this",),
    )
