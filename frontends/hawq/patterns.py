"""What nodes of a traced forward are to quantisation: layers, rectifiers, sums, moves, means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from hqc.frontends.hawq.layers import Mean

#: Layers that take bit widths.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Layers with weights that have no quantised form.
OTHERS = (
    nn.Conv3d,
    nn.modules.conv._ConvTransposeNd,
    nn.Bilinear,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_FUNCTIONS_OF_LAYERS = {
    *("linear", "bilinear", "conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
_RELUS = {"relu", "relu_"}
_SUMS = {"add", "iadd", "add_"}
#: Modules and functions that rearrange values, or pick some, without computing new ones.
_MOVERS = (
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.PixelShuffle),
)
_MOVES = {
    *("flatten", "view", "reshape", "contiguous", "squeeze", "unsqueeze", "unflatten", "size"),
    *("dropout", "dropout1d", "dropout2d", "permute", "transpose", "swapaxes", "movedim", "t"),
    *("max_pool1d", "max_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "amax", "getitem"),
    *("chunk", "split", "narrow", "select"),
}
_NOT_NEGATIVE = (nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
_NOT_NEGATIVE_FUNCTIONS = {"relu6", "relu6_", "sigmoid", "hardsigmoid", "softplus", "square", "abs"}
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_AVERAGE_FUNCTIONS = {
    "avg_pool1d": nn.AvgPool1d,
    "avg_pool2d": nn.AvgPool2d,
    "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
}

Modules = Mapping[str, nn.Module]


def module_of(node: fx.Node, modules: Modules) -> nn.Module | None:
    """The module that a node calls, if it does."""
    return modules.get(str(node.target)) if node.op == "call_module" else None


def called(node: fx.Node) -> str:
    """The name of the function or method that a node calls, else ""."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return str(getattr(node.target, "__name__", node.target))


def is_relu(node: fx.Node, modules: Modules) -> bool:
    """Whether the node is a rectifier."""
    return isinstance(module_of(node, modules), nn.ReLU) or called(node) in _RELUS


def is_sum(node: fx.Node) -> bool:
    """Whether the node adds two computed values."""
    operands = node.args[:2]
    both = len(operands) == 2 and all(isinstance(a, fx.Node) for a in operands)
    return both and called(node) in _SUMS and not {"alpha", "out"} & set(node.kwargs)


def is_move(node: fx.Node, modules: Modules) -> bool:
    """Whether all results of the node are among its first input's values, or zero."""
    module = module_of(node, modules)
    if isinstance(module, nn.Upsample):
        return str(module.mode) == "nearest"
    if isinstance(module, nn.ConstantPad1d | nn.ConstantPad2d):
        return float(module.value) == 0
    name = called(node)
    if name == "interpolate":
        return node.kwargs.get("mode", "nearest") == "nearest" and len(node.args) < 4
    if name == "pad":
        mode, value = (*node.args[2:], *(None,) * 2)[:2]
        mode, value = node.kwargs.get("mode", mode), node.kwargs.get("value", value)
        return mode in (None, "constant") and not value
    return isinstance(module, _MOVERS) or name in _MOVES


def is_function_of_layer(node: fx.Node) -> bool:
    """Whether the node is a layer in the form of a function, whose weights are out of reach."""
    return called(node) in _FUNCTIONS_OF_LAYERS


def is_positive(node: fx.Node, modules: Modules) -> bool:
    """Whether the node gives no negative values."""
    module = module_of(node, modules)
    return isinstance(module, _NOT_NEGATIVE) or called(node) in _NOT_NEGATIVE_FUNCTIONS


def average_of(node: fx.Node, modules: Modules) -> nn.Module | None:
    """The average that a node takes, as a module of its own; None: it takes none.

    Raises:
        ValueError: the average has no integer form, for the reason it says.
    """
    name = called(node)
    if isinstance(module := module_of(node, modules), _AVERAGES):
        found: nn.Module = module
    elif name in _AVERAGE_FUNCTIONS:
        found = _AVERAGE_FUNCTIONS[name](*node.args[1:], **node.kwargs)
    elif name == "mean":
        return _mean(*node.args[1:], **node.kwargs)
    else:
        return None
    if getattr(found, "ceil_mode", False) or getattr(found, "divisor_override", None):
        raise ValueError("an average pool with ceil_mode or a divisor")
    sizes: Any = getattr(found, "output_size", 1)
    if any(s != 1 for s in (sizes if isinstance(sizes, tuple | list) else (sizes,))):
        raise ValueError("an adaptive average pool to more than one value")
    return found


def _mean(dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> nn.Module:
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    if dtype is not None or any(not isinstance(d, int) or d == 0 for d in dims):
        raise ValueError("a mean over the batch, over all axes, or with a dtype")
    return Mean(dims, keepdim)
