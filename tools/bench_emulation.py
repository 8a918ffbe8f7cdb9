"""Measure the executors and the emulation against what hls4ml and qonnx offer, in one run.

The model is a jet tagger 16-64-32-32-5 with random 6-bit weights. Only ratios carry over to other
machines; every figure is the best of several rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from comparison import Comparison, Figure, versions
from onnx_ir import Graph, Model, Value

from hqc.analysis.partition import partition
from hqc.backends.hls4ml.backend import Hls4mlBackend
from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.model_graph import graph_config, layer_list
from hqc.backends.hls4ml.vitis import Vitis
from hqc.execution.fast import Fast
from hqc.ir import QONNX, State, add_constant, make_node, set_range, set_state, set_type, to_bytes
from hqc.ir.operators import Quant
from hqc.numerics.types import FixedType, Overflow, Range, Rounding
from hqc.pipeline.backend import BackendOptions

SIZES, SMALL = (16, 64, 32, 32, 5), (4, 3, 2)
WEIGHT = FixedType(True, 6, 1)
INPUT = FixedType(True, 8, 3, Rounding.ROUND, Overflow.SAT)
HIDDEN = FixedType(False, 6, 2, Rounding.ROUND, Overflow.SAT)
BACKENDS: dict[str, Hls4mlBackend] = {b.name: b for b in (Vitis(), Catapult())}


def jet_tagger(seed: int, zeros: float = 0.0, sizes: Sequence[int] = SIZES) -> Model:
    """The model in integer form: quantised inputs, dense layers, rectifiers, quantisers.

    A share `zeros` of the weights is 0.
    """
    rng = np.random.default_rng(seed)
    graph = Graph([], [], nodes=[], opset_imports={"": 17, QONNX: 1}, name="jets")
    x = Value(name="x", shape=onnx_ir.Shape(["N", sizes[0]]))
    x.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    graph.inputs.append(x)
    x = quantise(graph, x, INPUT, "x_q")
    held = INPUT.limits
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        codes = rng.integers(-31, 32, (n_in, n_out))
        if zeros:
            codes = np.where(rng.random(codes.shape) < zeros, 0, codes)
        x, held = dense(graph, x, held, codes, rng.integers(-31, 32, n_out), f"fc{index}")
        if index < len(sizes) - 2:
            node = make_node("Relu", [x], like=x, name=f"relu{index}")
            x = append(graph, node, held.relu().fit(), held.relu())
            x = quantise(graph, x, HIDDEN, f"q{index}")
            held = HIDDEN.limits
    graph.outputs.append(x)
    model = Model(graph, ir_version=10)
    set_state(model, State.INTEGER)
    return model


def quantise(graph: Graph, x: Value, type_: FixedType, name: str) -> Value:
    node = Quant.of_type(type_).build(graph, x, name)
    return append(graph, node, type_, type_.limits)


def dense(
    graph: Graph, x: Value, held: Range, codes: Any, bias: Any, name: str
) -> tuple[Value, Range]:
    weight = constant(graph, f"{name}_weight", codes)
    node = make_node("MatMul", [x, weight], like=x, name=f"{name}_mm")
    node.outputs[0].shape = onnx_ir.Shape(["N", codes.shape[1]])
    low = np.minimum(codes * held.lo, codes * held.hi).sum(axis=0)
    high = np.maximum(codes * held.lo, codes * held.hi).sum(axis=0)
    sums = Range(int(low.min()), int(high.max()), held.exponent - WEIGHT.fraction)
    y = append(graph, node, sums.fit(), sums)
    node = make_node("Add", [y, constant(graph, f"{name}_bias", bias)], like=y, name=name)
    total = sums + Range(int(bias.min()), int(bias.max()), -WEIGHT.fraction)
    return append(graph, node, total.fit(), total), total


def constant(graph: Graph, name: str, codes: Any) -> Value:
    value = add_constant(graph, name, np.ldexp(codes, -WEIGHT.fraction).astype(np.float32))
    set_type(value, WEIGHT)
    set_range(value, WEIGHT.limits)
    return value


def append(graph: Graph, node: Any, type_: FixedType, range_: Range) -> Value:
    graph.append(node)
    set_type(node.outputs[0], type_)
    set_range(node.outputs[0], range_)
    out: Value = node.outputs[0]
    return out


def rate(call: Callable[[], Any], samples: int, rounds: int = 3) -> float:
    """Samples per second, best of several rounds after one to warm up."""
    call()
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return samples / best


def hls4ml_predict(
    backend: Hls4mlBackend, model: Model, folder: Path, x: np.ndarray[Any, Any]
) -> tuple[Any, Callable[[], Any]]:
    """hls4ml's own way: its default flow, its own compile, its own `predict`."""
    from hls4ml.model.graph import ModelGraph

    options = backend.complete(BackendOptions())
    network = backend.network(model, partition(model), options)
    config = graph_config(network, backend.flavour, options, folder)
    config["HLSConfig"].pop("Flows")
    config["WriterConfig"]["WriteWeightsTxt"] = True
    layers = layer_list(network, backend.flavour, options)
    with contextlib.redirect_stdout(io.StringIO()):
        graph = ModelGraph.from_layer_list(
            config, layers, list(network.inputs), list(network.outputs)
        )
        graph.compile()
    return graph.predict(x), lambda: graph.predict(x)


