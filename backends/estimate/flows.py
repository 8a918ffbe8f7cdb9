"""What a target is: the Yosys script that synthesises for it, and how its figures are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hqc.backends.estimate import liberty
from hqc.backends.estimate.figures import Figures, abc9_delay, abc_delay, read_stat
from hqc.backends.estimate.liberty import Liberty
from hqc.backends.estimate.yosys import LOG, Yosys
from hqc.diagnostics import reject
from hqc.pipeline.options import closest

#: Targets that have names; beside them, `asic-PATH.lib`.
TARGETS = ("fpga-xcup", "asic-osu018")
NETLIST = "netlist.v"
_STAT = "stat.json"
#: Yosys' own script for Liberty files, with sizing and a timing report behind it.
_ABC = (
    "+strash;&get,-n;&fraig,-x;&put;scorr;dc2;strash;&get,-n;&dch,-f;&nf,{D};&put;"
    "buffer;upsize,{D};dnsize,{D};stime,-p"
)
_FPGA_WORDS = (
    "LUTs are LUT1 to LUT6, each counted as one; `packed` pairs small ones, as Yosys estimates",
    "delay: abc9's, with cells of the 7 series and 300 ps per wire",
    "not a vendor's synthesis, no place and route",
)
_ASIC_WORDS = (
    "area is the sum of the cells; delay: abc's, of cells alone",
    "before layout: no wires, no clock tree, no fill",
)


@dataclass(frozen=True)
class Flow:
    """How to synthesise for a target.

    Attributes:
        target: as the user writes it.
        clock_ns: the clock period that the ASIC mapper aims at; FPGA mapping does not ask.
        liberty: the cells of an ASIC; None for FPGAs.
    """

    target: str
    clock_ns: float
    liberty: Liberty | None = None

    @property
    def is_asic(self) -> bool:
        """Whether figures are of an area rather than of LUTs."""
        return self.liberty is not None

    @property
    def words(self) -> tuple[str, ...]:
        """What the figures are, and what they are not."""
        if self.liberty is None:
            return _FPGA_WORDS
        return (f"cells of {self.liberty.library}", *_ASIC_WORDS)

    @property
    def name(self) -> str:
        """The flow in a few words, for reports."""
        if self.liberty is None:
            return "synth_xilinx -family xcup -nodsp -flatten, abc9's fast script"
        library = f"{self.liberty.library} (sha256 {self.liberty.sha256[:12]})"
        return f"synth -noabc, abc -liberty at {self.clock_ns:g} ns, {library}"

    def script(self, tool: Yosys, files: Sequence[str], top: str) -> str:
        """The Yosys script; it leaves what `read` reads.

        Args:
            tool: that runs it.
            files: Verilog files, in the folder it runs in.
            top: the module to synthesise.
        """
        lines = [f"read_verilog -sv {name}" for name in files]
        lines += self._fpga(tool, top) if self.liberty is None else self._asic(self.liberty, top)
        return "\n".join(lines) + "\n"

    def _fpga(self, tool: Yosys, top: str) -> list[str]:
        options = "-nodsp -flatten -noiopad -noclkbuf" + (" -abc9" if tool.abc9_option else "")
        return [
            "scratchpad -set abc9.verify false",  # proving the mapping takes longer than mapping
            "scratchpad -copy abc9.script.default.fast abc9.script",
            f"synth_xilinx -family xcup {options} -top {top}",
            f"tee -q -o {_STAT} stat -tech xilinx -json",
        ]

    def _asic(self, library: Liberty, top: str) -> list[str]:
        cells = library.local
        return [
            f"synth -noabc -flatten -top {top}",
            f"dfflibmap -liberty {cells}",
            f'abc -liberty {cells} -D {round(self.clock_ns * 1000)} -script "{_ABC}"',
            "opt_clean -purge",
            f"tee -q -o {_STAT} stat -liberty {cells} -json",
            f"write_verilog -noattr -noexpr -nohex -nodec {NETLIST}",
        ]

    def read(self, folder: Path, boxes: frozenset[str] = frozenset()) -> Figures:
        """The figures that a run of the script left.

        Raises:
            HqcError: HQC405, it left none.
        """
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        delay = abc_delay(log) if self.is_asic else abc9_delay(log)
        registers = self.liberty.registers if self.liberty else frozenset()
        try:
            text = (folder / _STAT).read_text(encoding="utf-8")
            return read_stat(text, delay, registers, boxes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise reject("HQC405", f"Yosys left no statistics: {error}") from error


def flow_of(target: str, clock_ns: float) -> Flow:
    """The flow of a target.

    Raises:
        HqcError: HQC434, there is no such target; HQC432, its Liberty file is not usable.
    """
    if target == "fpga-xcup":
        return Flow(target, clock_ns)
    kind, _, name = target.partition("-")
    if kind == "asic" and (name == "osu018" or name.endswith(".lib") or Path(name).is_file()):
        return Flow(target, clock_ns, liberty.named(name))
    raise reject(
        "HQC434",
        f"unknown target {target!r}",
        helps=closest(target, (*TARGETS, "asic-PATH.lib")),
    )
