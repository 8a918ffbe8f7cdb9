"""From the layer list to hls4ml's own `ModelGraph`, with a precision stated for everything.

hls4ml's optimiser is left out: the passes below are the only ones that run, and none of them
changes a type, a weight or the graph. What they made is compared with the layer list afterwards
(`hqc.backends.readback`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hqc.backends.base import BackendOptions
from hqc.backends.layers import (
    Activation,
    Constant,
    Dense,
    Input,
    Layer,
    Merge,
    Network,
    Requantise,
    Threshold,
)
from hqc.types import FixedType, Overflow

#: Header of the threshold layer, beside this file and in a project's `nnet_utils`.
THRESHOLD_HEADER = "hqc_threshold.h"


@dataclass(frozen=True)
class Flavour:
    """What differs between hls4ml's backends.

    Attributes:
        hls4ml: name of the hls4ml backend.
        prefix: of its passes.
        spelling: "ap" (ap_fixed) or "ac" (ac_fixed).
        passes: run before the templates, in order; prefixed.
        activation: name of the activation templates, without suffix.
    """

    hls4ml: str
    prefix: str
    spelling: str
    passes: tuple[str, ...]
    activation: tuple[str, str]

    def all_passes(self) -> list[str]:
        """Full names of the passes that run, templates last."""
        templates = [
            f"{layer}_{part}_template"
            for layer in ("dense", "batchnormalization", "hqcthreshold")
            for part in ("config", "function")
        ]
        templates += [*self.activation, "merge_config_template"]
        templates += ["merge_concatenate_dot_function_template"]
        return [f"{self.prefix}:{name}" for name in (*self.passes, *templates)]


VITIS = Flavour(
    "Vitis",
    "vivado",
    "ap",
    (
        "init_base_layer",
        "init_dense",
        "transform_types",
        "apply_resource_strategy",
        "set_pipeline_style",
    ),
    ("activation_unarylut_config_template", "activation_hardactivation_function_template"),
)
CATAPULT = Flavour(
    "Catapult",
    "catapult",
    "ac",
    ("init_base_layer", "init_dense", "transform_types", "apply_resource_strategy"),
    ("activation_config_template", "activation_hardactivation_softmax_function_template"),
)


def build_graph(
    network: Network, flavour: Flavour, options: BackendOptions, directory: Path
) -> Any:
    """A `ModelGraph` that is ready to be written to `directory`."""
    from hls4ml.model.graph import ModelGraph
    from hls4ml.model.optimizer import optimize_model

    register_threshold()
    config = graph_config(network, flavour, options, directory)
    graph = ModelGraph.from_layer_list(
        config, layer_list(network, flavour), list(network.inputs), list(network.outputs)
    )
    optimize_model(graph, flavour.all_passes())
    return graph


def graph_config(
    network: Network, flavour: Flavour, options: BackendOptions, directory: Path
) -> dict[str, Any]:
    """hls4ml's configuration: no flows, and a precision for each type of each layer."""
    layers = {
        layer.name: {
            "Precision": {
                role: precision(type_, flavour) for role, type_ in layer_types(layer).items()
            }
        }
        for layer in network.layers
    }
    strategy = {"latency": "Latency", "resource": "Resource"}[options.strategy]
    return {
        "OutputDir": str(directory),
        "ProjectName": options.project,
        "ProjectDir": f"{options.project}_prj",
        "Backend": flavour.hls4ml,
        "Version": "1.0.0",
        "Part": options.part,
        "Technology": options.technology,
        "ASICLibs": options.libraries,
        "ClockPeriod": f"{options.clock_ns:g}",
        "IOType": options.io,
        "Stamp": "hqc",
        "HLSConfig": {
            "Model": {"ReuseFactor": options.reuse_factor, "Strategy": strategy},
            "LayerName": layers,
            "Flows": [],
        },
        "WriterConfig": {
            "Namespace": None,
            "WriteWeightsTxt": False,
            "WriteTar": False,
            "TBOutputStream": "both",
        },
    }


def layer_types(layer: Layer) -> dict[str, FixedType]:
    """Each type of a layer by its role, as hls4ml names the roles (plus "threshold")."""
    found = {"result": layer.result}
    if isinstance(layer, Dense):
        found |= {"weight": layer.weight.type, "bias": layer.bias.type, "accum": layer.accum}
    elif isinstance(layer, Requantise):
        found |= {"scale": layer.scale.type, "bias": layer.bias.type}
    elif isinstance(layer, Threshold):
        found |= {"threshold": layer.thresholds.type}
    return found


def layer_constants(layer: Layer) -> dict[str, Constant]:
    """The constant arrays of a layer by role."""
    if isinstance(layer, Dense):
        return {"weight": layer.weight, "bias": layer.bias}
    if isinstance(layer, Requantise):
        return {"scale": layer.scale, "bias": layer.bias}
    if isinstance(layer, Threshold):
        return {"threshold": layer.thresholds}
    return {}


def layer_list(network: Network, flavour: Flavour) -> list[dict[str, Any]]:
    """The network in the form that `ModelGraph.from_layer_list` reads."""
    return [_layer(layer, network, flavour) for layer in network.layers]


