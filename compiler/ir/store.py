"""The IR store: an `onnx_ir.Model` in the ONNX + QONNX dialect, with hqc's annotations on it.

Annotations live in `Value.meta`/`Node.meta` under the keys below, are mirrored into
`metadata_props` when a model is saved and read back when it is loaded, so every intermediate state
is an ordinary `.onnx` file that qonnx can execute and that comes back as it was.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from hqc.diagnostics import Location, formats, reject
from hqc.ir.names import names_of
from hqc.numerics.types import ROUNDING_OF_HARDWARE, FixedType, Overflow, Range, Rounding

Array = npt.NDArray[Any]

#: Domain of the QONNX operators after import, whatever the file said.
QONNX = "qonnx.custom_op.general"

_TYPE, _RANGE, _STATE = "hqc.type", "hqc.range", "hqc.state"
_SOURCE, _PASSES = "hqc.source", "hqc.passes"
_FORMAT = "hqc.format"  # in files only


class State(enum.Enum):
    """What the values of a graph are.

    QUANTISED: float tensors on grids, as imported. INTEGER: every value of the datapath has a
    `FixedType` with a power-of-two step, and each requantisation is explicit.
    """

    QUANTISED = "quantised"
    INTEGER = "integer"


# --- annotations ----------------------------------------------------------------------------


def type_of(value: Value) -> FixedType | None:
    """The fixed-point type annotated on a value, if any."""
    found = value.meta.get(_TYPE)
    return found if isinstance(found, FixedType) else None


def set_type(value: Value, type_: FixedType | None) -> None:
    """Annotate (or clear) the fixed-point type of a value."""
    value.meta.pop(_TYPE, None)
    if type_ is not None:
        value.meta[_TYPE] = type_


def range_of(value: Value) -> Range | None:
    """The proven range annotated on a value, if any."""
    found = value.meta.get(_RANGE)
    return found if isinstance(found, Range) else None


def set_range(value: Value, range_: Range | None) -> None:
    """Annotate (or clear) the proven range of a value."""
    value.meta.pop(_RANGE, None)
    if range_ is not None:
        value.meta[_RANGE] = range_


def state_of(model: Model) -> State:
    """The state of a model; models without a mark are QUANTISED."""
    return State(model.metadata_props.get(_STATE, State.QUANTISED.value))


def is_marked(model: Model) -> bool:
    """Whether hqc made this state (a model fresh from elsewhere has no mark)."""
    return _STATE in model.metadata_props


def set_state(model: Model, state: State) -> None:
    """Mark the state of a model."""
    model.metadata_props[_STATE] = state.value


def parse_type(text: str) -> FixedType:
    """Read `fixed<16,6,RND_CONV,SAT>` as `str(FixedType)` writes it.

    Raises:
        ValueError: the text is not a type.
    """
    name, _, rest = text.strip().partition("<")
    fields = [f.strip() for f in rest.removesuffix(">").split(",")]
    if name not in ("fixed", "ufixed") or not rest.endswith(">") or not 2 <= len(fields) <= 4:
        raise ValueError(f"{text!r} is not a type such as fixed<16,6,RND_CONV,SAT>")
    rounding = Rounding.FLOOR
    if len(fields) > 2:
        known = ROUNDING_OF_HARDWARE.get(fields[2])
        rounding = known if known is not None else Rounding(fields[2])
    overflow = Overflow(fields[3]) if len(fields) > 3 else Overflow.WRAP
    return FixedType(name == "fixed", int(fields[0]), int(fields[1]), rounding, overflow)


# --- provenance -----------------------------------------------------------------------------


def location_of(node: Node) -> Location:
    """Where a node comes from: the user's source line or ONNX node, and the passes since."""
    passes = node.meta.get(_PASSES)
    return Location(
        source=str(node.meta.get(_SOURCE) or ""),
        node=node.name or f"{node.op_type} -> {node.outputs[0].name}",
        passes=tuple(passes) if passes else (),
    )


