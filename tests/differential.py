"""One random network through everything that should agree about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as onnx_ir
from onnx_ir import Model

from hqc import pipeline
from hqc.backends.base import BackendOptions
from hqc.diagnostics import HqcError
from hqc.equiv import against_oracle, compare
from hqc.execute import Reference
from hqc.fast import Fast
from hqc.float_error import deviations
from hqc.frontends.qonnx import normalise_import
from hqc.ir import Array, from_bytes, to_bytes
from hqc.oracle import run_qonnx
from hqc.pipeline import PassEvent
from hqc.registry import Registry
from hqc.samples import generate
from hqc.structural import difference
from hqc.text import parse_module, parse_pipeline, print_module, weights_of
from hqc.verify import verify

#: Codes that are hqc's own failures, never the model's.
INTERNAL = frozenset({"HQC302", "HQC303", "HQC304", "HQC307", "HQC500"})


@dataclass
class Agreement:
    """What became of one network: refused, or compiled, and how often float32 differs."""

    refused: tuple[str, ...] = ()
    where: str = ""
    message: str = ""
    states: int = 0
    compared: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def check(
    proto: onnx.ModelProto,
    folder: Path,
    *,
    samples: int = 64,
    seed: int = 0,
    contracts: bool = True,
) -> Agreement:
    """Compile a network and compare every executor on every state; assert that all agree.

    `contracts` lets the pass manager check each pass, too. Refusals are
    reported; they must carry a code that blames the model.
    """
    found = Agreement()
    try:
        found.where = "import"
        model = normalise_import(from_bytes(proto.SerializeToString(), "random")).model
        found.where = "pipeline"
        inputs = dict(generate(model, samples, seed))
        _source(proto, model, inputs, found)
        _compile(model, inputs, folder, found, contracts)
    except HqcError as error:
        found.refused = tuple(d.code for d in error.diagnostics)
        found.message = str(error.diagnostics[0])
    assert not INTERNAL & set(found.refused), f"{found.where}: {found.message}"
    return found


def _source(
    proto: onnx.ModelProto, model: Model, inputs: dict[str, Array], found: Agreement
) -> None:
    """The file as it came, in qonnx's executor, where import added no input quantiser."""
    if any(n.name and n.name.endswith("_port") for n in model.graph):
        return
    trace = Reference(model).trace(inputs)
    want = Reference(model).finish(trace)
    source = from_bytes(proto.SerializeToString(), "source")
    for value in source.graph.inputs:
        value.shape = onnx_ir.Shape(("N", *(value.shape or ())[1:]))
    oracle = run_qonnx(source, inputs, intermediates=True)
    names = {v.name for v in trace}
    differs = np.zeros(len(next(iter(inputs.values()))), bool)
    for name, expected in want.items():
        differs |= (oracle[name] != expected).reshape(len(differs), -1).any(axis=1)
    rows = np.flatnonzero(differs)
    if rows.size and names <= set(oracle):
        for deviation in deviations(model, inputs, oracle, [int(r) for r in rows]):
            assert deviation.kind != "unexplained", f"source: {deviation.reason}"
            found.kinds[deviation.kind] += 1


def _compile(
    model: Model, inputs: dict[str, Array], folder: Path, found: Agreement, contracts: bool
) -> None:
    assert not verify(model)
    want = Reference(model).run(inputs)
    _oracle("import", model, inputs, want, found)
    last = to_bytes(model)

    def after(event: PassEvent) -> None:
        nonlocal last
        if event.record is None:
            return
        found.where = event.name
        found.states += 1
        if (state := to_bytes(event.model)) == last:
            return
        last = state
        assert not verify(event.model), event.name
        result = compare(Reference(event.model).run(inputs), want)
        assert result.equal, f"{event.name}: {result.first}"
        _oracle(event.name, event.model, inputs, want, found)

    steps = parse_pipeline(pipeline.DEFAULT)
    pipeline.run(
        model,
        steps,
        Registry.builtin(),
        check_samples=16,
        verify=contracts,
        on_event=after,
        reproducers=folder,
    )
    _text(model, inputs, want)
    fast = Fast(model)
    result = compare(fast.run(inputs), want)
    assert result.equal, f"fast executor: {result.first}"
    found.compared = result.total
    for backend in Registry.builtin().backends.values():
        settings = backend.complete(BackendOptions(project="random"))
        assert not backend.check(model, fast.partition, settings), backend.name


def _text(model: Model, inputs: dict[str, Array], want: dict[str, Array]) -> None:
    """The text form reads back as the same graph, with the weights in it or beside it."""
    text = print_module(model, weights="full")
    assert difference(parse_module(text), model) is None
    again = parse_module(print_module(model), weights_of(model))
    assert difference(again, model) is None
    assert compare(Reference(again).run(inputs), want).equal


def _oracle(
    name: str,
    model: Model,
    inputs: dict[str, Array],
    want: dict[str, Array],
    found: Agreement,
) -> None:
    """qonnx's executor on this state; where it differs, each sample must be explained."""
    if compare(run_qonnx(model, inputs), want).equal:
        return
    result = against_oracle(model, inputs)
    assert result.unexplained == 0, f"qonnx after {name}: {result.first}"
    found.kinds["tie"] += result.ties
    found.kinds["rounding"] += result.rounding
