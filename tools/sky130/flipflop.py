"""Timing of a flip-flop of the rising clock edge: from clock to output, setup and hold times.

A setup or hold time is the least distance between data and clock at which the output still follows
the clock within 110 % of its usual delay. It is found by halving an interval, for all pairs of
transition times at once: one deck per step, with a copy of the flip-flop for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decks import Deck, Edge
from timing import FALL, RISE, Bench, Table, Timing

#: Clock edges in nanoseconds: one that brings the flip-flop into a state, then the measured ones.
_PREPARE, _RELEASE = 2.0, 4.0
_DATA, _CLOCK, _DOWN = 8.0, 12.0, 22.0
_DATA_BACK, _CLOCK_BACK, _END = 26.0, 32.0, 42.0
_FAST = 0.05
#: How much slower than usual the output may be; the figure of the published library.
_DEGRADED = 1.1
#: Between which distances of data and clock setup and hold times are looked for, in nanoseconds.
_SEARCH = (-1.0, 1.4)
#: Of the clock edge and the end, in decks of setup and hold times.
_EDGE, _STOP = 12.0, 20.0
SETUP, HOLD = "setup", "hold"


@dataclass(frozen=True)
class Constraint:
    """Setup or hold times of data at a rising clock.

    Attributes:
        kind: "setup" or "hold".
        tables: rise and fall, of data's edge, in nanoseconds; rows are of the clock's transition
            times, columns of data's.
    """

    kind: str
    tables: Mapping[str, Table]


@dataclass(frozen=True)
class _Trial:
    """A pair of transition times, a kind of constraint, and an edge of data."""

    kind: str
    rises: bool
    clock_slew: float
    data_slew: float


def clock_to_output(bench: Bench) -> Timing:
    """From CLK to Q, of both values.

    Raises:
        SpiceError: ngspice fails, or the flip-flop does not follow its data.
    """
    deck, grid = bench.deck(), bench.grid
    data = deck.source([(_DATA, _FAST), (_DATA_BACK, _FAST)])
    for row, slew in enumerate(grid.slews):
        clock = _clock(deck, slew)
        for column, load in enumerate(grid.loads(bench.cell)):
            nodes, loads = bench.outputs(deck, "Q", load)
            deck.cell(bench.cell, {"CLK": clock, "D": data, **nodes}, loads)
            for rises, after in ((True, _DATA), (False, _DATA_BACK)):
                name, to = f"q{row}_{column}{'rf'[not rises]}", Edge(nodes["Q"], rises, after)
                deck.delay(f"{name}_d", Edge(clock, True, after), to)
                deck.transition(f"{name}_t", to)
    size = [(row, column) for row in range(len(grid.slews)) for column in range(len(grid.shares))]
    wanted = [f"q{r}_{c}{edge}_{what}" for r, c in size for edge in "rf" for what in "dt"]
    found = bench.simulator.run(deck.text(_END), wanted)
    tables = {
        name: tuple(
            tuple(
                round(found[f"q{row}_{column}{edge}_{what}"] * 1e9, 7)
                for column in range(len(grid.shares))
            )
            for row in range(len(grid.slews))
        )
        for name, edge, what in (
            ("cell_rise", "r", "d"),
            ("cell_fall", "f", "d"),
            ("rise_transition", "r", "t"),
            ("fall_transition", "f", "t"),
        )
    }
    return Timing("CLK", "Q", "non_unate", "rising_edge", tables)


def input_capacitances(bench: Bench) -> dict[str, dict[str, float]]:
    """Of CLK and D by edge, in picofarads: the mean over both values of the other.

    Raises:
        SpiceError: ngspice fails.
    """
    deck, slew = bench.deck(), bench.grid.middle
    times = [(_DATA, slew), (_DOWN, slew)]
    middle = (_DATA + _DOWN) / 2
    for pin in bench.cell.inputs:
        other = next(name for name in bench.cell.inputs if name != pin)
        for value in (False, True):
            node, name = deck.source(times), f"{pin.lower()}{int(value)}"
            nodes, loads = bench.outputs(deck, "Q", bench.grid.middle_load(bench.cell))
            deck.cell(bench.cell, {pin: node, other: value, **nodes}, loads)
            deck.charge(f"{name}_rise", node, 0.0, middle)
            deck.charge(f"{name}_fall", node, middle, _END)
    names = [f"{p.lower()}{v}_{e}" for p in bench.cell.inputs for v in "01" for e in (RISE, FALL)]
    found = bench.simulator.run(deck.text(_END), names)
    return {
        pin: {
            edge: round(sum(bench.farads(found[f"{pin.lower()}{v}_{edge}"]) for v in "01") / 2, 7)
            for edge in (RISE, FALL)
        }
        for pin in bench.cell.inputs
    }


def constraints(bench: Bench) -> list[Constraint]:
    """Setup and hold times.

    Raises:
        SpiceError: ngspice fails, or the flip-flop fails even with data long before the clock.
    """
    slews = bench.grid.setup_slews
    trials = [
        _Trial(kind, rises, clock, data)
        for kind in (SETUP, HOLD)
        for rises in (True, False)
        for clock in slews
        for data in slews
    ]
    usual = _delays(bench, trials, dict.fromkeys(trials, _SEARCH[1]), must=True)
    low, high = (dict.fromkeys(trials, end) for end in _SEARCH)
    while max(high[t] - low[t] for t in trials) > bench.grid.resolution:
        middle = {t: (low[t] + high[t]) / 2 for t in trials}
        found = _delays(bench, trials, middle)
        for trial in trials:
            delay = found.get(trial)
            works = delay is not None and delay <= _DEGRADED * usual[trial]
            (high if works else low)[trial] = middle[trial]
    return [
        Constraint(
            kind,
            {
                edge: tuple(
                    tuple(round(high[_Trial(kind, rises, clock, data)], 5) for data in slews)
                    for clock in slews
                )
                for edge, rises in ((RISE, True), (FALL, False))
            },
        )
        for kind in (SETUP, HOLD)
    ]


def _delays(
    bench: Bench, trials: list[_Trial], distances: Mapping[_Trial, float], must: bool = False
) -> dict[_Trial, float]:
    """From clock to output where data is so far from the clock; without those that fail."""
    deck, clocks = bench.deck(), {}
    half = bench.conditions.voltage / 2
    load = bench.grid.middle_load(bench.cell)
    for index, trial in enumerate(trials):
        if trial.clock_slew not in clocks:
            clocks[trial.clock_slew] = deck.source(
                [(_PREPARE, _FAST), (_RELEASE, _FAST), (_EDGE, trial.clock_slew)]
            )
        clock, value = clocks[trial.clock_slew], _captured(trial)
        nodes, loads = bench.outputs(deck, "Q", load)
        pins = {"CLK": clock, "D": _data(deck, trial, distances[trial]), **nodes}
        deck.cell(bench.cell, pins, loads)
        deck.delay(
            f"t{index}_d", Edge(clock, True, _RELEASE + 1), Edge(nodes["Q"], value, _RELEASE + 1)
        )
        deck.level(f"t{index}_q", nodes["Q"], _STOP - 0.1)
    names = [f"t{index}_{what}" for index in range(len(trials)) for what in "dq"]
    found = bench.simulator.run(deck.text(_STOP), names if must else ())
    return {
        trial: found[f"t{index}_d"] * 1e9
        for index, trial in enumerate(trials)
        if f"t{index}_d" in found and (found[f"t{index}_q"] > half) == _captured(trial)
    }


def _captured(trial: _Trial) -> bool:
    """The value that the clock should capture: data's new one, or the one before it changes."""
    return trial.rises if trial.kind == SETUP else not trial.rises


def _data(deck: Deck, trial: _Trial, distance: float) -> str:
    """A source of data that changes before the clock's edge (setup), or after it (hold)."""
    if trial.kind == SETUP:  # captured at the first clock edge: the old value
        return deck.source([(_EDGE - distance, trial.data_slew)], start=not trial.rises)
    between = (_RELEASE + 2.0, _FAST)
    return deck.source([between, (_EDGE + distance, trial.data_slew)], start=trial.rises)


def _clock(deck: Deck, slew: float) -> str:
    """A clock with an edge that prepares, one after data rose, and one after it fell."""
    times = (_PREPARE, _RELEASE, _CLOCK, _DOWN, _CLOCK_BACK)
    return deck.source(list(zip(times, (_FAST, _FAST, slew, slew, slew), strict=True)))
