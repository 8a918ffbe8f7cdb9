"""Compile and run a project's own C++: the emulation every result is compared with.

The compiled library is cached by the content of everything that goes into it, so a changed
constant or header is always noticed and an unchanged project is never compiled twice.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from hqc.backends.base import Batch
from hqc.backends.bridge import Bridge, generate
from hqc.backends.layout import from_hardware, to_hardware
from hqc.diagnostics import Exit, reject
from hqc.ir import Array
from hqc.partition import Partition, Port
from hqc.types import Codes

_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-pthread", "-w")
#: Measured on dense layers. `ac_fixed`: without -fwrapv the index arithmetic of the templates (int
#: from unsigned) keeps g++ from vectorising, a factor of two. `ap_fixed`: -O3 gains nothing.
#: Nothing depends on the machine's own instruction set: a cache may be shared between machines.
_OPTIMISE = {"ac": ("-O3", "-fwrapv"), "ap": ("-O2",)}
_AC_INCLUDES = ("ac_types/include", "ac_math/include", "ac_simutils/include", "nnet_utils")
#: `ap_private` masks its value after every operation in a member declared volatile, which forces
#: each intermediate through memory. Nothing here is volatile; a copy of the header without the
#: word computes the same values three times as fast.
_MASKING = "INLINE void clearUnusedBits(void) volatile"
_COMPILE_TIMEOUT = 1800.0
#: What the bridge returns when a stream is not empty at the end of a sample.
_LEFT = 2
_SHOWN_LINES = 12


@dataclass(frozen=True, eq=False)
class CompiledEmulator:
    """A loaded emulation.

    Attributes:
        partition: whose ports it has.
        library: path of the shared library in the cache.
        stack: bytes of stack per thread.
        handle: the loaded library.
    """

    partition: Partition
    library: Path
    stack: int
    handle: ctypes.CDLL

    def run(self, codes: Batch, threads: int | None = None) -> dict[str, Codes]:
        """Output codes for input codes, one call for the whole batch.

        Args:
            codes: int64 arrays (N, *shape) by input port name, in the model's own layout.
            threads: how many to use; default all cores this process may use.

        Raises:
            HqcError: HQC005, a port is missing, has another shape, or codes outside its type;
                HQC405, the system cannot start threads; HQC402, packets stayed in a stream.
        """
        arrays = [to_hardware(_codes_of(port, codes)) for port in self.partition.inputs]
        return self._call("hqc_run_codes", arrays, threads)

    def run_reals(
        self, values: Mapping[str, Array], threads: int | None = None
    ) -> dict[str, Codes]:
        """Output codes for real inputs (float64), rounded by the C++ types of the input ports."""
        arrays = [
            np.ascontiguousarray(to_hardware(values[port.name]), np.float64)
            for port in self.partition.inputs
        ]
        return self._call("hqc_run_reals", arrays, threads)

    def _call(
        self, function: str, arrays: Sequence[Array], threads: int | None
    ) -> dict[str, Codes]:
        counts = {len(array) for array in arrays}
        if len(counts) != 1:
            raise reject("HQC005", "input ports have different numbers of samples")
        samples = counts.pop()
        ports = self.partition.outputs
        outputs = [np.empty((samples, math.prod(p.shape)), np.int64) for p in ports]
        call = getattr(self.handle, function)
        status = call(
            _pointers(arrays),
            _pointers(outputs),
            ctypes.c_int64(samples),
            ctypes.c_int(threads or _cores()),
            ctypes.c_int64(self.stack),
        )
        if status == _LEFT:
            raise reject(
                "HQC402",
                "the emulation left packets in a stream, or found one empty",
                notes=("such a design hangs, or mixes samples, in hardware",),
                exit_=Exit.INTERNAL,
            )
        if status:
            raise reject(
                "HQC405",
                "the emulation could not start its threads",
                notes=(f"each needs {self.stack >> 20} MiB of address space for its stack",),
                exit_=Exit.TOOL,
            )
        return {p.name: from_hardware(x, p.shape) for p, x in zip(ports, outputs, strict=True)}


def compile_emulator(directory: Path, partition: Partition) -> CompiledEmulator:
    """Compile the emulation of an emitted project, or load it from the cache.

    Raises:
        HqcError: HQC404, no C++ compiler; HQC405, it failed or timed out; HQC006, no project;
            HQC402, the ports of the project are not those of the partition.
    """
    bridge = generate(directory, partition)
    compiler = find_compiler()
    library = cache_folder() / f"{_key(directory, bridge, compiler)}.so"
    if not library.is_file():
        _make_folder(library.parent)
        _compile(directory, bridge, compiler, library)
    try:
        handle = ctypes.CDLL(str(library))
    except OSError as error:
        raise reject(
            "HQC405",
            f"the compiled emulation {library} cannot be loaded",
            notes=(str(error),),
            helps=("delete that file; the next run compiles it again",),
            exit_=Exit.TOOL,
        ) from error
    return CompiledEmulator(partition, library, bridge.stack, handle)


def cache_folder() -> Path:
    """Where compiled emulations live: $HQC_CACHE_DIR, else the user's cache folder."""
    chosen = os.environ.get("HQC_CACHE_DIR")
    base = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("hqc"))
    return base / "emulation"


