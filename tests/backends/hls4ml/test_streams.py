"""Networks as streams, and tables, without a compiler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Model, Value
from support.backend_graphs import Builder, signed, unsigned
from support.emulation_runs import BACKENDS, by_backend
from support.stream_graphs import awkward, block, ints, order, readers, tables
from support.stream_simulation import ends
from support.tensor_graphs import residual, together

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.readback import compare
from hqc.backends.hls4ml.source_files import read_sources
from hqc.backends.hls4ml.streams import depths, streamed
from hqc.backends.hls4ml.vitis import Vitis
from hqc.backends.layers import Fork, Network, Rearrange, Table, Threshold
from hqc.backends.layers.layout import flows, packet
from hqc.backends.layers.lookup_tables import tabulate
from hqc.backends.layers.network import read_network
from hqc.diagnostics import HqcError
from hqc.numerics.types import Range
from hqc.pipeline.backend import BackendOptions

STREAM = BackendOptions(io="io_stream")


def streams(graph: tuple[Model, Partition]) -> Network:
    return streamed(read_network(*graph))


def forks(network: Network) -> list[Fork]:
    return [layer for layer in network.layers if isinstance(layer, Fork)]


# --- readers and packets --------------------------------------------------------------------


@given(st.integers(3, 30))
def test_each_value_is_read_once_whatever_the_number_of_readers(count: int) -> None:
    b = Builder()
    network = streams(b.finish(*readers(b, count)))
    read = Counter(name for layer in network.layers for name in layer.sources)
    copies = [c for fork in forks(network) for c in fork.copies]
    assert set(read.values()) == {1}
    assert set(copies) <= set(read)
    assert all(2 <= len(fork.copies) <= 7 for fork in forks(network))
    assert sum(len(fork.copies) - 1 for fork in forks(network)) == count - 1


def test_arrays_have_no_forks() -> None:
    network = read_network(*awkward())
    assert not forks(network)
    assert not network.stream


def test_packets_hold_the_last_axis_and_divide_what_they_carry() -> None:
    network = streams(awkward())
    for layer in network.layers:
        assert layer.size % packet(layer) == 0
    by_name = {layer.name: layer for layer in network.layers}
    assert {packet(by_name[name]) for name in network.inputs} == {1, 2, 3, 12}


@by_backend
def test_an_input_that_nothing_reads_is_refused(backend: Vitis) -> None:
    b = Builder()
    b.input("unused", 3, signed(4, 2))
    model, parts = b.finish(b.relu(b.input("x", 3, signed(4, 2))))
    found = backend.check(model, parts, STREAM)
    assert [d.code for d in found] == ["HQC401"]
    assert "io_parallel" in str(found[0])
    assert not backend.check(model, parts, BackendOptions())


# --- rearrangements -------------------------------------------------------------------------


def test_only_rearrangements_that_change_the_order_of_pixels_keep_a_sample() -> None:
    b = Builder()
    network = streams(b.finish(*order(b)))
    found = [flows(layer) for layer in network.layers if isinstance(layer, Rearrange)]
    # transposed; joined along columns and along channels, padded, sliced, channels swapped
    assert found == [False, True, True, True, True, True]


@given(st.data())
def test_a_flow_never_needs_an_earlier_packet(data: st.DataObject) -> None:
    """`flows` against a plain run of the template's own rule."""
    width, out_width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    size, out = width * data.draw(st.integers(1, 4)), out_width * data.draw(st.integers(1, 5))
    index = data.draw(st.lists(st.integers(-1, size - 1), min_size=out, max_size=out))
    layer = Rearrange(
        *("r", ("x",), (out // out_width, out_width), signed(4, 2)),
        sizes=(size,),
        index=np.array(index),
        widths=(width,),
    )
    held, fits = -1, True
    for row in layer.index.reshape(-1, out_width):
        wanted = {int(i) // width for i in row if i >= 0}
        fits &= len(wanted) <= 1 and all(at >= held for at in wanted)
        held = max([held, *wanted])
    assert flows(layer) == fits


def test_large_rearrangements_that_keep_a_sample_are_warned_about(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (8, 40, 40), signed(4, 2))
    turned = b.relu(b.move("Transpose", x, perm=[0, 1, 3, 2]))
    model, parts = b.finish(turned, b.relu(b.move("Pad", x, ints(0, 0, 1, 1, 0, 0, 1, 1))))
    for backend in BACKENDS:
        warnings = backend.emit(model, parts, STREAM, tmp_path / backend.name).warnings
        assert [d.code for d in warnings] == ["HQC406"]
        assert "12800 elements" in str(warnings[0])


def test_wide_packets_and_collected_tensors_are_warned_about(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (1, 70, 70), signed(2, 2))
    dense = b.matmul(b.move("Flatten", x), np.ones((4900, 1), int), signed(2, 2))
    model, parts = b.finish(b.relu(dense))
    warnings = Vitis().emit(model, parts, STREAM, tmp_path).warnings
    assert [d.code for d in warnings] == ["HQC406"] * 2  # 4900 elements, 4900 products
    assert "4900" in str(warnings[0])
    assert "dense" in str(warnings[0])


# --- depths ---------------------------------------------------------------------------------


@by_backend
def test_copies_that_bypass_a_branch_hold_a_sample(backend: Vitis, tmp_path: Path) -> None:
    model, parts = residual(np.random.default_rng(2))
    backend.emit(model, parts, STREAM, tmp_path)
    found = read_sources(tmp_path).depths
    copies = {name: depth for name, depth in found.items() if "_cpy" in name}
    assert sorted(copies.values()) == [16, 16, 16, 16]  # 4 by 4 pixels
    assert {depth for name, depth in found.items() if name not in copies} == {2}
    text = (tmp_path / "build_prj.tcl").read_text()
    assert text.count("hqc_set_fifo_depths\n  go architect") == 2 * (backend.name == "catapult")


def test_copies_that_never_meet_again_need_no_sample() -> None:
    b = Builder()
    x = b.input("x", (2, 9), signed(4, 2))
    y = b.relu(x)
    network = streams(b.finish(b.quant(y, signed(3, 2)), b.quant(y, signed(3, 3))))
    assert len(forks(network)) == 1
    assert set(depths(network).values()) == {2}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 5), min_size=2, max_size=9))
