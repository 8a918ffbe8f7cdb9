"""States of a model between passes, kept and compared without copying a weight.

A snapshot shares the constants' data with the model. So that it stays what it was, the data may
not be written to afterwards: a pass makes a new constant.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir
from onnx_ir import AttributeType, Model, TensorProtocol, Value

from hqc.ir.structural_equality import difference


def snapshot(model: Model) -> Model:
    """A copy of a model that shares its constants' data, which becomes read-only."""
    for tensor in _tensors(model):
        tensor.numpy().flags.writeable = False
    copy = model.clone()
    for value in _values(copy):  # types are mutable, and clones share them
        if value.dtype is not None and isinstance(value.type, onnx_ir.TensorType):
            value.type = onnx_ir.TensorType(value.dtype)
    return copy


def is_same(before: Model, after: Model) -> bool:
    """Whether nothing has changed, annotations included."""
    return difference(before, after) is None


def is_annotated_only(before: Model, after: Model) -> bool:
    """Whether nothing but annotations and provenance has changed."""
    return difference(before, after, annotations=False) is None


def _tensors(model: Model) -> Iterator[TensorProtocol]:
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            yield value.const_value
    for node in model.graph:
        for attribute in node.attributes.values():
            if attribute.type is AttributeType.TENSOR:
                yield attribute.as_tensor()


def _values(model: Model) -> Iterator[Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs
