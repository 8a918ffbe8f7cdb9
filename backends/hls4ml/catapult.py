"""FPGAs and ASICs through hls4ml's Catapult backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.backend import Hls4mlBackend
from hqc.backends.hls4ml.model_graph import CATAPULT, Flavour
from hqc.backends.hls4ml.technology import CatapultOptions, check_names
from hqc.backends.vendor_tools import find_tool, read_report, run_tool
from hqc.diagnostics import Diagnostic
from hqc.pipeline.backend import BackendOptions


@dataclass(frozen=True)
class Catapult(Hls4mlBackend):
    """`ac_fixed` C++ for Catapult."""

    name: ClassVar[str] = "catapult"
    summary: ClassVar[str] = "FPGAs and ASICs, C++ for Siemens Catapult through hls4ml"
    flavour: ClassVar[Flavour] = CATAPULT
    default_part: ClassVar[str] = "xcku115-flvb2104-2-i"
    technologies: ClassVar[tuple[str, ...]] = ("fpga", "asic")
    options: ClassVar[tuple[str, ...]] = (
        *("part", "technology", "libraries", "clock_ns", "reuse_factor", "strategy", "io"),
    )
    default_libraries: ClassVar[str] = "nangate-45nm_beh"
    own_options: ClassVar[type[Any] | None] = CatapultOptions

    def check(
        self, model: Model, partition: Partition, options: BackendOptions
    ) -> list[Diagnostic]:
        """Everything that keeps this backend from emitting the model; empty if it can."""
        found = super().check(model, partition, options)
        return [*check_names(self.complete(options)), *found]

    def complete(self, options: BackendOptions) -> BackendOptions:
        """Options with this backend's defaults in place of None (see the base)."""
        chosen = super().complete(options)
        return replace(chosen, libraries=options.libraries or self.default_libraries)

    def build(self, directory: Path, timeout: float = 24 * 3600.0) -> dict[str, Any]:
        """Synthesis with Catapult; its report as hls4ml reads it.

        Raises:
            HqcError: HQC404, Catapult is not on the PATH; HQC405, it failed or timed out.
        """
        from hls4ml.report import parse_catapult_report

        tool = find_tool(("catapult",), "Catapult")
        steps = "reset=0 csim=1 synth=1 cosim=0 validation=0 vhdl=0 verilog=1"
        arguments = ["-product", "ultra", "-shell", "-f", "build_prj.tcl"]
        run_tool([tool, *arguments, "-eval", f"set ::argv {{{steps}}}"], directory, timeout)
        return read_report(parse_catapult_report, directory)
