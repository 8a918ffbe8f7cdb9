"""Shapes and operator definitions of files, as ONNX itself knows them."""

from __future__ import annotations

import onnx
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.diagnostics import reject
from hqc.ir import QONNX
from hqc.ir.windows import Window, spatial_shape


def is_known(node: Node, model: Model) -> bool:
    """Whether ONNX defines the operator, in the version that the file imports."""
    try:
        onnx.defs.get_schema(node.op_type, model.opset_imports.get("", 1))
    except onnx.defs.SchemaError:
        return False
    return True


def infer_shapes(model: Model) -> None:
    """Shapes and dtypes of all values, by ONNX's own inference.

    Quantisers keep their input's shape, and give float32 whatever they are given; thresholds keep
    its dtype, too. Both as in qonnx's executor.
    """
    known = _inferred(model, strict=True)
    for node in model.graph:
        for value in node.outputs:
            if (info := known.get(str(value.name))) is not None:
                fresh = onnx_ir.serde.deserialize_value_info_proto(info, None)
                value.shape, value.type = fresh.shape, fresh.type


def explicit_ceilings(model: Model) -> None:
    """Write the `ceil_mode` of poolings as padding at the end, as far as it only pads.

    A window that would begin behind the input and its leading padding is left out, as
    onnxruntime and PyTorch do; ONNX's own inference counts it before version 22. An average that
    counts padding keeps its `ceil_mode`: what hangs over the end is not counted.
    """
    for node in tuple(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.domain != "" or not node.attributes.get_int("ceil_mode", 0) or source is None:
            continue
        info = _inferred(model, strict=False).get(str(source.name))
        if info is None:
            continue
        fresh = onnx_ir.serde.deserialize_value_info_proto(info, None)
        source.shape, source.type = fresh.shape, fresh.type
        window = Window.of(node)
        closed = window.closed(spatial_shape(node))
        over = any(a > b for a, b in zip(closed.after, window.after, strict=True))
        if over and node.attributes.get_int("count_include_pad", 0) != 0:
            continue
        node.attributes.pop("auto_pad", None)
        node.attributes["ceil_mode"] = onnx_ir.AttrInt64("ceil_mode", 0)
        node.attributes["pads"] = onnx_ir.AttrInt64s("pads", [*closed.before, *closed.after])


class Ranks:
    """Ranks of the values of a file, looked up in its own shapes first and inferred if missing."""

    def __init__(self, model: Model):
        self._model = model
        self._inferred: dict[str, onnx.ValueInfoProto] | None = None

    def of(self, value: Value) -> int | None:
        """Number of axes, or None where nothing tells."""
        if value.shape is not None:
            return len(value.shape)
        if self._inferred is None:
            self._inferred = _inferred(self._model, strict=False)
        info = self._inferred.get(str(value.name))
        if info is None or not info.type.tensor_type.HasField("shape"):
            return None
        return len(info.type.tensor_type.shape.dim)


def _inferred(model: Model, *, strict: bool) -> dict[str, onnx.ValueInfoProto]:
    proto = onnx_ir.serde.serialize_model(model)
    for node in proto.graph.node:
        if node.domain == QONNX:
            single = node.op_type != "MultiThreshold"
            node.op_type, node.domain = "Cast" if single else "Identity", ""
            del node.input[1:]
            del node.attribute[:]
            if single:
                node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
    if strict:
        del proto.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=strict, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        if not strict:
            return {}
        raise reject(
            "HQC109", "shapes of the graph do not fit together", notes=(str(error)[:300],)
        ) from error
    values = (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input)
    return {v.name: v for v in values}
