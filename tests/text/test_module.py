"""Modules, the textual IR: parse(print(model)) == model, and errors that say where and why."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_ir import Attr, AttributeType, DataType, Graph, Model, Node, Shape, TensorType, Value

from hqc.diagnostics import HqcError
from hqc.ir import (
    QONNX,
    State,
    load,
    set_passes,
    set_range,
    set_source,
    set_state,
    set_type,
)
from hqc.ir.structural_equality import difference, equal
from hqc.numerics.types import FixedType, Overflow, Range, Rounding
from hqc.text import (
    parse_module,
    print_module,
    weights_of,
)

# --- strategies ---------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,5}", fullmatch=True),
    st.sampled_from(
        ["in", "as", "input", "const", "true", "inf", "nan", "repeat", "via", "_", "1e5"]
    ),
    ANY_TEXT,
).filter(bool)


@st.composite
def fixed_types(draw: st.DrawFn) -> FixedType:
    signed = draw(st.booleans())
    overflows = list(Overflow) if signed else [Overflow.SAT, Overflow.WRAP]
    return FixedType(
        signed,
        draw(st.integers(1, 80)),
        draw(st.integers(-70, 90)),
        draw(st.sampled_from(Rounding)),
        draw(st.sampled_from(overflows)),
    )


RANGES = st.builds(
    lambda a, b, e: Range(min(a, b), max(a, b), e),
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.integers(-40, 40),
)
DTYPES = {
    DataType.FLOAT: np.float32,
    DataType.DOUBLE: np.float64,
    DataType.FLOAT16: np.float16,
    DataType.BFLOAT16: ml_dtypes.bfloat16,
    DataType.INT64: np.int64,
    DataType.INT32: np.int32,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.UINT64: np.uint64,
    DataType.BOOL: np.bool_,
}
DIMS = st.one_of(st.integers(0, 9), NAMES, st.none())


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(list(DTYPES.values()))))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape)
    if draw(st.booleans()):  # the bits at random: every float there is, NaN with any payload too
        raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
        if dtype == np.bool_:
            raw = bytes(b & 1 for b in raw)
        return np.frombuffer(raw, dtype).reshape(shape).copy()
    return np.full(shape, draw(st.sampled_from([0, 1, 3]))).astype(dtype)


@st.composite
def attributes(draw: st.DrawFn, name: str) -> Attr:
    kinds = {
        AttributeType.INT: st.integers(-(2**63), 2**63 - 1),
        AttributeType.FLOAT: st.floats(),
        AttributeType.STRING: ANY_TEXT,
        AttributeType.TENSOR: arrays().map(onnx_ir.tensor),
    }
    kind = draw(st.sampled_from(list(kinds)))
    if draw(st.booleans()):
        return Attr(name, kind, draw(kinds[kind]))
    plural = AttributeType[f"{kind.name}S"]
    return Attr(name, plural, tuple(draw(st.lists(kinds[kind], max_size=3))))


def _annotate(draw: st.DrawFn, value: Value) -> Value:
    set_type(value, draw(st.none() | fixed_types()))
    set_range(value, draw(st.none() | RANGES))
    return value


def _value(draw: st.DrawFn, name: str) -> Value:
    value = Value(name=name)
    if draw(st.booleans()):
        value.shape = Shape(draw(st.lists(DIMS, max_size=3)))
    if draw(st.booleans()):
        value.type = TensorType(draw(st.sampled_from([*DTYPES, DataType.STRING, DataType.INT4])))
    return _annotate(draw, value)


@st.composite
def modules(draw: st.DrawFn) -> Model:
    names = iter(draw(st.lists(NAMES, min_size=16, max_size=16, unique=True)))
    domains = draw(
        st.lists(st.sampled_from([QONNX, "qonnx", "", ".x", "a.b", "ü"]), max_size=3, unique=True)
    )
    inputs = [_value(draw, next(names)) for _ in range(draw(st.integers(0, 2)))]
    graph = Graph(
        inputs,
        [],
        nodes=[],
        name=draw(st.none() | ANY_TEXT),
        opset_imports={d: draw(st.integers(1, 30)) for d in domains},
    )
    known = list(inputs)
    for _ in range(draw(st.integers(0, 3))):
        array = draw(arrays())
        use_input = bool(inputs) and draw(st.booleans())
        value = inputs[0] if use_input else _annotate(draw, Value(name=next(names)))
        value.const_value = onnx_ir.tensor(array, name=value.name)
        value.shape, value.dtype = Shape(array.shape), value.const_value.dtype
        graph.register_initializer(value)
        known += [] if use_input else [value]
    for _ in range(draw(st.integers(0, 3))):
        node = _node(draw, known, names)
        graph.append(node)
        known += [v for v in node.outputs if v.name]
    if known:
        graph.outputs.extend(draw(st.lists(st.sampled_from(known), max_size=3)))
    model = Model(graph, ir_version=draw(st.integers(1, 20)))
    set_state(model, draw(st.sampled_from(State)))
    model.metadata_props[f"hqc.{draw(ANY_TEXT)}x"] = draw(ANY_TEXT)
    return model


def _node(draw: st.DrawFn, known: list[Value], names: Iterator[str]) -> Node:
    inputs = draw(st.lists(st.sampled_from([None, *known]), max_size=4))
    outputs = [_value(draw, next(names)) for _ in range(draw(st.integers(1, 2)))]
    if draw(st.booleans()):
        outputs.append(_annotate(draw, Value(name="")))  # an optional output left out
    node = Node(
        draw(st.sampled_from(["", QONNX, "qonnx", "a.b", "x y", ".", "ai.onnx.ml"])),
        draw(st.sampled_from(["MatMul", "Quant", "repeat", "a.b", "O p", "é"])),
        inputs,
        [draw(attributes(n)) for n in draw(st.lists(NAMES, max_size=3, unique=True))],
        outputs=outputs,
        name=draw(ANY_TEXT),
    )
    if draw(st.booleans()):
        set_source(node, draw(NAMES))
    if draw(st.booleans()):
        set_passes(node, draw(st.lists(NAMES, min_size=1, max_size=3)))
    return node


# --- modules ------------------------------------------------------------------------------------

GOLDEN = """\
hqc.module @jets version 1 state integer ir 10 opset 18, qonnx 1 {
  meta "hqc.pipeline" = "a,b"
  input %x : float32[N,3]
  const %w : float32[3,2] as fixed<3,2> = [[1.0, -0.5], [0.5, 1.5], [-2.0, 0.1]]
  const %large : float64[5,5] = dense<sha256:6eb95bc3b7bfd3b7>
  const %zeros : float32[64] = splat(0.0)
  const %s : float32[] = 0.03125
  const %limits : float32[3] = [nan, -inf, inf]
  const %mask : bool[2] = [true, false]
  %acc = MatMul(%x, %w) : float32[N,2] as fixed<21,9> in [-1234, 4321]*2^-12 "fc1/MatMul" \
from "model.py:41  x = self.fc1(x)" via (fold-quantizers, dce)
  %/fc1/q, _ = qonnx.Quant(%acc, %s, _, %"b c::0") {signed = 1, rounding_mode = "ROUND"} \
: float32[N,2], ?[*] "q"
  output %/fc1/q
}
"""


def test_golden_module() -> None:
    text = GOLDEN.replace('%"b c::0"', "%zeros")
    large = np.arange(25.0).reshape(5, 5)
    hashed = text.replace("6eb95bc3b7bfd3b7", next(iter(_hashes(large)))[7:])
    model = parse_module(hashed, _hashes(large))
    assert print_module(model) == hashed
    assert model.graph.initializers["s"].const_value is not None
    q = model.graph[1]
    assert q.domain == QONNX
    assert q.inputs[2] is None
    assert [v.name for v in q.outputs] == ["/fc1/q", ""]


def _hashes(array: np.ndarray) -> dict[str, np.ndarray]:
    from hqc.text.printer import hash_of

    return {hash_of(array): array}


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(modules())
def test_modules_come_back(model: Model) -> None:
    text = print_module(model, weights="full")
    again = parse_module(text)
    assert difference(model, again) is None
    assert print_module(again, weights="full") == text
    hashed = parse_module(print_module(model), weights_of(model))
    assert difference(model, hashed) is None


@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(modules())
def test_a_module_has_one_line_per_value(model: Model) -> None:
    lines = print_module(model, weights="full").splitlines()
    graph = model.graph
    rows = len(graph.inputs) + len(graph.initializers) + len(graph) + len(graph.outputs)
    assert len(lines) == rows + 2 + len([k for k in model.metadata_props if k != "hqc.state"])


PUBLIC = ["TFC_1W1A", "TFC_1W2A", "qkeras_jettagging", "unsw_nb15-mlp-w2a2"]


@pytest.mark.parametrize("weights", ["full", "hash"])
@pytest.mark.parametrize(
    "name", ["TFC_1W1A", "TFC_1W2A", "qkeras_jettagging", "unsw_nb15-mlp-w2a2"]
)
def test_public_models_come_back(shared_models: Path, name: str, weights: str) -> None:
    path = shared_models / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{name} is not present")
    model = load(path)
    text = print_module(model, weights=weights)  # type: ignore[arg-type]
    assert equal(model, parse_module(text, weights_of(model) if weights == "hash" else None))


HEADER = "hqc.module version 1 state quantised ir 8 opset 18 {"


@pytest.mark.parametrize(
    ("lines", "line", "column", "message"),
    [
        ("%a = Relu(%x) : ?[*]", 2, 11, "%x is used before it is defined"),
        ("input %x : ?[*]\ninput %x : ?[*]", 3, 7, "%x is defined twice"),
        ("output %x", 2, 8, "used before"),
        ("input %x : float33[2]", 2, 12, "unknown element type"),
        ("const %x : float32[2] = [1.0]", 2, 7, "1 elements where the shape says [2]"),
        ("const %x : float32[2,2] = [1.0, 2.0]", 2, 7, "nest"),
        ("const %x : float32[2] = 1.0", 2, 7, "one number for a constant of shape [2]"),
        ("const %x : int64[1] = [1.5]", 2, 24, "wants an integer"),
        ("const %x : bool[1] = [1]", 2, 23, "wants true or false"),
        ("const %x : float32[1] = [true]", 2, 26, "wants a number"),
        ("const %x : int8[1] = [300]", 2, 23, "300 does not fit int8"),
        ("const %x : float32[N] = [1.0]", 2, 7, "unknown shape"),
        ("const %x : ?[1] = [1.0]", 2, 7, "no constants of element type ?"),
        ("const %x : string[1] = [1.0]", 2, 7, "no constants of element type STRING"),
        ("const %x : float32[1] = dense<sha256:0123456789abcdef>", 2, 31, "not in the text"),
        ("const %x : float32[1] in [2, 1] = [1.0]", 2, 27, "empty range"),
        ("const %x : float32[1] as fixed<0,1> = [1.0]", 2, 26, "width 0"),
        ("%a, %b = Split() : ?[*]", 2, 1, "2 results, 1 types"),
        ('%a = Op() {k = [1, "a"]} : ?[*]', 2, 12, "several kinds"),
        ("%a = Op( : ?[*]", 2, 10, "expected"),
        ('%"" = Op() : ?[*]', 2, 1, "a value needs a name"),
        ("input %x", 3, 1, "':'"),
    ],
)
def test_a_bad_module_says_where_and_why(lines: str, line: int, column: int, message: str) -> None:
    with pytest.raises(HqcError) as caught:
        parse_module(f"{HEADER}\n{lines}\n}}\n")
    (found,) = caught.value.diagnostics
    assert found.code == "HQC306"
    assert found.where.source == f"line {line}, column {column}"
    assert message in str(found)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_every_nan_reads_back_as_nan(dtype: type) -> None:
    model = parse_module(f"{HEADER} const %x : float32[] = 0.0 }}")
    x = model.graph.initializers["x"]
    x.const_value = onnx_ir.tensor(np.copysign(np.array(np.nan, dtype), np.array(-1, dtype)))
    x.dtype = x.const_value.dtype
    assert equal(model, parse_module(print_module(model)))


def test_another_version_is_refused() -> None:
    with pytest.raises(HqcError, match="version 2"):
        parse_module("hqc.module version 2 state integer ir 8 {}")


def test_a_wrong_resource_is_refused() -> None:
    array = np.arange(20, dtype=np.float32)
    (key,) = _hashes(array)
    text = f"{HEADER} const %x : float32[20] = dense<{key}> }}"
    assert parse_module(text, {key: array}).graph.initializers["x"] is not None
    for other in (array + 1, array.astype(np.float64), array.reshape(4, 5)):
        with pytest.raises(HqcError, match="another one"):
            parse_module(text, {key: other})


def test_what_has_no_text_form_is_refused() -> None:
    body = Graph([], [], nodes=[], name="body")
    node = Node("", "If", [], [onnx_ir.AttrGraph("then_branch", body)], name="if")
    graph = Graph([], [], nodes=[node], opset_imports={"": 18})
    with pytest.raises(HqcError) as caught:
        print_module(Model(graph, ir_version=10))
    assert caught.value.diagnostics[0].code == "HQC102"
    assert caught.value.diagnostics[0].where.node == "if"


def test_comments_and_layout_mean_nothing() -> None:
    text = f"// a\n{HEADER} input %x // b\n : float32[N,2]\n  output %x }}"
    assert (
        print_module(parse_module(text))
        == f"{HEADER}\n  input %x : float32[N,2]\n  output %x\n}}\n"
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("-0.5", "0.5"), "data of constant w"),
        (("splat(0.0)", "splat(-0.0)"), "data of constant zeros"),
        (("fixed<21,9>", "fixed<21,8>"), "output of fc1/MatMul acc"),
        (("[-1234, ", "[-1235, "), "output of fc1/MatMul acc"),
        (("signed = 1", "signed = 0"), "attribute signed of q"),
        (("signed = 1", "signed = 1.0"), "attribute signed of q"),
        (("model.py:41", "model.py:42"), "provenance of fc1/MatMul"),
        ((", dce", ""), "provenance of fc1/MatMul"),
        (("MatMul(%x, %w)", "MatMul(%x, %s)"), "inputs of fc1/MatMul"),
        (("= MatMul", "= Gemm"), "operator of fc1/MatMul"),
        (('"q"', '"r"'), "name of q"),
        (("output %/fc1/q", "output %acc"), "outputs"),
        (("opset 18", "opset 17"), "opsets"),
        (("state integer", "state quantised"), "state"),
        (("@jets", "@jet"), "graph name"),
        (("ir 10", "ir 9"), "ir version"),
        (('"a,b"', '"a"'), "metadata"),
        (("  output", "  output %acc\n  output"), "outputs"),
        (("float32[N,3]", "float32[M,3]"), "input x"),
    ],
)
def test_a_difference_is_named(change: tuple[str, str], what: str) -> None:
    text = "\n".join(row for row in GOLDEN.split("\n") if "%large" not in row)
    text = text.replace('%"b c::0"', "%zeros")
    assert change[0] in text
    model = parse_module(text)
    found = difference(model, parse_module(text.replace(*change)))
    assert found is not None
    assert found.startswith(what)
    assert difference(model, parse_module(text)) is None
