"""hls4ml's own compile and predict on exact graphs, and compiled modules as functions."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.backend_graphs import (
    Builder,
    _casts,
    _products,
    _requantisers,
    corner_codes,
    evaluate,
    signed,
)
from support.emulation_runs import shared_cache  # noqa: F401 - a fixture
from support.integration_graphs import GRAPHS, case, same

from hqc.analysis.partition import Partition
from hqc.backends.layers.layout import from_hardware, to_hardware
from hqc.diagnostics import HqcError
from hqc.equivalence.bit_exactness import ExactCore
from hqc.frontends.torch import quant
from hqc.integrations.hls4ml import convert, run
from hqc.integrations.torch import Compiled, compiled, hqc_backend
from hqc.numerics.types import Codes

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def predicted(graph: Any, parts: Partition, codes: dict[str, Codes]) -> list[np.ndarray]:
    """Codes of the outputs by hls4ml's own `predict`, on doubles."""
    given = [
        np.ascontiguousarray(
            to_hardware(np.ldexp(codes[p.name].astype(np.float64), -p.type.fraction))
        ).reshape(len(codes[p.name]), -1)
        for p in parts.inputs
    ]
    found = graph.predict(given[0] if len(given) == 1 else given)
    many = found if isinstance(found, list) else [found]
    return [
        from_hardware(np.rint(np.ldexp(y, p.type.fraction)).astype(np.int64), p.shape)
        for y, p in zip(many, parts.outputs, strict=True)
    ]


def dense_modes() -> Partition:
    """Every mode, requantiser and width that plain layers have, sums of 67 bits among them."""
    b = Builder()
    x = b.input("x", 4, signed(10, 5))
    rng = np.random.default_rng(5)
    return b.finish(*_casts(b, x), *_requantisers(b, x, rng), *_products(b, rng))[1]


@pytest.mark.emulation
@pytest.mark.parametrize("backend", ["Vivado", "Quartus"])
def test_an_mlp_is_exact(backend: str, tmp_path: Path) -> None:
    parts, codes, want = case("mlp")
    graph = convert(parts, backend, output_dir=tmp_path)
    graph.compile()
    assert same(parts, predicted(graph, parts, codes), want)


@pytest.mark.emulation
def test_a_stream_of_dense_layers_is_exact(tmp_path: Path) -> None:
    parts, codes, want = case("mlp")
    graph = convert(parts, "Vivado", io_type="io_stream", output_dir=tmp_path)
    graph.compile()
    assert "hls::stream" in (tmp_path / "firmware" / "myproject.cpp").read_text()
    assert same(parts, predicted(graph, parts, codes), want)


@pytest.mark.emulation
def test_quartus_does_every_mode(tmp_path: Path) -> None:
    parts = dense_modes()
    codes = corner_codes(parts, 60, 3)
    graph = convert(parts, "Quartus", output_dir=tmp_path)
    graph.compile()
    assert same(parts, predicted(graph, parts, codes), evaluate(parts, codes))


@pytest.mark.long
@pytest.mark.emulation
@pytest.mark.parametrize("backend", ["Vitis", "Vivado", "Catapult"])
@pytest.mark.parametrize("name", ["modes", "residual"])
def test_hqcs_own_layers_go_through_hls4mls_writer(backend: str, name: str, tmp_path: Path) -> None:
    parts, codes, want = case(name)
    graph = convert(parts, backend, output_dir=tmp_path)
    graph.compile()
    assert same(parts, predicted(graph, parts, codes), want)


@pytest.mark.emulation
def test_run_adds_the_hosts_parts(shared_models: Path, tmp_path: Path) -> None:
    path = shared_models / "qkeras_jettagging.onnx"  # its softmax is the host's
    graph = convert(path, "Quartus", output_dir=tmp_path)
    graph.compile()
    x = np.random.default_rng(0).normal(0, 4, (200, 16)).astype(np.float32)
    from hqc.integrations.core import lowered

    cut = lowered(path)
    inputs = {cut.inputs[0].external: x}
    want = ExactCore(cut).run(inputs)
    got = run(graph, cut, inputs)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[name], want[name]) for name in want)
    one = run(graph, cut, {name: a[:1] for name, a in inputs.items()})
    assert all(np.array_equal(one[name], want[name][:1]) for name in want)


