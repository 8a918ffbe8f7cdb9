"""Is the emitted hardware the model? Codes against codes, and proofs against types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hqc.analysis.partition import Partition, Port
from hqc.diagnostics import HqcError
from hqc.execution.fast import Fast, NodeCertificate
from hqc.execution.reference import Reference
from hqc.ir import Array, range_of, type_of
from hqc.ir.operators import is_quantiser
from hqc.numerics.exact_tensor import ExactTensor
from hqc.numerics.monotone_chain import Affine
from hqc.numerics.types import Codes

#: Samples handed to an executor at once; bounds memory, not results.
CHUNK = 1 << 16

#: From codes of the input ports to codes of the output ports.
Run = Callable[[Mapping[str, Codes]], Mapping[str, Codes]]


class ExactCore:
    """The exact executor of a partition's core: the fast one, or the reference where it refuses."""

    def __init__(self, cut: Partition):
        self._cut = cut
        self.certificate: tuple[NodeCertificate, ...]
        try:
            self._fast: Fast | None = Fast(cut)
            self.certificate = self._fast.certificate
        except HqcError as error:
            if [d.code for d in error.diagnostics] != ["HQC204"]:
                raise
            self._fast = None
            reason = error.diagnostics[0].message
            self.certificate = (NodeCertificate("(all)", "int64 and rationals", reason),)

    def codes(self, inputs: Mapping[str, Array]) -> dict[str, Codes]:
        """Codes of the output ports (N, *shape) for model inputs (N, ...)."""
        if self._fast is not None:
            return self._fast.run_codes(self._cut.encode(inputs))
        trace = {str(v.name): t for v, t in Reference(self._cut.model).trace(inputs).items()}
        return {port.name: _port_codes(trace[port.name], port) for port in self._cut.outputs}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Model outputs for model inputs, the host's part included."""
        return self._cut.decode(self.codes(inputs))


def _port_codes(tensor: ExactTensor, port: Port) -> Codes:
    """The exact values of a tensor as codes of a port, in Python's integers and rationals."""
    column = (-1, *(1,) * (tensor.base.ndim - 2))
    values = tensor.base.astype(object)
    for step in tensor.chain.steps:
        if isinstance(step, Affine):
            a, b = (np.array(c, object).reshape(column) for c in (step.a, step.b))
            values = values * a + b
        else:
            values = np.maximum(values, 0)
    return np.asarray(values * Fraction(2) ** port.type.fraction, np.int64)


@dataclass(frozen=True)
class CodeComparison:
    """How the codes of all output ports compare.

    Attributes:
        samples: how many samples were compared.
        total: how many output codes that were.
        mismatches: how many of them differ.
        first: the first that differs, in words; None when all are equal.
    """

    samples: int
    total: int
    mismatches: int
    first: str | None

    @property
    def exact(self) -> bool:
        """Whether every code is equal."""
        return self.mismatches == 0


def compare_codes(
    ports: Sequence[Port], got: Mapping[str, Codes], want: Mapping[str, Codes], offset: int = 0
) -> CodeComparison:
    """Compare port codes (N, *shape) with `==`; `offset` is the index of the first sample."""
    samples = len(want[ports[0].name]) if ports else 0
    total, mismatches = 0, 0
    first: tuple[int, str] | None = None
    for port in ports:
        mine, theirs = got[port.name], want[port.name]
        if mine.shape != theirs.shape:
            raise ValueError(f"{port.name}: shape {mine.shape} against {theirs.shape}")
        differ = mine != theirs
        total += differ.size
        mismatches += int(np.count_nonzero(differ))
        where = np.argwhere(differ)
        if len(where) and (first is None or where[0][0] < first[0]):
            index = tuple(int(i) for i in where[0])
            first = index[0], _describe(port, index, int(mine[index]), int(theirs[index]), offset)
    return CodeComparison(samples, total, mismatches, first[1] if first else None)


def _describe(port: Port, index: tuple[int, ...], got: int, want: int, offset: int) -> str:
    step = 2.0**-port.type.fraction
    at = ", ".join(str(i) for i in (index[0] + offset, *index[1:]))
    return (
        f"output {port.name}[{at}] (sample {index[0] + offset}): "
        f"got code {got} ({got * step:g}), want code {want} ({want * step:g})"
    )


def compare_runs(
    cut: Partition, inputs: Mapping[str, Array], got: Run, want: ExactCore
) -> CodeComparison:
    """Run an implementation of the core on model inputs (N, ...) and compare all its codes."""
    found: list[CodeComparison] = []
    samples = len(next(iter(inputs.values())))
    for start in range(0, samples, CHUNK):
        part = {name: array[start : start + CHUNK] for name, array in inputs.items()}
        codes = got(cut.encode(part))
        found.append(compare_codes(cut.outputs, codes, want.codes(part), start))
    return CodeComparison(
        samples=sum(c.samples for c in found),
        total=sum(c.total for c in found),
        mismatches=sum(c.mismatches for c in found),
        first=next((c.first for c in found if c.first), None),
    )


def overflow_free(cut: Partition) -> bool:
    """Whether each value of the core provably fits its type, quantisers saturating on purpose."""
    for node in cut.core:
        for value in node.outputs:
            type_, range_ = type_of(value), range_of(value)
            if type_ is None or range_ is None:
                return False
            if not (type_.contains(range_) or is_quantiser(node)):
                return False
    return True
