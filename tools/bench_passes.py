"""Measure how passes and the other walks over a graph grow with its size.

Two shapes of network are made in every size: a chain of Quant-MatMul-Relu, eight wide, and a chain
of Quant-Conv-Relu whose blocks add their input to their output. A row is one step on one network;
where the time per node stays as it is from size to size, the step is linear. Only ratios carry
over to other machines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import Model

import hqc
from hqc import pipeline
from hqc.analysis.partition import partition
from hqc.driver.loading import read
from hqc.execution.fast import Fast
from hqc.ir import QONNX
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline
from hqc.text.parser import parse_module
from hqc.text.printer import print_module

#: Features of the chain, and channels of the convolutions.
WIDTH, CHANNELS, PIXELS = 8, 2, 4
#: Nodes of one layer: two quantisers, the product, the rectifier; and the sum of a residual block.
CHAIN_LAYER, RESIDUAL_LAYER = 4, 5
SIZES = (81, 321, 641)
#: Of the activations: a power of two, so that lowering finds no factors and the walks show.
SCALE = 1 / 16


@dataclass(frozen=True)
class Row:
    """One step on one network.

    Attributes:
        network: its shape.
        nodes: how many it has as imported.
        step: what was timed.
        seconds: the best of the rounds.
        cpu: seconds of the processor, which other work on the machine changes less; None where
            they are not known.
    """

    network: str
    nodes: int
    step: str
    seconds: float
    cpu: float | None = None

    @property
    def per_node(self) -> float:
        """Microseconds per node of the imported network, of the processor where they are known."""
        return 1e6 * (self.seconds if self.cpu is None else self.cpu) / self.nodes


class Writer:
    """Writes a network node by node; the output of the last one is `x`."""

    def __init__(self, shape: Sequence[int], seed: int):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape = ["N", *shape]
        self.x = "x"

    def constant(self, name: str, array: object) -> str:
        tensor = numpy_helper.from_array(np.asarray(array, np.float32), name)
        self.constants.append(tensor)
        return name

    def op(self, name: str, op: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        node = helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return name

    def quant(self, name: str, x: str, scale: float, bits: int, *, signed: bool) -> str:
        numbers = (("scale", scale), ("zero", 0.0), ("bits", bits))
        inputs = [self.constant(f"{name}_{what}", number) for what, number in numbers]
        return self.op(name, "Quant", x, *inputs, domain=QONNX, signed=int(signed), narrow=0)

    def weight(self, name: str, array: object) -> str:
        """Weights of four bits."""
        raw = self.constant(f"{name}_raw", array)
        return self.quant(name, raw, 1 / 4, 4, signed=True)

    def mixing(self, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """A permutation with a small entry beside each one, so that values go on and none dies."""
        found = np.zeros((size, size))
        order = self.rng.permutation(size)
        found[np.arange(size), order] = 1
        sign = np.where(np.arange(size) % 2, 1 / 2, -1 / 4)
        found[np.arange(size), np.roll(order, 1)] = sign
        return found

    def model(self) -> onnx.ModelProto:
        self.quant("y", self.x, SCALE, 8, signed=False)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, self.shape)]
        graph = helper.make_graph(self.nodes, "net", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def chain(nodes: int, seed: int = 0) -> onnx.ModelProto:
    """Layers of Quant-MatMul-Relu, one behind the other."""
    writer = Writer((WIDTH,), seed)
    for index in range(nodes // CHAIN_LAYER):
        x = writer.quant(f"q{index}", writer.x, SCALE, 8, signed=not index)
        weight = writer.weight(f"w{index}", writer.mixing(WIDTH))
        writer.x = writer.op(f"r{index}", "Relu", writer.op(f"m{index}", "MatMul", x, weight))
    return writer.model()


def residual(nodes: int, seed: int = 0) -> onnx.ModelProto:
    """Blocks of Quant-Conv-Relu, each of which adds its input to its output."""
    writer = Writer((CHANNELS, PIXELS, PIXELS), seed)
    for index in range(nodes // RESIDUAL_LAYER):
        x = writer.quant(f"q{index}", writer.x, SCALE, 8, signed=not index)
        kernel = np.zeros((CHANNELS, CHANNELS, 3, 3))
        kernel[:, :, 1, 1], kernel[:, :, 0, 2] = writer.mixing(CHANNELS), -1 / 4
        weight = writer.weight(f"w{index}", kernel)
        product = writer.op(f"c{index}", "Conv", x, weight, pads=[1, 1, 1, 1])
        writer.x = writer.op(f"a{index}", "Add", writer.op(f"r{index}", "Relu", product), x)
    return writer.model()


NETWORKS: dict[str, Callable[[int], onnx.ModelProto]] = {"chain": chain, "residual": residual}


def lower(proto: onnx.ModelProto) -> Model:
    """A network behind the default pipeline."""
    return hqc.run_passes(hqc.load(proto), pipeline.DEFAULT, verify=False)


def timed(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds of a call, and those of the processor, best of several rounds."""
    found = []
    for _ in range(rounds):
        start, busy = time.perf_counter(), time.process_time()
        call()
        found.append((time.perf_counter() - start, time.process_time() - busy))
    return min(wall for wall, _ in found), min(cpu for _, cpu in found)


