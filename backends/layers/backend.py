"""What backends that read the layer list share: what they can emit, and what they refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.layers.layers import CONSTANT_BITS, OVERFLOWS, ROUNDINGS, Network
from hqc.backends.layers.network import OPERATORS, read_network
from hqc.diagnostics import Diagnostic, HqcError
from hqc.numerics.types import INT64_BITS
from hqc.pipeline.backend import Backend, BackendOptions, Capabilities, impossible_pace, wide_ports

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class LayerBackend(Backend):
    """Base of a backend that writes every layer, in every mode.

    Attributes:
        language: of the sources, whose identifiers project names must be; None allows all.
        options: fields of `BackendOptions` that apply.
        io, strategies, technologies: values of the options of that name; none: it does not apply.
    """

    language: ClassVar[str | None] = None
    options: ClassVar[tuple[str, ...]] = ()
    io: ClassVar[tuple[str, ...]] = ()
    strategies: ClassVar[tuple[str, ...]] = ()
    technologies: ClassVar[tuple[str, ...]] = ()

    def capabilities(self) -> Capabilities:
        """Every layer and mode, and the options that apply."""
        return Capabilities(
            operators=OPERATORS,
            roundings=ROUNDINGS,
            overflows=OVERFLOWS,
            io=self.io,
            strategies=self.strategies,
            technologies=self.technologies,
            options=self.options,
            port_bits=INT64_BITS,
            constant_bits=CONSTANT_BITS,
        )

    def complete(self, options: BackendOptions) -> BackendOptions:
        """Options as given, but a project name that the sources use gets the suffix `_top`."""
        taken = self.is_taken(options.project)
        return replace(options, project=f"{options.project}_top") if taken else options

    def is_taken(self, project: str) -> bool:
        """Whether the sources use a name themselves."""
        return False

    def check(
        self, model: Model, partition: Partition, options: BackendOptions
    ) -> list[Diagnostic]:
        """Everything that keeps it from emitting the model; empty if it can."""
        found = self.objections(partition, options)
        try:
            network = read_network(model, partition)
        except HqcError as error:
            return [*found, *error.diagnostics]
        return [*found, *self.unwritable(network, options)]

    def objections(self, partition: Partition, options: BackendOptions) -> list[Diagnostic]:
        """HQC401 for options that it has not, and for ports that are too wide."""
        found = []
        choices = (
            ("io", options.io, self.io),
            ("strategy", options.strategy, self.strategies),
            ("technology", options.technology, self.technologies),
        )
        for what, given, known in choices:
            if known and given not in known:
                message = f"{self.name} has no {what} {given!r}"
                helps = (f"known: {', '.join(known)}",)
                found.append(Diagnostic("HQC401", message, helps=helps))
        if self.language and not _IDENTIFIER.fullmatch(options.project):
            message = f"project name {options.project!r} is not a {self.language} identifier"
            found.append(Diagnostic("HQC401", message, helps=("use letters and digits",)))
        return [*found, *impossible_pace(options), *wide_ports(partition, INT64_BITS)]

    def unwritable(self, network: Network, options: BackendOptions) -> list[Diagnostic]:
        """What it cannot write of the layers: nothing, unless a backend says so."""
        return []
