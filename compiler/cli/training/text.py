"""Sensitivities, bit widths and records of trainings as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqc.artifact.page.numbers import scales_text
from hqc.cli.result import table
from hqc.codesign.allocation.budget import bits_record, bits_text

if TYPE_CHECKING:
    from hqc.codesign.allocation.plan import Choice, Plan
    from hqc.codesign.hessian.sensitivity import Sensitivity

#: Points of a front that are printed; JSON has all.
_POINTS = 40


def traces_text(found: Sensitivity) -> str:
    """A table of traces with standard errors, and how they were found."""
    rows = [("layer", f"{found.kind}", "trace", "standard error", "trace per element")]
    for layer in found.layers:
        rows.append(
            (
                *(layer.name, str(layer.elements), f"{layer.trace:.5g}"),
                *(f"{layer.error:.2g}", f"{layer.mean:.4g}"),
            )
        )
    how = f"{found.method}, {found.samples} samples"
    if found.probes:
        how += f", {found.probes} probes each, seed {found.seed}"
    if not found.converged:
        how += f"; not within {100 * found.tolerance:g} %: allow more --max-probes"
    return f"{table(rows)}\n\n{how}"


def plan_text(plan: Plan, choice: Choice) -> str:
    """A table of bit widths, what they cost and what they do to the loss."""
    rows = [("layer", "weights", "activations", "predicted increase of the loss")]
    for layer, (weights, activations) in plan.bits.items():
        moved = plan.by_layer.get(layer, 0.0) + plan.by_layer.get(f"{layer}.input", 0.0)
        rows.append((layer, f"{weights} bits", f"{activations} bits", f"{moved:.4g}"))
    costs = ", ".join(f"{name} {_amount(name, value)}" for name, value in plan.costs.items())
    scales = scales_text(choice.per_channel, choice.power_of_two)
    return f"{table(rows)}\n\nloss {plan.loss_increase:+.4g} predicted; {costs}\nscales {scales}"


def _amount(name: str, value: float) -> str:
    if name == "size":
        return f"{value / 8:,.10g} B"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.10g}"


def front_text(points: Sequence[Plan], axis: str) -> str:
    """A line per point: the cost, the predicted loss, the bit widths."""
    rows = [(axis, "predicted loss", "bits")]
    for point in points[:_POINTS]:
        rows.append(
            (_amount(axis, point.costs[axis]), f"{point.loss_increase:+.4g}", bits_text(point.bits))
        )
    more = len(points) - _POINTS
    return table(rows) + (f"\nand {more} more; -f json has all" if more > 0 else "")


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    return {
        "bits": bits_record(plan.bits),
        "predicted_loss_increase": plan.loss_increase,
        "by_knob": dict(plan.by_layer),
        "costs": dict(plan.costs),
    }


def record_text(path: Path, record: Mapping[str, Any]) -> str:
    """The record of a training, for people."""
    increase = record["loss_increase"]["by_knob"]
    traces = {x["name"]: x for t in record["traces"] if t["kind"] == "weights" for x in t["layers"]}
    rows = [("layer", "weights", "activations", "trace", "predicted increase of the loss")]
    for layer, bits in record["bits"].items():
        trace = f"{traces[layer]['trace']:.4g} ± {traces[layer]['error']:.2g}"
        widths = f"{bits['weights']} bits", f"{bits['activations']} bits"
        rows.append((layer, *widths, trace, f"{increase[layer]:.4g}"))
    costs = ", ".join(f"{n} {_amount(n, value)}" for n, value in record["costs"].items())
    accuracy, history = record["accuracy"], record["history"]
    versions = record["settings"]["versions"]
    lines = [
        f"{path}: {record['model']} trained on {record['data']}, seed {record['seed']}",
        f"  accuracy  {100 * accuracy['quantised']:.2f} % on {accuracy['on']} samples, "
        f"float {100 * accuracy['float']:.2f} %",
        f"  costs     {costs}",
        f"  epochs    {len(history['float'])} float, {len(history['quantised'])} quantised",
        "  versions  " + ", ".join(f"{k} {v}" for k, v in versions.items()),
    ]
    if "scales" in record:
        lines.insert(3, f"  scales    {_scaled(record['scales'])}")
    for name, head in (("area", "um2"), ("lut", "LUTs")):
        if name in record:
            lines.insert(3, f"  {head:8}  {_promised(record[name])}")
    return "\n".join(lines) + "\n\n" + table(rows)


def _promised(found: Mapping[str, Any]) -> str:
    """A budget of LUTs or area and what came of it."""
    text = f"budget {found['budget']:,.0f}, predicted {found['predicted']:,} to {found['most']:,}"
    if found["measured"] is None:
        return text
    return f"{text}, measured {found['measured']:,} by {found['tool']}"


def _scaled(found: Mapping[str, Any]) -> str:
    """Scales, and what they were chosen from."""
    text = scales_text(found["per_channel"], found["power_of_two"])
    tried = found.get("considered", ())
    if not tried:
        return text
    how = "loss in a short training" if "loss" in tried[0] else "predicted loss"
    return f"{text}; of {len(tried)} kinds the one with the least {how}"
