"""Backends without a compiler: layers, types, written projects, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.backend_graphs import Builder, corner_codes, evaluate, signed, unsigned, zoo
from support.emulation_runs import by_backend

from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.model_graph import spell
from hqc.backends.hls4ml.project import decimal
from hqc.backends.hls4ml.readback import compare
from hqc.backends.hls4ml.source_files import parse_cpp_type, read_sources
from hqc.backends.hls4ml.vitis import Vitis
from hqc.backends.layers import Constant, Dense, Requantise, accumulator
from hqc.backends.layers.network import read_network
from hqc.diagnostics import Exit, HqcError
from hqc.numerics.types import FixedType, Overflow, Range, Rounding
from hqc.pipeline.backend import BackendOptions

hardware_types = st.builds(
    FixedType,
    st.just(True),
    st.integers(1, 70),
    st.integers(-20, 90),
    st.sampled_from([r for r in Rounding if r.hardware is not None]),
    st.sampled_from(list(Overflow)),
)


def small() -> Builder:
    return Builder()


@given(hardware_types, st.sampled_from(["ap", "ac"]))
def test_types_survive_their_cpp_spelling(type_: FixedType, spelling: str) -> None:
    assert parse_cpp_type(spell(type_, spelling)) == type_
    if type_.overflow is not Overflow.SAT_SYM:
        other = dataclasses.replace(type_, signed=False)
        assert parse_cpp_type(spell(other, spelling)) == other


def test_foreign_types_are_not_read() -> None:
    with pytest.raises(ValueError, match="ap_int"):
        parse_cpp_type("ap_int<4>")


@given(st.integers(-(2**62), 2**62), st.integers(-5, 70))
def test_decimals_are_exact(code: int, fraction: int) -> None:
    from fractions import Fraction

    assert Fraction(decimal(code, fraction)) == Fraction(code) / Fraction(2) ** fraction


@given(
    st.integers(-8, 8),
    st.integers(0, 8),
    st.lists(st.lists(st.integers(-4, 3), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.integers(-9, 9), min_size=3, max_size=3),
)
def test_the_accumulator_holds_every_partial_sum(
    low: int, span: int, weights: list[list[int]], bias: list[int]
) -> None:
    w = Constant(np.array(weights), signed(3, 1))
    b = Constant(np.array(bias), signed(5, 4))
    x = Range(low, low + span, -1)
    limits = accumulator(x, w, b).limits.at(-3)
    for order in (1, -1):
        for end in (x.lo, x.hi):
            products = w.codes[::order] * end
            sums = np.cumsum(np.vstack([b.codes << 2, products]), axis=0)
            assert limits.lo <= min(sums.min(), products.min())
            assert limits.hi >= max(sums.max(), products.max())


def test_an_accumulator_is_not_wider_than_its_sums_need() -> None:
    w = Constant(np.array([[1], [1], [1]]), unsigned(1, 1))
    b = Constant(np.zeros(1, np.int64), unsigned(1, 1))
    assert accumulator(Range(0, 5), w, b) == FixedType(False, 4, 4)  # 15 is the largest sum


def test_neighbours_become_one_layer() -> None:
    b = small()
    x = b.input("x", 3, signed(4, 2))
    dense = b.add(b.matmul(x, np.ones((3, 2), int), signed(2, 2)), np.array([1, 2]), signed(4, 4))
    scaled = b.add(b.mul(dense, np.array([3, -1]), signed(4, 1)), np.array([1, 0]), signed(2, 1))
    model, parts = b.finish(b.quant(scaled, unsigned(3, 2)))
    network = read_network(model, parts)
    assert [type(layer).__name__ for layer in network.layers] == ["Input", "Dense", "Requantise"]
    dense_layer, requantise = network.layers[1:]
    assert isinstance(dense_layer, Dense)
    assert dense_layer.bias.codes.tolist() == [1, 2]
    assert isinstance(requantise, Requantise)
    assert requantise.result == unsigned(3, 2)


def test_a_quantiser_is_not_joined_with_a_value_that_has_other_uses() -> None:
    b = small()
    x = b.input("x", 3, signed(4, 2))
    dense = b.matmul(x, np.ones((3, 2), int), signed(2, 2))
    model, parts = b.finish(b.quant(dense, signed(3, 2)), dense)
    kinds = [type(layer).__name__ for layer in read_network(model, parts).layers]
    assert kinds == ["Input", "Dense", "Activation", "Activation"]  # the last copies to the port


def test_reshapes_pass_and_casts_to_integers_do_not() -> None:
    b = small()
    x = b.input("x", 4, signed(4, 2))
    square = b.node("Identity", [x], signed(4, 2))
    square.shape = onnx_ir.Shape(["N", 2, 2])
    flat = b.node("Flatten", [square], signed(4, 2))
    flat.shape = onnx_ir.Shape(["N", 4])
    scaled = b.mul(flat, np.array([1, 2, 3, 4]), signed(4, 2))
    cast = b.node("Cast", [x], signed(4, 2))
    cast.producer().attributes["to"] = onnx_ir.AttrInt64("to", int(onnx_ir.DataType.INT32))
    model, parts = b.finish(b.quant(scaled, signed(3, 2)), b.quant(cast, signed(3, 2)))
    found = Vitis().check(model, parts, BackendOptions())
    assert len(found) == 1
    assert "Cast" in found[0].message


@by_backend
def test_all_illegal_nodes_are_reported_before_anything_is_written(
    backend: Vitis, tmp_path: Path
) -> None:
    b = small()
    x = b.input("x", 3, signed(4, 2))
    one = b.node("Sigmoid", [x], signed(4, 2))
    two = b.node("Tanh", [x], signed(8, 4))
    model, parts = b.finish(
        b.quant(one, signed(3, 1)), b.quant(two, signed(3, 1)), b.quant(x, signed(3, 1))
    )
    with pytest.raises(HqcError) as caught:
        backend.emit(model, parts, BackendOptions(), tmp_path / "out")
    codes = [d.code for d in caught.value.diagnostics]
    assert codes == ["HQC401", "HQC401"]
    assert "Sigmoid" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert [d.code for d in backend.check(model, parts, BackendOptions())] == codes


@pytest.mark.parametrize("rounding", [Rounding.CEIL, Rounding.UP])
def test_rounding_modes_without_hardware_are_refused(rounding: Rounding) -> None:
    b = small()
    x = b.input("x", 3, signed(4, 2))
    model, parts = b.finish(b.quant(x, FixedType(True, 3, 2, rounding, Overflow.SAT)))
    found = Vitis().check(model, parts, BackendOptions())
    assert [d.code for d in found] == ["HQC401"]


@by_backend
@pytest.mark.parametrize(
    "options",
    [
        BackendOptions(io="io_serial"),
        BackendOptions(strategy="fast"),
        BackendOptions(project="two words"),
        BackendOptions(reuse_factor=0),
    ],
    ids=["io", "strategy", "name", "reuse"],
)
def test_bad_options_are_refused(backend: Vitis, options: BackendOptions) -> None:
    model, parts = zoo()
    assert [d.code for d in backend.check(model, parts, options)] == ["HQC401"]


@pytest.mark.parametrize("name", ["w2", "nnet", "class", "layer2_out"])
def test_names_that_the_sources_use_get_a_suffix(name: str, tmp_path: Path) -> None:
    model, parts = zoo()
    emission = Vitis().emit(model, parts, BackendOptions(project=name), tmp_path)
    assert f"firmware/{name}_top.cpp" in emission.files
    assert read_sources(tmp_path).project == f"{name}_top"


def test_only_catapult_makes_asics() -> None:
    model, parts = zoo()
    options = BackendOptions(technology="asic")
    assert Vitis().check(model, parts, options)
    assert not Catapult().check(model, parts, options)


@by_backend
def test_a_project_is_complete_and_the_same_every_time(backend: Vitis, tmp_path: Path) -> None:
    written = []
    for name in ("one", "another_place"):
        model, parts = zoo()
        codes = corner_codes(parts, 20, 1)
        vectors = (codes, evaluate(parts, codes))
        emission = backend.emit(model, parts, BackendOptions(), tmp_path / name, vectors)
        written.append({f: (tmp_path / name / f).read_bytes() for f in emission.files})
    assert written[0] == written[1]
    needed = {"build_prj.tcl", "network_test.cpp", "firmware/network.cpp", "firmware/defines.h"}
    assert needed | {"tb_data/tb_input_features.dat"} <= set(written[0])
    own = {name: data for name, data in written[0].items() if "_types/" not in name}
    assert not [name for name, data in own.items() if str(tmp_path).encode() in data]
    lines = written[0]["tb_data/tb_output_predictions.dat"].decode().splitlines()
    assert len(lines) == 20
    assert len(lines[0].split()) == sum(int(np.prod(p.shape)) for p in parts.outputs)


@by_backend
def test_nothing_of_an_earlier_network_stays(backend: Vitis, tmp_path: Path) -> None:
    model, parts = zoo()
    backend.emit(model, parts, BackendOptions(), tmp_path)
    b = small()
    x = b.input("x", 2, signed(4, 2))
    model, parts = b.finish(b.quant(x, signed(3, 2)))
    backend.emit(model, parts, BackendOptions(project="other"), tmp_path)
    assert read_sources(tmp_path).project == "other"
    assert not read_sources(tmp_path).arrays


@by_backend
def test_every_emitted_width_is_reported(backend: Vitis, tmp_path: Path) -> None:
    model, parts = zoo()
    emission = backend.emit(model, parts, BackendOptions(), tmp_path)
    network = read_network(model, parts)
    assert [layer.name for layer in emission.layers] == [layer.name for layer in network.layers]
    kinds = {layer.kind for layer in emission.layers}
    assert kinds == {"input", "dense", "requantise", "relu", "cast", "threshold", "add"}
    dense = next(layer for layer in emission.layers if layer.kind == "dense")
    assert {role for role, _ in dense.types} == {"result", "weight", "bias", "accum"}
    types = read_sources(tmp_path).types
    assert all(type_ in types.values() for layer in emission.layers for _, type_ in layer.types)


@by_backend
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("defines.h", "<16,3,", "<15,3,"),
        ("defines.h", "_RND_CONV", "_RND"),
        ("parameters.h", "n_thresholds = 4", "n_thresholds = 3"),
        ("weights/{array}.h", "= {", "= {1"),
        ("network.cpp", "relu<", "linear<"),
    ],
)
def test_a_project_that_differs_from_the_ir_is_noticed(
    backend: Vitis, tmp_path: Path, file: str, old: str, new: str
) -> None:
    model, parts = zoo()
    backend.emit(model, parts, BackendOptions(), tmp_path)
    network = read_network(model, parts)
    array = next(a.name for a in read_sources(tmp_path).arrays.values() if a.name[0] == "w")
    path = tmp_path / "firmware" / file.format(array=array)
    text = path.read_text()
    assert old in text
    if old == "_RND_CONV":  # a mode that FixedType does not know is not silently read
        path.write_text(text.replace(old, new))
        with pytest.raises((HqcError, KeyError)):
            compare(tmp_path, network, backend.flavour, "latency")
        return
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(HqcError) as caught:
        compare(tmp_path, network, backend.flavour, "latency")
    assert {d.code for d in caught.value.diagnostics} == {"HQC402"}


@by_backend
def test_a_missing_vendor_tool_is_named(
    backend: Vitis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HqcError) as caught:
        backend.build(tmp_path, 1.0)
    assert caught.value.exit is Exit.TOOL
    assert caught.value.diagnostics[0].code == "HQC404"


@by_backend
def test_a_failing_vendor_tool_shows_its_last_lines(
    backend: Vitis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vitis-run", "catapult"):
        tool = tmp_path / name
        tool.write_text("#!/bin/sh\necho no licence today\nexit 7\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HqcError) as caught:
        backend.build(tmp_path, 30.0)
    assert caught.value.diagnostics[0].code == "HQC405"
    assert "no licence today" in str(caught.value)