def set_source(node: Node, source: str) -> None:
    """Record the user's source line (`model.py:41  x = self.act2(x)`) or ONNX node name."""
    node.meta[_SOURCE] = source


def set_passes(node: Node, passes: Sequence[str]) -> None:
    """Record the passes that touched a node, first to last."""
    node.meta[_PASSES] = tuple(passes)


def derive(new: Iterable[Node], old: Node, by: str) -> None:
    """Give nodes that a pass made the provenance of the node they replace."""
    before = location_of(old)
    for node in new:
        node.meta[_SOURCE] = before.source or before.node
        node.meta[_PASSES] = (*before.passes, by) if by not in before.passes else before.passes


# --- reading and building -------------------------------------------------------------------


def constant(value: Value | None) -> Array | None:
    """The array of an initializer or of a Constant node's output; None for anything computed."""
    if value is None:
        return None
    tensor = onnx_ir.convenience.get_const_tensor(value)
    if tensor is None or (value.is_graph_input() and not value.is_initializer()):
        return None
    return tensor.numpy()


def is_constant(value: Value) -> bool:
    """Whether `constant` has an array for a value, without reading it."""
    if value.is_graph_input() and not value.is_initializer():
        return False
    return onnx_ir.convenience.get_const_tensor(value) is not None


def add_constant(graph: Graph, name: str, array: Array) -> Value:
    """Register an initializer under a name that no value has yet."""
    unique = fresh_name(graph, name)
    value = Value(
        name=unique, const_value=onnx_ir.tensor(np.asarray(array, order="C"), name=unique)
    )
    value.shape = onnx_ir.Shape(array.shape)
    value.dtype = onnx_ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def fresh_name(graph: Graph, name: str) -> str:
    """`name`, or `name_2`, ... if a value or a node of the graph is called so already."""
    return names_of(graph).fresh(name)


def make_node(
    op: str,
    inputs: Sequence[Value | None],
    *,
    like: Value,
    name: str,
    attributes: Mapping[str, Any] | None = None,
    domain: str = "",
) -> Node:
    """A node with one output of `like`'s shape and dtype, named `name` like its output."""
    node = onnx_ir.node(op, inputs, attributes or {}, domain=domain, name=name)
    out = node.outputs[0]
    out.name, out.shape = name, like.shape
    if like.dtype is not None:  # a type of its own: types are mutable, and casts change them
        out.type = onnx_ir.TensorType(like.dtype)
    return node


def sole_consumer(value: Value) -> Node | None:
    """The one node that uses a value, or None if several do or it is a graph output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def channels_of(value: Value) -> int | None:
    """Size of the channel axis (axis 1, batch first), or None where it is not known."""
    if value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return None
    return value.shape[1]


def nodes(graph: Graph) -> Iterator[Node]:
    """A stable list of the nodes, safe to edit under."""
    return iter(tuple(graph))


# --- files ----------------------------------------------------------------------------------


def _mirror(model: Model) -> None:
    for node in model.graph.all_nodes():
        for key in (_SOURCE, _PASSES):
            if (found := node.meta.get(key)) is not None:
                node.metadata_props[key] = found if isinstance(found, str) else json.dumps(found)
        for value in node.outputs:
            _mirror_value(value)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _mirror_value(value)


def _mirror_value(value: Value) -> None:
    type_, range_ = type_of(value), range_of(value)
    for key in (_TYPE, _RANGE):
        value.metadata_props.pop(key, None)
    if type_ is not None:
        value.metadata_props[_TYPE] = str(type_)
    if range_ is not None:
        value.metadata_props[_RANGE] = json.dumps([range_.lo, range_.hi, range_.exponent])


def _unmirror(model: Model) -> None:
    for node in model.graph.all_nodes():
        if source := node.metadata_props.get(_SOURCE):
            node.meta[_SOURCE] = source
        if passes := node.metadata_props.get(_PASSES):
            node.meta[_PASSES] = tuple(json.loads(passes))
        for value in node.outputs:
            _unmirror_value(value)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _unmirror_value(value)


def _unmirror_value(value: Value) -> None:
    if text := value.metadata_props.get(_TYPE):
        set_type(value, parse_type(text))
    if text := value.metadata_props.get(_RANGE):
        set_range(value, Range(*json.loads(text)))


def save(model: Model, path: Path) -> None:
    """Write a model with its annotations; the same model gives the same bytes."""
    path.write_bytes(to_bytes(model))


def to_bytes(model: Model) -> bytes:
    """The `.onnx` bytes of a model with its annotations."""
    _mirror(model)
    proto = onnx_ir.serde.serialize_model(model)
    version = onnx.StringStringEntryProto(key=_FORMAT, value=str(formats.GRAPH.current))
    proto.metadata_props.insert(0, version)  # first, so that no truncated file lacks it alone
    return bytes(proto.SerializeToString(deterministic=True))


def load(path: Path) -> Model:
    """Read a `.onnx` file, annotations included, without executing anything in it.

    Raises:
        HqcError: HQC002, the file is missing, empty, truncated or not ONNX.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise reject("HQC002", f"cannot read {path}: {error.strerror}") from error
    return from_bytes(data, str(path), path.parent)


