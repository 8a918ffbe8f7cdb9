"""Convolutional HAWQ state dicts: the graph gives the codes and outputs of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hawq_images import Design, Net, images
from support.onnx_run import qonnx_values
from torch import Tensor, nn
from zoo.hawq_digits import Digits

import hqc
from hqc.diagnostics import HqcError
from hqc.execution.reference import Reference
from hqc.frontends.hawq import load, parse
from hqc.frontends.hawq.evaluate import evaluate

DESIGNS = {
    "average": Design(),
    "average, padded": Design(pool_padding=1),
    "max": Design(pool="max", pool_padding=1),
    "global average": Design(pool="global"),
    "no pool, strided and dilated": Design("none", stride=2, padding=2, dilation=2, side=8),
    "grouped, per tensor": Design(groups=2, per_channel=False),
    "depthwise, unsigned": Design("max", groups=4, symmetric=False, padding=0),
    "residual": Design("max", "plain"),
    "residual, averaged": Design("average", "plain", symmetric=False),
    "rectified residual": Design("max", "rectified"),
    "rectified residual, per tensor": Design("global", "rectified", per_channel=False),
    "residual with a convolution": Design("average", "strided"),
}


def code_names(model: onnx_ir.Model) -> dict[str, str]:
    """Names of the tensors that hold an activation's codes: the last that stand for it."""
    names = [str(v.name) for node in model.graph for v in node.outputs]
    acts = {f"quant_{part}" for part in ("input", "act_1", "act_2")}
    return {act: [n for n in names if n.split("/")[0] == act][-1] for act in acts}


def equal(design: Design, seed: int = 0) -> onnx_ir.Model:
    truth = images(design, seed)
    found = evaluate(parse(truth.state, Net(design)), truth.x)
    model = load(truth.state, Net(design))
    reference = Reference(model)
    trace = reference.trace({"x": truth.x})
    exact = {str(value.name): tensor for value, tensor in trace.items()}
    names = code_names(model)
    for name, codes in truth.codes.items():
        np.testing.assert_array_equal(found.codes[name], codes)
        np.testing.assert_array_equal(exact[names[name]].values(), codes)
    np.testing.assert_array_equal(found.output, truth.output)
    np.testing.assert_array_equal(reference.finish(trace)["output"], truth.output)
    return model


@pytest.mark.parametrize("name", DESIGNS)
def test_codes_and_outputs_are_those_of_the_original(name: str) -> None:
    design = DESIGNS[name]
    model = equal(design)
    truth = images(design)
    names = code_names(model)
    found = qonnx_values(model, truth.x, [*names.values(), "output"])
    for act, codes in truth.codes.items():
        np.testing.assert_array_equal(found[names[act]], codes)
    np.testing.assert_array_equal(found["output"], truth.output)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**16),
    st.sampled_from(["average", "max", "global", "none"]),
    st.sampled_from(["none", "plain", "rectified", "strided"]),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
)
def test_any_small_network(
    seed: int, pool: str, residual: str, groups: int, per_channel: bool, symmetric: bool
) -> None:
    equal(Design(pool, residual, 1, 1, 1, groups, per_channel, symmetric), seed)


def test_negative_averages_are_truncated_as_the_original_does() -> None:
    """HAWQ adds before it truncates: -1 becomes 0, and so it does here."""
    truth = images(Design())
    codes = truth.codes["quant_act_2"].astype(float)
    means = codes.reshape(*codes.shape[:2], 3, 2, 3, 2).mean(axis=(3, 5))
    assert np.any(means == -1)  # else this would show nothing
    kinds = [n.op_type for n in load(truth.state, Net(Design())).graph]
    at = kinds.index("AveragePool")
    assert kinds[at : at + 3] == ["AveragePool", "Add", "Quant"]


def test_averages_of_so_many_codes_that_the_addition_shows() -> None:
    """Of 144 codes, 143/144 becomes 1: HAWQ adds 0.01."""
    design = Design("global", side=12)
    codes = images(design).codes["quant_act_2"].mean(axis=(2, 3))
    assert np.any(np.trunc(codes + 0.01) != np.trunc(codes))
    equal(design)


class Plain(nn.Module):
    """The float module of a design, which gives the order of the layers only."""

    input_shape = (2, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(2)
        self.fc = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv1(x)))
        return self.fc(self.pool(self.conv2(x)).flatten(1))


