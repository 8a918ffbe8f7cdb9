"""A compiled directory: run it, check it, read what it says about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import Partition, partition
from hqc.artifact import assemble, atomic_directory, manifest
from hqc.artifact.manifest import Manifest
from hqc.artifact.report_file import read_report
from hqc.diagnostics import Exit, HqcError, reject
from hqc.diagnostics.events import Watch, ignore
from hqc.equivalence import bit_exactness
from hqc.ir import Array, Boundary, array_files, boundaries, load
from hqc.pipeline.backend import Backend, Emulator, Estimate
from hqc.pipeline.options import closest, usage
from hqc.pipeline.plugin_guard import emulate, guarded, proven_by
from hqc.pipeline.registry import Registry, estimator

#: What runs any directory; the name of a directory's own backend is its emulation, too.
ENGINES = ("emulation", "exact")

#: Samples of one's own, in the model's units: the only input, all by name, or a file of either.
Samples = Array | Mapping[str, Array] | str | Path


@dataclass(frozen=True)
class CheckResult:
    """What a check compared.

    Attributes:
        vectors: the stored vectors through the emulation, against the exact executor.
        fresh: newly generated or given samples, likewise; None when none were asked for.
        stored: whether the stored outputs are what the exact executor gives.
    """

    vectors: bit_exactness.CodeComparison
    fresh: bit_exactness.CodeComparison | None
    stored: bool

    @property
    def exact(self) -> bool:
        """Whether everything was equal."""
        return self.first is None

    @property
    def samples(self) -> int:
        """How many samples were compared."""
        return self.vectors.samples + (self.fresh.samples if self.fresh else 0)

    @property
    def first(self) -> str | None:
        """The first difference in words, or None."""
        if self.vectors.first is not None:
            return self.vectors.first
        if self.fresh is not None and self.fresh.first is not None:
            return self.fresh.first
        return None if self.stored else "vectors/outputs.npz is not what the exact executor gives"

    def error(self) -> HqcError | None:
        """HQC403 (exit status 3) for the first difference, or None."""
        if self.first is None:
            return None
        parts = [c for c in (self.vectors, self.fresh) if c is not None]
        wrong, total = sum(c.mismatches for c in parts), sum(c.total for c in parts)
        return not_exact(self.first, wrong, total)


def not_exact(first: str, mismatches: int, total: int) -> HqcError:
    """HQC403 for a first difference."""
    return reject(
        "HQC403",
        f"not bit-exact: {first}",
        notes=(f"{mismatches} of {total} output codes differ from the exact executor",),
        helps=("if files in project/ were edited, compile again; else please report this",),
    )


@dataclass(frozen=True)
class Artifact:
    """A directory that `compile` made. Nothing but the directory is needed to use it.

    Attributes:
        path: the directory.
        manifest: its validated `hqc.json`.
        registry: where its backend comes from.
    """

    path: Path
    manifest: Manifest
    registry: Registry

    @classmethod
    def open(cls, path: str | Path, registry: Registry | None = None) -> Artifact:
        """Open a compiled directory.

        Raises:
            HqcError: HQC006, it is not one, or is damaged; HQC008, it is of a version that this
                hqc does not read.
        """
        directory = Path(path)
        atomic_directory.recover(directory, manifest.objection)
        return cls(directory, manifest.read(directory), registry or Registry.default())

    @cached_property
    def model(self) -> Model:
        """The integer graph, host parts included."""
        path = self.path / "model.onnx"
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if digest != self.manifest.graph_sha256:
            raise reject(
                "HQC006",
                f"{path} is missing or was changed after the compile",
                helps=("compile the model again: hqc compile MODEL -o NEW_DIRECTORY",),
            )
        return load(path)

    @cached_property
    def partition(self) -> Partition:
        """Where the host ends and the hardware begins."""
        return partition(self.model)

    @property
    def inputs(self) -> tuple[Boundary, ...]:
        """Names and per-sample shapes of the model's inputs."""
        return boundaries([v for v in self.model.graph.inputs if not v.is_initializer()])

    @property
    def backend(self) -> Backend:
        """The backend that wrote `project/`.

        Raises:
            HqcError: HQC301, it is not installed here.
        """
        name = self.manifest.backend
        return backend_named(name, self.registry)

    @cached_property
    def exact(self) -> bit_exactness.ExactCore:
        """The exact executor of the integer graph."""
        return bit_exactness.ExactCore(self.partition)

    @cached_property
    def emulator(self) -> Emulator:
        """The emulation of `project/` as it is now; made on first use."""
        return emulate(self.backend, self.path / "project", self.partition)

    @overload
    def run(self, x: Array, engine: str = ...) -> Array: ...

    @overload
    def run(self, x: Mapping[str, Array], engine: str = ...) -> dict[str, Array]: ...

    def run(
        self, x: Array | Mapping[str, Array], engine: str = "emulation"
    ) -> Array | dict[str, Array]:
        """The model's outputs (float32, in its own units) for inputs in its own units.

        Args:
            x: inputs by name, each (N, *shape); or one array, for a model with one input, which
                gives back one array if the model has one output.
            engine: "emulation", the project as it is, or the name of the backend that wrote it,
                which is the same; "exact", the integer executor.

        Raises:
            HqcError: HQC005, the inputs do not fit; HQC001, no such engine, or another backend's;
                HQC404/HQC405, a tool of the emulation is missing, or fails.
        """
        self._require_engine(engine)
        if isinstance(x, Mapping):
            return self._run(x, engine)
        outputs = self._run(array_files.by_name(np.asarray(x), self.inputs), engine)
        if len(outputs) != 1:
            raise array_files.several_outputs(outputs)
        return next(iter(outputs.values()))

    def _require_engine(self, engine: str) -> None:
        own = self.manifest.backend
        if engine in (*ENGINES, own):
            return
        if engine in self.registry.backends:
            raise usage(
                f"engine {engine} runs directories for {engine}; {self.path} is for {own}",
                f"compile the model with -b {engine}, or use the engine emulation",
            )
        raise usage(f"engine {engine!r} is not known", *closest(engine, (*ENGINES, own)))

    def _run(self, x: Mapping[str, Array], engine: str) -> dict[str, Array]:
        inputs = array_files.check_inputs(x, self.inputs)
        if engine == "exact":
            return self.exact.run(inputs)
        return self.partition.decode(self.emulator.run(self.partition.encode(inputs)))

    def check(self, samples: int | Samples = 0, seed: int = 1) -> CheckResult:
        """Rebuild the emulation of `project/` as it is now, and compare it with the exact executor.

        Args:
            samples: how many fresh samples beside the stored vectors, or samples of your own:
                arrays, or a .npy or .npz file.
            seed: of the fresh samples.

        Raises:
            HqcError: HQC005/HQC006 for unusable samples or files, HQC404/HQC405 for g++.
        """
        fresh = self.fresh_inputs(samples, seed)
        inputs, stored = self.stored_inputs(), self._vectors("outputs")
        vectors = bit_exactness.compare_runs(self.partition, inputs, self.emulator.run, self.exact)
        again = self.exact.run(inputs)
        same = set(again) == set(stored) and all(
            np.array_equal(again[name], stored[name]) for name in again
        )
        if not fresh:
            return CheckResult(vectors, None, same)
        compared = bit_exactness.compare_runs(self.partition, fresh, self.emulator.run, self.exact)
        return CheckResult(vectors, compared, same)

    def prove(self) -> dict[str, Any]:
        """What the backend proves of `project/` as it is now, for all inputs.

        Returns:
            Plain data, with one line for people under `claim`; empty for a backend that proves
            nothing.

        Raises:
            HqcError: HQC424, the project computes something else than the model; HQC425, it is
                not in the form that the backend writes; HQC301, the backend is not installed here.
        """
        return proven_by(self.backend, self.model, self.partition, self.path / "project")

    def build(self, timeout: float = 4 * 3600.0) -> dict[str, Any]:
        """Run the backend's own tool on `project/`, and add what it reports to `report.json`.

        Args:
            timeout: seconds that the tool may take.

        Raises:
            HqcError: HQC404, the tool is missing; HQC405, it failed or timed out; HQC001, the
                backend has no such tool; HQC006, `report.json` is missing or damaged.
        """
        read_report(self.path)  # a damaged one is found before the tool's hours, not behind them
        with guarded(self.backend):
            found = self.backend.build(self.path / "project", timeout)
        assemble.add_to_report(self.path, "build", found)
        return found

    def estimate(
        self,
        target: str = "fpga-xcup",
        clock_ns: float | None = None,
        *,
        flat: bool = False,
        timeout: float = 1800.0,
        watch: Watch = ignore,
    ) -> Estimate:
        """Area and delay by open tools, added to `report.json`; see `hqc.estimate`."""
        return estimator()(self, target, clock_ns, flat=flat, timeout=timeout, watch=watch)

    def stored_inputs(self) -> dict[str, array_files.Floats]:
        """The inputs of the stored vectors.

        Raises:
            HqcError: HQC005, they are missing or damaged.
        """
        return array_files.check_inputs(self._vectors("inputs"), self.inputs)

    def fresh_inputs(self, samples: int | Samples, seed: int) -> dict[str, array_files.Floats]:
        """As many generated samples, or the given ones, checked; none for 0.

        Raises:
            HqcError: HQC001, a negative number; HQC005, the samples do not fit, or their file is
                missing or damaged.
        """
        if isinstance(samples, int):
            if samples < 0:
                raise usage(f"{samples} samples: a number from 0")
            return generate(self.model, samples, seed) if samples else {}
        if isinstance(samples, str | Path):
            samples = array_files.read_arrays(Path(samples), self.inputs)
        given = (
            samples if isinstance(samples, Mapping) else array_files.by_name(samples, self.inputs)
        )
        return array_files.check_inputs(given, self.inputs)

    def _vectors(self, which: str) -> dict[str, Array]:
        return array_files.read_arrays(self.path / "vectors" / f"{which}.npz", self.inputs)


def generate(model: Model, samples: int, seed: int) -> dict[str, array_files.Floats]:
    """Random values, corners and ties for the model's inputs."""
    from hqc.equivalence.samples import generate as generated

    return generated(model, samples, seed)


def backend_named(name: str, registry: Registry) -> Backend:
    """The backend of that name.

    Raises:
        HqcError: HQC301, there is none; HQC305, the plug-in of that name is broken.
    """
    if name in registry.broken and name not in registry.backends:
        raise HqcError(replace(registry.broken[name], severity="error"), Exit.USAGE)
    if name not in registry.backends:
        registry.check_not_broken(name)
        raise reject(
            "HQC301",
            f"unknown backend {name!r}",
            helps=closest(name, registry.backends),
        )
    return registry.backends[name]