def from_bytes(data: bytes, origin: str, folder: Path | None = None) -> Model:
    """Read `.onnx` bytes; `origin` names them in messages.

    Args:
        data: the bytes.
        origin: what they are called.
        folder: where the model's file lies, and files with data of its tensors may lie.

    Raises:
        HqcError: HQC002, the bytes are not an ONNX model, data of its tensors are not in `folder`,
            or its annotations are damaged; HQC008, these are of a version that this hqc does not
            read.
    """
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise reject(
            "HQC002",
            f"{origin} is not a readable ONNX file",
            notes=(f"{len(data)} bytes: corrupt, truncated or of another format",),
            helps=("export the model again, or check the download",),
        ) from error
    if not proto.graph.node or not proto.graph.output:
        raise reject("HQC002", f"{origin} holds no graph", helps=("export the model again",))
    _embed(proto, origin, folder)
    try:
        model = onnx_ir.serde.deserialize_model(proto)
    except Exception as error:
        raise reject(
            "HQC109", f"{origin} is not a valid ONNX graph", notes=(str(error).strip()[:300],)
        ) from error
    formats.check(formats.GRAPH, model.metadata_props.pop(_FORMAT, None), origin)
    try:
        _unmirror(model)
        state_of(model)
    except (ValueError, TypeError) as error:
        raise reject(
            "HQC002",
            f"the annotations of hqc in {origin} are damaged: {error}",
            helps=(formats.GRAPH.remedy,),
        ) from error
    return model


def _embed(proto: onnx.ModelProto, origin: str, folder: Path | None) -> None:
    """Take data that lie in other files into the model; onnx refuses places outside of `folder`.

    onnx_ir would open whatever path the model names, seen from the working folder.
    """
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(proto, str(folder or os.devnull))
    except Exception as error:
        raise reject(
            "HQC002",
            f"{origin} keeps data of its tensors in another file, which cannot be read",
            notes=(str(error).strip()[:300],),
            helps=(
                "keep that file beside the model, or save the model with its data in it: "
                "onnx.save(onnx.load(path), path)",
            ),
        ) from error


@dataclass(frozen=True)
class Boundary:
    """Names and per-sample shapes (batch axis dropped) of a graph's inputs or outputs."""

    name: str
    shape: tuple[int, ...]


def boundaries(values: Sequence[Value]) -> tuple[Boundary, ...]:
    """The interface of a graph side.

    Raises:
        HqcError: HQC104, a dimension other than the batch is dynamic or unknown.
    """
    found = []
    for value in values:
        dims = list(value.shape or ())
        fixed = [d for d in dims[1:] if isinstance(d, int) and d > 0]
        if not dims or len(fixed) != len(dims) - 1:
            raise reject(
                "HQC104",
                f"{value.name} has shape {value.shape}: only the batch may be dynamic",
                helps=("export with fixed sizes for all axes but the first",),
            )
        found.append(Boundary(str(value.name), tuple(fixed)))
    return tuple(found)
