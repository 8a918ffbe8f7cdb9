"""AMD FPGAs through hls4ml's Vitis backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hqc.backends.hls4ml.backend import Hls4mlBackend
from hqc.backends.hls4ml.model_graph import VITIS, Flavour
from hqc.backends.vendor_tools import find_tool, read_report, run_tool

_STEPS = ("reset", "csim", "synth", "cosim", "validation", "export", "vsynth", "fifo_opt")
_BUILT = frozenset({"reset", "csim", "synth"})


@dataclass(frozen=True)
class Vitis(Hls4mlBackend):
    """`ap_fixed` C++ for Vitis HLS."""

    name: ClassVar[str] = "vitis"
    summary: ClassVar[str] = "AMD FPGAs, C++ for Vitis HLS through hls4ml"
    flavour: ClassVar[Flavour] = VITIS
    default_part: ClassVar[str] = "xcvu13p-flga2577-2-e"

    def build(self, directory: Path, timeout: float = 24 * 3600.0) -> dict[str, Any]:
        """C simulation and synthesis with Vitis HLS; its report as hls4ml reads it.

        Raises:
            HqcError: HQC404, Vitis is not on the PATH; HQC405, it failed or timed out.
        """
        from hls4ml.report import parse_vivado_report

        tool = find_tool(("vitis-run", "vitis_hls"), "Vitis HLS")
        lines = [f"    {step} {int(step in _BUILT)}" for step in _STEPS]
        text = "\n".join(["array set opt {", *lines, "}", ""])
        (directory / "build_opt.tcl").write_text(text, encoding="utf-8")
        arguments = ["--tcl", "build_prj.tcl", "--mode", "hls"]
        if Path(tool).name == "vitis_hls":
            arguments = ["-f", "build_prj.tcl"]
        run_tool([tool, *arguments], directory, timeout)
        return read_report(parse_vivado_report, directory)
