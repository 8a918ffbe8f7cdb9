"""The RTL backend: pipelined Verilog of our own, simulated cycle by cycle."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.layers.backend import LayerBackend
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.circuit import Input
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.emission.names import KEYWORDS
from hqc.backends.rtl.emission.project import RtlProject, write
from hqc.backends.rtl.emission.reuse import copies_of, steps_of
from hqc.backends.rtl.emission.shared import share
from hqc.backends.rtl.lowering.lower import lower
from hqc.backends.rtl.options import RtlOptions
from hqc.backends.rtl.proof.certify import certify
from hqc.backends.rtl.simulation.simulate import RtlEmulator, emulator
from hqc.backends.rtl.simulation.wrapper import read_interface
from hqc.diagnostics import Diagnostic, Exit, HqcError
from hqc.pipeline.backend import BackendOptions, Batch, Emission, EmittedLayer

#: The proof of a design whose logic serves several positions, one after the other.
_UNPROVEN: dict[str, Any] = {
    "claim": "logic that is shared between cycles is simulated, not proven",
    "complete": False,
    "proven": [],
    "tested": ["what the Verilog computes, and that it goes through all positions"],
}
#: Operations in logic beyond which simulation and synthesis take minutes, and hours.
_SLOW, _TOO_MANY = 60_000, 1_000_000


@dataclass(frozen=True)
class Rtl(LayerBackend):
    """Verilog of adders, shifts and tables, one pipeline from the inputs to the outputs."""

    name: ClassVar[str] = "rtl"
    summary: ClassVar[str] = "FPGAs and ASICs, pipelined Verilog without HLS"
    own_options: ClassVar[type[Any] | None] = RtlOptions
    language: ClassVar[str | None] = "Verilog"
    options: ClassVar[tuple[str, ...]] = ("clock_ns", "reuse_factor")
    io: ClassVar[tuple[str, ...]] = ("io_parallel",)

    def is_taken(self, project: str) -> bool:
        """Whether Verilog keeps a name for itself."""
        return project in KEYWORDS

    def check(
        self, model: Model, partition: Partition, options: BackendOptions
    ) -> list[Diagnostic]:
        """What has no logic, ports that are too wide, and designs that are too large.

        Raises:
            HqcError: HQC404, da4ml is missing.
        """
        return list(self.prepare(model, partition, options).objections)

    def emit(
        self,
        model: Model,
        partition: Partition,
        options: BackendOptions,
        directory: Path,
        vectors: tuple[Batch, Batch] | None = None,
    ) -> Emission:
        """Write a complete project into `directory`.

        Args:
            model, partition: an integer model and its partition.
            options: of the hardware.
            directory: made if missing; files of the same names are overwritten.
            vectors: input and expected output codes of the test benches, by port name.

        Raises:
            HqcError: HQC401, HQC421, what `check` finds; HQC404, da4ml is missing.
        """
        return self.prepare(model, partition, options).emit(directory, vectors)

    def prepare(self, model: Model, partition: Partition, options: BackendOptions) -> Lowered:
        """The model as logic, which is most of the work of both `check` and `emit`.

        Raises:
            HqcError: HQC404, da4ml is missing.
        """
        chosen = self.complete(options)
        found = self.objections(partition, chosen)
        if chosen.reuse_factor < 1:  # no design has so many multipliers
            return Lowered(partition, chosen, tuple(found), None)
        try:
            network = read_network(model, partition)
            design = share(lower(network), network, chosen.reuse_factor)
        except HqcError as error:
            if error.exit is Exit.TOOL:  # nothing is wrong with the model
                raise
            return Lowered(partition, chosen, (*found, *error.diagnostics), None)
        return Lowered(partition, chosen, (*found, *_too_many(_Sizes.of(design, chosen))), design)

    def emulator(self, directory: Path, partition: Partition) -> RtlEmulator:
        """The Verilog of an emitted project, simulated."""
        return emulator(directory, partition)

    def prove(self, model: Model, partition: Partition, directory: Path) -> dict[str, Any]:
        """What is proven of the Verilog in `rtl/`, for all inputs, from its text as it is now.

        Designs that take several cycles per sample are not read back: nothing of them is proven.

        Raises:
            HqcError: HQC424, it computes something else; HQC425, it is not in the form hqc writes.
        """
        if read_interface(directory, partition).ii > 1:
            return _UNPROVEN
        return certify(read_network(model, partition), partition, directory).describe()


@dataclass(frozen=True, eq=False)
class Lowered:
    """A model as logic.

    Attributes:
        partition: whose ports the design has.
        options: of the hardware, complete.
        objections: what keeps it from being written.
        design: the logic, or None where there are objections of which it cannot be made.
    """

    partition: Partition
    options: BackendOptions
    objections: tuple[Diagnostic, ...]
    design: Design | None

    def emit(self, directory: Path, vectors: tuple[Batch, Batch] | None = None) -> Emission:
        """As `Rtl.emit`."""
        if self.design is None or self.objections:
            raise HqcError(self.objections)
        sizes = _Sizes.of(self.design, self.options)
        project = write(self.design, self.partition, self.options, directory, vectors)
        return Emission(
            Rtl.name,
            directory,
            project.files,
            _layers(self.design),
            _warnings(sizes, self.options, project),
            _report(sizes, project),
        )


# --- objections -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sizes:
    """Operations that stand in hardware, by block: of one copy, times the copies."""

    blocks: dict[Block, int]

    @classmethod
    def of(cls, design: Design, options: BackendOptions) -> _Sizes:
        steps = steps_of(design, options.reuse_factor)
        each = {b: len(b.circuit.ops) - len(b.circuit.inputs) for b in design.blocks}
        return cls({block: copies_of(block, steps) * count for block, count in each.items()})

    @property
    def total(self) -> int:
        return sum(self.blocks.values())

    @property
    def largest(self) -> Block:
        return max(self.blocks, key=lambda block: self.blocks[block])


def _too_many(sizes: _Sizes) -> list[Diagnostic]:
    if sizes.total <= _TOO_MANY:
        return []
    block = sizes.largest
    return [
        Diagnostic(
            "HQC401",
            f"{sizes.total} operations in logic of their own, at most {_TOO_MANY}; "
            f"{block.name} has {sizes.blocks[block]} of them",
            block.where,
            notes=("every operation of every position of a convolution stands in hardware",),
            helps=("share them between positions: --reuse-factor R", "or make the layers smaller"),
        )
    ]


def _warnings(
    sizes: _Sizes, options: BackendOptions, project: RtlProject
) -> tuple[Diagnostic, ...]:
    found = []
    if sizes.total > _SLOW:
        block = sizes.largest
        message = f"{sizes.total} operations: simulation and synthesis are slow to build"
        notes = (f"{block.name} has {sizes.blocks[block]} of them",)
        helps = ("share them between positions: --reuse-factor R",)
        found.append(Diagnostic("HQC406", message, block.where, notes, helps, severity="warning"))
    if options.reuse_factor > 1 and project.record["ii"] == 1:
        message = f"nothing is smaller with reuse factor {options.reuse_factor}: all is unrolled"
        found.append(Diagnostic("HQC406", message, severity="warning"))
    return tuple(found)


# --- what was written -----------------------------------------------------------------------


def _layers(design: Design) -> tuple[EmittedLayer, ...]:
    ports = (
        EmittedLayer(port.name, "input", port.where.node or port.name, (("result", port.type),))
        for port in design.inputs
    )
    blocks = (
        EmittedLayer(block.name, block.kind, block.where.node or block.name, _types(block))
        for block in design.blocks
    )
    return (*ports, *blocks)


def _types(block: Block) -> tuple[tuple[str, Any], ...]:
    named = dict(block.types)
    return block.types if "result" in named else (*block.types, ("result", block.type))


def _report(sizes: _Sizes, project: RtlProject) -> dict[str, Any]:
    """Figures of the project, for `report.json`; times by the backend's own delay model."""
    record = project.record
    blocks = {found["name"]: found for found in record["blocks"]}
    operations: Counter[str] = Counter()
    for block in sizes.blocks:
        for op in block.circuit.ops:
            operations[type(op).__name__] += blocks[block.name]["copies"]
    operations.pop(Input.__name__, None)
    return {
        "latency": record["latency"],
        "latency_ns": round(record["latency"] * record["clock_ns"], 6),
        "ii": record["ii"],
        "clock_ns": record["clock_ns"],
        "interface": record["interface"],
        "estimated_path_ns": round(record["longest_ns"], 3),
        "registers": record["registers_between"] + sum(b["registers"] for b in blocks.values()),
        "operations": dict(sorted(operations.items())),
        "blocks": [
            {
                "name": found["name"],
                "stages": f"{found['first_stage']} to {found['last_stage']}",
                "instances": found["instances"],
                "copies": found["copies"],
                "cycles": found["steps"],
                "registers": found["registers"],
                "operations": count,
            }
            for found, count in ((blocks[b.name], n) for b, n in sizes.blocks.items())
        ],
    }
