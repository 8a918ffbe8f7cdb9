"""ATen operators to ONNX + QONNX: layers and elementwise functions, and the table of all."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from onnx_ir import Value
from torch import fx

from hqc.frontends.torch_export import pt2e
from hqc.frontends.torch_export.image_operators import IMAGES
from hqc.frontends.torch_export.rearrangement_operators import MOVES
from hqc.frontends.torch_export.translation import (
    Args,
    Batch,
    Builder,
    Const,
    QuantisedConst,
    Translator,
    along_channels,
    node_value,
    read_quant,
    refuse,
)
from hqc.ir import add_constant


def _quant(b: Builder, node: fx.Node, a: Args) -> Value | QuantisedConst:
    quant = read_quant(b, node, a)
    x = b.find(a["x"])
    if isinstance(x, Const):
        return QuantisedConst(x, quant, node)
    return b.quantise(b.value(a["x"]), quant, b.name_for(node, "Quant"), node)


def _linear(b: Builder, node: fx.Node, a: Args) -> Value:
    found = b.add("MatMul", [b.value(a["input"]), b.value(a["weight"], transposed=True)], node)
    if a["bias"] is None:
        return found
    return b.add("Add", [found, b.value(a["bias"])], node)


def _addmm(b: Builder, node: fx.Node, a: Args) -> Value:
    if a["alpha"] != 1 or a["beta"] != 1:
        raise refuse("HQC102", "addmm with alpha or beta", node)
    found = b.add("MatMul", [b.value(a["mat1"]), b.value(a["mat2"])], node)
    return b.add("Add", [found, b.value(a["self"])], node)


def _matmul(b: Builder, node: fx.Node, a: Args) -> Value:
    right = a["mat2"] if "mat2" in a else a["other"]
    return b.add("MatMul", [b.value(a["self"]), b.value(right)], node)


def _batch_norm(b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("training"):
        raise refuse("HQC102", "batch norm in training mode", node, "export in eval mode")
    if a["running_mean"] is None or a["running_var"] is None:
        raise refuse("HQC102", "batch norm without running statistics", node)
    channels = int(node_value(a["input"]).shape[1])
    parameters = [
        _or_fill(b, a["weight"], channels, 1.0),
        _or_fill(b, a["bias"], channels, 0.0),
        b.value(a["running_mean"]),
        b.value(a["running_var"]),
    ]
    attributes = {"epsilon": float(a["eps"])}
    shape = b.shape_of(a["input"])
    inputs = [b.value(a["input"]), *parameters]
    return b.add("BatchNormalization", inputs, node, attributes=attributes, shape=shape)


def _batch_norm_tuple(b: Builder, node: fx.Node, a: Args) -> tuple[Value, None, None]:
    return (_batch_norm(b, node, a), None, None)


def _or_fill(b: Builder, arg: Any, channels: int, fill: float) -> Value:
    if arg is not None:
        return b.value(arg)
    return add_constant(b.graph, b.unique("constant"), np.full(channels, fill, np.float32))


def _unary(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    return b.add(op, [b.value(a["self"])], node)


def _binary(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("rounding_mode") is not None:
        raise refuse("HQC102", f"{op} with a rounding mode", node)
    other = b.value(a["other"])
    if a.get("alpha", 1) != 1:
        factor = np.array(a["alpha"], np.float32)
        constant = add_constant(b.graph, b.unique("constant"), factor)
        other = b.add("Mul", [other, constant], node, shape=other.shape)
    return b.add(op, [b.value(a["self"]), other], node)


def _rsub(b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("alpha", 1) != 1:
        raise refuse("HQC102", "rsub with alpha", node)
    return _binary("Sub", b, node, {**a, "self": a["other"], "other": a["self"]})


def _softmax(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("dtype") is not None or a.get("half_to_float"):
        raise refuse("HQC102", f"{op} with a dtype", node)
    axis = int(a["dim"]) % len(node_value(node).shape)
    return b.add(op, [b.value(a["self"])], node, attributes={"axis": axis})


def _leaky_relu(b: Builder, node: fx.Node, a: Args) -> Value:
    attributes = {"alpha": float(a["negative_slope"])}
    return b.add("LeakyRelu", [b.value(a["self"])], node, attributes=attributes)


def _clamp(b: Builder, node: fx.Node, a: Args) -> Value:
    """`clamp(min, max)`, `clamp_min(min)`, `clamp_max(max)`, `hardtanh(min_val, max_val)`."""
    low, high = (a.get(end, a.get(f"{end}_val")) for end in ("min", "max"))
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise refuse("HQC102", "clamp between tensors", node)
    edges = [-np.inf if low is None else low, np.inf if high is None else high]
    limits = [
        add_constant(b.graph, b.unique("constant"), np.array(np.clip(edge, -3.4e38, 3.4e38), "f4"))
        for edge in edges
    ]
    return b.add("Clip", [b.value(a["self"]), *limits], node)


def _relu6(b: Builder, node: fx.Node, a: Args) -> Value:
    return _clamp(b, node, {**a, "min": 0, "max": 6})


def _prelu(b: Builder, node: fx.Node, a: Args) -> Value:
    """Slopes () or (C,) on axis 1; ONNX aligns them with the last axes."""
    slopes = b.find(a["weight"])
    if not isinstance(slopes, Const | QuantisedConst):
        raise refuse("HQC108", "slopes that depend on the input", node)
    weight = b.value_of(along_channels(slopes, len(node_value(node).shape)))
    return b.add("PRelu", [b.value(a["self"]), weight], node)


def _elu(b: Builder, node: fx.Node, a: Args) -> Value:
    if a["scale"] != 1 or a["input_scale"] != 1:
        raise refuse("HQC102", "elu with scales", node)
    return b.add("Elu", [b.value(a["self"])], node, attributes={"alpha": float(a["alpha"])})


def _hard_sigmoid(b: Builder, node: fx.Node, a: Args) -> Value:
    attributes = {"alpha": 1 / 6, "beta": 0.5}
    return b.add("HardSigmoid", [b.value(a["self"])], node, attributes=attributes)


def _softplus(b: Builder, node: fx.Node, a: Args) -> Value:
    if a["beta"] != 1:
        raise refuse("HQC102", "softplus with another beta", node)
    return b.add("Softplus", [b.value(a["self"])], node)


def _silu(b: Builder, node: fx.Node, a: Args) -> Value:
    x = b.value(a["self"])
    return b.add("Mul", [x, b.add("Sigmoid", [x], node)], node)


def _square(b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("exponent", 2) != 2:
        raise refuse("HQC102", f"a power of {a['exponent']}", node, "only squares are translated")
    x = b.value(a["self"])
    return b.add("Mul", [x, x], node)


def _same(b: Builder, node: fx.Node, a: Args) -> Any:
    """Operators that change nothing about the values in eval mode."""
    source = a["self"] if "self" in a else a["input"]
    if a.get("train"):
        raise refuse("HQC102", "dropout in training mode", node, "export in eval mode")
    if node_value(node).dtype != node_value(source).dtype:
        raise refuse("HQC102", f"a cast to {node_value(node).dtype}", node)
    return b.find(source)


def _size(b: Builder, node: fx.Node, a: Args) -> Batch | int:
    size = node_value(a["self"]).shape[a["dim"]]
    return size if isinstance(size, int) else Batch()


def _nothing(b: Builder, node: fx.Node, a: Args) -> None:
    """Assertions of the exporter about shapes."""


#: Quantisers stay quantisers where their operands are constants: those are weights.
KEPT = frozenset({"hqc::quant", *pt2e.TRANSLATORS})

#: What translates which ATen operators, by schema name, whatever the overload.
_ATEN: dict[Translator, str] = {
    _linear: "linear",
    _addmm: "addmm",
    _matmul: "mm matmul bmm",
    _batch_norm: "batch_norm",
    _batch_norm_tuple: "_native_batch_norm_legit_no_training native_batch_norm",
    **{partial(_unary, op): op.lower() for op in ("Neg", "Abs", "Sqrt", "Exp", "Log", "Selu")},
    **{partial(_unary, op): op.lower() for op in ("Round", "Floor", "Ceil", "Sign")},
    **{
        partial(_unary, op): f"{op.lower()} {op.lower()}_"
        for op in ("Relu", "Sigmoid", "Tanh", "HardSwish")
    },
    **{partial(_binary, op): f"{op.lower()} {op.lower()}_" for op in ("Add", "Sub", "Mul", "Div")},
    _rsub: "rsub",
    partial(_softmax, "Softmax"): "softmax _softmax",
    partial(_softmax, "LogSoftmax"): "log_softmax _log_softmax",
    _leaky_relu: "leaky_relu leaky_relu_",
    _clamp: "clamp clamp_min clamp_max hardtanh hardtanh_ clip",
    _relu6: "relu6 relu6_",
    _prelu: "prelu",
    _elu: "elu elu_",
    _hard_sigmoid: "hardsigmoid hardsigmoid_",
    _softplus: "softplus",
    _silu: "silu silu_",
    _square: "square pow",
    _same: "dropout feature_dropout clone contiguous detach detach_ alias to _to_copy "
    "lift_fresh_copy",
    _size: "sym_size size",
    _nothing: "_assert_tensor_metadata _assert_scalar sym_constrain_range_for_size",
    **IMAGES,
    **MOVES,
}

#: By schema name.
TRANSLATORS: dict[str, Translator] = {
    "hqc::quant": _quant,
    **pt2e.TRANSLATORS,
    **{f"aten::{name}": found for found, names in _ATEN.items() for name in names.split()},
}

#: Operators that may be evaluated on constants at translation time, beside the ones above:
#: arithmetic without side effects, as scales are computed from weights.
FOLDABLE = frozenset(
    f"aten::{name}"
    for name in (
        *("amax", "amin", "max", "min", "maximum", "minimum", "aminmax", "where", "isnan"),
        *("eq", "ne", "lt", "gt", "le", "ge", "logical_not", "frexp", "ldexp", "pow", "exp2"),
        *("log2", "reciprocal", "rsqrt", "square", "trunc", "clip", "std", "var", "norm"),
        *("linalg_vector_norm", "full", "full_like", "ones", "ones_like", "zeros", "zeros_like"),
        *("scalar_tensor", "arange", "expand", "expand_as", "select", "slice", "movedim"),
        *("index_select", "copy", "item", "_local_scalar_dense"),
    )
)
