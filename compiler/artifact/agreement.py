"""Compiled directories of one model: does each say what it should, and do all say the same?

Backends may want other forms of the integer graph, so the graphs of two directories can differ;
what the hardware gives for the same inputs cannot. Outputs are compared pair by pair with `==`: as
codes where two ports have one step, as exact values where they have not. What backends can prove of
their directories is proven again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hqc.analysis.partition import Port
from hqc.artifact.artifact import Artifact, CheckResult, Samples
from hqc.diagnostics import Diagnostic, Exit, HqcError, joined, reject
from hqc.diagnostics.events import Watch, ignore, stage
from hqc.equivalence.bit_exactness import CHUNK, CodeComparison
from hqc.ir import Array, array_files
from hqc.numerics.types import INT64_BITS, Codes
from hqc.pipeline.options import usage
from hqc.pipeline.registry import Registry

#: Options of a compile that decide what the model is, beside its file.
_MEANING = ("quantise", "input_types")


@dataclass(frozen=True)
class Proof:
    """What the backend of a directory proves of it, or why it does not hold.

    Attributes:
        found: as `Artifact.prove` gives it: empty for a backend that proves nothing, and where
            there is an error.
        error: that `Artifact.prove` raised, such as HQC424 for a project that computes something
            else than the model; None where nothing is wrong.
    """

    found: Mapping[str, Any] = field(default_factory=dict)
    error: HqcError | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> Proof:
        """Prove what can be proven of a directory as it is now."""
        try:
            return cls(artifact.prove())
        except HqcError as error:
            return cls(error=error)

    @property
    def claim(self) -> str:
        """One line for people; empty where nothing is proven."""
        return str(self.found.get("claim", ""))


@dataclass(frozen=True)
class Pair:
    """Two directories on the same samples.

    Attributes:
        one, other: the directories, as they were given.
        compared: "codes", or "values" where an output has another step in the other directory.
        found: how their outputs compare.
    """

    one: str
    other: str
    compared: Literal["codes", "values"]
    found: CodeComparison


@dataclass(frozen=True)
class Agreement:
    """What was found.

    Attributes:
        directories: as they were given.
        backends: that wrote them.
        checks: each directory by itself, against the exact executor.
        proofs: what its backend proves of each directory, for all inputs, or what refutes it.
        pairs: all pairs, in the order of the directories.
    """

    directories: tuple[str, ...]
    backends: tuple[str, ...]
    checks: tuple[CheckResult, ...]
    proofs: tuple[Proof, ...]
    pairs: tuple[Pair, ...]

    @property
    def exact(self) -> bool:
        """Whether each directory is exact and all agree, on the samples; see `error` for proofs."""
        return self.first is None

    @property
    def first(self) -> str | None:
        """The first difference on the samples in words, with the directory, or None."""
        alone = [
            f"{directory}: {check.first}"
            for directory, check in zip(self.directories, self.checks, strict=True)
            if check.first is not None
        ]
        return next(iter([*alone, *(p.found.first for p in self.pairs if p.found.first)]), None)

    def error(self) -> HqcError | None:
        """All that is wrong, as one error, or None; its exit status is that of the first.

        HQC403 (3) for each directory that is not exact, and one about the pairs that differ; then
        the errors of the proofs, which need no sample that shows the difference: HQC424, HQC425
        (3).
        """
        wrong = [proof.error for proof in self.proofs if proof.error is not None]
        if found := self._differences():
            wrong = [HqcError(found, Exit.NOT_EXACT), *wrong]
        return joined(wrong)

    def _differences(self) -> list[Diagnostic]:
        found: list[Diagnostic] = []
        for directory, check in zip(self.directories, self.checks, strict=True):
            if (error := check.error()) is not None:
                message = f"{directory} is not bit-exact: {check.first}"
                found += [replace(d, message=message) for d in error.diagnostics]
        differing = [pair for pair in self.pairs if pair.found.first is not None]
        if differing:
            found.append(_disagreement(differing, len(self.pairs)))
        return found


def _disagreement(differing: Sequence[Pair], pairs: int) -> Diagnostic:
    notes = [
        f"{p.one} and {p.other}: {p.found.mismatches} of {p.found.total} output {p.compared} differ"
        for p in differing
    ]
    return Diagnostic(
        "HQC403",
        f"directories disagree: {differing[0].found.first}",
        notes=(*notes, f"{pairs - len(differing)} of {pairs} pairs agree"),
        helps=("if files in a project/ were edited, compile again; else please report this",),
    )


def agree(
    directories: Sequence[str | Path],
    samples: int | Samples = 0,
    seed: int = 1,
    *,
    registry: Registry | None = None,
    watch: Watch = ignore,
) -> Agreement:
    """Check compiled directories of one model, each by itself and against each other.

    All run on the stored vectors of the first directory, and on the samples. What a backend can
    prove of its directory is proven anew; a proof that fails stands in the result, beside all other
    differences.

    Args:
        directories: two or more, made by `compile` from one model.
        samples: how many fresh samples beside the stored vectors, or samples of your own: arrays,
            or a .npy or .npz file.
        seed: of the fresh samples.
        registry: where their backends come from.
        watch: called at the beginning and the end of each stage.

    Raises:
        HqcError: HQC001, they are of different models, or fewer than two; HQC005/HQC006 for
            unusable samples or directories; HQC404/HQC405 for the compiler of an emulation.
    """
    names = tuple(str(directory) for directory in directories)
    artifacts = [Artifact.open(directory, registry) for directory in directories]
    _require_one_model(names, artifacts)
    checks, proofs = [], []
    for name, artifact in zip(names, artifacts, strict=True):
        with stage(f"check {name}", watch) as note:
            checks.append(artifact.check(samples, seed))
            proofs.append(Proof.of(artifact))
            note.detail = f"{checks[-1].samples} samples"
    with stage("compare the directories", watch) as note:
        inputs = _shared_inputs(artifacts[0], samples, seed)
        outputs = [_outputs(artifact, inputs) for artifact in artifacts]
        pairs = tuple(
            _pair((names[i], names[j]), (artifacts[i], artifacts[j]), (outputs[i], outputs[j]))
            for i, j in combinations(range(len(names)), 2)
        )
        count = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
        note.detail = f"{count}, {pairs[0].found.samples} samples"
    backends = tuple(artifact.manifest.backend for artifact in artifacts)
    return Agreement(names, backends, tuple(checks), tuple(proofs), pairs)


# --- one model ----------------------------------------------------------------------------------


def _require_one_model(names: Sequence[str], artifacts: Sequence[Artifact]) -> None:
    if len(names) < 2:
        raise usage("two or more directories are compared with each other")
    places = [artifact.path.resolve() for artifact in artifacts]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise usage(f"{names[index]} is given twice")
    for name, artifact in zip(names[1:], artifacts[1:], strict=True):
        found = _differences(artifacts[0], artifact)
        if found:
            raise reject(
                "HQC001",
                f"{names[0]} and {name} were not compiled from one model",
                notes=found,
                helps=("compile the same file, quantised in the same way, for each backend",),
            )


def _differences(one: Artifact, other: Artifact) -> tuple[str, ...]:
    """What keeps two directories from being of one model, in words."""
    mine, theirs = one.manifest, other.manifest
    found = []
    if mine.model.get("sha256") != theirs.model.get("sha256"):
        found.append(
            f"sources: {mine.model.get('file')} (sha256 {_short(mine.model)}) "
            f"and {theirs.model.get('file')} (sha256 {_short(theirs.model)})"
        )
    for option in _MEANING:
        if mine.options.get(option) != theirs.options.get(option):
            found.append(f"{option}: {mine.options.get(option)} and {theirs.options.get(option)}")
    for side in ("inputs", "outputs"):
        here, there = (_interface(getattr(m, side)) for m in (mine, theirs))
        if here != there:
            found.append(f"{side}: {_words(here)} and {_words(there)}")
    return tuple(found)


def _short(model: Mapping[str, Any]) -> str:
    return str(model.get("sha256"))[:12]


def _interface(ports: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[int, ...]]]:
    """What must be the same of ports: what of the model they serve, and how many elements.

    Names inside the hardware, and steps, may be a backend's own.
    """
    return [(str(port["external"]), tuple(port["shape"])) for port in ports]


def _words(ports: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{of}{list(shape)}" for of, shape in ports) or "none"


# --- the same samples ---------------------------------------------------------------------------


def _shared_inputs(
    first: Artifact, samples: int | Samples, seed: int
) -> dict[str, array_files.Floats]:
    """The stored vectors of the first directory, then the samples that it is checked on."""
    stored, fresh = first.stored_inputs(), first.fresh_inputs(samples, seed)
    if not fresh:
        return stored
    return {name: np.concatenate([stored[name], fresh[name]]) for name in stored}


def _outputs(artifact: Artifact, inputs: Mapping[str, array_files.Floats]) -> dict[str, Codes]:
    """Codes of the output ports (N, *shape) from the emulation of `project/`."""
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, CHUNK):
        part = {name: x[start : start + CHUNK] for name, x in inputs.items()}
        parts.append(artifact.emulator.run(artifact.partition.encode(part)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pair(
    names: tuple[str, str],
    artifacts: tuple[Artifact, Artifact],
    outputs: tuple[Mapping[str, Codes], Mapping[str, Codes]],
) -> Pair:
    """Compare two directories; the first difference is that of the lowest sample."""
    ports = list(zip(*(artifact.partition.outputs for artifact in artifacts), strict=True))
    total = mismatches = 0
    first: tuple[int, str] | None = None
    for both in ports:
        codes = outputs[0][both[0].name], outputs[1][both[1].name]
        differ = np.asarray(_on_one_step(both, codes, 0) != _on_one_step(both, codes, 1))
        total += differ.size
        mismatches += int(np.count_nonzero(differ))
        where = np.argwhere(differ)
        if len(where) and (first is None or where[0][0] < first[0]):
            index = tuple(int(i) for i in where[0])
            first = index[0], _describe(names, both, codes, index)
    one_step = all(mine.type.fraction == theirs.type.fraction for mine, theirs in ports)
    samples = len(next(iter(outputs[0].values())))
    found = CodeComparison(samples, total, mismatches, first[1] if first else None)
    return Pair(*names, "codes" if one_step else "values", found)


def _on_one_step(ports: tuple[Port, Port], codes: tuple[Codes, Codes], side: int) -> Array:
    """The codes of one side as integers on the finer step of both; of any size."""
    finest = max(port.type.fraction for port in ports)
    shift = finest - ports[side].type.fraction
    mine = codes[side]
    if shift and ports[side].type.width + shift > INT64_BITS:
        mine = mine.astype(object)
    return np.asarray(mine * (1 << shift) if shift else mine)


def _describe(
    names: tuple[str, str],
    ports: tuple[Port, Port],
    codes: tuple[Codes, Codes],
    index: tuple[int, ...],
) -> str:
    said = []
    for name, port, held in zip(names, ports, codes, strict=True):
        code = int(held[index])
        said.append(f"{name} gives code {code} ({code * 2.0**-port.type.fraction:g})")
    at = ", ".join(map(str, index))
    return f"output {ports[0].name}[{at}] (sample {index[0]}): {' and '.join(said)}"
