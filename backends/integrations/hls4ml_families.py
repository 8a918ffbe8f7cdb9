"""What each of hls4ml's backends computes exactly, and how its types are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hqc.backends import layers
from hqc.backends.hls4ml.custom_layers import has_own_template
from hqc.backends.hls4ml.model_graph import CATAPULT, VITIS, Flavour
from hqc.backends.layers import Layer, Network
from hqc.backends.layers.template_parameters import layer_types
from hqc.diagnostics import Diagnostic, Location

_CHAIN = (layers.Input, layers.Dense, layers.Requantise, layers.Activation)


@dataclass(frozen=True)
class Family:
    """What one of hls4ml's backends needs to be driven without its optimiser.

    Attributes:
        flavour: spelling of its types, and the passes that run before all of its templates.
        own: whether hqc's own templates work with its headers.
        layers: which of hls4ml's layers its templates compute exactly.
        streams: whether a chain of layers may be streamed (`io_stream`).
        one_bit: whether its headers have types of one bit.
        spells: whether hls4ml spells the types, in place of hqc.
    """

    flavour: Flavour
    own: bool = False
    layers: tuple[type, ...] = (*_CHAIN, layers.Merge)
    streams: bool = False
    one_bit: bool = True
    spells: bool = False


_INIT = ("init_base_layer", "init_dense", "transform_types")
FAMILIES = {
    "vitis": Family(VITIS, own=True, streams=True),
    "vivado": Family(
        Flavour("Vivado", "vivado", "ap", VITIS.passes, VITIS.activation), own=True, streams=True
    ),
    "catapult": Family(CATAPULT, own=True),
    "quartus": Family(
        Flavour("Quartus", "quartus", "ac", (*_INIT, "apply_resource_strategy"), ("", ""))
    ),
    "oneapi": Family(
        Flavour("oneAPI", "oneapi", "ac", (*_INIT, "apply_resource_strategy"), ("", "")),
        one_bit=False,
    ),
    "libero": Family(
        Flavour("Libero", "libero", "ap", (*_INIT, "set_pipeline_style"), ("", "")),
        layers=_CHAIN,
        spells=True,
    ),
}


def unknown(network: Network, family: Family, io_type: str) -> list[Diagnostic]:
    """What the backend's templates do not compute exactly."""
    name = family.flavour.hls4ml
    found: list[Diagnostic] = []

    def refuse(message: str, help_: str, where: Location | None = None) -> None:
        found.append(Diagnostic("HQC401", message, where or Location(), helps=(help_,)))

    for layer in network.layers:
        own = has_own_template(layer)
        if (own and not family.own) or not (own or isinstance(layer, family.layers)):
            message = f"hls4ml's {name} has no exact template of a {type(layer).__name__} layer"
            refuse(message, "use Vitis, Vivado or Catapult", layer.where)
        if not family.one_bit and any(x.width == 1 for x in layer_types(layer).values()):
            message = f"{name}'s ac_fixed has no type of one bit"
            refuse(message, "use two bits, or Quartus", layer.where)
        readers = sum(other.sources.count(layer.name) for other in network.layers)
        streamed = isinstance(layer, _CHAIN) and readers + (layer.name in network.outputs) <= 1
        if io_type == "io_stream" and family.streams and not streamed:
            message = "streams carry a chain of Dense, requantising and activation layers only"
            refuse(message, "use io_type='io_parallel'", layer.where)
    if io_type not in ("io_parallel", "io_stream") or (
        io_type == "io_stream" and not family.streams
    ):
        refuse(f"{io_type} is not checked for {name}", "use io_type='io_parallel'")
    return found


def two_bits(layer: Layer) -> Layer:
    """Constants of one bit, such as a bias that is 0, in two: the same numbers."""
    wider: dict[str, Any] = {
        role: layers.Constant(c.codes, replace(c.type, width=2, integer=c.type.integer + 1))
        for role, c in vars(layer).items()
        if isinstance(c, layers.Constant) and c.type.width == 1
    }
    return replace(layer, **wider)


def unspell(config: dict[str, Any], layers: list[dict[str, Any]]) -> None:
    """Types as hls4ml's own objects, which its converter for the backend spells."""
    from hls4ml.model.types import FixedPrecisionType

    def plain(found: Any) -> Any:
        return FixedPrecisionType(
            width=found.width,
            integer=found.integer,
            signed=found.signed,
            rounding_mode=str(found.rounding_mode),
            saturation_mode=str(found.saturation_mode),
        )

    for settings in config["HLSConfig"]["LayerName"].values():
        settings["Precision"] = {role: plain(t) for role, t in settings["Precision"].items()}
    for layer in layers:
        if "table_t" in layer:
            layer["table_t"].precision = plain(layer["table_t"].precision)
