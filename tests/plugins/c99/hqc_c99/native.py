"""The emitted source on this machine: compiled as it is, called once for each batch."""

from __future__ import annotations

import ctypes
import hashlib
import math
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hqc.analysis.partition import Partition, Port
from hqc.backends.hls4ml.emulation import cache_folder
from hqc.backends.layers import from_hardware, to_hardware
from hqc.backends.vendor_tools import find_tool
from hqc.diagnostics import Exit, reject
from hqc.numerics import Codes
from hqc.pipeline import Batch

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
_FLAGS = (*WARNINGS, "-O2", "-fPIC", "-shared")
_TIMEOUT = 600.0


@dataclass(frozen=True, eq=False)
class Native:
    """A loaded emulation; `run` is what hqc calls."""

    partition: Partition
    handle: ctypes.CDLL

    def run(self, codes: Batch) -> dict[str, Codes]:
        """Output codes for input codes, one call for the whole batch.

        Raises:
            HqcError: HQC005, a port is missing, has another shape, or codes outside its type.
        """
        given = [to_hardware(_checked(port, codes)) for port in self.partition.inputs]
        samples = {len(array) for array in given}
        if len(samples) != 1:
            raise reject("HQC005", "input ports have different numbers of samples")
        count = samples.pop()
        ports = self.partition.outputs
        made = [np.empty((count, math.prod(port.shape)), np.int64) for port in ports]
        self.handle.hqc_batch(_pointers(given), _pointers(made), ctypes.c_int64(count))
        return {p.name: from_hardware(x, p.shape) for p, x in zip(ports, made, strict=True)}


def load(directory: Path, name: str, partition: Partition) -> Native:
    """Compile NAME.c, or find it in the cache.

    Raises:
        HqcError: HQC006, there is no source; HQC404, there is no compiler; HQC405, it failed.
    """
    files = [directory / f"{name}.c", directory / f"{name}.h"]
    if missing := [path for path in files if not path.is_file()]:
        raise reject("HQC006", f"{missing[0]} is missing: this is no project of the c99 backend")
    compiler = find_tool(("gcc", "cc"), "a C compiler")
    bridge = bridge_text(name, partition)
    version = run([compiler, "--version"], directory)
    digest = hashlib.sha256()
    for part in (*(path.read_text(encoding="utf-8") for path in files), bridge, version, *_FLAGS):
        digest.update(hashlib.sha256(part.encode()).digest())
    library = cache_folder() / f"c99-{digest.hexdigest()[:40]}.so"
    if not library.is_file():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix="building-") as work:
            (Path(work) / "bridge.c").write_text(bridge, encoding="utf-8")
            sources = [str(files[0].resolve()), "bridge.c"]
            include = f"-I{directory.resolve()}"
            run([compiler, *_FLAGS, include, *sources, "-o", "made.so"], Path(work))
            (Path(work) / "made.so").replace(library)
    return Native(partition, ctypes.CDLL(str(library)))


def bridge_text(name: str, partition: Partition) -> str:
    """C that calls the function for a batch of int64 codes; sizes must be those of the header."""
    upper = name.upper()
    sides = (("in", partition.inputs), ("out", partition.outputs))
    lines = [
        f'#include "{name}.h"',
        "void hqc_batch(const int64_t *const *, int64_t *const *, int64_t);",
    ]
    names = []
    for side, ports in sides:
        for i, port in enumerate(ports):
            size = f"{upper}_{side.upper()}{i}"
            right = f"{size} == {math.prod(port.shape)} && {size}_FRACTION == {port.type.fraction}"
            lines.append(f"typedef char check_{side}{i}[({right}) ? 1 : -1];")
            lines.append(f"static {name}_{side}{i}_t {side}{i}[{size}];")
            names.append(f"{side}{i}")
    lines += [
        "void hqc_batch(const int64_t *const *given, int64_t *const *made, int64_t samples)",
        "{",
        "    for (int64_t n = 0; n < samples; n++) {",
    ]
    for i in range(len(partition.inputs)):
        size = f"{upper}_IN{i}"
        lines.append(f"        for (int64_t i = 0; i < {size}; i++)")
        lines.append(f"            in{i}[i] = ({name}_in{i}_t)given[{i}][n * {size} + i];")
    lines.append(f"        {name}({', '.join(names)});")
    for i in range(len(partition.outputs)):
        size = f"{upper}_OUT{i}"
        lines.append(f"        for (int64_t i = 0; i < {size}; i++)")
        lines.append(f"            made[{i}][n * {size} + i] = out{i}[i];")
    return "\n".join([*lines, "    }", "}", ""])


def run(command: Sequence[str], folder: Path, timeout: float = _TIMEOUT) -> str:
    """What a tool prints.

    Raises:
        HqcError: HQC405, it failed or took too long.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise reject("HQC405", f"{command[0]}: {error}", exit_=Exit.TOOL) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()][:12]
        message = f"{Path(command[0]).name} ended with status {done.returncode}"
        raise reject("HQC405", message, notes=lines, exit_=Exit.TOOL)
    return done.stdout


def _checked(port: Port, codes: Batch) -> Codes:
    if port.name not in codes:
        raise reject("HQC005", f"no codes for input port {port.name}")
    array = np.ascontiguousarray(codes[port.name])
    limits = port.type.limits
    if array.dtype != np.int64 or array.shape[1:] != port.shape:
        raise reject("HQC005", f"port {port.name} takes int64 codes of shape (N, {port.shape})")
    if array.size and (array.min() < limits.lo or array.max() > limits.hi):
        raise reject("HQC005", f"codes of port {port.name} leave {port.type}")
    return array


def _pointers(arrays: Sequence[Codes]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
