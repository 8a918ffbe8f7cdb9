"""From the layer list to hls4ml's own `ModelGraph`, with a precision stated for everything.

hls4ml's optimiser is left out: the passes below are the only ones that run, and none of them
changes a type, a weight or the graph. What they made is compared with the layer list afterwards
(`hqc.backends.hls4ml.readback`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hqc.backends import layers
from hqc.backends.hls4ml.custom_layers import (
    Sharing,
    has_own_template,
    own_layer,
    register,
    variable_shape,
)
from hqc.backends.hls4ml.streams import depths
from hqc.backends.layers import Layer, Network
from hqc.backends.layers.template_parameters import (
    layer_constants,
    layer_types,
    numbers,
    written_weight,
)
from hqc.numerics.types import FixedType, Overflow
from hqc.pipeline.backend import BackendOptions


@dataclass(frozen=True)
class Flavour:
    """What differs between hls4ml's backends.

    Attributes:
        hls4ml: name of the hls4ml backend.
        prefix: of its passes.
        spelling: "ap" (ap_fixed) or "ac" (ac_fixed).
        passes: run before the templates, in order; prefixed.
        activation: name of the activation templates, without suffix.
        side_by_side: elements of one array, or products of one step, that the vendor's tool keeps
            apart by default; None where it decides by itself.
    """

    hls4ml: str
    prefix: str
    spelling: str
    passes: tuple[str, ...]
    activation: tuple[str, str]
    side_by_side: int | None = None

    def all_passes(self) -> list[str]:
        """Full names of the passes that run, templates last."""
        templates = [
            f"{layer}_{part}_template"
            for layer in ("dense", "batchnormalization", "hqclayer")
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
    4096,  # `maximum_size` in the project's own script
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

    register((VITIS.prefix, CATAPULT.prefix))
    config = graph_config(network, flavour, options, directory)
    layers = layer_list(network, flavour, options)
    graph = ModelGraph.from_layer_list(config, layers, list(network.inputs), list(network.outputs))
    for layer in network.layers if network.stream else ():
        # hls4ml's dense layer would keep the number of packets of what it reads
        graph.graph[layer.name].get_output_variable().shape = variable_shape(layer, True)
    optimize_model(graph, flavour.all_passes())
    for name, depth in (depths(network) if network.stream else {}).items():
        graph.get_layer_output_variable(name).pragma = ("stream", depth)
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
            "Model": {
                "ReuseFactor": options.reuse_factor,
                "Strategy": strategy,
                "PipelineStyle": _pipeline_style(network),
            },
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


def _pipeline_style(network: Network) -> str:
    """Layers that go window by window run as processes of their own; a pipeline around them would
    unroll the loops over their windows."""
    windows = any(isinstance(layer, layers.Conv | layers.MaxPool) for layer in network.layers)
    return "dataflow" if windows or network.stream else "auto"


def layer_list(network: Network, flavour: Flavour, options: BackendOptions) -> list[dict[str, Any]]:
    """The network in the form that `ModelGraph.from_layer_list` reads."""
    return [_layer(layer, network.stream, flavour, options) for layer in network.layers]


def _layer(layer: Layer, stream: bool, flavour: Flavour, options: BackendOptions) -> dict[str, Any]:
    if isinstance(layer, layers.Input):
        shape = variable_shape(layer, stream)
        return {"name": layer.name, "class_name": "InputLayer", "input_shape": shape}
    found: dict[str, Any] = {"name": layer.name, "inputs": list(layer.sources)}
    data = {f"{role}_data": constant.values for role, constant in layer_constants(layer).items()}
    if has_own_template(layer):
        if isinstance(layer, layers.Conv):
            data["weight_data"] = written_weight(layer, options.strategy).values
        return found | own_layer(layer, flavour.spelling, stream, _sharing(layer, options), data)
    if isinstance(layer, layers.Dense):
        return found | data | numbers(layer) | {"class_name": "Dense"}
    if isinstance(layer, layers.Requantise):
        return found | data | numbers(layer) | {"class_name": "BatchNormalization"}
    if isinstance(layer, layers.Activation):
        from hls4ml.model.types import NamedType

        function = {"relu": "relu", "cast": "linear"}[layer.function]
        table = precision(layer.result, flavour)  # the templates name a table type, unused here
        return found | {
            "class_name": "Activation",
            "activation": function,
            "n_in": layer.size,
            "table_size": 1,
            "table_t": NamedType(f"{layer.name}_table_t", table),
        }
    if isinstance(layer, layers.Merge):
        return found | {"class_name": "Merge", "op": layer.function}
    raise TypeError(f"no hls4ml layer for {type(layer).__name__}")


def _sharing(layer: Layer, options: BackendOptions) -> Sharing:
    """How a layer shares multipliers.

    The reuse factor of hls4ml's convolutions has to divide the products of one output: with others
    that it lets through, those for Vitis read beyond their window (measured with hls4ml 1.3, 9
    products by 4 outputs, reuse factor 18). The nearest divisor is taken, the smaller of two.
    """
    if not isinstance(layer, layers.Conv):
        return Sharing(options.strategy, options.reuse_factor)
    reuse = options.reuse_factor
    if options.strategy == "resource" and layer.group == 1:
        factors = [n for n in range(1, layer.products + 1) if layer.products % n == 0]
        reuse = min(factors, key=lambda n: (abs(n - reuse), n))
    return Sharing(options.strategy, reuse, layer.products * layer.bias.codes.size)


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
    from hqc.numerics.types import ROUNDING_OF_HARDWARE

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
