"""What budgets can be about: each cost is a function from a network to a table of widths.

A new cost is one more function in `COSTS`, or one more entry of the mapping that
`hqc.codesign.allocation.plan.Planner.of` takes, as those of `hqc.codesign.costs.lut_cost` are: they
take longer than the others, and are asked only where a budget is about them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from hqc.codesign.costs.tables import Shape, Table, bops_table, measured_table, size_table
from hqc.diagnostics import HqcError, reject

if TYPE_CHECKING:
    from hqc.codesign.costs.logic import Logic
    from hqc.frontends.hawq.layers import Scheme


@dataclass(frozen=True)
class Network:
    """What costs may depend on.

    Attributes:
        shapes: the layers in order; the knob of a layer's weights has its name.
        widths: candidate widths by knob.
        inputs: by layer, the width of the activations that enter it, or the knob that says it.
        headroom: bits of activations beyond the width of the knob that says it.
        ties: groups of knobs that have one width.
        logic: finds weights and requantisers (`hqc.codesign.costs.logic`); None: only shapes are
            known.
    """

    shapes: Sequence[Shape]
    widths: Mapping[str, Sequence[int]]
    inputs: Mapping[str, str | int]
    headroom: int = 0
    ties: tuple[tuple[str, ...], ...] = ()
    logic: Callable[[], Logic] | None = None


class Cost(Protocol):
    """Makes the table of one cost."""

    def __call__(self, net: Network) -> Table:
        """The cost as a function of the widths of the network's knobs."""


@runtime_checkable
class SchemeCost(Cost, Protocol):
    """A cost that depends on how things are quantised, beside their widths."""

    def at(self, scheme: Scheme) -> Cost:
        """The cost of a network that is quantised so."""


def cost_at(cost: Cost, scheme: Scheme) -> Cost:
    """A cost for a network that is quantised so; most do not depend on it."""
    return cost.at(scheme) if isinstance(cost, SchemeCost) else cost


def _bops(net: Network) -> Table:
    return bops_table(net.shapes, net.widths, net.inputs, headroom=net.headroom)


def _size(net: Network) -> Table:
    return size_table(net.shapes, net.widths)


#: Costs that need nothing but the network: bit operations per sample, and bits of weights.
COSTS: Mapping[str, Cost] = {"bops": _bops, "size": _size}


def cost_file(path: Path) -> dict[str, Cost]:
    """Costs measured elsewhere: JSON of {cost: {knob: {width: number}}}.

    Knobs are layers, for their weights, and "LAYER.input" for the activations that enter one.

    Raises:
        HqcError: HQC612, the file is not of that form, or a name is one of `COSTS`; the costs
            themselves raise it where widths or layers are missing in the table.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        tables = {
            str(name): {
                str(knob): {int(width): float(cost) for width, cost in column.items()}
                for knob, column in table.items()
            }
            for name, table in document.items()
        }
    except OSError as error:
        raise reject("HQC612", f"cannot read cost table {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        helps = ('such as {"lut": {"fc1": {"4": 812, "5": 1020}, "fc2": {...}}}',)
        notes = (str(error)[:300],)
        raise reject("HQC612", f"{path} holds no cost table", notes=notes, helps=helps) from error
    for name in tables:
        if name in COSTS:
            raise reject("HQC612", f"{path}: {name} is a cost of its own: choose another name")
    return {name: _Measured(name, path, table) for name, table in tables.items()}


@dataclass(frozen=True)
class _Measured:
    """A cost whose numbers stand in a file."""

    name: str
    path: Path
    table: Mapping[str, Mapping[int, float]]

    def __call__(self, net: Network) -> Table:
        chosen: dict[str, dict[int, float]] = {}
        for knob, column in self.table.items():
            if knob not in net.widths:
                known = f"knobs: {', '.join(net.widths)}"
                raise self._misfit(f"{knob} has no width to choose", known)
            for width in net.widths[knob]:
                if width not in column:
                    known = f"it has {', '.join(map(str, sorted(column)))}"
                    raise self._misfit(f"{knob} at {width} bits is not in it", known)
            chosen[knob] = {width: column[width] for width in net.widths[knob]}
        missing = [s.name for s in net.shapes if s.name not in chosen]
        if missing:
            raise self._misfit(f"layer {missing[0]} is not in it", "")
        return measured_table(chosen)

    def _misfit(self, message: str, note: str) -> HqcError:
        notes = (note,) if note else ()
        return reject("HQC612", f"{self.path}: {self.name}: {message}", notes=notes)
