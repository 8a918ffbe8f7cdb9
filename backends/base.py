"""What a backend is: options in, a complete vendor project out, and an emulator of that project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from onnx_ir import Model

from hqc.diagnostics import Diagnostic
from hqc.partition import Partition
from hqc.types import Codes, FixedType

#: Codes of a batch, by port name: int64 arrays of shape (N, *port.shape), in the model's layout.
Batch = Mapping[str, Codes]


@dataclass(frozen=True)
class BackendOptions:
    """What the user chooses about the hardware; None means the backend's own default.

    Attributes:
        project: name of the top function and of its files; a C identifier.
        part: FPGA part number.
        technology: "fpga" or "asic" (the latter only where the backend knows it).
        libraries: ASIC library names, for `technology="asic"`.
        clock_ns: clock period in nanoseconds.
        reuse_factor: how many products share one multiplier.
        strategy: "latency" (everything in fabric) or "resource" (shared multipliers).
        io: "io_parallel", all elements of a port at once.
    """

    project: str = "network"
    part: str | None = None
    technology: str = "fpga"
    libraries: str | None = None
    clock_ns: float = 5.0
    reuse_factor: int = 1
    strategy: str = "latency"
    io: str = "io_parallel"


@dataclass(frozen=True)
class Capabilities:
    """What a backend can emit, for people and for passes that prepare a graph for it.

    Attributes:
        operators: operator names of legal core nodes.
        roundings, overflows: hardware suffixes of `FixedType` modes it can spell.
        io, strategies, technologies: accepted values of the options of that name.
        port_bits: widest port; codes travel as int64.
        constant_bits: widest constant that is printed exactly.
    """

    operators: tuple[str, ...]
    roundings: tuple[str, ...]
    overflows: tuple[str, ...]
    io: tuple[str, ...]
    strategies: tuple[str, ...]
    technologies: tuple[str, ...]
    port_bits: int
    constant_bits: int


@dataclass(frozen=True)
class EmittedLayer:
    """One hardware layer, as read back from the emitted sources.

    Attributes:
        name: layer name in the project's comments.
        kind: "input", "dense", "conv", "maxpool", "rearrange", "requantise", "relu", "cast",
            "threshold", "add" or "multiply".
        where: the node of the model it comes from.
        types: (role, type) pairs; roles are weight, bias, accum, scale, threshold, result.
        reuse: the reuse factor in the sources, 0 if none; hls4ml rounds it to one that fits.
    """

    name: str
    kind: str
    where: str
    types: tuple[tuple[str, FixedType], ...]
    reuse: int = 0

    def describe(self) -> dict[str, Any]:
        """A JSON-able record for manifests and reports."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind, "where": self.where}
        found["types"] = {role: str(type_) for role, type_ in self.types}
        if self.reuse:
            found["reuse_factor"] = self.reuse
        return found


@dataclass(frozen=True)
class Emission:
    """What was written: the backend, the project's directory, its files and its layers.

    `warnings` say what the vendor's tool may not manage with these options.
    """

    backend: str
    directory: Path
    files: tuple[str, ...]
    layers: tuple[EmittedLayer, ...]
    warnings: tuple[Diagnostic, ...] = ()


class Emulator(Protocol):
    """The project's own C++, compiled for this machine."""

    def run(self, codes: Batch) -> dict[str, Codes]:
        """Codes of each output port for codes of each input port, one call for the whole batch."""


class Backend(Protocol):
    """A target: checks, writes, emulates and builds projects."""

    @property
    def name(self) -> str:
        """How users call it."""

    @property
    def summary(self) -> str:
        """One line for `--help`."""

    def capabilities(self) -> Capabilities:
        """What it can emit."""

    def complete(self, options: BackendOptions) -> BackendOptions:
        """Options with this backend's defaults in place of None."""

    def check(
        self, model: Model, partition: Partition, options: BackendOptions
    ) -> list[Diagnostic]:
        """Everything that keeps it from emitting this model; empty if it can."""

    def emit(
        self,
        model: Model,
        partition: Partition,
        options: BackendOptions,
        directory: Path,
        vectors: tuple[Batch, Batch] | None = None,
    ) -> Emission:
        """Write a complete project; `vectors` are input and expected output codes."""

    def emulator(self, directory: Path, partition: Partition) -> Emulator:
        """Compile (or find in the cache) the emulation of an emitted project."""

    def build(self, directory: Path, timeout: float) -> dict[str, Any]:
        """Run the vendor tool on an emitted project and read its report."""
