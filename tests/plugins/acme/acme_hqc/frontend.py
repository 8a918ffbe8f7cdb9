"""MLPs as JSON: types, and codes of the weights.

{"input": {"size": 2, "type": "fixed<8,4,RND_CONV,SAT>"},
 "layers": [{"weight": [[3, -1], [0, 2]], "weight_type": "fixed<4,1>",
             "relu": true, "type": "ufixed<6,3,RND_CONV,SAT>"}]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Value

from hqc.diagnostics import reject
from hqc.ir import QONNX, Quant, add_constant, make_node, parse_type
from hqc.numerics import FixedType, Overflow


@dataclass(frozen=True)
class MlpJson:
    """The frontend: `suffixes` says which files it reads, a call reads one."""

    suffixes: tuple[str, ...] = (".mlp.json",)

    def __call__(self, path: Path) -> Model:
        """The quantised graph of a file.

        Raises:
            HqcError: HQC002, it is no MLP in JSON.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return _model(document)
        except (KeyError, TypeError, ValueError) as error:
            raise reject("HQC002", f"{path} is no MLP in JSON: {error!r}") from error


MLP_JSON = MlpJson()


def _model(document: dict[str, Any]) -> Model:
    opsets = {"": 17, QONNX: 1}
    graph = Graph([], [], nodes=[], opset_imports=opsets, name="mlp")
    x = Value(name="x", shape=onnx_ir.Shape(["N", int(document["input"]["size"])]))
    x.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    graph.inputs.append(x)
    x = _quantise(graph, x, parse_type(document["input"]["type"]), "x_quant")
    for index, layer in enumerate(document["layers"]):
        x = _layer(graph, x, layer, f"fc{index}")
    graph.outputs.append(x)
    return Model(graph, ir_version=10)


def _layer(graph: Graph, x: Value, layer: dict[str, Any], name: str) -> Value:
    type_ = parse_type(layer["weight_type"])
    values = np.ldexp(np.array(layer["weight"], np.float32), -type_.fraction)
    weight = add_constant(graph, f"{name}_weight", values.astype(np.float32))
    held = replace(type_, overflow=Overflow.SAT)  # codes fit their type: it has nothing to do
    quantised = _quantise(graph, weight, held, f"{name}_weight_quant")
    node = make_node("MatMul", [x, quantised], like=x, name=name)
    node.outputs[0].shape = onnx_ir.Shape(["N", values.shape[1]])
    graph.append(node)
    if layer.get("relu"):
        node = make_node("Relu", [node.outputs[0]], like=node.outputs[0], name=f"{name}_relu")
        graph.append(node)
    return _quantise(graph, node.outputs[0], parse_type(layer["type"]), f"{name}_quant")


def _quantise(graph: Graph, x: Value, type_: FixedType, name: str) -> Value:
    node = Quant.of_type(type_).build(graph, x, name)
    graph.append(node)
    return node.outputs[0]
