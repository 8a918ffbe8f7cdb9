"""Which operators hqc reads, from the tables that the code itself looks into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from hqc.analysis import chain_steps, grid_constants, linear, partition, ranges
from hqc.analysis import rearrangements as movement
from hqc.execution import reference as execute
from hqc.frontends.onnx import grids as qonnx_grids
from hqc.frontends.qcdq import codes as qcdq_codes
from hqc.frontends.qcdq import importer as qcdq
from hqc.frontends.qcdq import operators as qcdq_operators
from hqc.frontends.qonnx import embeddings
from hqc.frontends.qonnx import float_quant as qonnx_float
from hqc.frontends.qonnx import importer as qonnx
from hqc.frontends.qonnx import operators as qonnx_operators
from hqc.frontends.qonnx import trunc as qonnx_trunc
from hqc.frontends.torch_export import operators as torch_ops
from hqc.frontends.torch_export import pt2e
from hqc.ir import operators
from hqc.ir import windows as convolution
from hqc.numerics import activations
from hqc.numerics import monotone_chain as chains
from hqc.passes import (
    fold_constants,
    fuse_batchnorm,
    legalize_rounding,
    lower_scales,
    normalize,
    propagate_precision,
)
from hqc.passes.lowering import canonical_forms as spellings
from hqc.passes.lowering import linear as lower_linear
from hqc.passes.lowering import merge as lower_merge
from hqc.passes.lowering import rectifiers as bends
from hqc.passes.lowering import requantisers
from hqc.passes.lowering import sums as lower_sums


@dataclass(frozen=True)
class Family:
    """Operators that one part of the code deals with.

    Attributes:
        title: of the section.
        operators: names, "qonnx.Quant" for QONNX's, and what of the code describes each (a class
            or function with a docstring), or None.
        about: whose docstrings describe all of them.
        readers: the modules that look at their attributes.
        refuses: the modules, classes and functions that refuse forms of them.
        rows: words that the titles of their rows in the coverage table begin with.
        runs: the node itself is run, so that every attribute means what ONNX says.
        remedies: of operators that are refused by name.
        listing: names that have no table of their own.
    """

    title: str
    operators: Mapping[str, object]
    about: tuple[object, ...]
    readers: tuple[ModuleType, ...] = ()
    refuses: tuple[object, ...] = ()
    rows: tuple[str, ...] = ()
    runs: bool = False
    remedies: Mapping[str, str] = field(default_factory=dict)
    listing: tuple[str, ...] = ()


def families() -> list[Family]:
    """All of them, in the order of the page."""
    return [
        *_quantisers(),
        *_integers_of_files(),
        *_sums(),
        *_elementwise(),
        *_rearrangements(),
        *_rest(),
    ]


def _names(found: Iterable[str], prefix: str = "") -> dict[str, object]:
    return {f"{prefix}{name}": None for name in sorted(found)}


def _quantisers() -> list[Family]:
    kept = (operators.Quant, operators.BipolarQuant, operators.MultiThreshold)
    named = {f"qonnx.{view.__name__}": view for view in kept}
    aliases = {f"qonnx.{name}": None for name in qonnx._ALIASES}
    return [
        Family(
            "Quantisers",
            {**named, **aliases},
            (operators, *kept),
            (operators,),
            (operators, requantisers, legalize_rounding),
            ("Quant,", "BipolarQuant", "MultiThreshold", "IntQuant", "input:", "weights:"),
        ),
        Family(
            "Truncation",
            {"qonnx.Trunc": None},
            (qonnx_trunc,),
            (qonnx_trunc, operators),
            (qonnx_trunc, qonnx_grids),
            ("Trunc",),
        ),
        Family(
            "Small floating-point formats",
            {"qonnx.FloatQuant": None},
            (qonnx_float,),
            (qonnx_float, operators),
            (qonnx_float, qonnx_grids),
            ("FloatQuant",),
        ),
    ]


def _integers_of_files() -> list[Family]:
    pair = ("QuantizeLinear", "DequantizeLinear")
    return [
        Family(
            "Quantisers of ONNX, and what stands on their codes",
            _names((*pair, "Clip", "Cast", *qcdq._MOVES)),
            (qcdq,),
            (qcdq, qcdq_codes),
            (qcdq, qcdq_codes),
            ("QuantizeLinear",),
        ),
        Family(
            "Operators on integer codes",
            _names(qcdq_operators.OPERATORS),
            (qcdq_operators,),
            (qcdq_operators,),
            (qcdq_operators,),
        ),
    ]


def _sums() -> list[Family]:
    table = execute._OPERATORS
    weighted = {n: f for n, f in table.items() if n not in partition.MAXIMA}
    elsewhere = {"Gemm", *movement.RESHAPES}  # spellings too, in families of their own
    canonical_form = {n: f for n, f in spellings._RULES.items() if n not in elsewhere}
    return [
        Family(
            "Sums over weights",
            {"Gemm": None, **weighted},
            (linear, lower_linear.lower_weighted, linear.weighted_sum, linear.average, convolution),
            (linear, convolution, lower_linear, spellings),
            (linear, convolution, lower_linear, spellings),
            ("MatMul", "Gemm", "Conv", "AveragePool", "GlobalAveragePool"),
        ),
        Family(
            "Maxima over windows",
            _names(partition.MAXIMA),
            (linear.maximum,),
            (convolution,),
            (convolution, linear.maximum),
            ("MaxPool", "GlobalMaxPool"),
        ),
        Family(
            "Spellings of others",
            {**canonical_form, "Split": spellings.split_into_slices},
            (normalize.Normalize, spellings),
            (spellings,),
            (),
            ("Reduce", "Neg", "HardSigmoid", "Max with", "Min with", "Split"),
        ),
    ]


def _elementwise() -> list[Family]:
    monotone = (chain_steps._clip, chain_steps._bent)
    steps = (chain_steps._with_constant, chain_steps._batch_norm, chain_steps.check_per_channel)
    return [
        Family(
            "Monotone functions",
            _names(chain_steps.ACTIVATIONS),
            (activations,),
            (chain_steps,),
            (*monotone, bends),
            ("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh"),
        ),
        Family(
            "Arithmetic with constants",
            _names((*chain_steps.ARITHMETIC, "BatchNormalization")),
            (chain_steps.chain_step, chains, fuse_batchnorm.FuseBatchNorm),
            (chain_steps,),
            (*steps, grid_constants.exact_values),
            ("BatchNormalization", "Add constant", "Mul by", "Sub, Div"),
        ),
        Family(
            "Two computed tensors",
            _names(chain_steps.MERGES),
            (lower_merge.lower_merge, lower_sums),
            (lower_merge, lower_sums),
            (lower_merge._too_wide, lower_merge._from_zero, lower_merge.broadcast),
            ("Add of", "Sub of", "Mul of", "residual", "two inputs"),
        ),
    ]


def _rearrangements() -> list[Family]:
    return [
        Family(
            "Rearrangements",
            _names(movement.RESHAPES | movement._OTHERS),
            (movement,),
            (movement,),
            (movement, lower_merge._mixes_scales, lower_merge._fill_code),
            (
                *("Flatten", "Reshape", "Transpose", "Squeeze", "Slice", "Gather", "Concat", "Pad"),
                *("Resize", "Expand", "DepthToSpace", "SpaceToDepth"),
            ),
            runs=True,
        ),
        Family(
            "Look-ups in constant tables",
            {"Gather": None},
            (embeddings, embeddings.rewrite_embeddings),
            (embeddings,),
            (embeddings,),
        ),
        Family(
            "Storage and no-ops",
            _names(chain_steps.PASS_THROUGH),
            (chain_steps.is_pass_through, chain_steps.after_cast),
            (chain_steps,),
        ),
    ]


def _rest() -> list[Family]:
    refused = {f"qonnx.{name}": help_ for name, help_ in qonnx_operators._REFUSED.items()}
    aten = (*torch_ops.TRANSLATORS, *pt2e.TRANSLATORS)
    return [
        Family(
            "Types of all values",
            {},
            (propagate_precision.PropagatePrecision, ranges, lower_scales.LowerScales),
            (),
            (propagate_precision, ranges),
        ),
        Family(
            "Everything else in ONNX",
            {},
            (fold_constants.FoldConstants, partition, partition.host_tail),
            (),
            (linear.no_form, qonnx._check),
            ("final",),
        ),
        Family("Refused by name", _names(refused), (), remedies=refused),
        Family("PyTorch operators", {}, (torch_ops, pt2e), listing=aten),
    ]