def find_compiler() -> str:
    """Path of the C++ compiler: $CXX, else g++.

    Raises:
        HqcError: HQC404, there is none.
    """
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted)
    if found is None:
        raise reject(
            "HQC404",
            f"the C++ compiler {wanted} is not on the PATH",
            notes=("the emulation of the firmware is compiled for this machine",),
            helps=("install g++ (Debian, Ubuntu: apt install g++)", "or set CXX to a compiler"),
            exit_=Exit.TOOL,
        )
    return found


# --- compiling ------------------------------------------------------------------------------


def _key(directory: Path, bridge: Bridge, compiler: str) -> str:
    """Hash of everything the library depends on."""
    digest = hashlib.sha256()
    firmware = directory / "firmware"
    for path in sorted(firmware.rglob("*")):
        if path.suffix in {".h", ".cpp", ".hpp"} or path.parent.name == "weights":
            digest.update(path.relative_to(firmware).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    version = _checked([compiler, "--version"], directory, 60.0)
    machine = f"{platform.system()} {platform.machine()}"
    flags = " ".join(_flags(directory))
    for text in (bridge.bridge, bridge.top, bridge.declarations, version, machine, flags, _MASKING):
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:40]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise reject(
            "HQC405",
            f"the cache folder {folder} cannot be written",
            helps=("set HQC_CACHE_DIR to a folder of your own",),
            exit_=Exit.TOOL,
        )


def _compile(directory: Path, bridge: Bridge, compiler: str, library: Path) -> None:
    """Compile both units at once, link, and move the result into the cache in one step."""
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="building-") as folder:
        work = Path(folder)
        (work / "bridge.cpp").write_text(bridge.bridge, encoding="utf-8")
        (work / "declarations.h").write_text(bridge.declarations, encoding="utf-8")
        (work / "top.cpp").write_text(bridge.top, encoding="utf-8")
        root = directory.resolve()
        common = [compiler, *_flags(root), f"-I{root / 'firmware'}", *_type_headers(root, work)]
        top = [f"-D{name}" for name in bridge.defines]
        top += ["-include", str(work / "declarations.h"), "-c"]
        top += ["top.cpp", "-o", "top.o"]
        _run_all([[*common, *top], [*common, "-c", "bridge.cpp", "-o", "bridge.o"]], work)
        built = work / "emulation.so"
        link = [compiler, "-shared", "-pthread", "top.o", "bridge.o", "-o", built.name]
        _run_all([link], work)
        built.replace(library)


def _flags(directory: Path) -> tuple[str, ...]:
    spelling = "ap" if (directory / "firmware" / "ap_types").is_dir() else "ac"
    return (*_OPTIMISE[spelling], *_FLAGS)


def _type_headers(root: Path, work: Path) -> list[str]:
    """Include options of the project's own type headers."""
    firmware = root / "firmware"
    if not (firmware / "ap_types").is_dir():
        return [f"-I{firmware / path}" for path in _AC_INCLUDES]
    shutil.copytree(firmware / "ap_types", work / "ap_types")
    header = work / "ap_types" / "etc" / "ap_private.h"
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace(_MASKING, _MASKING.removesuffix(" volatile")), encoding="utf-8")
    return [f"-I{work / 'ap_types'}"]


def _run_all(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run compilers side by side; all are finished, or killed, when this returns."""
    deadline = time.monotonic() + _COMPILE_TIMEOUT
    running = [
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    try:
        for command, process in zip(commands, running, strict=True):
            try:
                _, errors = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                message = f"{command[0]} took longer than {_COMPILE_TIMEOUT:g} s"
                raise reject("HQC405", message, exit_=Exit.TOOL) from error
            if process.returncode != 0:
                raise _failure(command, process.returncode, errors)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _checked(command: Sequence[str], folder: Path, timeout: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise reject("HQC405", f"{command[0]}: {error}", exit_=Exit.TOOL) from error
    if done.returncode != 0:
        raise _failure(command, done.returncode, done.stderr)
    return done.stdout


def _failure(command: Sequence[str], status: int, errors: str) -> Exception:
    lines = [line for line in errors.splitlines() if line.strip()][-_SHOWN_LINES:]
    return reject(
        "HQC405",
        f"{Path(command[0]).name} ended with status {status}",
        notes=tuple(lines) or ("it printed nothing",),
        exit_=Exit.TOOL,
    )


# --- calling --------------------------------------------------------------------------------


def _codes_of(port: Port, codes: Batch) -> Codes:
    if port.name not in codes:
        raise reject("HQC005", f"no codes for input port {port.name}")
    array = np.ascontiguousarray(codes[port.name])
    if array.dtype != np.int64 or array.shape[1:] != port.shape:
        raise reject(
            "HQC005",
            f"port {port.name} takes int64 codes of shape (N, {port.shape}), "
            f"not {array.dtype} {array.shape}",
        )
    limits = port.type.limits
    if array.size and (array.min() < limits.lo or array.max() > limits.hi):
        raise reject("HQC005", f"codes of port {port.name} leave {port.type}")
    return array


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
