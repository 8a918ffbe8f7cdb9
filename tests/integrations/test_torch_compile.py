"""PyTorch networks through the whole compiler: the module's own floats against exact integers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_ir import Model
from torch import Tensor, nn

import hqc
from hqc import pipeline
from hqc.equivalence.float_error import deviations, undecided
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import against_oracle, compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.frontends.torch import QuantIdentity, QuantLinear, QuantReLU
from hqc.frontends.torch_export import from_torch
from hqc.ir import from_bytes, to_bytes
from hqc.pipeline import PassEvent
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline

SAMPLES = 400
N_IN = 12


class Net(nn.Module):
    """Three layers, batch norm, and a residual whose branches share one quantiser's scale."""

    def __init__(self, *, power_of_two: bool = False, output: bool = True) -> None:
        super().__init__()
        step = {"power_of_two": power_of_two}
        self.inp = QuantIdentity(8, **step)
        self.fc1 = QuantLinear(N_IN, 16, per_channel=True, **step)
        self.bn1 = nn.BatchNorm1d(16)
        self.act1 = QuantReLU(6, **step)
        self.fc2 = QuantLinear(16, 16, weight_bits=4, per_channel=True, **step)
        self.bn2 = nn.BatchNorm1d(16)
        self.same = QuantIdentity(7, **step)
        self.act2 = QuantReLU(5, **step)
        self.fc3 = QuantLinear(16, 5, weight_bits=5, **step)
        self.out = QuantIdentity(8, **step) if output else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.fc1(self.inp(x))))
        x = self.act2(self.same(x) + self.same(self.bn2(self.fc2(x))))
        return self.out(self.fc3(x))


class Plain(nn.Module):
    """Power-of-two scales and no batch norm: every value is exact in float32, too."""

    def __init__(self) -> None:
        super().__init__()
        step = {"power_of_two": True}
        self.inp = QuantIdentity(8, **step)
        self.fc1 = QuantLinear(N_IN, 16, per_channel=True, bias_bits=8, **step)
        self.act1 = QuantReLU(6, **step)
        self.fc2 = QuantLinear(16, 5, bias_bits=8, **step)
        self.out = QuantIdentity(8, **step)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc2(self.act1(self.fc1(self.inp(x)))))


def trained(net: nn.Module) -> nn.Module:
    """Ranges and batch statistics from a few batches, and batch norms that do something."""
    torch.manual_seed(3)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d):
            nn.init.uniform_(m.weight, -1.5, 1.5)
            nn.init.normal_(m.bias, std=0.5)
    for _ in range(6):
        net(torch.randn(128, N_IN))
    return net.eval()


def free() -> nn.Module:
    return trained(Net())


def dyadic_with_batch_norm() -> nn.Module:
    return trained(Net(power_of_two=True))


def dyadic() -> nn.Module:
    return trained(Plain())


def no_output_quantiser() -> nn.Module:
    return trained(Net(output=False))


def brevitas() -> nn.Module:
    if importlib.util.find_spec("brevitas") is None:
        pytest.skip("Brevitas is not installed")
    import brevitas.nn as bnn
    from brevitas.quant import Int8WeightPerChannelFloat

    torch.manual_seed(4)
    weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 5}
    layers = [
        bnn.QuantIdentity(bit_width=8),
        bnn.QuantLinear(N_IN, 16, bias=True, **weights),
        nn.BatchNorm1d(16),
        bnn.QuantReLU(bit_width=5),
        bnn.QuantLinear(16, 5, bias=True, **weights),
        bnn.QuantIdentity(bit_width=7),
    ]
    return trained(nn.Sequential(*layers))


def torch_floats(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found = net(torch.tensor(x))
    return np.asarray(getattr(found, "value", found))


def lower(model: Model, inputs: dict[str, np.ndarray]) -> int:
    """The default pipeline, every state against the first and qonnx; how many samples differ."""
    want = Reference(model).run(inputs)
    differ = 0

    def after(event: PassEvent) -> None:
        nonlocal differ
        if event.record is None:
            return
        assert compare(Reference(event.model).run(inputs), want).equal, event.name
        oracle = against_oracle(event.model, inputs)
        assert oracle.unexplained == 0, f"{event.name}: {oracle.first}"
        differ += oracle.ties + oracle.rounding

    steps = parse_pipeline(pipeline.DEFAULT)
    pipeline.run(model, steps, Registry.builtin(), check_samples=32, on_event=after)
    result = compare(Fast(model).run(inputs), want)
    assert result.equal, result.first
    return differ


NETS = (free, dyadic_with_batch_norm, dyadic, no_output_quantiser, brevitas)


@pytest.mark.parametrize("make", NETS, ids=lambda f: f.__name__)
def test_exact_integers_are_the_module(make: Callable[[], nn.Module]) -> None:
    net = make()
    model = normalise_import(from_torch(net, torch.zeros(2, N_IN))).model
    inputs = dict(generate(model, SAMPLES, seed=5))
    (name,), (output,) = inputs, (str(v.name) for v in model.graph.outputs)
    mine = torch_floats(net, inputs[name])
    want = Reference(model).run(inputs)[output]
    rows = np.flatnonzero((mine != want).any(axis=1))
    explained = explained_by_float32(model, inputs, output, mine)
    imported = from_bytes(to_bytes(model), "imported")
    differ = lower(model, inputs)
    assert compare(Reference(imported).run(inputs), {output: want}).equal
    if make is dyadic:
        assert len(rows) == 0
        assert differ == 0
    else:
        assert explained[rows].all(), f"sample {rows[~explained[rows]][0]}"


def explained_by_float32(
    model: Model, inputs: dict[str, np.ndarray], output: str, mine: np.ndarray
) -> np.ndarray:
    """Samples in which PyTorch may differ from the exact model: ties, and unquantised outputs.

    Without a tie the output must still be the exact one within its float32 error.
    """
    every = range(len(mine))
    exact = {str(v.name): t.values() for v, t in Reference(model).trace(inputs).items()}
    found = deviations(model, inputs, {**exact, output: mine}, every)
    close = np.array([d.kind == "rounding" for d in found])
    return np.asarray(undecided(model, inputs) | close)


@pytest.mark.emulation
@pytest.mark.parametrize("backend", ["vitis", "catapult"])
def test_the_emulation_is_the_module(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "cache"))
    made = hqc.compile(
        free(), backend, tmp_path / "net", example_inputs=torch.zeros(2, N_IN), check=2000
    )
    verdict = made.manifest.verdict
    assert verdict.exact
    assert (verdict.mismatches, verdict.samples) == (0, 2000)
