"""PT2E's quantisers, operator by operator, against PyTorch on every tie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_ir import Model
from torch import Tensor, nn

from hqc.analysis.grid_constants import grid_constant
from hqc.diagnostics import HqcError
from hqc.equivalence.float_error import undecided
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.frontends.torch_export import from_module
from hqc.frontends.torch_export.program_files import load_program

pytest.importorskip("torch.ao.quantization.fx._decomposed")
DECOMPOSED = torch.ops.quantized_decomposed
LIMITS = {torch.int8: (-128, 127), torch.uint8: (0, 255), torch.int16: (-(2**15), 2**15 - 1)}


class Pair(nn.Module):
    """Quantise and dequantise per tensor."""

    def __init__(self, *grid: Any, grid2: Any = None) -> None:
        super().__init__()
        self.grid, self.grid2 = grid, grid2 or grid

    def forward(self, x: Tensor) -> Tensor:
        codes = DECOMPOSED.quantize_per_tensor(x, *self.grid)
        return DECOMPOSED.dequantize_per_tensor(codes, *self.grid2)


def imported(module: nn.Module, x: np.ndarray) -> Model:
    return normalise_import(from_module(module, torch.tensor(x[:4]))).model


def differing(module: nn.Module, x: np.ndarray) -> tuple[np.ndarray, Model]:
    """Samples that differ from PyTorch, and the model."""
    model = imported(module, x)
    want = module(torch.tensor(x)).numpy()
    (got,) = Reference(model).run({str(model.graph.inputs[0].name): x}).values()
    return (got != want).reshape(len(x), -1).any(axis=1), model


def every_tie(scale: float, zero: int, lo: int, hi: int) -> np.ndarray:
    steps = np.arange(4 * (lo - zero) - 16, 4 * (hi - zero) + 17) / 4
    x = (steps * np.float64(np.float32(scale))).astype(np.float32)
    return np.concatenate([x, *(np.nextafter(x, np.float32(e)) for e in (-np.inf, np.inf))])[
        :, None
    ]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize("zero", [0, 1, 2, 127])
@pytest.mark.parametrize("ends", [(None, None), (-7, 7), (0, 14)])
def test_powers_of_two_are_the_same_everywhere(dtype: Any, zero: int, ends: Any) -> None:
    lo, hi = (end if e is None else max(e, LIMITS[dtype][0]) for e, end in
              zip(ends, LIMITS[dtype], strict=True))  # fmt: skip
    x = every_tie(0.25, zero, lo, hi)
    differ, _ = differing(Pair(0.25, zero, lo, hi, dtype), x)
    assert not differ.any()


@pytest.mark.parametrize("scale", [0.1, 0.0371, float(np.float32(0.1)), 3.7])
@pytest.mark.parametrize("zero", [0, 3])
def test_other_scales_differ_on_ties_only(scale: float, zero: int) -> None:
    """PyTorch multiplies by the rounded reciprocal, so many exact ties fall to one side."""
    x = every_tie(scale, zero, 0, 255)
    differ, model = differing(Pair(scale, zero, 0, 255, torch.uint8), x)
    assert not np.any(differ & ~undecided(model, {str(model.graph.inputs[0].name): x}))


@pytest.mark.parametrize("zero", [[0, 0], [2, -4], [1, -3]])
def test_per_channel_activations(zero: list[int]) -> None:
    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([0.25, 2.0]))
            self.register_buffer("zero", torch.tensor(zero))

        def forward(self, x: Tensor) -> Tensor:
            grid = (self.scale, self.zero, 1, -128, 127, torch.int8)
            codes = DECOMPOSED.quantize_per_channel(x, *grid)
            return DECOMPOSED.dequantize_per_channel(codes, *grid)

    x = np.random.default_rng(0).integers(-2000, 2000, (500, 2, 3)).astype(np.float32) / 8
    assert not differing(Channels(), x)[0].any()


class Layer(nn.Module):
    """A linear layer of stored codes."""

    def __init__(self, stored: bool, axis: int, float_weights: bool = False) -> None:
        super().__init__()
        self.axis = axis
        codes = torch.tensor(np.arange(12).reshape(3, 4) * 20 - 128, dtype=torch.int8)
        self.register_buffer("codes", codes * 0.25 if float_weights else codes)
        scale = torch.tensor([0.5, 0.25, 2.0, 1.0])[: codes.shape[axis]]
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.tensor([1, 0, -3, 5])[: codes.shape[axis]])
        self.float_weights = float_weights
        self.stored = stored

    def forward(self, x: Tensor) -> Tensor:
        grid = (0.5, 0, -128, 127, torch.int8)
        x = DECOMPOSED.dequantize_per_tensor(DECOMPOSED.quantize_per_tensor(x, *grid), *grid)
        channels = (self.scale, self.zero, self.axis, -128, 127, torch.int8)
        codes = self.codes
        if self.float_weights:
            codes = DECOMPOSED.quantize_per_channel(codes, *channels)
        weights = DECOMPOSED.dequantize_per_channel(codes, *channels)
        return nn.functional.linear(x, weights)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("float_weights", [False, True])
def test_weights(axis: int, float_weights: bool) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (100, 4)).astype(np.float32) / 2
    differ, model = differing(Layer(True, axis, float_weights), x)
    assert not differ.any()
    product = next(n for n in model.graph if n.op_type == "MatMul")
    assert grid_constant(product.inputs[1]) is not None


@pytest.mark.parametrize("per_channel", [False, True])
def test_torchao_affine(per_channel: bool) -> None:
    pytest.importorskip("torchao.quantization")
    ao = torch.ops.torchao

    class Affine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weights = torch.tensor(np.arange(12).reshape(3, 4) * 20 - 128, dtype=torch.int8)
            self.register_buffer("codes", weights)
            scale = torch.tensor([[0.5], [0.25], [2.0]]) if per_channel else torch.tensor([0.5])
            self.register_buffer("scale", scale)
            self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int32))
            self.register_buffer("x_scale", torch.tensor([0.25]))
            self.register_buffer("x_zero", torch.tensor([3], dtype=torch.int32))

        def forward(self, x: Tensor) -> Tensor:
            block = [x.shape[0], 4]
            parts = (self.x_scale, self.x_zero, torch.int8, -128, 127)
            codes = ao.quantize_affine(x, block, *parts)
            x = ao.dequantize_affine(codes, block, *parts)
            block = [1, 4] if per_channel else [3, 4]
            w = ao.dequantize_affine(self.codes, block, self.scale, self.zero, torch.int8)
            return nn.functional.linear(x, w)

    x = np.random.default_rng(0).integers(-300, 300, (200, 4)).astype(np.float32) / 8
    assert not differing(Affine(), x)[0].any()


# --- files --------------------------------------------------------------------------------------


def saved(module: nn.Module, folder: Path) -> Path:
    path = folder / "program.pt2"
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(module, (torch.zeros(4, 4),), dynamic_shapes=batch), path)
    return path


def test_program_files(tmp_path: Path) -> None:
    program = load_program(saved(Layer(True, 0), tmp_path))
    names = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert "quantized_decomposed.quantize_per_tensor.default" in names


def test_other_operators_of_the_namespace_are_not_read(tmp_path: Path) -> None:
    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale, zero = DECOMPOSED.choose_qparams.tensor(x, -128, 127, 1e-5, torch.int8)
            codes = DECOMPOSED.quantize_per_tensor.tensor(x, scale, zero, -128, 127, torch.int8)
            return DECOMPOSED.dequantize_per_tensor.tensor(
                codes, scale, zero, -128, 127, torch.int8
            )

    with pytest.raises(HqcError, match="HQC101"):
        load_program(saved(Dynamic(), tmp_path))
    with pytest.raises(HqcError, match="HQC108"):
        from_module(Dynamic(), torch.zeros(4, 4))


def test_torchao_is_asked_for_only_where_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hqc.frontends.torch_export import pt2e

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pt2e.register("quantized_decomposed")
    with pytest.raises(HqcError, match="HQC404"):
        pt2e.register("torchao")


# --- what is refused ----------------------------------------------------------------------------

INT8 = (-128, 127, torch.int8)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (Pair(0.0, 0, *INT8), "HQC106"),
        (Pair(0.5, 0, *INT8, grid2=(0.25, 0, *INT8)), "HQC102"),
        (Pair(0.5, 0, *INT8, grid2=(0.5, 1, *INT8)), "HQC102"),
        (Pair(0.5, 0, 3, 3, torch.int8), "HQC107"),
    ],
)
def test_impossible_grids(module: nn.Module, code: str) -> None:
    with pytest.raises(HqcError) as found:
        from_module(module, torch.zeros(4, 4))
    assert found.value.diagnostics[0].code == code
    assert "test_pt2e.py" in str(found.value.diagnostics[0].where)


def test_codes_that_no_quantiser_reads() -> None:
    class Codes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return DECOMPOSED.quantize_per_tensor(x, 0.5, 0, *INT8).flatten(1).float()

    with pytest.raises(HqcError, match="HQC102"):
        from_module(Codes(), torch.zeros(4, 4))
