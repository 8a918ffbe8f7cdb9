"""The figures that the training commands write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqc.cli.console import Console
from hqc.diagnostics.events import stage
from hqc.ir.array_files import cannot_write
from hqc.pipeline.options import usage

if TYPE_CHECKING:
    from hqc.codesign.training.datasets import Dataset
    from hqc.codesign.workflow.quantization import Quantized


def draw_training(folder: Path, found: Quantized, data: Dataset, console: Console) -> None:
    """Write traces, bit widths, curves, and accuracy against bit operations into a directory."""
    from hqc.codesign.allocation.problem import Allocation
    from hqc.codesign.workflow import plots
    from hqc.codesign.workflow.compare import spread, untrained_accuracy

    with stage("figures", console.watch) as note:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        for traces in found.traces:
            draw(folder / f"traces-{traces.kind}.png", plots.plot_traces(traces))
        bars = {
            name: Allocation({layer: both[i] for layer, both in found.plan.bits.items()}, 0.0, {})
            for i, name in enumerate(("weights", "activations"))
        }
        draw(folder / "bits.png", plots.plot_bits(bars))
        history = found.record["history"]
        for quantity in ("loss", "accuracy"):
            curves = _curves(history, quantity)
            draw(folder / f"{quantity}.png", plots.plot_training(curves, quantity))
        points = found.planner.front("bops")
        tried = [
            (p.costs["bops"], untrained_accuracy(found.float_model, p, data, found.scheme))
            for p in spread(points)
        ]
        accuracy = found.record["accuracy"]
        trained = found.plan.costs["bops"], accuracy["quantised"]
        draw(
            folder / "accuracy-bops.png",
            plots.plot_accuracy(tried, trained, accuracy["float"], "bit operations"),
        )
        note.detail = str(folder)


def _curves(history: Mapping[str, Any], quantity: str) -> dict[str, list[float]]:
    """Curves of both trainings, validation apart, where there are such."""
    found = {}
    for kind, epochs in history.items():
        for name, key in (("", quantity), (", validation", f"valid_{quantity}")):
            values = [epoch[key] for epoch in epochs if epoch[key] is not None]
            if values:
                found[f"{kind}{name}"] = values
    return found


def draw(path: Path, figure: Any) -> None:
    """Write a figure.

    Raises:
        HqcError: HQC007, it cannot be written; HQC001, it is of an unknown format.
    """
    try:
        figure.savefig(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    except ValueError as error:  # matplotlib goes by the suffix
        raise usage(f"{path}: {error}"[:200]) from error
