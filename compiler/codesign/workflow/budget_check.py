"""After a training: whether the logic of what was trained keeps its budget of LUTs or area."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hqc.analysis.partition import partition
from hqc.backends.estimate.estimate import estimate_project
from hqc.backends.estimate.quick import AREA, LUTS, quick_estimate
from hqc.backends.layers.network import read_network
from hqc.diagnostics.events import Watch, ignore, stage
from hqc.pipeline.backend import BackendOptions

#: By the name of a budget: what synthesises it, and what it counts.
_TARGETS = {"lut": LUTS, "area": AREA}
UNITS = {"lut": "LUTs", "area": "um2"}


def check_budget(
    name: str,
    net: nn.Module,
    example: Tensor,
    budget: float,
    *,
    planned: float,
    measured: bool = False,
    watch: Watch = ignore,
) -> dict[str, Any]:
    """What was planned, is predicted and, on request, measured of a trained module, as JSON values.

    Args:
        name: of the budget: "lut", or "area" in um2.
        net: trained.
        example: inputs, (N, ...).
        budget: that the widths were chosen for.
        planned: what they were taken to cost, margin included.
        measured: whether Yosys counts, layer by layer.
        watch: told of both.

    Returns:
        "target", "budget", "planned", "predicted", "most" (the prediction and its error bar),
        "measured" (None if nothing was), "tool", and "kept": whether the measured figure, or else
        "most", is within the budget.

    Raises:
        HqcError: HQC430, no Yosys, HQC432, no library of cells, and others of `estimate_project`,
            if measured; HQC401, HQC421, the network has no logic.
    """
    from hqc.driver import load, run_passes

    target, unit = _TARGETS[name], UNITS[name]
    with stage(f"{unit} of what was trained", watch) as note:
        model = run_passes(load(net, example_inputs=example), "default", verify=False)
        parts = partition(model)
        network = read_network(model, parts)
        found = quick_estimate(network, target)
        note.detail = f"{found.size:,.0f} predicted, within {100 * found.bar:.0f} %"
    size, tool = None, None
    if measured:
        from hqc.backends.rtl.emission.project import write
        from hqc.backends.rtl.lowering.lower import lower

        with tempfile.TemporaryDirectory(prefix="hqc-rtl-") as folder:
            write(lower(network), parts, BackendOptions(), Path(folder))
            estimate = estimate_project(Path(folder), target, watch=watch)
            total, tool = estimate.total, estimate.tool
            size = total.lut if name == "lut" else round(total.area_um2)
    return {
        "target": target,
        "budget": budget,
        "planned": planned,
        "predicted": round(found.size),
        "most": round(found.most),
        "measured": size,
        "tool": tool,
        "kept": (found.most if size is None else size) <= budget,
    }
