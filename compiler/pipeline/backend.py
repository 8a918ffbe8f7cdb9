"""What a backend is: options in, a complete project out, and an emulator of that project.

`docs/backends.md` shows how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.diagnostics import Diagnostic, reject
from hqc.numerics.types import Codes, FixedType

#: Codes of a batch, by port name: int64 arrays of shape (N, *port.shape), in the model's layout.
Batch = Mapping[str, Codes]
_Own = TypeVar("_Own")


@dataclass(frozen=True)
class BackendOptions:
    """What the user chooses about the hardware; None means the backend's own default.

    Attributes:
        project: name of the top function and of its files; a C identifier.
        own: options of this backend alone: an instance of its `own_options`, or None.
        part: FPGA part number.
        technology: "fpga" or "asic" (the latter only where the backend knows it).
        libraries: ASIC library names, for `technology="asic"`.
        clock_ns: clock period in nanoseconds.
        reuse_factor: how many products share one multiplier.
        strategy: "latency" (everything in fabric) or "resource" (shared multipliers).
        io: "io_parallel", all elements of a port at once, or "io_stream", pixel by pixel.
    """

    project: str = "network"
    part: str | None = None
    technology: str = "fpga"
    libraries: str | None = None
    clock_ns: float = 5.0
    reuse_factor: int = 1
    strategy: str = "latency"
    io: str = "io_parallel"
    own: Any = None

    def own_as(self, kind: type[_Own]) -> _Own:
        """The options of a backend alone, by their class; its defaults where none are given."""
        return self.own if isinstance(self.own, kind) else kind()


@dataclass(frozen=True)
class Capabilities:
    """What a backend can emit, for people and for passes that prepare a graph for it.

    Attributes:
        operators: operator names of legal core nodes.
        roundings, overflows: hardware suffixes of `FixedType` modes it can spell.
        port_bits: widest port; codes travel as int64.
        constant_bits: widest constant that is printed exactly.
        io, strategies, technologies: accepted values of the options of that name.
        options: which fields of `BackendOptions` apply beside `project`; giving another one is
            wrong usage, and the manifest does not record it.
    """

    operators: tuple[str, ...]
    roundings: tuple[str, ...]
    overflows: tuple[str, ...]
    port_bits: int
    constant_bits: int
    io: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    technologies: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmittedLayer:
    """One layer of a project; hls4ml's are read back from the emitted sources.

    Attributes:
        name: layer name in the project's comments.
        kind: "input", "dense", "conv", "maxpool", "rearrange", "requantise", "relu", "cast",
            "threshold", "table", "add", "multiply" or "fork".
        where: the node of the model it comes from.
        types: (role, type) pairs; roles are weight, bias, accum, scale, threshold, table, result.
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

    `warnings` say what the vendor's tool may not manage with these options; `report` is what the
    backend knows about the project by itself (sizes, estimates), plain data for `report.json`.
    """

    backend: str
    directory: Path
    files: tuple[str, ...]
    layers: tuple[EmittedLayer, ...]
    warnings: tuple[Diagnostic, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


class Emulator(Protocol):
    """The project as it was written, made to run on this machine.

    One that measures something beside codes, such as cycles, has an attribute `measured`: plain
    data for the report once it has run, in which `text` is one line for people.
    """

    def run(self, codes: Batch) -> dict[str, Codes]:
        """Codes of each output port for codes of each input port, one call for the whole batch."""


class Estimate(Protocol):
    """What open tools make of a project: see `hqc.backends.estimate`."""

    @property
    def key(self) -> str:
        """What it is called in `report.json`."""

    @property
    def total(self) -> Any:
        """The figures of the whole design."""

    @property
    def notes(self) -> Sequence[str]:
        """What the figures are and are not, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `report.json`."""


class Prepared(Protocol):
    """A model made ready for a backend to write, or what keeps it from being written."""

    @property
    def objections(self) -> Sequence[Diagnostic]:
        """What `Backend.check` finds."""

    def emit(self, directory: Path, vectors: tuple[Batch, Batch] | None = None) -> Emission:
        """As `Backend.emit`; where there are objections, it raises them."""


class Backend(Protocol):
    """A target: checks, writes, emulates and builds projects.

    Other packages register a class that makes one without arguments, under the entry point group
    `hqc.backends`. A class that names this one as its base has what is given here as defaults.

    One that can prove something of a project as its files are now has a further method,
    `prove(model, partition, directory)`: plain data for the report, in which `claim` is one line
    for people; it raises where the project is not what was proven of the model.

    One whose `check` does most of the work of `emit` has a further method,
    `prepare(model, partition, options)`, that gives a `Prepared` for both. A compile then calls
    neither of the two, and does the work once.
    """

    @property
    def name(self) -> str:
        """How users call it; the name of its entry point."""

    @property
    def summary(self) -> str:
        """One line for `hqc backends`."""

    @property
    def own_options(self) -> type[Any] | None:
        """A frozen dataclass of options that only this backend has, or None.

        Every field has a default; its type is bool, int, float, str or a Literal of strings. The
        constructor raises ValueError for what makes no sense.
        """
        return None

    @property
    def legalise(self) -> str:
        """A pipeline string that runs behind the user's, from the integer state to itself."""
        return ""

    def capabilities(self) -> Capabilities:
        """What it can emit."""

    def complete(self, options: BackendOptions) -> BackendOptions:
        """Options with this backend's defaults in place of None."""
        return options

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
        """Make (or find in the cache) the emulation of a project, from its files as they are now.

        It must not take anything from the model but the ports: what it runs is what was written.
        """

    def build(self, directory: Path, timeout: float) -> dict[str, Any]:
        """Run the vendor's tool on an emitted project and read its report, as plain data.

        Raises:
            HqcError: HQC404, the tool is missing; HQC405, it failed or timed out.
        """
        raise reject("HQC001", f"{self.name} has no tool that builds its projects")


def wide_ports(partition: Partition, bits: int) -> list[Diagnostic]:
    """HQC401 for each port that is wider than so many bits."""
    return [
        Diagnostic("HQC401", f"port {port.name} has {port.type.width} bits, at most {bits}")
        for port in (*partition.inputs, *partition.outputs)
        if port.type.width > bits
    ]


def impossible_pace(options: BackendOptions) -> list[Diagnostic]:
    """HQC401 for a clock period or a reuse factor that nothing can keep."""
    if options.clock_ns > 0 and options.reuse_factor >= 1:
        return []
    return [Diagnostic("HQC401", "the clock period and the reuse factor must be positive")]
