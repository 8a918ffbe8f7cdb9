"""Decks for ngspice: many copies of one cell in one transient run, and what it measured of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cells import Cell
from layout import GROUND, POWER
from pdk import Netlist, Pdk

#: Transition times are between these shares of the supply; a ramp from 0 to 1 takes longer.
LOWER, UPPER = 0.2, 0.8
#: The longest time step in picoseconds; the error control takes shorter ones at edges.
_STEP = 50
_MEASURED = re.compile(r"^(\w+)\s*=\s*(-?\d[-+.\deE]*)(?:\s|$)", re.MULTILINE)


class SpiceError(Exception):
    """ngspice is not here, fails, or a cell does not do what it should."""


@dataclass(frozen=True)
class Conditions:
    """Process corner, supply in volts, temperature in degrees Celsius."""

    corner: str = "tt"
    voltage: float = 1.8
    temperature: float = 25.0

    @property
    def name(self) -> str:
        """As libraries call it, such as "tt_025C_1v80"."""
        degrees = self.temperature
        celsius = f"n{-degrees:02.0f}" if degrees < 0 else f"{degrees:03.0f}"
        return f"{self.corner}_{celsius}C_{self.voltage:.2f}".replace(".", "v")


@dataclass
class Deck:
    """A deck that is being written.

    Times are in nanoseconds, loads in picofarads. Nodes "0" and "vdd" are the supply.
    """

    head: tuple[str, ...]
    conditions: Conditions
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def node(self) -> str:
        """A new node."""
        self.count += 1
        return f"n{self.count}"

    def source(self, edges: Sequence[tuple[float, float]], start: bool = False) -> str:
        """A new node that goes up and down.

        Args:
            edges: (when it crosses half the supply, its transition time), in order.
            start: where it begins.
        """
        node, level = self.node(), start
        points = [f"0 {self._volts(level)}"]
        for middle, slew in edges:
            ramp = slew / (UPPER - LOWER)
            points.append(f"{middle - ramp / 2:.6f}n {self._volts(level)}")
            level = not level
            points.append(f"{middle + ramp / 2:.6f}n {self._volts(level)}")
        self.lines.append(f"V{node} {node} 0 pwl({' '.join(points)})")
        return node

    def cell(self, cell: Cell, pins: Mapping[str, str | bool], loads: Mapping[str, float]) -> None:
        """A copy of the cell; `pins` says the nodes of inputs and outputs."""
        nodes = [self._tied(pins[pin]) for pin in (*cell.inputs, *(n for n, _ in cell.outputs))]
        self.count += 1
        self.lines.append(f"X{self.count} {' '.join(nodes)} vdd 0 {cell.name}")
        for node, load in loads.items():
            self.lines.append(f"C{node} {node} 0 {load:.8g}p")

    def delay(self, name: str, edge: Edge, to: Edge) -> None:
        """Measure from half of one edge to half of another."""
        half = self.conditions.voltage / 2
        trigger, target = edge.crossing(half), to.crossing(half)
        self.lines.append(f".meas tran {name} trig {trigger} targ {target}")

    def transition(self, name: str, edge: Edge) -> None:
        """Measure how long an edge takes."""
        low, high = (self.conditions.voltage * share for share in (LOWER, UPPER))
        first, last = (low, high) if edge.rises else (high, low)
        self.lines.append(
            f".meas tran {name} trig {edge.crossing(first)} targ {edge.crossing(last)}"
        )

    def charge(self, name: str, node: str, start: float, end: float) -> None:
        """Measure the charge that leaves a source, with the sign of the source's current."""
        self.lines.append(f".meas tran {name} integ i(V{node}) from={start}n to={end}n")

    def level(self, name: str, node: str, when: float) -> None:
        """Measure a voltage."""
        self.lines.append(f".meas tran {name} find v({node}) at={when}n")

    def text(self, stop: float) -> str:
        """The deck of a run of `stop` nanoseconds."""
        settings = (
            f".temp {self.conditions.temperature:g}",
            ".option reltol=1e-4 abstol=1e-14 trtol=1 method=trap",
            f"Vsupply vdd 0 {self.conditions.voltage:g}",
            f".tran {_STEP}p {stop}n",
        )
        return "\n".join(("* characterisation", *self.head, *settings, *self.lines, ".end", ""))

    def _volts(self, level: bool) -> str:
        return f"{self.conditions.voltage:g}" if level else "0"

    @staticmethod
    def _tied(pin: str | bool) -> str:
        return pin if isinstance(pin, str) else ("vdd" if pin else "0")


