"""After a training: whether the logic of what was trained keeps its budget of LUTs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hqc.backends.base import BackendOptions
from hqc.backends.estimate.estimate import estimate_project
from hqc.backends.estimate.quick import quick_estimate
from hqc.backends.network import read_network
from hqc.events import Watch, ignore, stage
from hqc.partition import partition

__all__ = ["lut_promise"]


def lut_promise(
    net: nn.Module,
    example: Tensor,
    budget: float,
    *,
    planned: float,
    measured: bool = False,
    watch: Watch = ignore,
) -> dict[str, Any]:
    """Planned, predicted and, on request, measured LUTs of a trained module, as JSON values.

    Args:
        net: trained.
        example: inputs, (N, ...).
        budget: that the widths were chosen for.
        planned: what they were taken to cost, margin included.
        measured: whether Yosys counts, layer by layer.
        watch: told of both.

    Returns:
        "budget", "planned", "predicted", "most" (the prediction and its error bar), "measured"
        (None if nothing was), "tool", and "kept": whether the measured figure, or else "most",
        is within the budget.

    Raises:
        HqcError: HQC430, no Yosys, and others of `estimate_project`, if measured; HQC401, HQC421,
            the network has no logic.
    """
    from hqc.driver import load, run_passes

    with stage("LUTs of what was trained", watch) as note:
        model = run_passes(load(net, example_inputs=example), "default", verify=False)
        parts = partition(model)
        network = read_network(model, parts)
        found = quick_estimate(network)
        note.detail = f"{found.lut:,.0f} predicted, within {100 * found.bar:.0f} %"
    luts, tool = None, None
    if measured:
        from hqc.backends.rtl.emission.project import write
        from hqc.backends.rtl.lowering.lower import lower

        with tempfile.TemporaryDirectory(prefix="hqc-rtl-") as folder:
            write(lower(network), parts, BackendOptions(), Path(folder))
            estimate = estimate_project(Path(folder), watch=watch)
            luts, tool = estimate.total.lut, estimate.tool
    return {
        "budget": budget,
        "planned": planned,
        "predicted": round(found.lut),
        "most": round(found.most),
        "measured": luts,
        "tool": tool,
        "kept": (found.most if luts is None else luts) <= budget,
    }
