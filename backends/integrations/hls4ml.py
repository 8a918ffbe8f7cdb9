"""hqc as a front end of hls4ml: the exact `ModelGraph` of a model, for any of its backends.

hls4ml's own optimiser is left out, and its flows are marked as done, so that `write`, `compile`,
`predict` and `build` take the graph as it is: every type and every weight is the one of the IR.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml import model_graph
from hqc.backends.hls4ml.custom_layers import TEMPLATES, register
from hqc.backends.hls4ml.model_graph import CATAPULT, VITIS, Flavour
from hqc.backends.layers import Network
from hqc.backends.layers.layout import from_hardware, to_hardware
from hqc.backends.layers.network import read_network
from hqc.backends.layers.template_parameters import layer_types
from hqc.diagnostics import Diagnostic, Exit, HqcError, reject
from hqc.integrations.core import lowered
from hqc.integrations.hls4ml_families import FAMILIES, two_bits, unknown, unspell
from hqc.ir import Array
from hqc.numerics.types import DOUBLE_BITS
from hqc.pipeline.backend import BackendOptions


def convert(
    model: object,
    backend: str = "Vitis",
    *,
    io_type: str = "io_parallel",
    output_dir: str | Path = "hqc_hls4ml",
    project_name: str = "myproject",
    part: str | None = None,
    clock_period: float = 5.0,
    reuse_factor: int = 1,
    strategy: str = "latency",
    example_inputs: object = None,
    **backend_options: Any,
) -> Any:
    """An `hls4ml.model.graph.ModelGraph` with the exact types and weights of a model.

    Its ports are those of `lowered(model)`: where the host has a part of its own (an input scale
    that is no power of two, a softmax), use `run`, which does it.

    Args:
        model: see `hqc.integrations.core.lowered`.
        backend: name of an hls4ml backend: Vitis, Vivado, Catapult, Quartus, oneAPI, Libero.
        io_type: "io_parallel" or "io_stream", as hls4ml has it.
        output_dir: where `compile`, `write` and `build` put the project.
        project_name: of the top function.
        part: FPGA part, None for hls4ml's default.
        clock_period: in nanoseconds.
        reuse_factor, strategy: of all layers.
        example_inputs: for a module.
        backend_options: what else the backend's `create_initial_config` takes.

    Raises:
        HqcError: HQC401, the backend has no exact template of a layer; HQC402, hls4ml changed a
            type or writes a weight that is not the model's; HQC404, Libero's own compiler is
            not on the PATH and no `smarthls_path` is given.
    """
    from hls4ml.backends import get_backend
    from hls4ml.model.graph import ModelGraph
    from hls4ml.model.optimizer import optimize_model

    family = FAMILIES.get(backend.lower())
    if family is None:
        known = ", ".join(f.flavour.hls4ml for f in FAMILIES.values())
        raise reject(
            "HQC401", f"no hls4ml backend {backend!r} is driven exactly", helps=(f"known: {known}",)
        )
    cut = lowered(model, example_inputs=example_inputs)
    network = read_network(cut.model, cut)
    if not family.one_bit:
        network = replace(network, layers=tuple(map(two_bits, network.layers)))
    if found := [*unknown(network, family, io_type), *_wide(cut)]:
        raise HqcError(found)
    flavour, target = family.flavour, get_backend(family.flavour.prefix)
    options = BackendOptions(
        project=project_name,
        part=part,
        clock_ns=clock_period,
        reuse_factor=reuse_factor,
        strategy=strategy,
        io=io_type,
    )
    _prepare(flavour, family.own)
    base = _initial_config(get_backend(flavour.hls4ml), io_type, backend_options)
    config = base | model_graph.graph_config(network, flavour, options, Path(output_dir))
    config |= {"Part": part or base.get("Part"), "ClockPeriod": clock_period}
    config["WriterConfig"]["WriteWeightsTxt"] = True  # hls4ml's bridge loads the weights from them
    layers = model_graph.layer_list(network, flavour, options)
    if family.spells:
        unspell(config, layers)
    with contextlib.redirect_stdout(io.StringIO()):  # hls4ml's progress messages
        graph = ModelGraph.from_layer_list(config, layers, [*network.inputs], [*network.outputs])
        passes = [f"{flavour.prefix}:{name}" for name in flavour.passes]
        optimize_model(graph, [*passes, *sorted(target._get_layer_templates())])
    graph._applied_flows.append({flow: set() for flow in _flows(graph.config.backend)})
    _check(graph, network)
    return graph


def run(graph: Any, model: object, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A compiled graph between the host's parts: model inputs (N, ...) to model outputs.

    Args:
        graph: from `convert`, after its `compile()`.
        model: what it was converted from, or its `Partition`.
        inputs: by the model's input names.
    """
    cut = lowered(model)
    codes = cut.encode(inputs)
    values = [
        np.ascontiguousarray(
            to_hardware(np.ldexp(codes[p.name].astype(np.float64), -p.type.fraction))
        ).reshape(len(codes[p.name]), -1)
        for p in cut.inputs
    ]
    found = graph.predict(values[0] if len(values) == 1 else values)
    parts = [found] if len(cut.outputs) == 1 else found
    outputs: dict[str, Array] = cut.decode(
        {
            port.name: from_hardware(
                np.rint(np.ldexp(np.asarray(part), port.type.fraction))
                .astype(np.int64)
                .reshape(len(values[0]), -1),
                port.shape,
            )
            for port, part in zip(cut.outputs, parts, strict=True)
        }
    )
    return outputs


