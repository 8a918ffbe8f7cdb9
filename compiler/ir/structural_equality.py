"""Structural comparison of two models: everything the textual form shows, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from onnx_ir import Attr, AttributeType, Model, Node, TensorType, Value
from onnx_ir import TensorProtocol as Tensor

from hqc.ir.store import location_of, range_of, state_of, type_of


def equal(a: Model, b: Model) -> bool:
    """Whether two models are the same up to doc strings, producer and foreign metadata."""
    return difference(a, b) is None


def difference(a: Model, b: Model, *, annotations: bool = True) -> str | None:
    """The first difference of two models in words, or None where they are equal.

    Args:
        a: one model.
        b: the other.
        annotations: compare types, ranges, provenance and the state as well.
    """
    return next(_differences(a, b, annotations), None)


def _differences(a: Model, b: Model, annotations: bool) -> Iterator[str]:
    pairs: list[tuple[str, object, object]] = [
        ("ir version", a.ir_version, b.ir_version),
        ("graph name", a.graph.name, b.graph.name),
        ("opsets", dict(a.graph.opset_imports), dict(b.graph.opset_imports)),
        ("outputs", [v.name for v in a.graph.outputs], [v.name for v in b.graph.outputs]),
    ]
    if annotations:
        pairs += [
            ("state", state_of(a), state_of(b)),
            ("metadata", _metadata(a), _metadata(b)),
        ]
    yield from (f"{what}: {x!r} and {y!r}" for what, x, y in pairs if x != y)
    yield from _values("input", tuple(a.graph.inputs), tuple(b.graph.inputs), annotations)
    constants = tuple(a.graph.initializers.values()), tuple(b.graph.initializers.values())
    yield from _values("constant", *constants, annotations)
    for x, y in zip(*constants, strict=False):
        if not _same_tensor(x.const_value, y.const_value):
            yield f"data of constant {x.name}"
    for n, m in itertools.zip_longest(a.graph, b.graph):
        if n is None or m is None:
            yield f"number of nodes: {len(a.graph)} and {len(b.graph)}"
            return
        yield from _nodes(n, m, annotations)


def _metadata(model: Model) -> dict[str, str]:
    found = model.metadata_props.items()
    return {key: text for key, text in found if key.startswith("hqc.") and key != "hqc.state"}


def _nodes(a: Node, b: Node, annotations: bool) -> Iterator[str]:
    pairs: list[tuple[str, object, object]] = [
        ("operator", (a.domain, a.op_type, a.overload), (b.domain, b.op_type, b.overload)),
        ("name", a.name or "", b.name or ""),
        ("inputs", [v and v.name for v in a.inputs], [v and v.name for v in b.inputs]),
        ("attributes", list(a.attributes), list(b.attributes)),
    ]
    if annotations:
        pairs.append(("provenance", _provenance(a), _provenance(b)))
    yield from (f"{what} of {_label(a)}: {x!r} and {y!r}" for what, x, y in pairs if x != y)
    for x, y in zip(a.attributes.values(), b.attributes.values(), strict=False):
        if not _same_attribute(x, y):
            yield f"attribute {x.name} of {_label(a)}: {x.value!r} and {y.value!r}"
    yield from _values(f"output of {_label(a)}", a.outputs, b.outputs, annotations)


def _label(node: Node) -> str:
    return node.name or node.op_type


def _provenance(node: Node) -> tuple[str, tuple[str, ...]]:
    where = location_of(node)
    return where.source, where.passes


def _values(what: str, a: Sequence[Value], b: Sequence[Value], annotations: bool) -> Iterator[str]:
    if len(a) != len(b):
        yield f"number of {what}s: {len(a)} and {len(b)}"
    for x, y in zip(a, b, strict=False):
        first, second = _facts(x, annotations), _facts(y, annotations)
        if first != second:
            yield f"{what} {x.name}: {first} and {second}"


def _facts(value: Value, annotations: bool) -> tuple[object, ...]:
    kind = value.dtype if isinstance(value.type, TensorType) else value.type
    shape = None if value.shape is None else value.shape.dims
    facts = value.name, kind, shape
    return (*facts, type_of(value), range_of(value)) if annotations else facts


def _same_attribute(a: Attr, b: Attr) -> bool:
    if a.type is not b.type or a.ref_attr_name != b.ref_attr_name:
        return False
    if a.type is AttributeType.TENSOR:
        return _same_tensor(a.as_tensor(), b.as_tensor())
    if a.type is AttributeType.TENSORS:
        ours, theirs = a.as_tensors(), b.as_tensors()
        return len(ours) == len(theirs) and all(map(_same_tensor, ours, theirs))
    if a.type in (AttributeType.FLOAT, AttributeType.FLOATS):
        return np.array_equal(np.float64(a.value), np.float64(b.value), equal_nan=True)
    return bool(a.value == b.value)


def _same_tensor(a: Tensor | None, b: Tensor | None) -> bool:
    """Equal dtype, shape and elements; NaNs are equal, zeros only with the same sign."""
    if a is b or a is None or b is None:
        return a is b
    x, y = a.numpy(), b.numpy()
    if a.dtype is not b.dtype or x.shape != y.shape:
        return False
    if x.dtype.kind in "iub":
        return np.array_equal(x, y)
    with np.errstate(invalid="ignore"):  # signalling NaNs are as good as others
        p, q = x.astype(np.float64), y.astype(np.float64)
    same_sign = (np.signbit(p) == np.signbit(q)) | np.isnan(p)
    return np.array_equal(p, q, equal_nan=True) and bool(same_sign.all())
