"""Printing a model as a module: one value per line with its type, its range and where it is from.

Constants of at most `INLINE` elements are printed in full, and so are those that hold one value
throughout; larger ones as a hash of their bytes, or in full when asked for. Numbers are the
shortest that read back as the same value, so nothing is lost.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from onnx_ir import Attr, AttributeType, DataType, Model, Node, SymbolicDim, TensorType, Value
from onnx_ir import TensorProtocol as Tensor

from hqc.diagnostics import reject
from hqc.diagnostics.formats import TEXT
from hqc.ir import QONNX, Array, location_of, range_of, state_of, type_of
from hqc.numerics.types import Range
from hqc.text.grammar import quote

#: Constants of at most this many elements are always printed in full.
INLINE = 16
_SPLAT = 4

Weights = Literal["hash", "full"]

_NAMES = {DataType.FLOAT: "float32", DataType.DOUBLE: "float64"}
DTYPES = {_NAMES.get(d, d.name.lower()): d for d in DataType if d is not DataType.UNDEFINED}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: Element types that constants can have.
NUMERIC = frozenset(
    d
    for d in DataType
    if d in (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16, DataType.BOOL)
    or re.fullmatch(r"U?INT(8|16|32|64)", d.name)
)
#: Prefixes for operators of domains with long names.
PREFIXES = {"qonnx": QONNX}
_PREFIX_OF = {domain: prefix for prefix, domain in PREFIXES.items()}

_BARE_VALUE = re.compile(r"[A-Za-z0-9_.$/]+")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_EMPTY = {
    AttributeType.INTS: "ints[]",
    AttributeType.FLOATS: "floats[]",
    AttributeType.STRINGS: "strings[]",
    AttributeType.TENSORS: "tensors[]",
}


def print_module(model: Model, *, weights: Weights = "hash") -> str:
    """The text of a model, ending in a newline.

    Doc strings, the producer's name and metadata of others are no part of it.

    Args:
        model: a model without functions and subgraphs.
        weights: "hash" for large constants as a hash, "full" for every number.

    Raises:
        HqcError: HQC102, something in the model has no text form.
    """
    if model.functions:
        raise reject("HQC102", "a model with local functions has no text form")
    return "\n".join(_lines(model, weights)) + "\n"


def weights_of(model: Model) -> dict[str, Array]:
    """Every constant of a model under its hash, as `parse_module` wants them for hashed text."""
    found = [t for v in model.graph.initializers.values() if (t := v.const_value) is not None]
    for node in model.graph:
        for attribute in node.attributes.values():
            if attribute.type is AttributeType.TENSOR:
                found.append(attribute.as_tensor())
            elif attribute.type is AttributeType.TENSORS:
                found.extend(attribute.as_tensors())
    return {hash_of(tensor.numpy()): tensor.numpy() for tensor in found}


def hash_of(array: Array) -> str:
    """The first 64 bits of the SHA-256 of an array's little-endian bytes, as modules print it."""
    data = np.ascontiguousarray(array)
    if data.dtype.byteorder == ">":
        data = data.astype(data.dtype.newbyteorder("<"))
    return f"sha256:{hashlib.sha256(data.tobytes()).hexdigest()[:16]}"


def flat_numbers(array: Array) -> list[str]:
    """The elements in row-major order, each as the shortest text that reads back as the same."""
    flat = array.ravel()
    if array.dtype.kind == "b":
        return ["true" if x else "false" for x in flat]
    if array.dtype.kind in "iu":
        return [str(int(x)) for x in flat]
    short = [str(x) for x in flat]
    with np.errstate(invalid="ignore"):  # signalling NaNs are as good as others
        exact = flat.astype(np.float64)
        back = np.array([float(s) for s in short]).astype(array.dtype).astype(np.float64)
    same = (back == exact) | np.isnan(exact)
    return [s if ok else repr(float(x)) for s, ok, x in zip(short, same, exact, strict=True)]


# --- the module, line by line -------------------------------------------------------------------


def _lines(model: Model, weights: Weights) -> Iterator[str]:
    graph = model.graph
    name = "" if graph.name is None else f" @{_bare(graph.name, _BARE_VALUE)}"
    opsets = ", ".join(f"{_domain(d)}{v}" for d, v in graph.opset_imports.items())
    yield (
        f"hqc.module{name} version {TEXT.current} state {state_of(model).value} "
        f"ir {model.ir_version}{' opset ' if opsets else ''}{opsets} {{"
    )
    for key, text in sorted(model.metadata_props.items()):
        if key.startswith("hqc.") and key != "hqc.state":
            yield f"  meta {quote(key)} = {quote(text)}"
    yield from (f"  input {_name(v)} : {_value_type(v)}" for v in graph.inputs)
    yield from (f"  {_const(v, weights)}" for v in graph.initializers.values())
    yield from (f"  {_node(node, weights)}" for node in graph)
    yield from (f"  output {_name(v)}" for v in graph.outputs)
    yield "}"


def _const(value: Value, weights: Weights) -> str:
    tensor = value.const_value
    if tensor is None:
        raise reject("HQC102", f"constant {value.name} has no data")
    return f"const {_name(value)} : {_value_type(value)} = {_data(tensor, weights)}"