def test_a_float_module_gives_the_order() -> None:
    truth = images(Design("max"))
    model = load(truth.state, Plain(), config={"pass_weight_scale": True, "bias_bit": 12})
    np.testing.assert_array_equal(Reference(model).run({"x": truth.x})["output"], truth.output)


def test_convolutions_are_nodes_of_integers() -> None:
    model = load(images(Design()).state, Net(Design()))
    convs = [n for n in model.graph if n.op_type == "Conv"]
    assert [str(n.name) for n in convs] == ["conv1/Conv", "conv2/Conv"]
    assert all(n.inputs[1].producer().op_type == "Quant" for n in convs)
    assert str(model.graph.inputs[0].shape) == "[batch,2,6,6]"


# --- sizes ---------------------------------------------------------------------------------------


class Sizeless(Net):
    """A class that does not say how large its images are."""

    def __init__(self, design: Design) -> None:
        super().__init__(design)
        del self.input_shape


def test_the_size_of_images_is_found_where_only_one_fits() -> None:
    design = Design("none")
    model = load(images(design).state, Sizeless(design))
    assert str(model.graph.inputs[0].shape) == "[batch,2,6,6]"


def test_the_size_of_images_is_asked_for() -> None:
    design = Design("max")
    state = images(design).state
    with pytest.raises(HqcError, match=r"HQC602.*size(.|\n)*2x6x6, 2x7x7(.|\n)*input_shape"):
        load(state, Sizeless(design))
    model = load(state, Sizeless(design), config={"input_shape": [2, 7, 7]})
    assert str(model.graph.inputs[0].shape) == "[batch,2,7,7]"
    for wrong, message in (
        ([2, 9, 9], r"\[2, 9, 9\]: fc takes"),
        ([3, 6, 6], "conv1 takes 2"),
        ([2, 1, 1], "larger"),
        ([2, "a"], "no list of sizes"),
    ):
        with pytest.raises(HqcError, match=f"HQC601.*{message}"):
            load(state, Sizeless(design), config={"input_shape": wrong})


def test_what_has_no_exact_form() -> None:
    design = Design()
    state = images(design).state
    net = Net(design)
    net.pool.set_param(nn.AvgPool2d(2, ceil_mode=True))
    with pytest.raises(HqcError, match=r"HQC602.*ceil_mode"):
        load(state, net)
    net.pool.set_param(nn.AdaptiveAvgPool2d(3))
    with pytest.raises(HqcError, match=r"HQC602.*adapts"):
        load(state, net)
    net = Net(design)
    net.conv2.conv.padding_mode = "reflect"
    with pytest.raises(HqcError, match=r"HQC602.*reflect"):
        load(state, net)


# --- the original's own numbers ------------------------------------------------------------------


@pytest.fixture
def digits(shared_models: Path) -> tuple[dict[str, Any], Any]:
    path = shared_models / "hawq_digits_resconv_w6a8.pt"
    if not path.is_file():
        pytest.skip("the HAWQ checkpoints are not present")
    state = torch.load(path, weights_only=True)["state_dict"]
    return state, np.load(shared_models / "hawq_digits_resconv_w6a8_io.npz")


def test_the_convolutional_network_of_the_original(digits: tuple[dict[str, Any], Any]) -> None:
    state, io = digits
    found = evaluate(parse(state, Digits()), io["x"])
    model = load(state, Digits())
    names = code_names(model)
    values = qonnx_values(model, io["x"], [*names.values(), "output"])
    count = 0
    for name, codes in found.codes.items():
        np.testing.assert_array_equal(codes, io[f"code.{name}"])
        np.testing.assert_array_equal(values[names[name]], codes)
        count += codes.size
    assert count == 431_936
    np.testing.assert_array_equal(found.output, io["y"])
    np.testing.assert_array_equal(values["output"], io["y"])
    np.testing.assert_array_equal(Reference(model).run({"x": io["x"]})["output"], io["y"])


@pytest.mark.emulation
def test_the_hardware_is_the_original(digits: tuple[dict[str, Any], Any], tmp_path: Path) -> None:
    state, io = digits
    model = load(state, Digits())
    samples = {"x": io["x"][:50]}
    artifact = hqc.compile(model, "catapult", tmp_path / "out", samples=samples, check=50)
    assert artifact.manifest.verdict.exact
    assert artifact.manifest.verdict.overflow_free
    np.testing.assert_array_equal(np.asarray(artifact.run(io["x"])), io["y"])
