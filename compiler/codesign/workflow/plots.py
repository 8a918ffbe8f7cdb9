"""Figures of sensitivities, budgets and training. Needs matplotlib: the extra `plots`.

Each function returns a figure that belongs to no window, for `figure.savefig`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hqc.codesign.allocation.problem import Allocation
from hqc.codesign.hessian.lanczos import Density
from hqc.codesign.hessian.sensitivity import Sensitivity
from hqc.diagnostics import Exit, reject

_BLUE, _ORANGE, _GREY = "#1f5f99", "#c2571a", "#8a8f98"


def require_matplotlib() -> None:
    """See that figures can be drawn, before the work that they are about.

    Raises:
        HqcError: HQC404, matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        helps = ("pip install 'hqc[plots]'",)
        raise reject("HQC404", "figures need matplotlib", helps=helps, exit_=Exit.TOOL)


@contextmanager
def _axes(width: float = 5.2, height: float = 3.4) -> Iterator[tuple[Any, Any]]:
    """A figure with one plain pair of axes, laid out at the end."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.7)
    yield figure, axes


def plot_traces(*found: Sensitivity, mean: bool = False) -> Any:
    """Traces by layer with standard errors, on a logarithmic axis; several results side by side.

    Args:
        found: results about the same layers.
        mean: traces per element in place of traces.

    Raises:
        HqcError: HQC001, nothing to plot; HQC404, matplotlib is missing.
    """
    if not found:
        raise reject("HQC001", "there are no sensitivities to plot", exit_=Exit.USAGE)
    names = [layer.name for layer in found[0].layers]
    with _axes(max(4.0, 1.2 + 0.8 * len(names))) as (figure, axes):
        step = 0.6 / len(found)
        for i, result in enumerate(found):
            sizes = [layer.elements if mean else 1 for layer in result.layers]
            values = [x.trace / n for x, n in zip(result.layers, sizes, strict=True)]
            errors = [x.error / n for x, n in zip(result.layers, sizes, strict=True)]
            at = [names.index(x.name) + (i - (len(found) - 1) / 2) * step for x in result.layers]
            axes.errorbar(
                at,
                values,
                yerr=errors,
                fmt="o",
                markersize=5,
                capsize=4,
                color=(_BLUE, _ORANGE, _GREY)[i % 3],
                label=f"{result.kind}, {result.method}",
            )
        axes.set_yscale("log")
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("trace per element" if mean else "trace")
        axes.margins(y=0.15)
        if len(found) > 1:
            axes.legend(frameon=False, fontsize=8)
    return figure


def plot_front(
    points: Sequence[Allocation], cost: str, chosen: Allocation | None = None, label: str = ""
) -> Any:
    """The Pareto front of one cost and the objective, and the chosen point on it.

    Args:
        points: as `hqc.codesign.allocation.problem.front` gives them.
        cost: the name of the cost.
        chosen: drawn and labelled with its widths.
        label: of the axis of costs; the cost's name unless given.

    Raises:
        HqcError: HQC001, nothing to plot; HQC404, matplotlib is missing.
    """
    if not points:
        raise reject("HQC001", "the front has no points to plot", exit_=Exit.USAGE)
    with _axes() as (figure, axes):
        x, y = [p.costs[cost] for p in points], [p.objective for p in points]
        axes.step(x, y, where="post", color=_BLUE, linewidth=1)
        axes.plot(x, y, "o", color=_BLUE, markersize=3.5)
        if chosen is not None:
            at = (chosen.costs[cost], chosen.objective)
            axes.plot(*at, "o", color=_ORANGE, markersize=7)
            text = "(" + ", ".join(str(w) for w in chosen.widths.values()) + ")"
            if len(chosen.widths) > 8:
                text = "chosen"
            axes.annotate(
                text, at, xytext=(10, 10), textcoords="offset points", color=_ORANGE, fontsize=9
            )
        if min(y) > 0:
            axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(label or cost)
        axes.set_ylabel("trace-weighted perturbation")
    return figure


def plot_accuracy(
    points: Sequence[tuple[float, float]],
    trained: tuple[float, float],
    unquantised: float,
    cost: str,
) -> Any:
    """Accuracy against a cost: the front's nets before training, one after it, the float model.

    Args:
        points: (cost, accuracy) of nets that were quantised and not trained.
        trained: the same of the trained one.
        unquantised: accuracy of the float model.
        cost: label of the axis.

    Raises:
        HqcError: HQC404, matplotlib is missing.
    """
    with _axes() as (figure, axes):
        axes.axhline(unquantised, color=_GREY, linewidth=1, linestyle="--", label="float")
        if points:
            axes.plot(*zip(*points, strict=True), ".-", color=_BLUE, linewidth=1,
                      label="front, not trained")  # fmt: skip
        axes.plot(*trained, "o", color=_ORANGE, markersize=7, label="chosen, trained")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(cost)
        axes.set_ylabel("accuracy")
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_bits(found: Mapping[str, Allocation], knobs: Sequence[str] = ()) -> Any:
    """Bits by knob, a group of bars per knob and a colour per allocation.

    Args:
        found: allocations by label.
        knobs: which, in order; none: all of the first allocation.

    Raises:
        HqcError: HQC001, nothing to plot; HQC404, matplotlib is missing.
    """
    if not found:
        raise reject("HQC001", "there are no allocations to plot", exit_=Exit.USAGE)
    names = list(knobs or next(iter(found.values())).widths)
    with _axes(max(4.0, 1.2 + 0.8 * len(names))) as (figure, axes):
        width = 0.75 / len(found)
        for i, (label, allocation) in enumerate(found.items()):
            at = [j + (i - (len(found) - 1) / 2) * width for j in range(len(names))]
            bits = [allocation.widths[name] for name in names]
            colour = (_BLUE, _ORANGE, _GREY)[i % 3]
            bars = axes.bar(at, bits, width * 0.92, color=colour, label=label)
            axes.bar_label(bars, fontsize=8, padding=2)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel("bits")
        axes.margins(y=0.12)
        if len(found) > 1:
            axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def plot_density(density: Density) -> Any:
    """The density of the Hessian's eigenvalues, on a logarithmic axis.

    Raises:
        HqcError: HQC404, matplotlib is missing.
    """
    with _axes() as (figure, axes):
        x, y = density.curve()
        axes.semilogy(x, y.clip(min=1e-6), color=_BLUE, linewidth=1.2)
        axes.set_ylim(bottom=1e-5)
        axes.set_xlabel("eigenvalue")
        axes.set_ylabel("density")
    return figure


def plot_training(curves: Mapping[str, Sequence[float]], ylabel: str = "loss") -> Any:
    """Curves over epochs, the first epoch being 1, each named at its end.

    Raises:
        HqcError: HQC001, nothing to plot; HQC404, matplotlib is missing.
    """
    if not any(len(values) for values in curves.values()):
        raise reject("HQC001", "there are no epochs to plot", exit_=Exit.USAGE)
    with _axes() as (figure, axes):
        for i, (name, values) in enumerate(curves.items()):
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, linewidth=1.3, marker="." if len(values) < 40 else "",
                      color=(_BLUE, _ORANGE, _GREY)[i % 3], linestyle=("-", "--", ":")[i // 3 % 3],
                      label=name)  # fmt: skip
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel(ylabel)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
    return figure
