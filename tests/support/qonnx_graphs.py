"""Small QONNX graphs, written node by node as files have them, for the tests of the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import Model

from hqc import ir
from hqc.frontends.onnx.shapes import infer_shapes
from hqc.frontends.qonnx import normalise_import
from hqc.ir import QONNX, Array, State, set_state
from hqc.numerics.types import FixedType


class Net:
    """Collects nodes; every operator returns the name of its output."""

    def __init__(self, domain: str = QONNX, opset: int = 17):
        self.domain = domain
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.annotations: list[tuple[str, str]] = []
        self.kinds: dict[str, int] = {}

    def input(self, name: str, *dims: int | str, batch: int | str | None = "N") -> str:
        shape = [batch, *dims]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def const(self, array: Any, dtype: Any = np.float32, name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, op: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        out = name or f"{op.lower()}{len(self.nodes)}"
        node = helper.make_node(op, inputs, [out], name=f"{out}_node", domain=domain, **attributes)
        self.nodes.append(node)
        return out

    def quant(
        self,
        x: str,
        scale: Any,
        bits: float,
        signed: int = 1,
        narrow: int = 0,
        rounding: str = "ROUND",
        zero: Any = 0.0,
        name: str = "",
        op: str = "Quant",
    ) -> str:
        parameters = self.const(scale), self.const(zero), self.const(bits)
        return self.op(
            op,
            x,
            *parameters,
            name=name,
            domain=self.domain,
            signed=signed,
            narrow=narrow,
            rounding_mode=rounding,
        )

    def bipolar(self, x: str, scale: Any, name: str = "") -> str:
        return self.op("BipolarQuant", x, self.const(scale), name=name, domain=self.domain)

    def thresholds(self, x: str, rows: Any, name: str = "", **attributes: Any) -> str:
        attributes = {"out_dtype": "INT32", **attributes}
        return self.op(
            "MultiThreshold", x, self.const(rows), name=name, domain=self.domain, **attributes
        )

    def dense(self, x: str, weights: Any, scale: Any = 0.125, bits: int = 4, name: str = "") -> str:
        """A linear layer whose float weights are quantised in the graph."""
        return self.op("MatMul", x, self.quant(self.const(weights), scale, bits), name=name)

    def _output(self, name: str) -> onnx.ValueInfoProto:
        kind = self.kinds.get(name, TensorProto.FLOAT)
        return helper.make_tensor_value_info(name, kind, None)

    def proto(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [self._output(name) for name in outputs],
            self.constants,
        )
        for name, datatype in self.annotations:
            graph.quantization_annotation.append(
                onnx.TensorAnnotation(
                    tensor_name=name,
                    quant_parameter_tensor_names=[
                        onnx.StringStringEntryProto(key="finn_datatype", value=datatype)
                    ],
                )
            )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(self.domain, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def read(self, *outputs: str) -> Model:
        """As a file holds it."""
        return ir.from_bytes(self.proto(*outputs).SerializeToString(), "net")

    def raw(self, *outputs: str) -> Model:
        """With shapes, but not imported: no pass has touched it."""
        model = self.read(*outputs)
        infer_shapes(model)
        set_state(model, State.QUANTISED)
        return model

    def model(self, *outputs: str, types: Mapping[str, FixedType] | None = None) -> Model:
        """Imported, in the quantised state."""
        model = self.read(*outputs)
        normalise_import(model, input_types=types)
        return model


def ops(model: Model) -> list[str]:
    """Operators of a graph, in order."""
    return [node.op_type for node in model.graph]


def rows(values: Sequence[Any]) -> Array:
    """Values as float32 samples of one feature."""
    return np.asarray(values, np.float32).reshape(-1, 1)


def random_net(seed: int, *, dyadic: bool, layers: int = 2, width: int = 4) -> Net:
    """A random network: ports, linear layers, bias, batch norm, rectifiers, every quantiser.

    With `dyadic`, every factor is a power of two and every constant short, so that float32
    executors commit no error.
    """
    rng = np.random.default_rng(seed)
    net = Net()
    x = net.input("x", width)

    def scale(low: int = -4, high: int = 1) -> float:
        step = float(2.0 ** rng.integers(low, high))
        return step if dyadic else step * float(rng.uniform(0.6, 1.7))

    def rounding(modes: Sequence[str] = ("ROUND", "HALF_UP", "HALF_DOWN", "FLOOR", "DOWN")) -> str:
        return str(rng.choice(modes))

    port = 0.125 if dyadic or rng.random() < 0.5 else scale()
    x = net.quant(x, port, int(rng.integers(2, 9)), int(rng.integers(0, 2)), 0, rounding())
    for layer in range(layers):
        n_in, n_out = width, int(rng.integers(1, 6))
        weights = rng.normal(0, 0.4, (n_in, n_out))
        per_channel = rng.random() < 0.5
        size = (1, n_out) if per_channel else ()
        steps = np.array([scale(-5, -2) for _ in range(n_out)]).reshape(1, -1)
        w_scale = steps if per_channel else scale(-5, -2)
        bits = int(rng.integers(2, 7))
        w = net.quant(net.const(weights), w_scale, bits, 1, int(rng.integers(0, 2)))
        assert np.shape(w_scale) == size
        x = net.op("MatMul", x, w)
        if rng.random() < 0.5:
            bias = rng.integers(-40, 40, n_out) / 64
            x = net.op(str(rng.choice(["Add", "Sub"])), x, net.const(bias))
        if rng.random() < 0.4:
            x = net.op("Relu", x)
        if rng.random() < 0.5:
            factor = np.array([scale(-2, 2) * rng.choice([-1, 1]) for _ in range(n_out)])
            x = net.op("Mul", x, net.const(factor))
            x = net.op("Add", x, net.const(rng.integers(-9, 9, n_out) / 16))
        if rng.random() < 0.4:
            x = net.op("Relu", x)
        width = n_out
        kind = rng.random()
        if kind < 0.1:
            x = net.bipolar(x, scale())
        elif kind < 0.2 and layer == layers - 1:
            x = net.thresholds(x, np.sort(rng.integers(-9, 9, (n_out, 3)) / 8, axis=1))
        else:
            signed = int(rng.integers(0, 2))
            modes = ("ROUND", "HALF_UP", "HALF_DOWN", "FLOOR", "DOWN", "CEIL", "UP")
            zero = float(rng.integers(-3, 4)) if rng.random() < 0.2 else 0.0
            narrow = int(rng.integers(0, 2))
            x = net.quant(
                x, scale(), int(rng.integers(2, 7)), signed, narrow, rounding(modes), zero
            )
    net.op("Identity", x, name="y")
    return net
