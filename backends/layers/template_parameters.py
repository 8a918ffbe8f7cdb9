"""What a layer says to its template: types, constants and numbers, by the template's names.

Emission writes these, and `hqc.backends.hls4ml.readback` looks for them in the files that were
written.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hqc.backends.layers import layers
from hqc.backends.layers.layers import Constant, Layer
from hqc.backends.layers.layout import flows
from hqc.numerics.types import FixedType, Range

_CONV, _GROUP_CONV = "hqc_conv_2d", "hqc_group_conv_2d"
#: By whether packets flow through, and whether there is one source.
_REARRANGE = {
    (False, True): "hqc_rearrange",
    (False, False): "hqc_join",
    (True, True): "hqc_flow",
    (True, False): "hqc_flow_join",
}
_OWN: dict[type[Layer], str] = {
    layers.MaxPool: "hqc_max_pool_2d",
    layers.Table: "hqc_table",
    layers.Threshold: "hqc_threshold",
}
_THEIRS: dict[type[Layer], str] = {
    layers.Dense: "dense",
    layers.Requantise: "normalize",
    layers.Fork: "clone_stream",
}


def layer_types(layer: Layer) -> dict[str, FixedType]:
    """Each type of a layer by its role, as hls4ml names the roles."""
    found = {"result": layer.result}
    found |= {role: constant.type for role, constant in layer_constants(layer).items()}
    if isinstance(layer, layers.Dense | layers.Conv):
        found["accum"] = layer.accum
    return found


def layer_constants(layer: Layer) -> dict[str, Constant]:
    """The constant arrays of a layer by role, in the order of the template's parameters."""
    if isinstance(layer, layers.Dense | layers.Conv):
        return {"weight": layer.weight, "bias": layer.bias}
    if isinstance(layer, layers.Requantise):
        return {"scale": layer.scale, "bias": layer.bias}
    if isinstance(layer, layers.Threshold):
        return {"threshold": layer.thresholds}
    if isinstance(layer, layers.Table):
        return {"table": layer.table, "step": layer.step}
    if isinstance(layer, layers.Rearrange):
        total = sum(layer.sizes)
        index = np.where(layer.index < 0, total, layer.index)  # behind the last element: the fill
        fill = Range(layer.fill, layer.fill, -layer.result.fraction).fit()
        return {
            "table": Constant(index, Range(0, total).fit()),
            "fill": Constant(np.array([layer.fill]), fill),
        }
    return {}


def written_weight(layer: layers.Dense | layers.Conv, strategy: str) -> Constant:
    """The weight as its template reads it: outputs last, or first where multipliers are shared."""
    codes = layer.weight.codes.reshape(-1, layer.weight.codes.shape[-1])
    grouped = isinstance(layer, layers.Conv) and layer.group != 1
    if strategy == "resource" and not grouped:
        codes = codes.T
    return replace(layer.weight, codes=np.ascontiguousarray(codes))


def function_of(layer: Layer, spelling: str, stream: bool) -> str:
    """The template's function that does a layer; `spelling` as in `Flavour`.

    hls4ml's own are those for dense layers, requantisers, activations, sums, products and copies,
    of arrays and of streams, and for convolutions of arrays without groups. For `ac_fixed`, its
    convolution for the resource strategy goes window by window and then does a dense layer of
    either strategy; that of its latency strategy holds the products of all windows at once and
    ignores dilation.
    """
    if isinstance(layer, layers.Activation):
        return {"relu": "relu", "cast": "linear"}[layer.function]
    if isinstance(layer, layers.Merge):
        return layer.function
    if isinstance(layer, layers.Conv) and layer.group == 1 and not stream:
        return {"ap": "conv_2d_cl", "ac": "conv_2d_resource_cl"}[spelling]
    if isinstance(layer, layers.Conv):
        own = _GROUP_CONV if layer.group != 1 else _CONV
    elif isinstance(layer, layers.Rearrange):
        flow = stream and flows(layer)
        own = _REARRANGE[flow, len(layer.sources) == 1]
    elif type(layer) in _OWN:
        own = _OWN[type(layer)]
    else:
        return _THEIRS[type(layer)]
    return f"{own}_stream" if stream else own


def numbers(layer: Layer) -> dict[str, int]:
    """The sizes and attributes of a layer, without what the reuse of multipliers changes."""
    if isinstance(layer, layers.Dense):
        n_in, n_out = layer.weight.codes.shape
        return {"n_in": n_in, "n_out": n_out}
    if isinstance(layer, layers.Conv):
        return _conv_numbers(layer)
    if isinstance(layer, layers.MaxPool):
        return _window_numbers(layer.sliding) | {"n_chan": layer.channels}
    if isinstance(layer, layers.Requantise):
        count = layer.scale.codes.size
        return {"n_in": layer.size, "n_filt": count if count != layer.size or count == 1 else -1}
    if isinstance(layer, layers.Activation):
        return {"n_in": layer.size}
    if isinstance(layer, layers.Threshold):
        rows, count = layer.thresholds.codes.shape
        sizes = {"n_in": layer.size, "n_rows": rows, "n_thresholds": count}
        return sizes | {"first": layer.bias}
    if isinstance(layer, layers.Table):
        rows, count = layer.table.codes.shape
        sizes = {"n_in": layer.size, "n_rows": rows, "n_codes": count}
        return sizes | {"first": layer.first}
    if isinstance(layer, layers.Merge):
        return {"n_elem": layer.size}
    if isinstance(layer, layers.Rearrange):
        names = ("n_in1", "n_in2")
        return dict(zip(names, layer.sizes, strict=False)) | {"n_out": layer.size}
    return {}


def _conv_numbers(layer: layers.Conv) -> dict[str, int]:
    pixels = layer.sliding.windows[0] * layer.sliding.windows[1]
    channels, filters = layer.weight.codes.shape[2:]
    return _window_numbers(layer.sliding) | {
        "n_chan": channels * layer.group,
        "n_filt": filters,
        "n_group": layer.group,
        "n_in": layer.products,
        "n_out": filters,
        "n_partitions": pixels,  # one window after the other
        "n_pixels": 1,
    }


def _window_numbers(sliding: layers.Sliding) -> dict[str, int]:
    pairs = {
        "in": sliding.size,
        "out": sliding.windows,
        "filt": sliding.kernel,
        "stride": sliding.strides,
        "dilation": sliding.dilations,
    }
    found = {
        f"{name}_{axis}": pair[i]
        for name, pair in pairs.items()
        for i, axis in enumerate(("height", "width"))
    }
    top, left = sliding.before
    bottom, right = sliding.after
    return found | {"pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right}
