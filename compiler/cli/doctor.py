"""What this machine has: Python, libraries, a C++ compiler, vendor tools, plug-ins, the cache."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from hqc.artifact.manifest import LIBRARIES

#: Tools that only `--build` needs.
VENDOR_TOOLS = ("vitis-run", "vitis_hls", "catapult")
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: what was looked at.
        state: "ok"; "missing", something needed is not there; "absent", something optional is not.
        detail: version, place or remedy.
    """

    topic: str
    state: str
    detail: str


def examine() -> list[Finding]:
    """Look at everything; imports none of the libraries but hqc's own plug-ins."""
    return [
        _python(),
        *(_library(name) for name in LIBRARIES),
        _library("brevitas", optional=True),
        _compiler(),
        *(_vendor(tool) for tool in VENDOR_TOOLS),
        *_simulators(),
        *_estimators(),
        _cache(),
        *_plugins(),
    ]


def _python() -> Finding:
    good = sys.version_info >= OLDEST_PYTHON
    return Finding("python", "ok" if good else "missing", platform.python_version())


def _library(name: str, optional: bool = False) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        state = "absent" if optional else "missing"
        return Finding(name, state, f"pip install {name}")


def _compiler() -> Finding:
    """The C++ compiler must compile and link a shared object, as the emulation needs."""
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        return Finding("c++ compiler", "missing", f"{name} is not on the PATH")
    try:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "t.cpp").write_text('extern "C" int f() { return 7; }\n')
            command = [path, "-shared", "-fPIC", "-std=c++17", "t.cpp", "-o", "t.so"]
            done = _run(command, folder)
            if done.returncode != 0:
                return Finding("c++ compiler", "missing", f"{path}: {done.stderr[-200:].strip()}")
            version = _run([path, "--version"], folder).stdout.partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("c++ compiler", "missing", f"{path}: {error}")
    return Finding("c++ compiler", "ok", f"{version} ({path})")


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def _vendor(tool: str) -> Finding:
    path = shutil.which(tool)
    if path is None:
        return Finding(tool, "absent", "not on the PATH; only --build needs it")
    return Finding(tool, "ok", path)


def _simulators() -> Iterator[Finding]:
    """What the RTL backend runs: a solver to emit, a Verilog simulator to compare."""
    from hqc.backends.rtl.simulation import icarus, verilator
    from hqc.backends.rtl.simulation.simulate import INSTALL

    try:
        yield Finding("da4ml", "ok", metadata.version("da4ml"))
    except metadata.PackageNotFoundError:
        yield Finding("da4ml", "absent", 'pip install "hqc[rtl]"; the rtl backend needs it')
    found = {
        "verilator": (tool := verilator.find()) and f"{tool.title()} ({tool.program})",
        "icarus": (tools := icarus.find()) and f"{icarus.version_of(tools[0])} ({tools[0]})",
    }
    for name, detail in found.items():
        absent = f"{INSTALL[name]}; the rtl backend simulates with it"
        yield Finding(name, "ok" if detail else "absent", detail or absent)


def _estimators() -> Iterator[Finding]:
    """What `hqc estimate` runs: Yosys for all targets, the rest for ASIC targets."""
    from hqc.backends.estimate import liberty, opensta, yosys

    found = yosys.find_or_none()
    yield (
        Finding("yosys", "ok", str(found))
        if found
        else Finding("yosys", "absent", "pip install 'hqc[estimate]'; hqc estimate needs it")
    )
    sta = opensta.find_sta()
    yield (
        Finding("opensta", "ok", f"{opensta.version_of(sta)} ({sta})")
        if sta
        else Finding("opensta", "absent", "apt install opensta; it times ASIC estimates")
    )
    there = liberty.OSU018.is_file()
    remedy = f"apt install {liberty.OSU018_PACKAGE}; or any Liberty file of your own"
    text = str(liberty.OSU018) if there else remedy
    yield Finding("osu018 cells", "ok" if there else "absent", text)


def _cache() -> Finding:
    from hqc.backends.hls4ml.emulation import cache_folder

    folder = cache_folder()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if os.access(existing, os.W_OK):
        return Finding("cache", "ok", str(folder))
    return Finding("cache", "missing", f"{folder} cannot be written")


def _plugins() -> Iterator[Finding]:
    """Load every entry point of plug-ins, and see whether its name is free."""
    from hqc.pipeline.registry import Registry

    broken = Registry.default().broken
    for group in ("hqc.passes", "hqc.frontends", "hqc.operators", "hqc.backends"):
        for point in metadata.entry_points(group=group):
            topic = f"plug-in {point.name} ({group})"
            try:
                loaded = point.load()
            except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way
                yield Finding(topic, "missing", f"{point.value}: {type(error).__name__}: {error}")
                continue
            names = [point.name, str(getattr(loaded, "name", ""))]  # passes clash by their own
            faults = [broken[name].message for name in names if name in broken]
            yield (
                Finding(topic, "missing", faults[0])
                if faults
                else Finding(topic, "ok", point.value)
            )