def test_no_network_waits_for_itself(seed: int, steps: list[int]) -> None:
    rng = np.random.default_rng(seed)
    network = streams(random_network(rng, steps))
    assert ends(network, depths(network), 3, rng)


def test_shallow_copies_do_wait_for_each_other() -> None:
    """The simulation sees a deadlock where there is one."""
    network = streams(together(block))
    shallow = dict.fromkeys(depths(network), 2)
    stuck = [not ends(network, shallow, 2, np.random.default_rng(seed)) for seed in range(20)]
    assert any(stuck)


def random_network(rng: np.random.Generator, steps: list[int]) -> tuple[Model, Partition]:
    """Layers that branch from any value so far and join any two of one shape."""
    b = Builder()
    known = [b.input("x", (2, 6), signed(4, 2)), b.input("y", (2, 6), signed(4, 2))]
    for step in steps:
        x, y = (known[int(i)] for i in rng.integers(len(known), size=2))
        if step < 2:
            known.append(b.quant(b.merge(x, y), signed(4, 2)))
        elif step < 4:
            known.append(b.relu(x))
        else:
            known.append(b.move("Gather", x, np.arange(6)[::-1].copy(), axis=2))
    used = {id(v) for v in known if v.uses()}
    last = [v for v in known if id(v) not in used]
    return b.finish(*[b.quant(v, signed(3, 2)) for v in last])


# --- readback -------------------------------------------------------------------------------


def changed(backend: Vitis, folder: Path, file: str, edit: Callable[[str], str]) -> None:
    """Emit, change one file, and see that the comparison fails, and did not before."""
    model, parts = together(block)
    backend.emit(model, parts, STREAM, folder)
    network = backend.network(model, parts, STREAM)
    compare(folder, network, backend.flavour, "latency")
    path = folder / file
    before = path.read_text()
    path.write_text(edit(before))
    assert path.read_text() != before
    with pytest.raises(HqcError) as caught:
        compare(folder, network, backend.flavour, "latency")
    assert {d.code for d in caught.value.diagnostics} == {"HQC402"}


