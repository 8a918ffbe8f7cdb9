"""Delays, transition times and pin capacitances of a cell: the decks to run, and what they say.

Of arcs that differ in the other inputs alone, the slowest one is measured over the grid. Which it
is, is found at one slew and one load, for rising and falling outputs by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cells import Arc, Cell, arcs_of
from decks import Conditions, Deck, Edge, Simulator

RISE, FALL = "rise", "fall"
#: Rows are of input slews, columns of output loads.
Table = tuple[tuple[float, ...], ...]
#: When the two edges of an input cross half the supply, and when a run ends, in nanoseconds.
_FIRST, _SECOND, _END = 2.0, 12.0, 22.0
#: A time after the first edge's effects and before the second edge.
_BETWEEN = 10.0


@dataclass(frozen=True)
class Grid:
    """Where tables have values.

    Attributes:
        slews: transition times of inputs in nanoseconds.
        shares: loads as positions between the least and the largest one, from 0 to 1.
        least: the least load in picofarads.
        setup_slews: transition times of data and clocks, of setup and hold tables.
        resolution: of setup and hold times, in nanoseconds.
    """

    slews: tuple[float, ...] = (0.01, 0.03, 0.08, 0.2, 0.55, 1.5)
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    least: float = 0.0005
    setup_slews: tuple[float, ...] = (0.01, 0.5, 1.5)
    resolution: float = 0.004

    def loads(self, cell: Cell) -> tuple[float, ...]:
        """Of a cell, in picofarads; each is a constant factor larger than the one before."""
        return tuple(round(self.least * (cell.load / self.least) ** s, 6) for s in self.shares)

    @property
    def middle(self) -> float:
        """The slew at which arcs are compared and charges measured."""
        return self.slews[len(self.slews) // 2]

    def middle_load(self, cell: Cell) -> float:
        """The load of the same."""
        return self.loads(cell)[len(self.shares) // 2]


GRID = Grid()


@dataclass(frozen=True)
class Bench:
    """A cell on the bench.

    Attributes:
        cell: which.
        head: models and subcircuit.
        conditions: corner, supply, temperature.
        simulator: that runs the decks.
        grid: slews and loads.
    """

    cell: Cell
    head: tuple[str, ...]
    conditions: Conditions
    simulator: Simulator
    grid: Grid = GRID

    def deck(self) -> Deck:
        """A new deck."""
        return Deck(self.head, self.conditions)

    def farads(self, charge: float) -> float:
        """The capacitance of a charge over the whole supply, in picofarads."""
        return abs(charge) / self.conditions.voltage * 1e12

    def outputs(
        self, deck: Deck, target: str, load: float
    ) -> tuple[dict[str, str], dict[str, float]]:
        """Nodes of the outputs, and their loads: the target's, and the least of the others."""
        nodes = {pin: deck.node() for pin, _ in self.cell.outputs}
        loads = {n: load if pin == target else self.grid.least for pin, n in nodes.items()}
        return nodes, loads


@dataclass(frozen=True)
class Timing:
    """A timing arc with its tables, in nanoseconds.

    Attributes:
        source, target: pins.
        sense: Liberty's word for it.
        kind: "combinational", or "rising_edge" of a clock.
        tables: cell_rise, cell_fall, rise_transition, fall_transition.
    """

    source: str
    target: str
    sense: str
    kind: str
    tables: Mapping[str, Table]


def combinational(bench: Bench) -> tuple[list[Timing], dict[str, dict[str, float]]]:
    """Timing arcs of a cell without state, and the capacitance of each input by its edge.

    Raises:
        SpiceError: ngspice fails, or an output does not follow an input.
    """
    arcs = arcs_of(bench.cell)
    if not arcs:
        return [], {}
    found = _compare(bench, arcs)
    timings = []
    for source, target, sense in dict.fromkeys((a.source, a.target, a.sense) for a in arcs):
        same = [a for a in arcs if (a.source, a.target, a.sense) == (source, target, sense)]
        worst = {
            edge: max(same, key=lambda arc: found[arc][f"cell_{edge}"]) for edge in (RISE, FALL)
        }
        measured = {arc: _over_grid(bench, arc) for arc in dict.fromkeys(worst.values())}
        tables = {
            name: measured[worst[edge]][name]
            for edge in (RISE, FALL)
            for name in (f"cell_{edge}", f"{edge}_transition")
        }
        timings.append(Timing(source, target, sense, "combinational", tables))
    return timings, {pin: _capacitance(bench, arcs, found, pin) for pin in bench.cell.inputs}


def _compare(bench: Bench, arcs: Sequence[Arc]) -> dict[Arc, dict[str, float]]:
    """Delays and charges of all arcs, at one slew and one load."""
    deck, names = bench.deck(), {}
    wanted: list[str] = []
    load = bench.grid.middle_load(bench.cell)
    for index, arc in enumerate(arcs):
        node = deck.source([(_FIRST, bench.grid.middle), (_SECOND, bench.grid.middle)])
        measures = _pulse(bench, deck, arc, node, load, f"a{index}")
        deck.charge(f"a{index}_qr", node, 0.0, _BETWEEN)
        deck.charge(f"a{index}_qf", node, _BETWEEN, _END)
        names[arc] = {**measures, "q_rise": f"a{index}_qr", "q_fall": f"a{index}_qf"}
        wanted += names[arc].values()
    found = bench.simulator.run(deck.text(_END), wanted)
    return {arc: {what: found[name] for what, name in names[arc].items()} for arc in arcs}


def _over_grid(bench: Bench, arc: Arc) -> dict[str, Table]:
    """The four tables of an arc."""
    deck, names = bench.deck(), {}
    loads = bench.grid.loads(bench.cell)
    for row, slew in enumerate(bench.grid.slews):
        node = deck.source([(_FIRST, slew), (_SECOND, slew)])
        for column, load in enumerate(loads):
            names[row, column] = _pulse(bench, deck, arc, node, load, f"g{row}_{column}")
    wanted = [name for measures in names.values() for name in measures.values()]
    found = bench.simulator.run(deck.text(_END), wanted)
    return {
        what: tuple(
            tuple(round(found[names[row, column][what]] * 1e9, 7) for column in range(len(loads)))
            for row in range(len(bench.grid.slews))
        )
        for what in ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
    }


def _pulse(bench: Bench, deck: Deck, arc: Arc, node: str, load: float, name: str) -> dict[str, str]:
    """A copy of the cell with a pulse at an arc's source; the names of its measurements."""
    outputs, loads = bench.outputs(deck, arc.target, load)
    deck.cell(bench.cell, {**dict(arc.others), arc.source: node, **outputs}, loads)
    measures: dict[str, str] = {}
    for rises, after in ((True, 0.0), (False, _BETWEEN)):
        to = Edge(outputs[arc.target], rises == arc.rising, 0.0 if rises else _BETWEEN)
        edge = RISE if to.rises else FALL
        delay, transition = f"{name}_d{edge[0]}", f"{name}_t{edge[0]}"
        deck.delay(delay, Edge(node, rises, after), to)
        deck.transition(transition, to)
        measures |= {f"cell_{edge}": delay, f"{edge}_transition": transition}
    return measures


def _capacitance(
    bench: Bench, arcs: Sequence[Arc], found: Mapping[Arc, Mapping[str, float]], pin: str
) -> dict[str, float]:
    """Of an input, in picofarads: the mean over all states of the others."""
    own = [arc for arc in arcs if arc.source == pin]
    return {
        edge: round(sum(bench.farads(found[arc][f"q_{edge}"]) for arc in own) / len(own), 7)
        for edge in (RISE, FALL)
    }