def _layer(layer: Layer, network: Network, flavour: Flavour) -> dict[str, Any]:
    found: dict[str, Any] = {"name": layer.name, "inputs": list(layer.sources)}
    data = {f"{role}_data": constant.values for role, constant in layer_constants(layer).items()}
    if isinstance(layer, Input):
        return {"name": layer.name, "class_name": "InputLayer", "input_shape": [layer.size]}
    if isinstance(layer, Dense):
        n_in, n_out = layer.weight.codes.shape
        return found | data | {"class_name": "Dense", "n_in": n_in, "n_out": n_out}
    if isinstance(layer, Requantise):
        each = layer.scale.codes.size != 1
        sizes = {"n_in": layer.size, "n_filt": -1 if each else 1}
        return found | data | sizes | {"class_name": "BatchNormalization"}
    if isinstance(layer, Activation):
        function = {"relu": "relu", "cast": "linear"}[layer.function]
        table = precision(layer.result, flavour)  # the templates name a table type, unused here
        return found | {
            "class_name": "Activation",
            "activation": function,
            "n_in": layer.size,
            "table_size": 1,
            "table_t": _named(f"{layer.name}_table_t", table),
        }
    if isinstance(layer, Threshold):
        rows, count = layer.thresholds.codes.shape
        sizes = {"n_in": layer.size, "n_rows": rows, "n_thresholds": count, "first": layer.bias}
        return found | data | sizes | {"class_name": "HqcThreshold"}
    if isinstance(layer, Merge):
        return found | {"class_name": "Merge", "op": "add"}
    raise TypeError(f"no hls4ml layer for {type(layer).__name__}")


def spell(type_: FixedType, spelling: str) -> str:
    """The C++ name of a type: `ap_fixed<...>` or `ac_fixed<...>`."""
    rounding = type_.rounding.hardware
    if rounding is None:
        raise ValueError(f"{type_.rounding} has no hardware mode")
    modes = ""
    if rounding != "TRN" or type_.overflow is not Overflow.WRAP:
        modes = f",{spelling.upper()}_{rounding},{spelling.upper()}_{type_.overflow.value}"
    if spelling == "ap":
        name = "ap_fixed" if type_.signed else "ap_ufixed"
        return f"{name}<{type_.width},{type_.integer}{modes}>"
    return f"ac_fixed<{type_.width},{type_.integer},{str(type_.signed).lower()}{modes}>"


def precision(type_: FixedType, flavour: Flavour) -> Any:
    """hls4ml's precision object of a type; never an integer type.

    hls4ml gives 1-bit and 2-bit *integer* types a meaning of their own (bipolar and ternary
    products); fixed-point types of the same width are ordinary numbers.
    """
    return _precision_classes()[flavour.spelling](
        width=type_.width,
        integer=type_.integer,
        signed=type_.signed,
        rounding_mode=type_.rounding.hardware,
        saturation_mode=type_.overflow.value,
    )


def to_fixed_type(precision_: Any) -> FixedType:
    """The type that one of hls4ml's fixed-point precision objects means."""
    from hqc.types import ROUNDING_OF_HARDWARE

    return FixedType(
        bool(precision_.signed),
        int(precision_.width),
        int(precision_.integer),
        ROUNDING_OF_HARDWARE[str(precision_.rounding_mode)],
        Overflow(str(precision_.saturation_mode)),
    )


@cache
def _precision_classes() -> dict[str, type[Any]]:
    """Precision classes that spell themselves.

    hls4ml takes a class whose name starts with AP or AC as already converted. Its own conversion
    widens 1-bit `ac_fixed` types to two bits, which changes their step.
    """
    from hls4ml.model.types import FixedPrecisionType

    def definition(spelling: str) -> Any:
        return lambda self: spell(to_fixed_type(self), spelling)

    return {
        spelling: type(
            f"{spelling.upper()}ExactPrecisionType",
            (FixedPrecisionType,),
            {"definition_cpp": definition(spelling)},
        )
        for spelling in ("ap", "ac")
    }


def _named(name: str, precision_: Any) -> Any:
    from hls4ml.model.types import NamedType

    return NamedType(name, precision_)


# --- the threshold layer --------------------------------------------------------------------

_THRESHOLD_CONFIG = """struct config{index} : nnet::hqc_threshold_config {{
    static const unsigned n_in = {n_in};
    static const unsigned n_rows = {n_rows};
    static const unsigned n_thresholds = {n_thresholds};
    static const int first = {first};
    static const unsigned io_type = nnet::{iotype};
    static const unsigned reuse_factor = {reuse};
    typedef {threshold_t.name} threshold_t;
}};\n"""
_THRESHOLD_CALL = (
    "nnet::hqc_threshold<{input_t}, {output_t}, {config}>({input}, {output}, {thresholds});"
)


@cache
def register_threshold() -> None:
    """Add the threshold layer to hls4ml through its extension API, once per process."""
    from hls4ml.backends import get_backend
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model.attributes import Attribute, TypeAttribute, WeightAttribute
    from hls4ml.model.layers import Layer as HlsLayer
    from hls4ml.model.layers import register_layer

    class HqcThreshold(HlsLayer):  # type: ignore[misc]
        _expected_attributes = [  # noqa: RUF012 - the form hls4ml reads
            Attribute("n_in"),
            Attribute("n_rows"),
            Attribute("n_thresholds"),
            Attribute("first"),
            WeightAttribute("threshold"),
            TypeAttribute("threshold"),
        ]

        def initialize(self) -> None:
            self.add_output_variable(self.get_input_variable().shape)
            self.add_weights_variable(name="threshold", var_name="t{index}")

    class Config(LayerConfigTemplate):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(HqcThreshold)

        def format(self, node: Any) -> str:
            return _THRESHOLD_CONFIG.format(**self._default_config_params(node))

    class Call(FunctionCallTemplate):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(HqcThreshold, include_header=[f"nnet_utils/{THRESHOLD_HEADER}"])

        def format(self, node: Any) -> str:
            parameters = self._default_function_params(node)
            parameters["thresholds"] = node.get_weights("threshold").name
            return _THRESHOLD_CALL.format(**parameters)

    register_layer("HqcThreshold", HqcThreshold)
    for flavour in (VITIS, CATAPULT):
        for template in (Config, Call):
            get_backend(flavour.prefix).register_template(template)
