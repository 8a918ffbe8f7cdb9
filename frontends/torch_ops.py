"""ATen operators to ONNX + QONNX: one small function each, and the table that names them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Value
from torch import fx

from hqc.frontends.torch_graph import (
    Batch,
    Builder,
    Const,
    QuantisedConst,
    read_quant,
    refuse,
)
from hqc.ir import add_constant

Args = dict[str, Any]
Translator = Callable[[Builder, fx.Node, Args], Any]


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


def node_value(arg: fx.Node) -> Any:
    """The fake tensor of an FX node, for its shape."""
    return arg.meta["val"]


def _unary(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    return b.add(op, [b.value(a["self"])], node)


def _binary(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("alpha", 1) != 1 or a.get("rounding_mode") is not None:
        raise refuse("HQC102", f"{op} with alpha or a rounding mode", node)
    return b.add(op, [b.value(a["self"]), b.value(a["other"])], node)


def _rsub(b: Builder, node: fx.Node, a: Args) -> Value:
    return _binary("Sub", b, node, {**a, "self": a["other"], "other": a["self"]})


def _softmax(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    axis = int(a["dim"]) % len(node_value(node).shape)
    return b.add(op, [b.value(a["self"])], node, attributes={"axis": axis})


def _leaky_relu(b: Builder, node: fx.Node, a: Args) -> Value:
    attributes = {"alpha": float(a["negative_slope"])}
    return b.add("LeakyRelu", [b.value(a["self"])], node, attributes=attributes)


def _clamp(b: Builder, node: fx.Node, a: Args) -> Value:
    low = a["min"] if "min" in a else a.get("min_val", 0)
    high = a["max"] if "max" in a else a.get("max_val", 6)
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise refuse("HQC102", "clamp between tensors", node)
    edges = [-np.inf if low is None else low, np.inf if high is None else high]
    limits = [
        add_constant(b.graph, b.unique("constant"), np.array(np.clip(edge, -3.4e38, 3.4e38), "f4"))
        for edge in edges
    ]
    return b.add("Clip", [b.value(a["self"]), *limits], node)


def _reshape(b: Builder, node: fx.Node, a: Args) -> Value:
    shape = b.shape_of(node)
    b.shape_of(a["self"])
    if len(shape) == 2:
        return b.add("Flatten", [b.value(a["self"])], node, attributes={"axis": 1})
    target = np.array([0, *list(shape)[1:]], np.int64)
    goal = add_constant(b.graph, b.unique("shape"), target)
    return b.add("Reshape", [b.value(a["self"]), goal], node)


def _permute(b: Builder, node: fx.Node, a: Args) -> Value:
    rank = len(node_value(node).shape)
    perm = list(range(rank))
    if "dims" in a:
        perm = [int(d) % rank for d in a["dims"]]
    else:
        i, j = int(a.get("dim0", 0)) % rank, int(a.get("dim1", 1)) % rank
        perm[i], perm[j] = perm[j], perm[i]
    found = b.find(a["self"])
    if isinstance(found, QuantisedConst) and perm == [1, 0]:
        return b.value(a["self"], transposed=True)
    fixed = onnx_ir.Shape([int(d) for d in node_value(node).shape])
    shape = fixed if isinstance(found, QuantisedConst) else None
    attributes = {"perm": perm}
    return b.add("Transpose", [b.value(a["self"])], node, attributes=attributes, shape=shape)


def _cat(b: Builder, node: fx.Node, a: Args) -> Value:
    axis = int(a["dim"]) % len(node_value(node).shape)
    return b.add("Concat", [b.value(x) for x in a["tensors"]], node, attributes={"axis": axis})


def _reduce(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    rank = len(node_value(a["self"]).shape)
    if a.get("dim") is None or a.get("dtype") is not None:
        raise refuse("HQC102", f"{op} over all axes, or with a dtype", node)
    axes = sorted(int(d) % rank for d in a["dim"])
    keep = int(a["keepdim"])
    if op == "ReduceMean":
        attributes: Args = {"axes": axes, "keepdims": keep}
        return b.add(op, [b.value(a["self"])], node, attributes=attributes)
    dims = add_constant(b.graph, b.unique("axes"), np.array(axes, np.int64))
    return b.add(op, [b.value(a["self"]), dims], node, attributes={"keepdims": keep})


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


def _conv(b: Builder, node: fx.Node, a: Args) -> Value:
    kernel = [int(k) for k in node_value(a["weight"]).shape[2:]]
    rank = len(kernel)
    if a.get("transposed") or any(a.get("output_padding", ())):
        raise refuse("HQC102", "a transposed convolution", node)
    dilation = _each(a["dilation"], rank)
    before, after = _padding(a["padding"], kernel, dilation)
    attributes = {
        "kernel_shape": kernel,
        "strides": _each(a["stride"], rank),
        "pads": [*before, *after],
        "dilations": dilation,
        "group": int(a["groups"]),
    }
    inputs = [b.value(a["input"]), b.value(a["weight"])]
    if a["bias"] is not None:
        inputs.append(b.value(a["bias"]))
    return b.add("Conv", inputs, node, attributes=attributes)


def _padding(given: Any, kernel: list[int], dilation: list[int]) -> tuple[list[int], list[int]]:
    if given == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [t // 2 for t in total], [t - t // 2 for t in total]
    pads = [0] * len(kernel) if given == "valid" else _each(given, len(kernel))
    return pads, pads


def _each(given: Any, rank: int) -> list[int]:
    values = [int(v) for v in (given if isinstance(given, list | tuple) else [given])]
    return values * rank if len(values) == 1 else values


def _pool(op: str, rank: int, b: Builder, node: fx.Node, a: Args) -> Value:
    if a["ceil_mode"] or a.get("divisor_override") is not None:
        raise refuse("HQC102", "pooling with ceil_mode or a divisor", node)
    kernel = _each(a["kernel_size"], rank)
    pads = _each(a["padding"], rank)
    attributes: Args = {
        "kernel_shape": kernel,
        "strides": _each(a["stride"], rank) if a["stride"] else kernel,
        "pads": [*pads, *pads],
    }
    if op == "MaxPool":
        attributes["dilations"] = _each(a["dilation"], rank)
    else:
        attributes["count_include_pad"] = int(a["count_include_pad"])
    return b.add(op, [b.value(a["self"])], node, attributes=attributes)


def _global_pool(b: Builder, node: fx.Node, a: Args) -> Value:
    if any(int(s) != 1 for s in node_value(node).shape[2:]):
        raise refuse("HQC102", "adaptive pooling to more than one value", node)
    return b.add("GlobalAveragePool", [b.value(a["self"])], node)


def _argmax(b: Builder, node: fx.Node, a: Args) -> Value:
    if a["dim"] is None:
        raise refuse("HQC102", "argmax over all axes", node)
    axis = int(a["dim"]) % len(node_value(a["self"]).shape)
    attributes = {"axis": axis, "keepdims": int(a["keepdim"])}
    found = b.add("ArgMax", [b.value(a["self"])], node, attributes=attributes)
    found.type = onnx_ir.TensorType(onnx_ir.DataType.INT64)
    return found


#: By ATen schema name, whatever the overload.
TRANSLATORS: dict[str, Translator] = {
    "hqc::quant": _quant,
    "aten::linear": _linear,
    "aten::addmm": _addmm,
    **dict.fromkeys(("aten::mm", "aten::matmul", "aten::bmm"), _matmul),
    "aten::batch_norm": _batch_norm,
    **dict.fromkeys(
        ("aten::_native_batch_norm_legit_no_training", "aten::native_batch_norm"),
        _batch_norm_tuple,
    ),
    **{
        f"aten::{name}": partial(_unary, op)
        for name, op in {
            "relu": "Relu",
            "relu_": "Relu",
            "sigmoid": "Sigmoid",
            "tanh": "Tanh",
            "neg": "Neg",
            "abs": "Abs",
            "sqrt": "Sqrt",
            "exp": "Exp",
            "log": "Log",
            "round": "Round",
            "floor": "Floor",
            "ceil": "Ceil",
            "sign": "Sign",
        }.items()
    },
    **{
        f"aten::{name}{suffix}": partial(_binary, op)
        for name, op in {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}.items()
        for suffix in ("", "_")
    },
    "aten::rsub": _rsub,
    **dict.fromkeys(("aten::softmax", "aten::_softmax"), partial(_softmax, "Softmax")),
    **dict.fromkeys(("aten::log_softmax", "aten::_log_softmax"), partial(_softmax, "LogSoftmax")),
    **dict.fromkeys(("aten::leaky_relu", "aten::leaky_relu_"), _leaky_relu),
    **dict.fromkeys(
        (
            "aten::clamp",
            "aten::clamp_min",
            "aten::clamp_max",
            "aten::hardtanh",
            "aten::hardtanh_",
            "aten::relu6",
            "aten::relu6_",
        ),
        _clamp,
    ),
    **dict.fromkeys(
        (
            "aten::flatten",
            "aten::view",
            "aten::reshape",
            "aten::_unsafe_view",
            "aten::unsqueeze",
            "aten::squeeze",
        ),
        _reshape,
    ),
    **dict.fromkeys(("aten::permute", "aten::transpose", "aten::t", "aten::numpy_T"), _permute),
    "aten::cat": _cat,
    "aten::mean": partial(_reduce, "ReduceMean"),
    "aten::sum": partial(_reduce, "ReduceSum"),
    **dict.fromkeys(
        (
            "aten::dropout",
            "aten::feature_dropout",
            "aten::clone",
            "aten::contiguous",
            "aten::detach",
            "aten::detach_",
            "aten::alias",
            "aten::to",
            "aten::_to_copy",
            "aten::lift_fresh_copy",
        ),
        _same,
    ),
    **dict.fromkeys(("aten::sym_size", "aten::size"), _size),
    **dict.fromkeys(
        (
            "aten::_assert_tensor_metadata",
            "aten::_assert_scalar",
            "aten::sym_constrain_range_for_size",
        ),
        _nothing,
    ),
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::convolution"), _conv),
    **{
        f"aten::{kind}_pool{rank}d": partial(_pool, op, rank)
        for kind, op in {"max": "MaxPool", "avg": "AveragePool"}.items()
        for rank in (1, 2)
    },
    **dict.fromkeys(("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d"), _global_pool),
    "aten::argmax": _argmax,
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