def _node(node: Node, weights: Weights) -> str:
    if node.overload or not node.outputs:
        raise reject("HQC102", f"{node.op_type} has no text form", where=location_of(node))
    results = ", ".join(_name(v) for v in node.outputs)
    arguments = ", ".join(_name(v) for v in node.inputs)
    types = ", ".join(_value_type(v) for v in node.outputs)
    attributes = ", ".join(_attribute(node, a, weights) for a in node.attributes.values())
    text = f"{results} = {_op(node)}({arguments})"
    text += f" {{{attributes}}} : {types}" if attributes else f" : {types}"
    return text + _provenance(node)


def _provenance(node: Node) -> str:
    where = location_of(node)
    text = f" {quote(node.name)}" if node.name else ""
    if where.source:
        text += f" from {quote(where.source)}"
    if where.passes:
        text += f" via ({', '.join(_bare(p, _BARE) for p in where.passes)})"
    return text


# --- names and types ----------------------------------------------------------------------------


def _bare(name: str, pattern: re.Pattern[str]) -> str:
    return name if pattern.fullmatch(name) else quote(name)


def _name(value: Value | None) -> str:
    if value is None or not value.name:
        return "_"
    return f"%{_bare(value.name, _BARE_VALUE)}"


def _domain(domain: str) -> str:
    if not domain:
        return ""
    if domain in PREFIXES:  # it would read as the domain that the prefix stands for
        return f"{quote(domain)} "
    return f"{_PREFIX_OF.get(domain) or _bare(domain, _BARE)} "


def _op(node: Node) -> str:
    domain = _PREFIX_OF.get(node.domain, node.domain)
    text = f"{domain}.{node.op_type}" if domain else node.op_type
    odd = node.domain in PREFIXES or "." in node.op_type or not node.op_type
    if odd or domain.startswith(".") or not _BARE.fullmatch(text):
        return f"{quote(node.domain)}.{quote(node.op_type)}"
    return text


def _value_type(value: Value) -> str:
    if value.type is not None and not isinstance(value.type, TensorType):
        raise reject("HQC102", f"{value.name} of type {value.type!r} has no text form")
    dtype = "?" if value.dtype is None else _dtype(value.dtype)
    dims = ["*"] if value.shape is None else [_dim(d) for d in value.shape]
    text = f"{dtype}[{','.join(dims)}]"
    if (type_ := type_of(value)) is not None:
        text += f" as {type_}"
    if (range_ := range_of(value)) is not None:
        text += f" in {print_range(range_)}"
    return text


def print_range(range_: Range) -> str:
    """A range as modules print it: `[-1234, 4321]*2^-12`."""
    step = f"*2^{range_.exponent}" if range_.exponent else ""
    return f"[{range_.lo}, {range_.hi}]{step}"


def _dtype(dtype: DataType) -> str:
    if dtype not in _DTYPE_NAMES:
        raise reject("HQC102", f"element type {dtype!r} has no text form")
    return _DTYPE_NAMES[dtype]


def _dim(dim: int | SymbolicDim) -> str:
    if isinstance(dim, int):
        return str(dim)
    return "?" if dim.value is None else _bare(dim.value, _BARE)


# --- data ---------------------------------------------------------------------------------------


def _data(tensor: Tensor, weights: Weights) -> str:
    array = np.asarray(tensor.numpy())
    if tensor.dtype not in NUMERIC:
        raise reject("HQC102", f"constant {tensor.name} of {tensor.dtype!r} has no text form")
    if array.size > _SPLAT and len({x.tobytes() for x in array.ravel()[:2]}) == 1:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
        if (raw == raw[0]).all():
            return f"splat({flat_numbers(array.ravel()[:1])[0]})"
    if array.size > INLINE and weights == "hash":
        return f"dense<{hash_of(array)}>"
    return _nest(flat_numbers(array), array.shape)


def _nest(numbers: Sequence[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return numbers[0]
    if len(shape) == 1:
        return f"[{', '.join(numbers)}]"
    step = len(numbers) // shape[0] if shape[0] else 0
    rows = (_nest(numbers[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0]))
    return f"[{', '.join(rows)}]"


def _attribute(node: Node, attribute: Attr, weights: Weights) -> str:
    name = _bare(attribute.name, _BARE)
    return f"{name} = {_attribute_value(node, attribute, weights)}"


def _attribute_value(node: Node, attribute: Attr, weights: Weights) -> str:
    value, type_ = attribute.value, attribute.type
    if attribute.is_ref() or value is None:
        type_ = AttributeType.UNDEFINED
    if type_ in _EMPTY:
        if not value:
            return _EMPTY[type_]
        return f"[{', '.join(_scalar(type_, item, weights) for item in value)}]"
    if type_ not in _SCALARS:
        raise reject(
            "HQC102",
            f"attribute {attribute.name} of {node.op_type} has no text form",
            where=location_of(node),
            notes=(f"it is of type {attribute.type!r}",),
        )
    return _scalar(type_, value, weights)


_SCALARS = frozenset(
    {AttributeType.INT, AttributeType.FLOAT, AttributeType.STRING, AttributeType.TENSOR}
)


def _scalar(type_: AttributeType, value: Any, weights: Weights) -> str:
    if type_ in (AttributeType.INT, AttributeType.INTS):
        return str(int(value))
    if type_ in (AttributeType.FLOAT, AttributeType.FLOATS):
        return repr(float(value))
    if type_ in (AttributeType.STRING, AttributeType.STRINGS):
        return quote(value)
    shape = ",".join(str(d) for d in value.numpy().shape)
    return f"tensor {_dtype(value.dtype)}[{shape}] {_data(value, weights)}"
