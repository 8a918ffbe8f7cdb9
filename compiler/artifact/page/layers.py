"""The layers of a report as rows of a table, with what tools said about each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hqc.artifact.page.numbers import amount
from hqc.ir import parse_type

#: Columns of an estimate, in order, and what they are called; report.json has more.
_COLUMNS = {
    "lut": "LUT",
    "packed": "LUT, packed",
    "flip_flops": "flip-flops",
    "carry": "carry cells",
    "dsp": "DSP",
    "area_um2": "area, µm²",
    "gates": "gates",
    "delay_ns": "delay, ns",
}
#: Facts of a flow beside its sums.
_TIMES = ("clock_ns", "latency", "ii")


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        name, kind, where, shape: of the layer.
        result: its type; `width` are the bits, of which the proven range leaves `spare`.
        types: (role, type) pairs of what it has beside its result.
        bounds: the proven range in codes, and `step` what a code is worth; "" if not known.
        weights: (bits of one, how many, percent that are zero), or None.
        accumulator: bits, or None.
        products, bit_operations: per sample, in words; "" for layers without weights.
        share: percent of the network's bit operations.
        reuse: products per multiplier, 0 if that is not a question.
    """

    name: str
    kind: str
    where: str
    shape: str
    result: str
    width: int
    spare: int | None
    types: tuple[tuple[str, str], ...]
    bounds: str
    step: str
    weights: tuple[int, str, float] | None
    accumulator: int | None
    products: str
    bit_operations: str
    share: float
    reuse: int


@dataclass(frozen=True)
class Column:
    """A number per layer: the text, and how long its bar is (0 to 100)."""

    title: str
    cells: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Estimate:
    """One flow of `hqc estimate`.

    Attributes:
        name, tool: of the flow.
        notes: what the figures do not contain.
        totals: (name, text) pairs of the whole design.
        layers, columns: names, and numbers in the same order.
    """

    name: str
    tool: str
    notes: tuple[str, ...]
    totals: tuple[tuple[str, str], ...]
    layers: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Layers:
    """The rows, sums over them, and estimates.

    Attributes:
        rows: in the order of the report.
        totals: (name, text) pairs.
        widest: bits of the widest type that is drawn.
        estimates: flows; `other` is what an estimate of another form holds.
    """

    rows: tuple[Row, ...]
    totals: tuple[tuple[str, str], ...]
    widest: int
    estimates: tuple[Estimate, ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)


def layers_of(layers: Sequence[Mapping[str, Any]], estimate: object = None) -> Layers:
    """The table of a report's `layers`, and of its `estimate`, if it has one.

    Raises:
        KeyError, TypeError, ValueError: the layers are not of the form that hqc writes.
    """
    whole = sum(layer.get("bit_operations", 0) for layer in layers)
    rows = tuple(_row(layer, whole) for layer in layers)
    widest = max((bits for row in rows for bits in (row.width, row.accumulator or 0)), default=1)
    flows, other = _flows(estimate)
    return Layers(rows, _totals(layers, rows), widest, flows, other)


def _row(layer: Mapping[str, Any], whole: float) -> Row:
    types = {str(role): str(text) for role, text in layer["types"].items()}
    result = types.pop("result", "")
    bounds, work = layer.get("range"), layer.get("bit_operations")
    weights = None
    if layer.get("weights"):
        zero = 100 * layer["zero_weights"] / layer["weights"]
        weights = layer["weight_bits"] // layer["weights"], amount(layer["weights"]), zero
    return Row(
        name=str(layer["name"]),
        kind=str(layer["kind"]),
        where=str(layer["where"]),
        shape=" × ".join(str(n) for n in layer.get("shape", ())),
        result=result,
        width=parse_type(result).width if result else 0,
        spare=layer.get("spare_bits"),
        types=tuple(types.items()),
        bounds=f"{_code(bounds['low'])} … {_code(bounds['high'])}" if bounds else "",
        step=_step(bounds["exponent"]) if bounds else "",
        weights=weights,
        accumulator=layer.get("accumulator_bits"),
        products=amount(layer["products"]) if "products" in layer else "",
        bit_operations=amount(work) if work is not None else "",
        share=100 * work / whole if work and whole else 0.0,
        reuse=int(layer.get("reuse_factor", 0)),
    )