def _wide(cut: Partition) -> list[Diagnostic]:
    return [
        Diagnostic("HQC401", f"port {p.name} has {p.type.width} bits, a double holds {DOUBLE_BITS}")
        for p in (*cut.inputs, *cut.outputs)
        if p.type.width > DOUBLE_BITS
    ]


def _initial_config(backend: Any, io_type: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if backend.name == "Libero" and not options.get("smarthls_path") and not which("shls"):
        raise reject(
            "HQC404",
            "SmartHLS (shls) is not on the PATH",
            exit_=Exit.TOOL,
            helps=("pass smarthls_path=, the folder it is installed in",),
        )
    return dict(backend.create_initial_config(io_type=io_type, **options))


@cache
def _prepare(flavour: Flavour, own: bool) -> None:
    """Tell hls4ml about hqc's templates and their headers, once per process and backend."""
    from hls4ml.backends import get_backend

    if own:
        register((VITIS.prefix, CATAPULT.prefix))
        for header in sorted(TEMPLATES.glob("*.h")):
            get_backend(flavour.hls4ml).register_source(header)


def _flows(backend: Any) -> list[str]:
    """The default flow of a backend and all that it requires."""
    from hls4ml.model.flow.flow import get_flow

    pending, found = [backend.get_default_flow()], []
    while pending:
        name = pending.pop()
        found.append(name)
        pending += [n for n in get_flow(name).requires or () if n not in found]
    return found


def _check(graph: Any, network: Network) -> None:
    """Every type of the graph against the IR's, and every weight as it will be written."""
    for layer in network.layers:
        node = graph.graph[layer.name]
        for role, type_ in layer_types(layer).items():
            if role == "result":
                precision = node.get_output_variable().type.precision
            elif role == "accum":
                precision = node.get_attr("accum_t").precision
            else:
                precision = node.get_weights(role).type.precision
            if model_graph.to_fixed_type(precision) != type_:
                raise _changed(f"{role} type {type_} of {layer.name} is {precision}")
        for weight in node.get_weights():
            written = np.array([float(text) for text in weight])
            if not np.array_equal(written, np.asarray(weight.data, np.float64).ravel()):
                raise _changed(f"{weight.name} of {layer.name} is written with too few digits")


def _changed(message: str) -> HqcError:
    return reject(
        "HQC402",
        f"hls4ml changed the model: {message}",
        helps=("use hqc compile, which writes the project itself",),
    )
