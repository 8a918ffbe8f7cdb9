"""The proof of a written project: from its text, against the network it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hqc.analysis.partition import Partition
from hqc.backends.layers import Network
from hqc.backends.rtl.design import Design
from hqc.backends.rtl.proof.certificate import Certificate
from hqc.backends.rtl.proof.prove import prove
from hqc.backends.rtl.reading.readback import Project, read_project
from hqc.diagnostics import Diagnostic, Exit, HqcError
from hqc.numerics.types import FixedType, Range

#: What simulation shows and no proof here does.
_TESTED = (
    "that simulators and synthesis tools give these expressions the meaning the Verilog standard "
    "gives them",
)
_HANDSHAKE = ("that stalls lose and repeat no sample",)


def certify(network: Network, partition: Partition, directory: Path) -> Certificate:
    """Read a project back and prove that it computes its network for all inputs.

    Args:
        network: read from the model.
        partition: whose ports the project has.
        directory: of the project, with `rtl.json` and `rtl/`.

    Raises:
        HqcError: HQC425, the text is not as hqc writes it; HQC424, it computes something else.
    """
    project = read_project(directory)
    design = _renamed(project.design, network)
    done = prove(network, design, project.places)
    found = _outputs(project, partition, design, {layer.name: layer.range for layer in done.layers})
    if found:
        raise HqcError(found, Exit.NOT_EXACT)
    tested = _TESTED + (_HANDSHAKE if project.stalls else ())
    return replace(done, source="text", tested=tested)


def _renamed(design: Design, network: Network) -> Design:
    """The design with its input ports called as the network calls them, by their order."""
    given = [port.name for port in design.inputs]
    if len(given) != len(network.inputs):
        message = f"{len(given)} input ports, where the network has {len(network.inputs)}"
        raise HqcError(Diagnostic("HQC424", message), Exit.NOT_EXACT)
    names = dict(zip(given, network.inputs, strict=True))
    blocks = [
        replace(block, sources=tuple(names.get(name, name) for name in block.sources))
        for block in design.blocks
    ]
    inputs = [replace(port, name=names[port.name]) for port in design.inputs]
    return Design(tuple(inputs), tuple(blocks), design.outputs)


def _outputs(
    project: Project, partition: Partition, design: Design, ranges: Mapping[str, Range]
) -> list[Diagnostic]:
    """Output ports hold what the blocks behind them give, on the same step."""
    found = []
    wanted = [(port.name, port.type.exact()) for port in partition.outputs]
    given = [(name, type_.exact()) for name, type_ in project.outputs]
    if given != wanted:
        texts = [", ".join(f"{n} {t}" for n, t in held) for held in (given, wanted)]
        message = f"the output ports are {texts[0]}, the model's {texts[1]}"
        found.append(Diagnostic("HQC424", message))
    for (port, type_), name in zip(given, design.outputs, strict=False):
        if not _holds(type_, design, name, ranges[name]):
            message = f"output port {port} of {type_} does not hold the results of {name}"
            found.append(Diagnostic("HQC424", message))
    return found


def _holds(type_: FixedType, design: Design, name: str, bounds: Range) -> bool:
    block = design.of(name)
    limits = type_.limits
    inside = limits.lo <= bounds.lo and bounds.hi <= limits.hi
    return block.type.fraction == type_.fraction and inside
