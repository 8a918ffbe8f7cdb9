"""What Catapult is told about the target, in one file: `technology.tcl`, which its script sources.

hls4ml's `build_prj.tcl` has these settings in several places, some as numbers, and names several
libraries as one. Here each has a name, and the script calls what is defined in the file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from string import Template

from hqc.backends.layers import Conv, MaxPool, Network
from hqc.diagnostics import Diagnostic, Exit, reject
from hqc.pipeline.backend import BackendOptions

FILE = "technology.tcl"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
#: Libraries for which Catapult's own Liberty settings are read as well, as hls4ml's script has it.
_SAED = re.compile(r"saed32[hlr]vt_\w+")


@dataclass(frozen=True)
class CatapultOptions:
    """Options of this backend, `--backend-option KEY=VALUE`.

    Attributes:
        clock_uncertainty: nanoseconds of the period that are left out for jitter and skew.
        synthesis: for ASICs: the RTL synthesis tool that the library's figures are for, as
            Catapult calls it, such as DesignCompiler or OasysRTL.
        memories: for ASICs: memory libraries, separated by commas.
        memory_threshold: arrays smaller than this stay registers (Catapult's MEM_MAP_THRESHOLD).
    """

    clock_uncertainty: float = 0.0
    synthesis: str = "DesignCompiler"
    memories: str = "ccs_sample_mem,ccs_sample_rom"
    memory_threshold: int = 2048 * 16 + 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clock_uncertainty) and self.clock_uncertainty >= 0):
            raise ValueError(f"clock_uncertainty {self.clock_uncertainty}: nanoseconds, 0 or more")
        if self.memory_threshold < 0:
            raise ValueError(f"memory_threshold {self.memory_threshold}: 0 or more")
        for name in (self.synthesis, *names(self.memories)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a library or tool")


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas or blanks."""
    return tuple(text.replace(",", " ").split())


def check_names(options: BackendOptions) -> list[Diagnostic]:
    """What must not go into a script: names that are none, no library, more jitter than period."""
    found = []
    asic = options.technology == "asic"
    given = names(options.libraries or "") if asic else (options.part or "",)
    what = "library" if asic else "part"
    wrong = [name for name in given if not _NAME.fullmatch(name)]
    if wrong or not given:
        message = f"{wrong[0]!r} is no name of a {what}" if wrong else "no library is named"
        helps = ("such as nangate-45nm_beh", "several are separated by commas") if asic else ()
        found.append(Diagnostic("HQC401", message, helps=helps))
    if options.own_as(CatapultOptions).clock_uncertainty >= options.clock_ns:
        message = f"the clock's uncertainty is not less than its period of {options.clock_ns:g} ns"
        found.append(Diagnostic("HQC401", message))
    return found


_HEAD = Template("""\
# The technology of this project, its clock and its directives. build_prj.tcl sources this file and
# calls the procedures below; what another library or tool needs is changed here.

$target
# Clock: period and uncertainty, in nanoseconds.
set hqc_clock_period $period
set hqc_clock_uncertainty $uncertainty

# Cycles between two samples, the initiation interval of the main loop; 0 leaves it to Catapult.
# $why
set hqc_pipeline_interval $interval

# Arrays below this size stay registers (MEM_MAP_THRESHOLD).
set hqc_memory_threshold $threshold
# The same for arrays of streamed designs, in elements (DefaultRegisterThreshold).
set hqc_register_threshold 2050

$libraries

proc hqc_set_clock {} {
  directive set -CLOCKS [list clk [list \\
    -CLOCK_PERIOD $$::hqc_clock_period -CLOCK_EDGE rising -CLOCK_OFFSET 0.0 \\
    -CLOCK_UNCERTAINTY $$::hqc_clock_uncertainty \\
    -RESET_KIND sync -RESET_SYNC_NAME rst -RESET_SYNC_ACTIVE high \\
    -RESET_ASYNC_NAME arst_n -RESET_ASYNC_ACTIVE low -ENABLE_NAME {} -ENABLE_ACTIVE high]]
}

proc hqc_set_memories {} {
  directive set -MEM_MAP_THRESHOLD $$::hqc_memory_threshold
}

proc hqc_set_pipeline {} {
  if {$$::hqc_pipeline_interval == 0} { return }
  set loop [solution get -name]/core/main/PIPELINE_INIT_INTERVAL
  foreach found [directive get -match glob -checkpath 0 -ret p $$loop] {
    directive set -match glob $$found $$::hqc_pipeline_interval
  }
}
""")

_ASIC = Template("""\
# Libraries of standard cells, by Catapult's names, and the synthesis tool that they are for.
# nangate-45nm_beh and saed32{h,l,r}vt_tt0p78v125c_beh are names of Catapult's own; a library of a
# foundry, or of an open kit, must be made for Catapult from its Liberty files first. Where it lies
# outside Catapult's own folders, the environment variable HQC_CATAPULT_LIBRARIES says where.
set hqc_technology asic
set hqc_libraries {$libraries}
set hqc_synthesis {$synthesis}
# Libraries of memories: the samples have no physical view; name those of your memory compiler.
set hqc_memories {$memories}
""")

_FPGA = Template("""\
# The part; build_prj.tcl looks its library up among those of Catapult.
set hqc_technology fpga
set hqc_part {$part}
""")

_ASIC_LIBRARIES = """\
proc hqc_set_libraries {} {
  if {[info exists ::env(HQC_CATAPULT_LIBRARIES)]} {
    solution options set ComponentLibs/SearchPath $::env(HQC_CATAPULT_LIBRARIES) -append
  }
  foreach library $::hqc_libraries {
    solution library add $library -- -rtlsyntool $::hqc_synthesis
  }
  foreach library $::hqc_memories { solution library add $library }
  solution library add hls4ml_lib
  go libraries
}"""
_SAED_LIBRARIES = """\
  # Liberty data for estimates of power
  source [application get /SYSTEM/ENV_MGC_HOME]/pkgs/siflibs/saed/setup_saedlib.tcl
}"""
_FPGA_LIBRARIES = "proc hqc_set_libraries {} { setup_xilinx_part $::hqc_part }"


def script(network: Network, options: BackendOptions) -> str:
    """The text of `technology.tcl`; the same options give the same text.

    Args:
        network: decides whether the main loop can be pipelined.
        options: complete, and without what `check_names` finds.
    """
    own = options.own_as(CatapultOptions)
    if options.technology == "asic":
        cells = names(options.libraries or "")
        target = _ASIC.substitute(
            libraries=" ".join(cells),
            synthesis=own.synthesis,
            memories=" ".join(names(own.memories)),
        )
        libraries = _ASIC_LIBRARIES
        if any(_SAED.fullmatch(name) for name in cells):
            libraries = f"{libraries.removesuffix('}')}{_SAED_LIBRARIES}"
    else:
        target, libraries = _FPGA.substitute(part=options.part), _FPGA_LIBRARIES
    interval, why = _interval(network, options)
    return _HEAD.substitute(
        target=target,
        period=f"{options.clock_ns:g}",
        uncertainty=f"{own.clock_uncertainty:g}",
        interval=interval,
        why=why,
        threshold=own.memory_threshold,
        libraries=libraries,
    )


def _interval(network: Network, options: BackendOptions) -> tuple[int, str]:
    """The initiation interval, and the reason for it."""
    if network.stream:
        return 0, "Streams: each layer is a process with a loop of its own."
    if any(isinstance(layer, Conv | MaxPool) for layer in network.layers):
        return 0, "Windows: a pipelined main loop would unroll the loops over all of them."
    return options.reuse_factor, "It is the reuse factor: so many products share a multiplier."


#: What stands in hls4ml's script, what takes its place, and how often.
_EDITS = (
    (r"^(set sfd .*)$", rf"\1\nsource [file join $sfd {FILE}]", 1),
    (r"^( *)setup_(?:asic_libs|xilinx_part) \{.*\}$", r"\1hqc_set_libraries", 3),
    (r"^set hls_clock_period .*$", "set hls_clock_period $hqc_clock_period", 1),
    (r"^( *)directive set -CLOCKS .*$", r"\1hqc_set_clock", 2),
    (r"^directive set -MEM_MAP_THRESHOLD .*$", "hqc_set_memories", 1),
    (r"(DefaultRegisterThreshold) \d+$", r"\1 $hqc_register_threshold", 1),
    (r"^( *)(go architect)$", r"\1hqc_set_pipeline\n\1\2", 2),
)


def with_technology(text: str) -> str:
    """hls4ml's `build_prj.tcl` with calls in place of settings.

    Raises:
        HqcError: HQC402 (exit status 70), the script is not the one that is known here.
    """
    for pattern, replacement, times in _EDITS:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if count != times:
            raise reject(
                "HQC402",
                f"hls4ml's build_prj.tcl has {pattern!r} {count} times, not {times}",
                helps=("please report this with the version of hls4ml",),
                exit_=Exit.INTERNAL,
            )
    return text
