"""Translation validation: are two graphs, or a graph and a float32 oracle, the same function?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Value

from hqc.equivalence.float_error import Deviation, deviations
from hqc.equivalence.qonnx_oracle import run_qonnx
from hqc.execution.reference import Reference
from hqc.ir import Array
from hqc.numerics.exact_tensor import ExactTensor


@dataclass(frozen=True)
class Comparison:
    """All outputs of all samples, compared with `==`.

    Attributes:
        total: how many numbers were compared.
        mismatches: how many differ.
        first: the first that differs, in words.
    """

    total: int
    mismatches: int
    first: str | None = None

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.mismatches == 0


def compare(got: Mapping[str, Array], want: Mapping[str, Array]) -> Comparison:
    """Compare two sets of outputs by name; shapes must agree, every element is compared."""
    if extra := sorted(set(got) - set(want)):
        return Comparison(1, 1, f"output {extra[0]}: there was none of that name")
    total = mismatches = 0
    first = None
    for name, expected in want.items():
        found = got.get(name)
        if found is None or found.shape != expected.shape:
            shape = None if found is None else found.shape
            return Comparison(1, 1, f"output {name}: shape {shape}, want {expected.shape}")
        differ = found != expected
        total += differ.size
        mismatches += int(np.count_nonzero(differ))
        if first is None and differ.any():
            at = tuple(int(i) for i in np.argwhere(differ)[0])
            first = f"{name}{list(at)}: got {found[at].item()!r}, want {expected[at].item()!r}"
    return Comparison(total, mismatches, first)


def first_difference(
    before: Mapping[str, ExactTensor], after: Mapping[Value, ExactTensor]
) -> str | None:
    """The first value, in order, that has the same name as a tensor of before and differs."""
    for value, tensor in after.items():
        name = str(value.name)
        if name in before:
            result = compare({name: tensor.values()}, {name: before[name].values()})
            if not result.equal:
                node = value.producer()
                return f"{result.first} (node {node.name if node is not None else '?'})"
    return None


def first_row(got: Mapping[str, Array], want: Mapping[str, Array]) -> int:
    """The first sample whose outputs differ; 0 where that cannot be told."""
    rows = [
        int(np.argwhere(got[name] != w)[0][0])
        for name, w in want.items()
        if name in got and got[name].shape == w.shape and np.any(got[name] != w)
    ]
    return min(rows, default=0)


@dataclass(frozen=True)
class OracleComparison:
    """The exact model against qonnx's float32 executor.

    Attributes:
        samples: how many were run.
        equal: samples whose outputs are all equal with `==`.
        ties: samples that differ because an exact value lies within the proven float32 error of a
            rounding tie, so that the oracle's quantiser fell on the other side.
        rounding: samples that differ in outputs that no quantiser rounds, by no more than the
            proven float32 error of the oracle.
        unexplained: samples that differ for neither reason: an error on one side.
        first: the first unexplained difference, in words.
    """

    samples: int
    equal: int
    ties: int
    rounding: int
    unexplained: int
    first: str | None = None

    @property
    def proven(self) -> bool:
        """Whether every difference is explained."""
        return self.unexplained == 0


def against_oracle(model: Model, inputs: Mapping[str, Array]) -> OracleComparison:
    """Compare the exact meaning of a model, in any state, with qonnx's executor on it."""
    reference = Reference(model)
    trace = reference.trace(inputs)
    want = reference.finish(trace)
    oracle = run_qonnx(model, inputs, intermediates=True)
    samples = len(next(iter(inputs.values())))
    differs = np.zeros(samples, bool)
    for name, expected in want.items():
        differs |= (oracle[name] != expected).reshape(samples, -1).any(axis=1)
    rows = np.flatnonzero(differs)
    kinds = {"tie": 0, "rounding": 0, "unexplained": 0}
    first = None
    if rows.size:
        for row, found in zip(rows, deviations(model, inputs, oracle, rows.tolist()), strict=True):
            kinds[found.kind] += 1
            if found.kind == "unexplained" and first is None:
                first = _describe(int(row), found)
    return OracleComparison(
        samples, samples - len(rows), kinds["tie"], kinds["rounding"], kinds["unexplained"], first
    )


def _describe(row: int, found: Deviation) -> str:
    return f"sample {row}: {found.reason}"
