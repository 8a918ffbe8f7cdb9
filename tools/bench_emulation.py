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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from hqc.analysis.partition import partition
from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.model_graph import graph_config, layer_list
from hqc.backends.hls4ml.vitis import Vitis
from hqc.ir import QONNX, State, add_constant, make_node, set_range, set_state, set_type, to_bytes
from hqc.ir.operators import Quant
from hqc.numerics.types import FixedType, Overflow, Range, Rounding
from hqc.pipeline.backend import BackendOptions

SIZES = (16, 64, 32, 32, 5)
WEIGHT = FixedType(True, 6, 1)
INPUT = FixedType(True, 8, 3, Rounding.ROUND, Overflow.SAT)
HIDDEN = FixedType(False, 6, 2, Rounding.ROUND, Overflow.SAT)


def jet_tagger(seed: int, zeros: float = 0.0) -> Model:
    """The model in integer form: quantised inputs, dense layers, rectifiers, quantisers.

    A share `zeros` of the weights is 0.
    """
    rng = np.random.default_rng(seed)
    graph = Graph([], [], nodes=[], opset_imports={"": 17, QONNX: 1}, name="jets")
    x = Value(name="x", shape=onnx_ir.Shape(["N", SIZES[0]]))
    x.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    graph.inputs.append(x)
    x = quantise(graph, x, INPUT, "x_q")
    held = INPUT.limits
    for index, (n_in, n_out) in enumerate(itertools.pairwise(SIZES)):
        codes = rng.integers(-31, 32, (n_in, n_out))
        if zeros:
            codes = np.where(rng.random(codes.shape) < zeros, 0, codes)
        x, held = dense(graph, x, held, codes, rng.integers(-31, 32, n_out), f"fc{index}")
        if index < len(SIZES) - 2:
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
    backend: Any, model: Model, folder: Path, x: np.ndarray[Any, Any]
) -> tuple[Any, Callable[[], Any]]:
    """hls4ml's own way: its default flow, its own compile, its own `predict`."""
    from hls4ml.model.graph import ModelGraph

    network = backend.network(model, partition(model))
    options = backend.complete(BackendOptions())
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


def measure(batch: int) -> list[tuple[str, float]]:
    """Samples per second of everything, each checked against the exact executor first."""
    from hqc.execution.fast import Fast

    model = jet_tagger(7)
    parts = partition(model)
    x = np.random.default_rng(1).normal(scale=2, size=(batch, SIZES[0])).astype(np.float32)
    output = str(model.graph.outputs[0].name)
    fast = Fast(model)
    want = fast.run({"x": x})[output]
    rows = [("exact executor (fast)", rate(lambda: fast.run({"x": x}), batch))]
    rows.append(("qonnx executor", qonnx_rate(model, x)))
    codes = parts.encode({"x": x})
    on_grid = np.ldexp(codes["x_q"].astype(np.float32), -INPUT.fraction)
    with tempfile.TemporaryDirectory() as scratch:
        for backend in (Vitis(), Catapult()):
            folder = Path(scratch) / backend.name
            backend.emit(model, parts, BackendOptions(), folder)
            start = time.perf_counter()
            emulator = backend.emulator(folder, parts)
            seconds = time.perf_counter() - start
            got = parts.decode(emulator.run(codes))[output]
            assert np.array_equal(got, want), f"{backend.name} emulation differs"
            print(f"{backend.name}: emulation ready in {seconds:.2f} s")
            rows.append((f"{backend.name} bridge", rate(lambda e=emulator: e.run(codes), batch)))
            start = time.perf_counter()
            first, call = hls4ml_predict(backend, model, Path(scratch) / "own", on_grid)
            print(
                f"{backend.name}: hls4ml compile and first predict "
                f"{time.perf_counter() - start:.2f} s"
            )
            assert np.array_equal(first.astype(np.float32), want), f"{backend.name} predict differs"
            rows.append((f"{backend.name} predict", rate(call, batch, rounds=2)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:  # so that compile times are not those of a cache
        os.environ["HQC_CACHE_DIR"] = cache
        rows = dict(measure(arguments.batch))
    print(f"\n{'':28}{'samples/s':>12}")
    for name, value in rows.items():
        print(f"{name:28}{value:12,.0f}")
    print(f"\n{'ratio':40}{'':>8}")
    fast = rows["exact executor (fast)"]
    for other in ("vitis predict", "catapult predict", "qonnx executor"):
        print(f"{'exact executor / ' + other:40}{fast / rows[other]:8.1f}")
    for name in ("vitis", "catapult"):
        ratio = rows[f"{name} bridge"] / rows[f"{name} predict"]
        print(f"{f'{name} bridge / predict':40}{ratio:8.1f}")


if __name__ == "__main__":
    main()
