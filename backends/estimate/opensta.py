"""Static timing of mapped netlists with OpenSTA, where it is installed.

The mapped netlists of the layers are joined as they are, without a second synthesis, so that the
longest path may run through several layers, as it does in the design.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hqc.backends.estimate.liberty import Liberty
from hqc.diagnostics import reject

#: What OpenSTA of 2019 reads: single-bit ports, plain binary constants.
JOINED = "joined.v"
_SCRIPT = "sta.tcl"
_PATH = re.compile(r"^\s*(-?[\d.]+)\s+data arrival time", re.MULTILINE)
_SLACK = re.compile(r"^\s*(-?[\d.]+)\s+slack \((?:MET|VIOLATED)\)", re.MULTILINE)
_ENDS = re.compile(r"^(Startpoint|Endpoint): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Timing:
    """What OpenSTA says of a clock.

    Attributes:
        tool: with its version.
        clock_ns: the period.
        slack_ns: of the worst path, its setup time included; negative is too slow.
        path_ns: how long that path takes, to the register's input.
        start, end: of that path.
    """

    tool: str
    clock_ns: float
    slack_ns: float
    path_ns: float
    start: str
    end: str


def find_sta() -> str | None:
    """Path of OpenSTA, or None."""
    return shutil.which("sta")


@cache
def version_of(program: str) -> str:
    """Its version, such as "2.0.17".

    Raises:
        HqcError: HQC405, it does not say one.
    """
    try:
        done = subprocess.run(
            [program, "-version"],
            cwd=Path(program).parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise reject("HQC405", f"{program}: {error}") from error
    found = re.search(r"\d+\.\d+\S*", done.stdout)
    if done.returncode or found is None:
        raise reject("HQC405", f"{program} is not OpenSTA: it does not say its version")
    return found[0]


def time_netlist(
    program: str, folder: Path, top: str, library: Liberty, clock_ns: float, timeout: float
) -> Timing:
    """Time the netlist `JOINED` in a folder.

    Inputs come, and outputs are wanted, at the clock's edge.

    Raises:
        HqcError: HQC405, OpenSTA fails or says nothing; HQC433, it took too long.
    """
    if not (folder / library.local).exists():
        shutil.copyfile(library.path, folder / library.local)
    (folder / _SCRIPT).write_text(
        f"read_liberty {library.local}\nread_verilog {JOINED}\nlink_design {top}\n"
        f"create_clock -name clk -period {clock_ns:g} clk\n"
        "set_input_delay 0 -clock clk [all_inputs]\n"
        "set_output_delay 0 -clock clk [all_outputs]\n"
        "report_checks -path_delay max -digits 4\n",
        encoding="utf-8",
    )
    try:
        done = subprocess.run(
            [program, "-no_splash", "-exit", _SCRIPT],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"OpenSTA took longer than {timeout:g} s"
        helps = (f"give it more time: --timeout {2 * timeout:g}",)
        raise reject("HQC433", message, helps=helps) from error
    said = done.stdout + done.stderr
    path, slack, ends = _PATH.search(said), _SLACK.search(said), dict(_ENDS.findall(said))
    if done.returncode or path is None or slack is None:
        notes = tuple(line for line in said.splitlines() if line.strip())[-12:]
        raise reject("HQC405", "OpenSTA does not time the netlist", notes=notes)
    return Timing(
        f"OpenSTA {version_of(program)}",
        clock_ns,
        float(slack[1]),
        float(path[1]),
        ends.get("Startpoint", ""),
        ends.get("Endpoint", ""),
    )