def test_oneapi_projects_are_written(tmp_path: Path) -> None:
    graph = convert(case("mlp")[0], "oneAPI", output_dir=tmp_path)
    graph.write()  # compiling takes icpx
    (path,) = tmp_path.rglob("defines.h")
    assert "ac_fixed<" in path.read_text()
    assert list(tmp_path.rglob("weights/*.h"))


def test_oneapi_has_no_type_of_one_bit(tmp_path: Path) -> None:
    with pytest.raises(HqcError, match="one bit"):
        convert(dense_modes(), "oneAPI", output_dir=tmp_path)


def test_libero_graphs_have_the_types(tmp_path: Path) -> None:
    graph = convert(case("mlp")[0], "Libero", output_dir=tmp_path, smarthls_path=".")
    types = [layer.get_output_variable().type.precision for layer in graph.get_layers()]
    assert all(t.definition_cpp().startswith(("hls::ap_fixpt<", "hls::ap_ufixpt<")) for t in types)


def test_libero_needs_its_own_compiler(tmp_path: Path) -> None:
    with pytest.raises(HqcError) as caught:
        convert(case("mlp")[0], "Libero", output_dir=tmp_path)
    assert caught.value.diagnostics[0].code == "HQC404"


def test_layers_without_a_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HqcError) as caught:
        convert(GRAPHS["residual"]()[1], "Quartus", output_dir=tmp_path)
    assert {d.code for d in caught.value.diagnostics} == {"HQC401"}
    assert "Conv" in str(caught.value)
    assert caught.value.diagnostics[0].helps


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HqcError, match="known: Vitis, Vivado"):
        convert(case("mlp")[0], "Bambu", output_dir=tmp_path)


def test_streams_with_branches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HqcError, match="io_parallel"):
        convert(GRAPHS["residual"]()[1], "Vivado", io_type="io_stream", output_dir=tmp_path)


# --- torch ------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    """Two dense layers between power-of-two quantisers: float32 is exact on it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
        self.register_buffer("step", torch.tensor(0.0625))
        self.register_buffer("zero", torch.tensor(0.0))

    def _on_grid(self, x: Any, steps: int, bits: int, signed_: bool = True) -> Any:
        return quant(x, self.step * steps, self.zero, bits, signed_, False, "ROUND")

    def forward(self, x: Any) -> Any:
        linear, grid = torch.nn.functional.linear, self._on_grid
        first = [grid(p, 1, 6) for p in (self.first.weight, self.first.bias)]
        x = grid(torch.relu(linear(grid(x, 1, 8), *first)), 2, 5, False)
        second = [grid(p, 1, 6) for p in (self.second.weight, self.second.bias)]
        return grid(linear(x, *second), 1, 8)


@pytest.fixture
def x() -> Any:
    return 2 * torch.randn(50, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.emulation
def test_a_module_as_a_function(x: Any, tmp_path: Path) -> None:
    net = Net().eval()
    function = compiled(net, x, "vitis", tmp_path / "out")
    assert isinstance(function, Compiled)
    with torch.no_grad():
        want = net(x)
        assert function(x).dtype == torch.float32
        assert torch.equal(function(x), want)
        assert torch.equal(function(x[:3]), want[:3])
        assert want.std() > 0
    with pytest.raises(HqcError, match="no gradient"):
        function(x.clone().requires_grad_())
    with pytest.raises(HqcError, match="2 tensors for 1 inputs"):
        function(x, x)


def test_dynamo_finds_the_backend_by_name() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    module, name = project["entry-points"]["torch_dynamo_backends"]["hqc"].split(":")
    assert getattr(import_module(module), name) is hqc_backend


@pytest.mark.emulation
def test_torch_compile(x: Any, tmp_path: Path) -> None:
    torch.compiler.reset()
    net = Net().eval()
    options = {"output": str(tmp_path / "out")}
    fast = torch.compile(net, backend=hqc_backend, dynamic=False, fullgraph=True, options=options)
    with torch.no_grad():
        assert torch.equal(fast(x), net(x))
        net.first.weight.add_(0.5)
        with pytest.raises(HqcError, match="has changed"):
            fast(x)
        torch.compiler.reset()
        assert torch.equal(fast(x), net(x))
    torch.compiler.reset()
    with pytest.raises(Exception, match="no gradient"):
        fast(x)
