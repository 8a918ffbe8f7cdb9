"""The layers that hls4ml has no exact template for, added through its extension API.

One class serves all: the header, the function and the parameters of a layer are attributes that
`hqc.backends.hls4ml.model_graph` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hqc.backends.hls4ml.streams import packets
from hqc.backends.layers import Conv, Fork, Layer, MaxPool, Rearrange, Table, Threshold
from hqc.backends.layers.layout import packet
from hqc.backends.layers.template_parameters import (
    function_of,
    layer_constants,
    layer_types,
    numbers,
)

#: Where the templates' headers are; a project has them in its `nnet_utils`.
TEMPLATES = Path(__file__).with_name("templates")
CLASS = "HqcLayer"
_WINDOW = ("hqc_window_stream.h",)
#: Headers for arrays, those for streams, and base of the configuration of each kind of layer.
_KINDS: dict[type[Layer], tuple[tuple[str, ...], tuple[str, ...], str]] = {
    Conv: (("hqc_conv.h", "nnet_conv2d.h"), _WINDOW, "hqc_conv_config"),
    Fork: ((), ("nnet_stream.h",), ""),
    MaxPool: (("hqc_max_pool.h",), _WINDOW, "hqc_max_pool_config"),
    Rearrange: (("hqc_rearrange.h",), ("hqc_rearrange_stream.h",), "hqc_rearrange_config"),
    Table: (("hqc_table.h",), ("hqc_table.h",), "hqc_table_config"),
    Threshold: (("hqc_threshold.h",), ("hqc_threshold.h",), "hqc_threshold_config"),
}
_CONFIG = """struct config{index} : nnet::{base} {{
{members}
}};
"""


def has_own_template(layer: Layer) -> bool:
    """Whether a layer goes through here."""
    return type(layer) in _KINDS


@dataclass(frozen=True)
class Sharing:
    """How the products of a layer share multipliers.

    Attributes:
        strategy: "latency" or "resource".
        reuse: products per multiplier; without products, cycles per window.
        products: of one window, 0 if the layer does not multiply.
    """

    strategy: str
    reuse: int
    products: int = 0

    @property
    def numbers(self) -> dict[str, int]:
        """As members of a configuration."""
        limit = {"multiplier_limit": -(-self.products // self.reuse)} if self.products else {}
        return {"reuse_factor": self.reuse} | limit


def own_layer(
    layer: Layer, spelling: str, stream: bool, sharing: Sharing, data: Mapping[str, Any]
) -> dict[str, Any]:
    """A layer in the form that `ModelGraph.from_layer_list` reads; `data` holds its constants."""
    for_arrays, for_streams, base = _KINDS[type(layer)]
    headers = for_streams if stream else for_arrays
    lines = [_number(name, value) for name, value in {**numbers(layer), **sharing.numbers}.items()]
    if stream:
        lines += ["static const unsigned io_type = nnet::io_stream;"]
    if isinstance(layer, Conv):
        lines += [f"static const unsigned strategy = nnet::{sharing.strategy};"]
        lines += ["typedef config{index} mult_config;"]
    return {
        "class_name": CLASS,
        "outputs": list(layer.copies) if isinstance(layer, Fork) else [layer.name],
        "shape": variable_shape(layer, stream),
        "size": layer.size,
        "function": function_of(layer, spelling, stream),
        "headers": [f"nnet_utils/{name}" for name in headers],
        "base": base,
        "lines": tuple(lines),
        "constant_roles": tuple(layer_constants(layer)),
        "type_roles": tuple(role for role in layer_types(layer) if role != "result"),
        **data,
    }


def variable_shape(layer: Layer, stream: bool) -> list[int]:
    """Shape of the result as hls4ml is told: flat, or (packets, elements of a packet)."""
    if stream and packets(layer) > 1:
        return [packets(layer), packet(layer)]
    return [layer.size]


def _number(name: str, value: int) -> str:
    return f"static const {'int' if value < 0 else 'unsigned'} {name} = {value};"


@cache
def register(backends: tuple[str, ...]) -> None:
    """Tell hls4ml about the layer, once per process; `backends` are prefixes of its passes."""
    from hls4ml.backends import get_backend
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model.layers import Layer as HlsLayer
    from hls4ml.model.layers import register_layer

    class HqcLayer(HlsLayer):  # type: ignore[misc]
        initialize = _declare

    class Config(LayerConfigTemplate):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(HqcLayer)

        def format(self, node: Any) -> str:
            return _config(node)

    class Call(FunctionCallTemplate):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(HqcLayer)

        def transform(self, model: Any, node: Any) -> bool:
            self.include_header = node.get_attr("headers")
            return bool(super().transform(model, node))

        def format(self, node: Any) -> str:
            return _call(node)

    register_layer(CLASS, HqcLayer)
    for prefix in backends:
        for template in (Config, Call):
            get_backend(prefix).register_template(template)


def _declare(node: Any) -> None:
    """Tell hls4ml the variables, constants and types of a layer."""
    from hls4ml.model.types import NamedType

    several = len(node.outputs) > 1
    for number, name in enumerate(node.outputs, 1):
        variable = f"layer{{index}}_cpy{number}" if several else "layer{index}_out"
        node.add_output_variable(node.get_attr("shape"), name, variable)
    for role in node.get_attr("constant_roles"):
        node.add_weights_variable(name=role, var_name=f"{role[0]}{{index}}")
    for role in node.get_attr("type_roles"):
        precision, name = node.model.config.get_precision(node, role)
        node.set_attr(f"{role}_t", NamedType(name, precision))


def _config(node: Any) -> str:
    """The configuration of a layer; none where its template takes none."""
    index, base = node.index, node.get_attr("base")
    if not base:
        return ""
    roles = [f"{role}_t" for role in node.get_attr("type_roles")]
    typedefs = [f"typedef {node.get_attr(role).name} {role};" for role in roles]
    lines = (*node.get_attr("lines"), *typedefs)
    members = "\n".join(f"    {line.format(index=index)}" for line in lines)
    return _CONFIG.format(index=index, base=base, members=members)


def _call(node: Any) -> str:
    """The call of a layer's template."""
    inputs = [node.get_input_variable(name) for name in node.inputs]
    outputs = [node.get_output_variable(name) for name in node.outputs]
    last = f"config{node.index}" if node.get_attr("base") else node.get_attr("size")
    types = ", ".join([*(v.type.name for v in (*inputs, outputs[0])), str(last)])
    arrays = [node.get_weights(role).name for role in node.get_attr("constant_roles")]
    arguments = ", ".join([*(v.name for v in (*inputs, *outputs)), *arrays])
    return f"nnet::{node.get_attr('function')}<{types}>({arguments});"