def qonnx_rate(model: Model, x: np.ndarray[Any, Any]) -> float:
    """qonnx's executor, one sample a call, as its graphs with a batch of one are run."""
    import onnx
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    proto = onnx.load_from_string(to_bytes(model))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim[:1]:
            if dim.dim_param:
                dim.dim_value = 1
    wrapper = ModelWrapper(proto).transform(InferShapes())

    def run() -> None:
        for row in x[:50]:
            execute_onnx(wrapper, {"x": row[None]})

    return rate(run, 50, rounds=2)


def measure(sizes: tuple[int, ...], batch: int, names: tuple[str, ...]) -> Comparison:
    """Samples per second of everything, each checked against the exact executor first."""
    model = jet_tagger(7, sizes=sizes)
    x = np.random.default_rng(1).normal(scale=2, size=(batch, sizes[0])).astype(np.float32)
    fast = Fast(model, threads=1)  # as its peers have
    found = [emulations(BACKENDS[name], model, fast, x) for name in names]
    ours = rate(lambda: fast.run({"x": x}), batch)
    peers = {"qonnx's executor, one sample a call": qonnx_rate(model, x)}
    peers |= {name: rate for figures in found for name, rate in figures[0].peers.items()}
    executor = Figure("exact executor, samples per second", ours, peers, more_is_better=True)
    shape = "-".join(map(str, sizes))
    return Comparison(
        f"A jet tagger {shape} with random 6-bit weights, {batch:,} samples a call.",
        (executor, *(figure for figures in found for figure in figures)),
        versions("hls4ml", "qonnx", "onnxruntime", "numpy"),
        (
            "All outputs are compared bit for bit before anything is timed.",
            "Rates are the best of two or three rounds; compile times are of one run.",
            "Both sides go from floats to floats. "
            "hls4ml gets the same layers and types, on inputs that are on the grid; its own QONNX "
            "importer is not in these figures.",
        ),
    )


def emulations(
    backend: Hls4mlBackend, model: Model, fast: Fast, x: np.ndarray[Any, Any]
) -> tuple[Figure, Figure]:
    """Rate of a backend's emulation, and how long it takes to get it, beside hls4ml's own."""
    parts = partition(model)
    output = str(model.graph.outputs[0].name)
    want = fast.run({"x": x})[output]
    codes = parts.encode({"x": x})
    on_grid = np.ldexp(codes["x_q"].astype(np.float32), -INPUT.fraction)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        backend.emit(model, parts, BackendOptions(), Path(scratch) / "ours")
        emulator = backend.emulator(Path(scratch) / "ours", parts)

        def run() -> Any:
            return parts.decode(emulator.run(parts.encode({"x": x})))[output]

        got = run()
        ready = time.perf_counter() - start
        assert np.array_equal(got, want), f"{backend.name} emulation differs"
        ours = rate(run, len(x))
        start = time.perf_counter()
        first, call = hls4ml_predict(backend, model, Path(scratch) / "own", on_grid)
        own_ready = time.perf_counter() - start
        assert np.array_equal(first.astype(np.float32), want), f"{backend.name} predict differs"
        theirs = {f"hls4ml's predict, {backend.name}": rate(call, len(x), rounds=2)}
    what = f"emulation of {backend.name}"
    compiled = {f"hls4ml's compile and predict, {backend.name}": own_ready}
    return (
        Figure(f"{what}, samples per second", ours, theirs, more_is_better=True),
        Figure(f"{what}, seconds from the layers to the first outputs", ready, compiled),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=20_000, help="samples a call")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--small", action="store_true", help="a network of seconds, 100 samples")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    given = parser.parse_args()
    sizes, batch = (SMALL, 100) if given.small else (SIZES, given.batch)
    with tempfile.TemporaryDirectory() as cache:  # so that compile times are not those of a cache
        os.environ["HQC_CACHE_DIR"] = cache
        found = measure(sizes, batch, tuple(given.backends.split(",")))
    print(found.json() if given.format == "json" else found.text())


if __name__ == "__main__":
    main()
