"""Costs of bit widths: published bit operations, sizes, tables."""

from __future__ import annotations

import pytest
import torch
from support.published_costs import COUPLED, NAMES, SHAPES, UNCOUPLED, WIDTHS, at
from torch import nn

from hqc.codesign.costs.tables import (
    PUBLISHED_HEADROOM,
    Shape,
    Table,
    bops_table,
    layer_bops,
    measured_table,
    shapes_of,
    size_table,
)
from hqc.codesign.hessian.objective import Samples
from hqc.diagnostics import HqcError


def test_the_published_numbers() -> None:
    assert sum(layer_bops(shape, 32, 32) for shape in SHAPES) == 4_652_832
    table = bops_table(SHAPES, WIDTHS, UNCOUPLED, headroom=PUBLISHED_HEADROOM)
    assert table.value(at(8, 5, 5, 5)) == 349_248
    # the published tables of 4 and of 8 bits, layer by layer
    assert [layer_bops(s, 4, b) for s, b in zip(SHAPES, (16, 7, 7, 7), strict=True)] == [
        *(90_112, 92_160, 45_056, 7_040)
    ]
    assert [layer_bops(s, 8, b) for s, b in zip(SHAPES, (16, 11, 11, 11), strict=True)] == [
        *(159_744, 231_424, 114_688, 17_920)
    ]


def test_activations_enter_the_layer_that_reads_them() -> None:
    table = bops_table(SHAPES, WIDTHS, COUPLED, headroom=3)
    by_hand = [(8, 16), (5, 11), (6, 8), (7, 9)]
    wanted = sum(layer_bops(s, w, a) for s, (w, a) in zip(SHAPES, by_hand, strict=True))
    assert table.value(at(8, 5, 6, 7)) == pytest.approx(wanted)
    inputs = {"fc1": "x", "fc2": "a1", "fc3": 8, "fc4": 8}
    own = bops_table(SHAPES, {**WIDTHS, "x": (8,), "a1": (6, 8)}, inputs)
    bits = {**at(4, 5, 6, 7), "x": 8, "a1": 6}
    wanted = sum(
        layer_bops(s, w, a) for s, w, a in zip(SHAPES, (4, 5, 6, 7), (8, 6, 8, 8), strict=True)
    )
    assert own.value(bits) == pytest.approx(wanted)


def test_pruned_weights_are_not_multiplied() -> None:
    half = Shape("fc", 64, 16, pruned=512)
    assert layer_bops(half, 6, 8) == 1024 * (0.5 * 48 + 8 + 6 + 4)


def test_shapes_of_a_model() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    )
    with torch.no_grad():
        model[3].weight[0] = 0
    data = Samples((torch.randn(3, 2, 6, 6),), torch.zeros(3))
    assert shapes_of(model, data) == (
        Shape("0", 4, 18, positions=36),
        Shape("3", 5, 144, pruned=144),
    )
    with pytest.raises(HqcError, match="ConvTranspose2d"):
        shapes_of(nn.Sequential(nn.ConvTranspose2d(2, 3, 3)), data)


def test_tables_add_up() -> None:
    size = size_table(SHAPES, WIDTHS)
    assert size.value(at(8, 5, 5, 5)) == 1024 * 8 + 5 * (2048 + 1024 + 160)
    luts = measured_table({"fc1": {w: 100.0 * w for w in range(4, 9)}})
    both = size + luts + Table(constant=7.0)
    assert both.value(at(4, 4, 4, 4)) == size.value(at(4, 4, 4, 4)) + 407
    assert both.knobs == tuple(sorted(NAMES))


def test_incomplete_tables_are_refused() -> None:
    with pytest.raises(HqcError, match=r"HQC612.*enter fc2"):
        bops_table(SHAPES, WIDTHS, {"fc1": 8})
    with pytest.raises(HqcError, match="no candidate widths are given for a9"):
        bops_table(SHAPES[:1], WIDTHS, {"fc1": "a9"})
    with pytest.raises(HqcError, match="nan"):
        measured_table({"fc1": {4: float("nan")}})
    with pytest.raises(HqcError, match="no cost is known"):
        size_table(SHAPES, WIDTHS).value(at(9, 4, 4, 4))
    with pytest.raises(HqcError, match="different widths"):
        _ = measured_table({"fc1": {4: 1.0}}) + measured_table({"fc1": {5: 1.0}})
