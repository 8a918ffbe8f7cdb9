"""Compiling for this machine: the compiler, the cache of what it made, and calls into that.

Every library in the cache is named by the hash of all that goes into it, and comes into being by
one rename: processes that compile the same thing do not disturb each other.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from hqc.analysis.partition import Port
from hqc.diagnostics import Exit, reject
from hqc.ir import Array
from hqc.numerics.types import Codes
from hqc.pipeline.backend import Batch

_SHOWN_LINES = 12


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


def machine() -> str:
    """What a compiled library depends on beside sources and tools."""
    return f"{platform.system()} {platform.machine()}"


def digest_of(parts: Iterable[str | bytes]) -> str:
    """A name for what these parts make; each is hashed by itself, so that none runs into the next.

    Returns:
        40 hexadecimal digits.
    """
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()[:40]


def cached_library(key: str, make: Callable[[Path], Path], suffix: str = ".so") -> Path:
    """The library of that key, made on first use.

    Args:
        key: names all that goes into it.
        make: compiles in an empty folder, which is removed, and returns the library in it.
        suffix: of the file, where it is something else than a shared library.

    Raises:
        HqcError: HQC405, the cache cannot be written; and what `make` raises.
    """
    library = cache_folder() / f"{key}{suffix}"
    if not library.is_file():
        _make_folder(library.parent)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix="building-") as folder:
            make(Path(folder)).replace(library)
    return library


def write_whole(path: Path, text: str) -> None:
    """Write a file of a cache in one step, so that no other process sees a part of it.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


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


def load_library(library: Path) -> ctypes.CDLL:
    """Load a compiled library.

    Raises:
        HqcError: HQC405, it cannot be loaded.
    """
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise reject(
            "HQC405",
            f"the compiled emulation {library} cannot be loaded",
            notes=(str(error),),
            helps=("delete that file; the next run compiles it again",),
            exit_=Exit.TOOL,
        ) from error


# --- running tools --------------------------------------------------------------------------


def run_all(
    commands: Sequence[Sequence[str]], folder: Path, timeout: float, jobs: int | None = None
) -> None:
    """Run compilers side by side; all are finished, or killed, when this returns.

    Args:
        commands: each a program and its arguments.
        folder: where they run.
        timeout: seconds that all of them may take together.
        jobs: how many run at once; default all.

    Raises:
        HqcError: HQC405, one failed, or they took too long.
    """
    deadline = time.monotonic() + timeout
    stop = threading.Event()
    with ThreadPoolExecutor(jobs or max(1, len(commands))) as pool:
        running = [pool.submit(_run_one, c, folder, deadline, timeout, stop) for c in commands]
        try:
            for one in running:
                one.result()
        except BaseException:  # also when the user interrupts: nothing may stay behind
            stop.set()
            raise


def _run_one(
    command: Sequence[str], folder: Path, deadline: float, timeout: float, stop: threading.Event
) -> None:
    """One of several programs; it is killed when `stop` is set or the deadline is over."""
    if stop.is_set():
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        ) as process:
            while process.poll() is None:
                if stop.is_set() or time.monotonic() > deadline:
                    process.kill()
                    break
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
        if stop.is_set():
            return
        if time.monotonic() > deadline:
            raise _late(command, timeout)
        if process.returncode != 0:
            said.seek(0)
            stop.set()
            raise _failure(command, process.returncode, said.read())


def checked(
    command: Sequence[str],
    folder: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a program prints on both streams.

    Raises:
        HqcError: HQC405, it cannot run, failed, or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _late(command, timeout) from error
    except OSError as error:
        raise reject("HQC405", f"{command[0]}: {error}", exit_=Exit.TOOL) from error
    if done.returncode != 0:
        raise _failure(command, done.returncode, done.stdout)
    return done.stdout


def _late(command: Sequence[str], timeout: float) -> Exception:
    message = f"{Path(command[0]).name} took longer than {timeout:g} s"
    return reject("HQC405", message, exit_=Exit.TOOL)


def _failure(command: Sequence[str], status: int, said: str) -> Exception:
    lines = [line for line in said.splitlines() if line.strip()][-_SHOWN_LINES:]
    return reject(
        "HQC405",
        f"{Path(command[0]).name} ended with status {status}",
        notes=tuple(lines) or ("it printed nothing",),
        exit_=Exit.TOOL,
    )


# --- calling --------------------------------------------------------------------------------


def codes_of(port: Port, codes: Batch) -> Codes:
    """The codes of an input port, checked.

    Raises:
        HqcError: HQC005, there are none, of another shape, or codes outside the port's type.
    """
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


def samples_of(arrays: Sequence[Array]) -> int:
    """How many samples all arrays have.

    Raises:
        HqcError: HQC005, they differ.
    """
    counts = {len(array) for array in arrays}
    if len(counts) != 1:
        raise reject("HQC005", "input ports have different numbers of samples")
    return counts.pop()


def pointers(arrays: Sequence[Array]) -> Any:
    """The addresses of arrays, as C wants them."""
    return (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
