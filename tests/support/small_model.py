"""A model small enough to compile in seconds, and what a command line left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hqc.ir import QONNX


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    status: int
    out: str
    err: str

    @property
    def codes(self) -> list[str]:
        return re.findall(r"^(?:error|warning)\[(HQC\d{3})\]", self.err, re.M)

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Run = Callable[..., Ended]


def quant(name: str, x: str, scale: float, bits: int, signed: int) -> tuple[Any, list[Any]]:
    parameters = {"scale": scale, "zero": 0.0, "bits": float(bits)}
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), f"{name}_{key}")
        for key, value in parameters.items()
    ]
    node = helper.make_node(
        "Quant",
        [x, *(c.name for c in constants)],
        [name],
        name=f"{name}/Quant",
        domain=QONNX,
        signed=signed,
        narrow=0,
        rounding_mode="ROUND",
    )
    return node, constants


def small_model(extra: str | None = None) -> onnx.ModelProto:
    """4 -> 3 -> 2 with ReLU; `extra` is an operator put before the output."""
    rng = np.random.default_rng(7)
    nodes, constants = [], []

    def add_quant(name: str, x: str, scale: float, bits: int, signed: int) -> str:
        node, found = quant(name, x, scale, bits, signed)
        nodes.append(node)
        constants.extend(found)
        return name

    def add_dense(name: str, x: str, shape: tuple[int, int]) -> str:
        weights = rng.integers(-7, 8, shape).astype(np.float32) / 8
        constants.append(numpy_helper.from_array(weights, f"{name}_float"))
        quantised = add_quant(f"{name}_w", f"{name}_float", 0.125, 4, 1)
        nodes.append(helper.make_node("MatMul", [x, quantised], [name], name=name))
        return name

    x = add_quant("q0", "x", 0.125, 8, 1)
    x = add_dense("fc1", x, (4, 3))
    nodes.append(helper.make_node("Relu", [x], ["r"], name="relu"))
    x = add_quant("q1", "r", 0.3, 6, 0)
    x = add_dense("fc2", x, (3, 2))
    x = add_quant("q2" if extra else "y", x, 0.25, 8, 1)
    if extra:
        nodes.append(helper.make_node(extra, [x], ["y"], name="extra"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def content(directory: Path) -> dict[str, bytes]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}
