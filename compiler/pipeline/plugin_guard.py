"""Calls into backends of other packages: what goes wrong there is said to be theirs.

hqc's own backends are called as they are: an exception of theirs is an internal error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.diagnostics import Diagnostic, HqcError, reject
from hqc.numerics.types import Codes
from hqc.pipeline.backend import Backend, BackendOptions, Batch, Emission, Emulator, Prepared
from hqc.pipeline.user_code import place_of


@contextmanager
def guarded(backend: Backend) -> Iterator[None]:
    """Within, a backend of another package runs: what it raises becomes HQC407.

    Raises:
        HqcError: HQC407, with the line of the plug-in; diagnostics of its own as they are.
    """
    try:
        yield
    except HqcError:
        raise
    except Exception as error:  # a plug-in may fail in any way; the user is told which
        if _ours(backend):
            raise
        raise reject(
            "HQC407",
            f"the backend {backend.name} raised {type(error).__name__}",
            where=place_of(error, type(backend)),
            notes=tuple(line[:300] for line in str(error).splitlines()[:3] if line.strip()),
            helps=("it is not part of hqc: its authors can help",),
        ) from error


def emulate(backend: Backend, directory: Path, cut: Partition) -> Emulator:
    """The emulator of a project.

    Raises:
        HqcError: what the backend raises; HQC407, it failed in another way.
    """
    with guarded(backend):
        found = backend.emulator(directory, cut)
    return found if _ours(backend) else _Guarded(backend, cut, found)


def prepared_by(
    backend: Backend, model: Model, cut: Partition, options: BackendOptions
) -> Prepared:
    """A model made ready by a backend: in one go where it can do that, else by its `check`.

    Raises:
        HqcError: the backend objects to the model; HQC407, it failed in another way.
    """
    prepare = getattr(backend, "prepare", None)
    found: Prepared
    with guarded(backend):
        if prepare is not None:
            found = prepare(model, cut, options)
        else:
            objections = tuple(backend.check(model, cut, options))
            found = _Checked(backend, model, cut, options, objections)
        if found.objections:
            raise HqcError(found.objections)
    return found


def measured_by(emulator: Emulator) -> dict[str, Any]:
    """What an emulator measured beside codes; nothing for most of them."""
    return dict(getattr(emulator, "measured", {}))


def proven_by(backend: Backend, model: Model, cut: Partition, directory: Path) -> dict[str, Any]:
    """What a backend proves of a project, from its files as they are now; nothing for most.

    Raises:
        HqcError: the project is not what the backend proves of the model; and as `emulate`.
    """
    prove = getattr(backend, "prove", None)
    if prove is None:
        return {}
    with guarded(backend):
        return dict(prove(model, cut, directory))


@dataclass(frozen=True)
class _Checked:
    """A model that a backend has looked at, and begins with anew when it writes."""

    backend: Backend
    model: Model
    cut: Partition
    options: BackendOptions
    objections: tuple[Diagnostic, ...]

    def emit(self, directory: Path, vectors: tuple[Batch, Batch] | None = None) -> Emission:
        """As `Backend.emit`."""
        return self.backend.emit(self.model, self.cut, self.options, directory, vectors)


@dataclass(frozen=True)
class _Guarded:
    """An emulator of another package, whose results are looked at."""

    backend: Backend
    cut: Partition
    emulator: Emulator

    def run(self, codes: Batch) -> dict[str, Codes]:
        """As `Emulator.run`; HQC407 for what is no batch of codes."""
        with guarded(self.backend):
            found = self.emulator.run(codes)
            samples = len(next(iter(codes.values()))) if codes else 0
            for port in self.cut.outputs:
                _check(port.name, found[port.name], (samples, *port.shape))
        return {port.name: found[port.name] for port in self.cut.outputs}

    @property
    def measured(self) -> dict[str, Any]:
        """What the emulator says that it measured."""
        with guarded(self.backend):
            return measured_by(self.emulator)


def _check(name: str, codes: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(codes, np.ndarray) or codes.dtype != np.int64 or codes.shape != shape:
        got = f"{codes.dtype} {codes.shape}" if isinstance(codes, np.ndarray) else type(codes)
        raise TypeError(f"port {name}: int64 {shape} is wanted, the emulator gave {got}")


def _ours(backend: Backend) -> bool:
    return type(backend).__module__.startswith("hqc.")