@dataclass(frozen=True)
class Edge:
    """The first edge of a node after a time in nanoseconds."""

    node: str
    rises: bool
    after: float

    def crossing(self, volts: float) -> str:
        """ngspice's words for when it crosses a voltage."""
        which = "rise" if self.rises else "fall"
        return f"v({self.node}) val={volts:.6g} td={self.after}n {which}=1"


def header(pdk: Pdk, cell: Cell, netlist: Netlist, conditions: Conditions) -> tuple[str, ...]:
    """The models that a cell needs, and the cell as a subcircuit.

    Raises:
        PdkError: a model is not in the wheel.
    """
    lines: list[str] = []
    names: dict[tuple[str, float, float], str] = {}
    for t in netlist.transistors:
        key = (t.model, t.width, t.length)
        if key not in names:
            names[key] = f"m{len(names)}"
            lines.append(f".model {names[key]} {pdk.model(t.model, conditions.corner, *key[1:])}")
    pins = (*cell.inputs, *(pin for pin, _ in cell.outputs), POWER, GROUND)
    lines.append(f".subckt {cell.name} {' '.join(pins)}")
    for index, t in enumerate(netlist.transistors):
        body = POWER if t.model.startswith("pfet") else GROUND
        model = names[(t.model, t.width, t.length)]
        lines.append(
            f"M{index} {t.drain} {t.gate} {t.source} {body} {model} w={t.width}u l={t.length}u "
            f"ad={t.areas[0]}p as={t.areas[1]}p pd={t.edges[0]}u ps={t.edges[1]}u "
            f"sa={t.stress[0]}u sb={t.stress[1]}u"
        )
    lines += [f"C{i} {net} {GROUND} {load:g}f" for i, (net, load) in enumerate(netlist.wires)]
    return (*lines, ".ends")


def parse(text: str) -> dict[str, float]:
    """What ngspice printed of its measurements; those that failed are not in it."""
    return {name: float(value) for name, value in _MEASURED.findall(text)}


@dataclass(frozen=True)
class Simulator:
    """ngspice, and a folder of what it has measured before.

    Attributes:
        program: path of ngspice.
        version: that it says.
        cache: of one JSON file per deck, by its content; made on first use.
        timeout: seconds that a run may take.
    """

    program: str
    version: str
    cache: Path
    timeout: float = 1800.0

    @classmethod
    def find(cls, cache: Path) -> Simulator:
        """The one on the PATH.

        Raises:
            SpiceError: there is none, or it does not say its version.
        """
        program = shutil.which("ngspice")
        if program is None:
            raise SpiceError("ngspice is not on the PATH")
        done = subprocess.run(
            [program, "--version"],
            cwd=cache.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        found = re.search(r"ngspice-[\w.]+", done.stdout)
        if found is None:
            raise SpiceError(f"{program} does not say its version")
        return cls(program, found[0], cache)

    def run(self, deck: str, wanted: Iterable[str]) -> dict[str, float]:
        """The measurements of a deck, from the cache where it ran before.

        Args:
            deck: its text.
            wanted: measurements that must be there.

        Raises:
            SpiceError: ngspice fails, or a wanted measurement is not there.
        """
        key = hashlib.sha256(f"{self.version}\n{deck}".encode()).hexdigest()[:32]
        path = self.cache / f"{key}.json"
        if path.is_file():
            found = {str(k): float(v) for k, v in json.loads(path.read_bytes()).items()}
        else:
            found = self._simulate(deck)
            self.cache.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}.new")
            fresh.write_text(json.dumps(found), encoding="utf-8")
            fresh.replace(path)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise SpiceError(f"ngspice found no edge for {', '.join(missing[:6])}")
        return found

    def _simulate(self, deck: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="characterise-") as folder:
            (Path(folder) / "deck.sp").write_text(deck, encoding="utf-8")
            try:
                done = subprocess.run(
                    [self.program, "-b", "-n", "deck.sp"],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=self.timeout,
                    check=False,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SpiceError(f"ngspice: {error}") from error
        found = parse(done.stdout)
        if not found:
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise SpiceError("ngspice measured nothing:\n  " + "\n  ".join(said[-8:]))
        return found