def steps(proto: onnx.ModelProto, verify: bool) -> dict[str, Callable[[], object]]:
    """What is timed on one network, each step on what those before it leave."""
    loaded, lowered = hqc.load(proto), lower(proto)
    text = print_module(lowered, weights="full")
    found: dict[str, Callable[[], object]] = {
        "load": lambda: hqc.load(proto),
        "passes": lambda: hqc.run_passes(loaded, pipeline.DEFAULT, verify=False),
    }
    if verify:
        found["passes, verified"] = lambda: hqc.run_passes(loaded, pipeline.DEFAULT)
    return {
        **found,
        "print": lambda: print_module(lowered, weights="full"),
        "parse": lambda: parse_module(text),
        "partition": lambda: partition(lowered),
        "fast session": lambda: Fast(lowered),
    }


def single_passes(proto: onnx.ModelProto) -> Iterator[tuple[str, float]]:
    """Each pass of the default pipeline, without verification; a pass may run several times."""
    model: Model = read(hqc.load(proto)).model
    registry = Registry.default()
    result = pipeline.run(model, parse_pipeline(pipeline.DEFAULT), registry, verify=False)
    for number, record in enumerate(result.records, 1):
        yield f"  {number}. {record.step}", record.seconds


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """A row for every step on every network."""
    for network in options.network or NETWORKS:
        for size in options.sizes:
            proto = NETWORKS[network](size)
            nodes = len(proto.graph.node)
            for step, call in steps(proto, options.verify).items():
                yield Row(network, nodes, step, *timed(call, options.rounds))
            if options.each:
                for step, seconds in single_passes(proto):
                    yield Row(network, nodes, step, seconds)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("sizes", nargs="*", type=int, default=SIZES, help="nodes of the networks")
    found.add_argument("-n", "--network", action="append", choices=NETWORKS, help="only this one")
    found.add_argument("-r", "--rounds", type=int, default=1, help="the best of so many counts")
    found.add_argument("-e", "--each", action="store_true", help="a row for each pass as well")
    found.add_argument(
        "--no-verify", dest="verify", action="store_false", help="leave verified passes out"
    )
    found.add_argument("-f", "--format", choices=("text", "json"), default="text")
    return found


def main() -> None:
    """Print the table, row by row."""
    options = parser().parse_args()
    rows = measure(options)
    if options.format == "json":
        print(json.dumps([{**asdict(row), "per_node_us": row.per_node} for row in rows], indent=1))
        return
    print(f"{'network':10}{'nodes':>7}  {'step':28}{'seconds':>10}{'cpu':>10}{'us/node':>10}")
    for row in rows:
        cpu = "" if row.cpu is None else f"{row.cpu:.3f}"
        print(
            f"{row.network:10}{row.nodes:7}  {row.step:28}{row.seconds:10.3f}{cpu:>10}"
            f"{row.per_node:10.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
