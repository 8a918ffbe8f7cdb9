"""What the two hls4ml backends share: check, emit, read back, emulate."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.emulation import CompiledEmulator, compile_emulator
from hqc.backends.hls4ml.model_graph import Flavour
from hqc.backends.hls4ml.project import write_project
from hqc.backends.hls4ml.readback import compare
from hqc.backends.hls4ml.streams import streamed, unread_ports
from hqc.backends.hls4ml.vendor_limits import too_large
from hqc.backends.layers import Network
from hqc.backends.layers.backend import LayerBackend
from hqc.backends.layers.network import read_network
from hqc.diagnostics import Diagnostic, HqcError
from hqc.pipeline.backend import BackendOptions, Batch, Emission

#: Names that the generated sources use themselves, beside C++'s own.
_TAKEN = re.compile(
    r"[wbstf]\d+|config\d+|layer\d+\w*|in\d+_\w*|\w+_t|main|nnet|std|hls|defines|parameters|weights"
    r"|ap_\w*|ac_\w*|auto|bool|break|case|catch|char|class|const|continue|default|delete|do|double"
    r"|else|enum|explicit|export|extern|false|float|for|friend|goto|if|inline|int|long|mutable"
    r"|namespace|new|operator|private|protected|public|register|return|short|signed|sizeof|static"
    r"|struct|switch|template|this|throw|true|try|typedef|typename|union|unsigned|using|virtual"
    r"|void|volatile|while|and|or|not|xor|assert|memset|memcpy|exit|abort|read|write"
)


@dataclass(frozen=True)
class Hls4mlBackend(LayerBackend):
    """Base of the hls4ml backends; subclasses add the vendor's build."""

    flavour: ClassVar[Flavour]
    default_part: ClassVar[str]
    language: ClassVar[str | None] = "C++"
    options: ClassVar[tuple[str, ...]] = (
        *("part", "technology", "clock_ns", "reuse_factor", "strategy", "io"),
    )
    io: ClassVar[tuple[str, ...]] = ("io_parallel", "io_stream")
    strategies: ClassVar[tuple[str, ...]] = ("latency", "resource")
    technologies: ClassVar[tuple[str, ...]] = ("fpga",)

    def is_taken(self, project: str) -> bool:
        """Whether the generated sources, or C++, use a name themselves."""
        return _TAKEN.fullmatch(project) is not None

    def unwritable(self, network: Network, options: BackendOptions) -> list[Diagnostic]:
        """Ports that nothing reads, where they are streams."""
        return unread_ports(network) if options.io == "io_stream" else []

    def emit(
        self,
        model: Model,
        partition: Partition,
        options: BackendOptions,
        directory: Path,
        vectors: tuple[Batch, Batch] | None = None,
    ) -> Emission:
        """Write a complete project into `directory` and compare it with the model.

        Args:
            model, partition: an integer model and its partition.
            options: of the hardware.
            directory: made if missing; files of the same names are overwritten.
            vectors: input and expected output codes of the test bench, by port name.

        Raises:
            HqcError: HQC401, what `check` finds; HQC402, the project differs from the model.
        """
        found = self.check(model, partition, options)
        if found:
            raise HqcError(found)
        network = self.network(model, partition, options)
        chosen = self.complete(options)
        files = write_project(network, partition, self.flavour, chosen, directory, vectors)
        layers = compare(directory, network, self.flavour, chosen.strategy)
        warnings = too_large(network, self.flavour.side_by_side, chosen)
        return Emission(self.name, directory, files, layers, warnings)

    def network(self, model: Model, partition: Partition, options: BackendOptions) -> Network:
        """The hardware layers of a model."""
        network = read_network(model, partition)
        return streamed(network) if options.io == "io_stream" else network

    def complete(self, options: BackendOptions) -> BackendOptions:
        """Options with this backend's defaults in place of None (see the base)."""
        return replace(super().complete(options), part=options.part or self.default_part)

    def emulator(self, directory: Path, partition: Partition) -> CompiledEmulator:
        """The emulation of an emitted project, compiled or from the cache."""
        return compile_emulator(directory, partition)
