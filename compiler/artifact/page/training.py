"""How a model came about, where `hqc quantize` trained it: widths, accuracy, and the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqc.artifact.page.numbers import amount, scales_text

#: The drawing area of a chart, in the units of its view box; what is around it holds the labels.
LEFT, TOP, WIDTH, HEIGHT = 56.0, 12.0, 420.0, 200.0
#: Steps of an axis, about.
_TICKS = 4


@dataclass(frozen=True)
class Curve:
    """A line through points, in the chart's units, under a name; `style` chooses its colour."""

    name: str
    style: int
    points: tuple[tuple[float, float], ...]

    @property
    def path(self) -> str:
        """The points as SVG's polyline wants them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Chart:
    """Curves on two axes.

    Attributes:
        x_title, y_title: of the axes.
        x_ticks, y_ticks: (place in the chart's units, text) pairs.
        curves: lines.
        chosen: a point that stands out, in the chart's units, or None.
    """

    x_title: str
    y_title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    curves: tuple[Curve, ...]
    chosen: tuple[float, float] | None = None


@dataclass(frozen=True)
class Training:
    """The record of a training.

    Attributes:
        facts: (name, text) pairs: model, data, accuracies, costs.
        bits: (layer, bits of weights, bits of activations), in order.
        front: cost against the predicted increase of the loss, or None.
        history: accuracy by epoch, or None.
    """

    facts: tuple[tuple[str, str], ...]
    bits: tuple[tuple[str, int, int], ...]
    front: Chart | None
    history: Chart | None


def training_of(record: Mapping[str, Any]) -> Training:
    """What the page shows of a record that `hqc.codesign.training.record` read.

    Raises:
        KeyError, TypeError, ValueError: it is not of that form.
    """
    accuracy = record["accuracy"]
    facts = [(key, str(record[key])) for key in ("model", "data", "seed") if key in record]
    facts += [
        (f"{kind} accuracy ({accuracy['on']})", f"{100 * accuracy[kind]:.2f} %")
        for kind in ("float", "quantised")
    ]
    facts += [(_cost_title(name), amount(value)) for name, value in record["costs"].items()]
    if scales := record.get("scales"):  # absent from the records of older trainings
        facts.append(("scales", scales_text(scales["per_channel"], scales["power_of_two"])))
    facts.append(("predicted increase of the loss", f"{record['loss_increase']['predicted']:.3g}"))
    bits = tuple(
        (str(name), int(widths["weights"]), int(widths["activations"]))
        for name, widths in record["bits"].items()
    )
    return Training(tuple(facts), bits, _front(record), _history(record["history"]))


def _cost_title(name: str) -> str:
    return {"bops": "bit operations (HAWQ)", "size": "weight memory, bits"}.get(name, str(name))


def _front(record: Mapping[str, Any]) -> Chart | None:
    front = record.get("front")
    if not front or len(front["points"]) < 2:
        return None
    cost = str(front["cost"])
    points = [(float(x), float(y)) for x, y in front["points"]]
    chosen = float(record["costs"][cost]), float(record["loss_increase"]["predicted"])
    return chart(
        (_cost_title(cost), "predicted increase of the loss"),
        {"best predicted loss at a budget": points},
        chosen=chosen,
    )


def _history(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> Chart | None:
    """Accuracy by epoch: of validation where there is one, else of training."""
    lines = {}
    for kind, epochs in history.items():
        key = "valid_accuracy" if all(e["valid_accuracy"] is not None for e in epochs) else ""
        values = [(float(e["number"]), 100 * float(e[key or "accuracy"])) for e in epochs]
        if values:
            lines[f"{kind}, {'validation' if key else 'training'}"] = values
    return chart(("epoch", "accuracy, %"), lines) if lines else None


def chart(
    titles: tuple[str, str],
    lines: Mapping[str, Sequence[tuple[float, float]]],
    chosen: tuple[float, float] | None = None,
) -> Chart:
    """A chart that holds all points of the lines.

    Args:
        titles: of the axes.
        lines: points by the name of each line; finite numbers.
        chosen: a point that stands out.
    """
    points = [p for line in lines.values() for p in line] + ([chosen] if chosen else [])
    ticks = [_ticks([p[axis] for p in points]) for axis in (0, 1)]

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = ((p - t[0]) / (t[-1] - t[0]) for p, t in zip(point, ticks, strict=True))
        return LEFT + WIDTH * x, TOP + HEIGHT * (1 - y)

    x_ticks = tuple((place((x, ticks[1][0]))[0], amount(x)) for x in ticks[0])
    y_ticks = tuple((place((ticks[0][0], y))[1], amount(y)) for y in ticks[1])
    curves = tuple(
        Curve(name, number, tuple(map(place, line)))
        for number, (name, line) in enumerate(lines.items())
    )
    return Chart(*titles, x_ticks, y_ticks, curves, place(chosen) if chosen else None)


def _ticks(values: Sequence[float]) -> list[float]:
    """A few round numbers, evenly spaced, that enclose the values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - abs(low or 1) / 2, high + abs(high or 1) / 2
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * n for n in (1, 2, 5, 10) if unit * n >= rough)
    return [n * step for n in range(math.floor(low / step), math.ceil(high / step) + 1)]
