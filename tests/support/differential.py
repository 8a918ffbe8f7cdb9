"""One random network through everything that should agree about it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as onnx_ir
from onnx_ir import Model

from hqc import pipeline
from hqc.diagnostics import HqcError
from hqc.equivalence.float_error import deviations, undecided
from hqc.equivalence.qonnx_oracle import run_qonnx
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import against_oracle, compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.frontends.onnx.shapes import explicit_ceilings, infer_shapes
from hqc.frontends.qonnx import normalise_import
from hqc.ir import Array, from_bytes, range_of, to_bytes
from hqc.ir.structural_equality import difference
from hqc.pipeline import PassEvent
from hqc.pipeline.backend import BackendOptions
from hqc.pipeline.registry import Registry
from hqc.pipeline.verifier import verify
from hqc.text import parse_module, parse_pipeline, print_module, weights_of

#: Codes that blame the model; any other is hqc's own failure.
BLAMES_THE_MODEL = re.compile("HQC[12]..")


@dataclass
class Agreement:
    """What became of one network: refused, or compiled, and how often float32 differs."""

    refused: tuple[str, ...] = ()
    where: str = ""
    message: str = ""
    states: int = 0
    compared: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Checks:
    """What is checked of one network.

    Attributes:
        samples, seed: of the generated inputs.
        contracts: the pass manager checks each pass, too.
        text: the text form reads back as the same graph.
        states: qonnx runs the state after every pass, not only the first and the last.
        backends: the backends accept the result.
    """

    samples: int = 64
    seed: int = 0
    contracts: bool = True
    text: bool = True
    states: bool = True
    backends: bool = True


def check(proto: onnx.ModelProto, folder: Path, checks: Checks | None = None) -> Agreement:
    """Compile a network and compare every executor on every state; assert that all agree.

    Refusals are reported; they must carry a code that blames the model.
    """
    found, checks = Agreement(), checks or Checks()
    try:
        found.where = "import"
        model = normalise_import(from_bytes(proto.SerializeToString(), "random")).model
        found.where = "source"
        inputs = dict(generate(model, checks.samples, checks.seed))
        _source(proto, model, inputs, found)
        found.where = "pipeline"
        _compile(model, inputs, folder, found, checks)
    except HqcError as error:
        found.refused = tuple(d.code for d in error.diagnostics)
        found.message = str(error.diagnostics[0])
    blamed = [code for code in found.refused if BLAMES_THE_MODEL.fullmatch(code)]
    assert len(blamed) == len(found.refused), f"{found.where}: {found.message}"
    return found


def _source(
    proto: onnx.ModelProto, model: Model, inputs: dict[str, Array], found: Agreement
) -> None:
    """The file as it came, in qonnx's executor, where import added no input quantiser."""
    if any(n.name and n.name.endswith("_port") for n in model.graph):
        return
    want = Reference(model).run(inputs)
    source = _shaped(proto)
    oracle = run_qonnx(source, inputs, intermediates=True)
    differs = np.zeros(len(next(iter(inputs.values()))), bool)
    for name, expected in want.items():
        assert oracle[name].shape == expected.shape, f"source: {name} {expected.shape}"
        differs |= (oracle[name] != expected).reshape(len(differs), -1).any(axis=1)
    if differs.any():
        _explain_source(model, inputs, oracle, np.flatnonzero(differs), found)


def _shaped(proto: onnx.ModelProto) -> Model:
    """The file as it came, with shapes: those that it has when sizes are what onnxruntime makes."""
    source, sized = (from_bytes(proto.SerializeToString(), "source") for _ in range(2))
    for value in (*source.graph.inputs, *sized.graph.inputs):
        value.shape = onnx_ir.Shape(("N", *(value.shape or ())[1:]))
    explicit_ceilings(sized)
    infer_shapes(sized)
    for node, other in zip(source.graph, sized.graph, strict=True):
        for value, known in zip(node.outputs, other.outputs, strict=True):
            value.shape, value.type = known.shape, known.type
    return source


def _explain_source(
    model: Model, inputs: dict[str, Array], oracle: dict[str, Array], rows: Array, found: Agreement
) -> None:
    """Every sample in which the file differs must be one that float32 cannot decide.

    Import spells some operators in others, so not every value of the model is one of the file:
    where one is missing, samples that no float32 executor decides are set aside first, and the
    rest must agree but for the rounding of unquantised outputs.
    """
    trace = Reference(model).trace(inputs)
    if not all(str(v.name) in oracle for v in trace):
        open_ = undecided(model, inputs)[rows]
        found.kinds["undecided"] += int(open_.sum())
        rows = rows[~open_]
        spelt = {str(v.name): t.values() for v, t in trace.items()}
        oracle = {**spelt, **oracle}
    if rows.size:
        for deviation in deviations(model, inputs, oracle, [int(r) for r in rows]):
            assert deviation.kind != "unexplained", f"source: {deviation.reason}"
            found.kinds[deviation.kind] += 1


def _compile(
    model: Model, inputs: dict[str, Array], folder: Path, found: Agreement, checks: Checks
) -> None:
    _valid("import", model)
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
        _valid(event.name, event.model)
        result = compare(Reference(event.model).run(inputs), want)
        assert result.equal, f"{event.name}: {result.first}"
        if checks.states:
            _oracle(event.name, event.model, inputs, want, found)

    steps = parse_pipeline(pipeline.DEFAULT)
    pipeline.run(
        model,
        steps,
        Registry.builtin(),
        check_samples=16,
        verify=checks.contracts,
        on_event=after,
        reproducers=folder,
    )
    if not checks.states:
        _oracle("the pipeline", model, inputs, want, found)
    _within_ranges(model, inputs)
    if checks.text:
        _text(model, inputs, want)
    fast = Fast(model)
    result = compare(fast.run(inputs), want)
    assert result.equal, f"fast executor: {result.first}"
    found.compared = result.total
    if not checks.backends:
        return
    for backend in Registry.builtin().backends.values():
        settings = backend.complete(BackendOptions(project="random"))
        assert not backend.check(model, fast.partition, settings), backend.name


def _within_ranges(model: Model, inputs: dict[str, Array]) -> None:
    """What was proven of every value of the datapath holds for what it takes."""
    for value, tensor in Reference(model).trace(inputs).items():
        proven = range_of(value)
        if proven is None:
            continue
        codes = tensor.values() * 2.0**-proven.exponent
        within = (codes >= proven.lo) & (codes <= proven.hi) & (codes == np.rint(codes))
        assert np.all(within), f"{value.name} leaves its range {proven}"


def _valid(name: str, model: Model) -> None:
    problems = verify(model)
    assert not problems, f"after {name}: {problems[0]}"


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
