"""onnxruntime sessions, made the same way everywhere."""

from __future__ import annotations

from typing import Any

import onnx


def session(graph: onnx.GraphProto, opset: int, *, threads: int = 0) -> Any:
    """A CPU session for a graph of plain ONNX operators; quiet but for errors.

    Args:
        graph: the graph.
        opset: version of the ai.onnx operators.
        threads: intra-operator threads, 0 for onnxruntime's own choice.
    """
    import onnxruntime

    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