@by_backend
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("firmware/defines.h", ", 2*1> layer2_t", ", 1*1> layer2_t"),
        ("firmware/network.cpp", "layer2_t, 32>", "layer2_t, 30>"),
        ("firmware/network.cpp", "layer2_cpy1, layer2_cpy2", "layer2_cpy2, layer2_cpy1"),
        ("firmware/network.cpp", "hqc_group_conv_2d_stream<", "hqc_conv_2d_stream<"),
        ("firmware/parameters.h", "pad_left = 1", "pad_left = 0"),
    ],
)
def test_a_changed_stream_is_noticed(
    backend: Vitis, tmp_path: Path, file: str, old: str, new: str
) -> None:
    changed(backend, tmp_path, file, lambda text: text.replace(old, new, 1))


@by_backend
def test_a_changed_depth_is_noticed(backend: Vitis, tmp_path: Path) -> None:
    file, old, new = {
        "vitis": ("firmware/network.cpp", "layer2_cpy1 depth=16", "layer2_cpy1 depth=15"),
        "catapult": ("build_prj.tcl", "layer2_cpy1 16", "layer2_cpy1 1"),
    }[backend.name]
    changed(backend, tmp_path, file, lambda text: text.replace(old, new, 1))


# --- tables ---------------------------------------------------------------------------------


def test_tables_are_chosen_where_they_are_smaller() -> None:
    def kind(bits: int, count: int) -> type:
        b = Builder()
        x = b.input("x", 3, signed(bits, 2))
        steps = np.linspace(-1.9, 1.9, count)[None]
        return type(read_network(*b.finish(b.thresholds(x, steps))).layers[-1])

    assert kind(8, 255) is Table
    assert kind(6, 9) is Table
    assert kind(6, 8) is Threshold  # few comparators
    assert kind(12, 15) is Threshold  # 4096 entries cost more than 15 comparators
    assert kind(12, 255) is Table
    assert kind(13, 1023) is Threshold  # too many codes


def test_a_table_counts_codes_that_can_occur_only() -> None:
    b = Builder()
    model, parts = b.finish(*tables(b))
    found = [layer for layer in read_network(model, parts).layers if isinstance(layer, Table)]
    assert [layer.table.codes.shape for layer in found] == [
        *((1, 64), (3, 64), (1, 32), (1, 32), (1, 512)),
    ]
    assert [layer.first for layer in found] == [-32, -32, 0, -16, -256]


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=12),
    st.integers(-8, 0),
    st.integers(0, 2),
)
def test_a_table_holds_the_count_for_each_code(codes: list[int], low: int, coarser: int) -> None:
    b = Builder()
    x = b.input("x", 1, signed(6, 6 - 3))
    model, parts = b.finish(b.thresholds(x, np.sort(codes)[None] / 8.0, bias=-3))
    layer = read_network(model, parts).layers[-1]
    if isinstance(layer, Table):  # chosen already: the thresholds of a coarser one
        return
    assert isinstance(layer, Threshold)
    table = tabulate(layer, signed(6, 3), Range(low, 7, coarser - 3))
    for code in range(low, 8):
        reached = sum((code << coarser) >= max(c, -32) for c in codes)
        assert table.table.codes[0, code - table.first] * 2.0**-table.table.type.fraction == (
            reached - 3
        )


@by_backend
def test_a_changed_table_is_noticed(backend: Vitis, tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", (3, 4), unsigned(4, 1))
    model, parts = b.finish(b.thresholds(x, np.linspace(0, 1.9, 12)[None]))
    for options in (STREAM, replace(STREAM, io="io_parallel")):
        folder = tmp_path / options.io
        emission = backend.emit(model, parts, options, folder)
        assert emission.layers[-1].kind == "table"
        network = backend.network(model, parts, options)
        path = folder / "firmware" / "weights" / "t2.h"
        path.write_text(path.read_text().replace("= {1", "= {2", 1))
        with pytest.raises(HqcError) as caught:
            compare(folder, network, backend.flavour, "latency")
        assert {d.code for d in caught.value.diagnostics} == {"HQC402"}


def test_a_reshape_does_not_change_the_channels_of_a_pool() -> None:
    b = Builder()
    x: Value = b.input("x", (1, 4, 6), signed(4, 2))
    pooled = b.move("Flatten", b.max_pool(x, kernel_shape=[2, 2]))
    network = read_network(*b.finish(pooled))
    assert [getattr(layer, "channels", None) for layer in network.layers] == [None, 1]