def _code(code: int) -> str:
    """A code in full, or as about a power of two where that would be long."""
    if abs(code) < 10**9:
        return f"{code:,}".replace("-", "−")
    return f"{'−' if code < 0 else ''}2^{abs(code).bit_length()}"


def _step(exponent: int) -> str:
    return "× 1" if exponent == 0 else f"× 2^{exponent}".replace("-", "−")


def _totals(
    layers: Sequence[Mapping[str, Any]], rows: Sequence[Row]
) -> tuple[tuple[str, str], ...]:
    """Sums that a reader asks for first; only of what the layers say."""
    found = [("layers", str(len(rows)))]
    if not any("bit_operations" in layer for layer in layers):
        return tuple(found)
    sums = {
        key: sum(layer.get(key, 0) for layer in layers)
        for key in ("products", "bit_operations", "weights", "zero_weights", "weight_bits")
    }
    found.append(("products per sample, zeros left out", amount(sums["products"])))
    found.append(("bit operations, zeros left out", amount(sums["bit_operations"])))
    zero = 100 * sums["zero_weights"] / sums["weights"] if sums["weights"] else 0.0
    found.append(("weights", f"{amount(sums['weights'])}, {zero:.0f} % zero"))
    found.append(("weight memory", f"{amount(sums['weight_bits'])} bits"))
    widest = max((row.accumulator or 0 for row in rows), default=0)
    return (*found, ("widest accumulator", f"{widest} bits"))


# --- estimates ----------------------------------------------------------------------------------


def _flows(estimate: object) -> tuple[tuple[Estimate, ...], Mapping[str, Any]]:
    """The flows of an estimate by their names; what is of another form stays as it is."""
    if not isinstance(estimate, Mapping):
        return (), {"estimate": estimate} if estimate else {}
    flows = {name: flow for name, flow in estimate.items() if _is_flow(flow)}
    rest = {name: flow for name, flow in estimate.items() if name not in flows}
    return tuple(_flow(str(name), flow) for name, flow in flows.items()), rest


def _is_flow(flow: object) -> bool:
    if not isinstance(flow, Mapping) or not isinstance(flow.get("total"), Mapping):
        return False
    layers = flow.get("layers")
    return isinstance(layers, list) and all(isinstance(layer, Mapping) for layer in layers)


def _flow(name: str, flow: Mapping[str, Any]) -> Estimate:
    rows, total, timing = flow["layers"], flow["total"], flow.get("timing")
    keys = [key for key in _COLUMNS if any(_number(row.get(key)) for row in rows)]
    facts = [(_COLUMNS[key], n) for key in _COLUMNS if (n := _number(total.get(key)))]
    times = {key: flow.get(key) for key in _TIMES}
    times |= timing if isinstance(timing, Mapping) else {}
    facts += [(_words(key), n) for key, value in times.items() if (n := _number(value)) is not None]
    notes = flow.get("notes")
    return Estimate(
        name=name,
        tool=", ".join(str(flow[key]) for key in ("tool", "flow") if flow.get(key)),
        notes=tuple(map(str, notes)) if isinstance(notes, list) else (),
        totals=tuple((name, amount(value)) for name, value in facts),
        layers=tuple(str(row.get("name", "")) for row in rows),
        columns=tuple(_column(key, rows) for key in keys),
    )


def _column(key: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    numbers = [_number(row.get(key)) for row in rows]
    top = max(n for n in numbers if n is not None)
    cells = tuple(("", 0.0) if n is None else (amount(n), max(0.0, 100 * n / top)) for n in numbers)
    return Column(_COLUMNS[key], cells)


def _words(key: str) -> str:
    named = {"ii": "initiation interval, cycles", "latency": "latency, cycles"}
    return named.get(key, re.sub(r"_ns$", ", ns", str(key)).replace("_", " "))


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
