"""Compiled emulation of many small graphs at once: one C++ compilation for all of them."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from hqc import pipeline
from hqc.analysis.partition import Partition, partition
from hqc.diagnostics import HqcError
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import compare
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.ir import from_bytes
from hqc.pipeline.backend import Backend, BackendOptions
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline

#: Samples that each graph is emulated on.
SAMPLES = 96


@dataclass(frozen=True)
class Graph:
    """A graph that the compiler takes, and the seed it came from."""

    seed: int
    proto: onnx.ModelProto


@dataclass
class Emulated:
    """What one backend made of some graphs.

    Attributes:
        figures: graphs by what became of them: "exact", or "refused" and a code.
        values: how many output numbers were compared.
        refused: seed to the backend's reason.
        failed: seed to what differed, or what was raised.
    """

    figures: Counter[str] = field(default_factory=Counter)
    values: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)


def lowered(proto: onnx.ModelProto) -> tuple[Model, Model, Partition]:
    """A graph as imported, as the default pipeline leaves it, and cut into host and hardware."""
    data = proto.SerializeToString()
    source = normalise_import(from_bytes(data, "batch")).model
    model = normalise_import(from_bytes(data, "batch")).model
    steps = parse_pipeline(pipeline.DEFAULT)
    pipeline.run(model, steps, Registry.builtin(), verify=False)
    return source, model, partition(model)


def together(graphs: Sequence[Graph]) -> onnx.ModelProto:
    """All graphs side by side in one, each name behind `g<position>_`."""
    whole: onnx.ModelProto | None = None
    for position, graph in enumerate(graphs):
        part = onnx.compose.add_prefix(graph.proto, f"g{position}_")
        if whole is None:
            whole = part
            continue
        for name in ("node", "input", "output", "initializer", "value_info"):
            getattr(whole.graph, name).extend(getattr(part.graph, name))
    assert whole is not None
    return whole


def emulate(
    graphs: Sequence[Graph], backend: Backend, options: BackendOptions, samples: int = SAMPLES
) -> Emulated:
    """Run the backend's own C++ of every graph and compare it with the exact reference.

    Graphs that the backend refuses are left out first. Where the rest cannot be compiled together
    or something differs, halves are tried, down to the graph that is to blame.
    """
    found, accepted = Emulated(), []
    for graph in graphs:
        _, model, parts = lowered(graph.proto)
        problems = backend.check(model, parts, backend.complete(options))
        if problems:
            found.figures[f"refused {problems[0].code}"] += 1
            found.refused[graph.seed] = f"{problems[0].code}: {problems[0].message}"
        else:
            accepted.append(graph)
    with tempfile.TemporaryDirectory() as cache, _cache(cache):
        _halves(accepted, backend, options, found, samples)
    return found


def _halves(
    graphs: Sequence[Graph],
    backend: Backend,
    options: BackendOptions,
    found: Emulated,
    samples: int,
) -> None:
    if not graphs:
        return
    try:
        values = _run(together(graphs), backend, options, samples)
    except (AssertionError, HqcError, OSError, ValueError, KeyError, IndexError) as error:
        if len(graphs) == 1:
            found.failed[graphs[0].seed] = f"{type(error).__name__}: {str(error)[:1500]}"
            return
        middle = len(graphs) // 2
        for half in (graphs[:middle], graphs[middle:]):
            _halves(half, backend, options, found, samples)
        return
    found.figures["exact"] += len(graphs)
    found.values += values


def _run(proto: onnx.ModelProto, backend: Backend, options: BackendOptions, samples: int) -> int:
    """Emit, compile, run and compare; how many numbers were compared."""
    source, model, parts = lowered(proto)
    inputs: dict[str, Any] = dict(generate(source, samples, 1))
    want = Reference(source).run(inputs)
    with tempfile.TemporaryDirectory() as folder:
        backend.emit(model, parts, options, Path(folder))
        emulator = backend.emulator(Path(folder), parts)
        codes = emulator.run(parts.encode(inputs))
    for port in parts.outputs:
        limits = port.type.limits
        array = codes[port.name]
        assert np.all((array >= limits.lo) & (array <= limits.hi)), f"{port.name} leaves its type"
    result = compare(parts.decode(codes), want)
    assert result.equal, f"{backend.name}: {result.mismatches} differ, {result.first}"
    return result.total


@contextmanager
def _cache(folder: str) -> Any:
    """Compiled libraries go to a folder that is thrown away."""
    before = os.environ.get("HQC_CACHE_DIR")
    os.environ["HQC_CACHE_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["HQC_CACHE_DIR"]
        else:
            os.environ["HQC_CACHE_DIR"] = before
