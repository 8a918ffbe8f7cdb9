"""Compile and run a project's own C++: the emulation every result is compared with.

The compiled library is cached by the content of everything that goes into it, so a changed
constant or header is always noticed and an unchanged project is never compiled twice.
"""

from __future__ import annotations

import ctypes
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hqc.analysis.partition import Partition
from hqc.backends import native
from hqc.backends.hls4ml.bridge import Bridge, generate
from hqc.backends.layers.layout import from_hardware, to_hardware
from hqc.backends.native import cache_folder
from hqc.diagnostics import Exit, reject
from hqc.ir import Array
from hqc.numerics.types import Codes
from hqc.pipeline.backend import Batch

__all__ = ["CompiledEmulator", "cache_folder", "compile_emulator"]

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
        arrays = [to_hardware(native.codes_of(port, codes)) for port in self.partition.inputs]
        return self._call("hqc_run_codes", arrays, threads)

    def _call(
        self, function: str, arrays: Sequence[Array], threads: int | None
    ) -> dict[str, Codes]:
        samples = native.samples_of(arrays)
        ports = self.partition.outputs
        outputs = [np.empty((samples, math.prod(p.shape)), np.int64) for p in ports]
        call = getattr(self.handle, function)
        status = call(
            native.pointers(arrays),
            native.pointers(outputs),
            ctypes.c_int64(samples),
            ctypes.c_int(threads or native.cores()),
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
    compiler = native.find_compiler()
    key = native.digest_of(_parts(directory, bridge, compiler))
    library = native.cached_library(key, lambda work: _compile(directory, bridge, compiler, work))
    return CompiledEmulator(partition, library, bridge.stack, native.load_library(library))


# --- compiling ------------------------------------------------------------------------------


def _parts(directory: Path, bridge: Bridge, compiler: str) -> Iterator[str | bytes]:
    """Everything the library depends on."""
    firmware = directory / "firmware"
    for path in sorted(firmware.rglob("*")):
        if path.suffix in {".h", ".cpp", ".hpp"} or path.parent.name == "weights":
            yield path.relative_to(firmware).as_posix()
            yield path.read_bytes()
    yield from (bridge.bridge, bridge.top, bridge.declarations)
    yield native.checked([compiler, "--version"], directory, 60.0)
    yield from (native.machine(), " ".join(_flags(directory)), _MASKING)


def _compile(directory: Path, bridge: Bridge, compiler: str, work: Path) -> Path:
    """Compile both units at once, and link."""
    (work / "bridge.cpp").write_text(bridge.bridge, encoding="utf-8")
    (work / "declarations.h").write_text(bridge.declarations, encoding="utf-8")
    (work / "top.cpp").write_text(bridge.top, encoding="utf-8")
    root = directory.resolve()
    common = [compiler, *_flags(root), f"-I{root / 'firmware'}", *_type_headers(root, work)]
    top = [f"-D{name}" for name in bridge.defines]
    top += ["-include", str(work / "declarations.h"), "-c"]
    top += ["top.cpp", "-o", "top.o"]
    units = [[*common, *top], [*common, "-c", "bridge.cpp", "-o", "bridge.o"]]
    native.run_all(units, work, _COMPILE_TIMEOUT)
    built = work / "emulation.so"
    link = [compiler, "-shared", "-pthread", "top.o", "bridge.o", "-o", built.name]
    native.run_all([link], work, _COMPILE_TIMEOUT)
    return built


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
