"""QCDQ graphs written node by node, and onnxruntime on them as they are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from hqc.equivalence.float_error import undecided
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.ir import Array, from_bytes
from support.qonnx_graphs import Net

LIMITS = {
    "INT4": (-8, 7),
    "UINT4": (0, 15),
    "INT8": (-128, 127),
    "UINT8": (0, 255),
    "INT16": (-(2**15), 2**15 - 1),
    "UINT16": (0, 2**16 - 1),
    "INT32": (-(2**31), 2**31 - 1),
}
MICROSOFT = "com.microsoft"


class Qcdq(Net):
    """Collects nodes on integer codes."""

    def __init__(self, opset: int = 21):
        super().__init__("", opset)

    def integers(self, values: Any, type_: str = "INT8") -> str:
        """A constant of an integer type, 4-bit ones included."""
        array = np.asarray(values, np.int64)
        name = f"i{len(self.constants)}"
        self.constants.append(
            helper.make_tensor(name, TensorProto.DataType.Value(type_), array.shape, array.ravel())
        )
        return name

    def q(self, x: str, scale: Any, zero: Any = 0, type_: str = "INT8", **options: Any) -> str:
        parameters = self.const(scale), self.integers(zero, type_)
        return self.op("QuantizeLinear", x, *parameters, **options)

    def d(self, x: str, scale: Any, zero: Any = 0, type_: str = "INT8", **options: Any) -> str:
        parameters = self.const(scale), self.integers(zero, type_)
        return self.op("DequantizeLinear", x, *parameters, **options)

    def qd(
        self, x: str, scale: Any, zero: Any = 0, type_: str = "INT8", name: str = "", **options: Any
    ) -> str:
        codes = self.q(x, scale, zero, type_, **options)
        return self.d(codes, scale, zero, type_, name=name, **options)

    def proto(self, *outputs: str) -> onnx.ModelProto:
        made = super().proto(*outputs)
        del made.opset_import[:]
        domains = (("", self.opset), (MICROSOFT, 1))
        made.opset_import.extend(helper.make_opsetid(d, v) for d, v in domains)
        made.ir_version = 10 if self.opset >= 21 else 8
        return made


def onnxruntime_on(proto: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    """Outputs of the graph as written: no operator is fused."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, inputs))


def same_but_for_ties(proto: onnx.ModelProto, x: Array, *, ties: bool = True) -> None:
    """Assert that import keeps every output, but where float32 may go either way on a tie."""
    (want,) = onnxruntime_on(proto, {"x": x})
    model = normalise_import(from_bytes(proto.SerializeToString(), "graph")).model
    (got,) = Reference(model).run({"x": x}).values()
    assert got.shape == want.shape
    differ = (got != want).reshape(len(x), -1).any(axis=1)
    if differ.any():
        assert ties, f"{np.argwhere(differ).ravel()[:5]} differ"
        unexplained = differ & ~undecided(model, {"x": x})
        assert not unexplained.any(), f"{np.argwhere(unexplained).ravel()[:5]} differ"


def every_tie(scale: float, zero: int, type_: str, *, near: bool = True) -> Array:
    """Inputs (n, 1): quarter steps over the whole range and beyond, and their neighbours."""
    lo, hi = LIMITS[type_]
    steps = np.arange(4 * (lo - zero) - 16, 4 * (hi - zero) + 17)
    if len(steps) > 4000:  # the ends, and around zero
        steps = np.concatenate([steps[:200], np.arange(-200, 201), steps[-200:]])
    x = (steps / 4 * np.float64(np.float32(scale))).astype(np.float32)
    if near:
        x = np.concatenate([x, *(np.nextafter(x, np.float32(end)) for end in (-np.inf, np.inf))])
    return np.concatenate([x, np.float32([-1e30, 1e30])])[:, None]
