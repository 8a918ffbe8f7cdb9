"""Operators that only rearrange the elements of a sample: reshapes, transposes, slices, joins.

What such a node does is found by running it on the positions of its inputs' elements, so there is
one rule for all of them and none of their attributes is interpreted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Node, Value

from hqc.diagnostics import reject
from hqc.ir import Array, constant, location_of
from hqc.ir.onnxruntime_session import session
from hqc.numerics.types import SINGLE_BITS, Codes

#: Reshapes: elements stay in order.
RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
_OTHERS = frozenset(
    {
        *("Transpose", "Slice", "Gather", "Pad", "Concat", "Resize", "Expand", "Tile"),
        *("DepthToSpace", "SpaceToDepth"),
    }
)
#: Number of data inputs that come first; Concat takes all.
_DATA_INPUTS = 1


@dataclass(frozen=True)
class Rearrangement:
    """Where each element of a sample comes from.

    Attributes:
        sources: the data inputs.
        index: int64, of the output's shape per sample: the position in the concatenation of the
            sources' elements (each flattened, per sample), or -1 for `fill`.
        fill: the real value that padding writes.
    """

    sources: tuple[Value, ...]
    index: Codes
    fill: float = 0.0

    def channels(self) -> tuple[Codes, ...] | None:
        """For each output channel (axis 1) the distinct source channels, numbered across sources.

        -1 stands for the fill. None where a source or the output has no channel axis.
        """
        starts: list[Codes] = []
        first = 0
        for source in self.sources:
            dims = sample_shape(source)
            if not dims:
                return None
            per_channel = int(np.prod(dims[1:], dtype=np.int64))
            starts.append(first + np.repeat(np.arange(dims[0]), per_channel))
            first += dims[0]
        if not self.index.ndim:
            return None
        table = np.append(np.concatenate(starts), -1)  # index -1 reads the last entry
        rows = table[self.index].reshape(self.index.shape[0], -1)
        return tuple(np.unique(row) for row in rows)


def is_rearrangement(node: Node) -> bool:
    """Whether the node is an operator that rearranges elements."""
    return node.domain == "" and (node.op_type in RESHAPES or node.op_type in _OTHERS)


def data_sources(node: Node) -> tuple[Value, ...]:
    """The inputs whose elements are rearranged, in order, each once."""
    given = node.inputs if node.op_type == "Concat" else node.inputs[:_DATA_INPUTS]
    return tuple(dict.fromkeys(v for v in given if v is not None))


def sample_shape(value: Value) -> tuple[int, ...]:
    """The shape of one sample.

    Raises:
        HqcError: HQC104, it is not known.
    """
    dims = tuple(value.shape)[1:] if value.shape is not None else None
    if dims is None or not all(isinstance(d, int) for d in dims):
        raise reject("HQC104", f"{value.name} has shape {value.shape}, only the batch may be free")
    return tuple(int(d) for d in dims if isinstance(d, int))


def rearrangement(node: Node) -> Rearrangement:
    """What a node does to the elements of each sample.

    Raises:
        HqcError: HQC102, a parameter is computed, it mixes samples, or it interpolates.
    """
    sources = data_sources(node)
    shapes = [sample_shape(v) for v in sources]
    if node.op_type in RESHAPES:
        out = sample_shape(node.outputs[0])
        index = np.arange(int(np.prod(shapes[0], dtype=np.int64)), dtype=np.int64)
        if int(np.prod(out, dtype=np.int64)) != index.size:
            raise _mixes(node)
        return Rearrangement(sources, index.reshape(out))
    _check_parameters(node, sources)
    fill = _fill(node)
    sizes = [int(np.prod(s, dtype=np.int64)) for s in shapes]
    if sum(sizes) >= 2 ** (SINGLE_BITS - 1):
        raise reject("HQC102", f"{node.op_type} of {sum(sizes)} elements", where=location_of(node))
    # two samples, numbered from 1 and from beyond the first, show that none sees the other
    total = sum(sizes)
    first = 1 + np.arange(total)
    parts = np.split(np.stack([first, first + total]), np.cumsum(sizes)[:-1], axis=1)
    feeds = [p.reshape(2, *s) for p, s in zip(parts, shapes, strict=True)]
    result = _run(node, feeds)
    out = sample_shape(node.outputs[0])
    if result.shape != (2, *out):
        raise _mixes(node)
    one, two = result.astype(np.int64)
    padded = one == 0
    if np.any(result != np.rint(result)) or np.any(two != np.where(padded, 0, one + total)):
        raise _mixes(node)
    if np.any((one < 0) | (one > total)):
        raise _mixes(node)
    return Rearrangement(sources, np.where(padded, -1, one - 1), fill)


def _mixes(node: Node) -> Exception:
    return reject(
        "HQC102",
        f"{node.op_type} does more than rearrange the elements of each sample",
        where=location_of(node),
        notes=("the batch axis stays first, and nothing is interpolated",),
        helps=("keep the batch first; resize with mode nearest",),
    )


def _check_parameters(node: Node, sources: Sequence[Value]) -> None:
    for source in sources:
        if constant(source) is not None:
            raise reject(
                "HQC102",
                f"{node.op_type} joins the constant {source.name} to data",
                where=location_of(node),
                helps=("use Pad for constant borders",),
            )
    for value in node.inputs:
        if value is not None and value not in sources and constant(value) is None:
            raise reject(
                "HQC102",
                f"{node.op_type} with a computed {value.name}",
                where=location_of(node),
                helps=("export with fixed shapes and indices",),
            )


def _fill(node: Node) -> float:
    if node.op_type != "Pad":
        return 0.0
    mode = node.attributes.get("mode")
    if mode is not None and mode.as_string() != "constant":
        return 0.0
    given = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return float(np.asarray(given).ravel()[0]) if given is not None else 0.0


def _run(node: Node, feeds: Sequence[Codes]) -> Array:
    """The node itself on numbered elements; what it pads with is 0 there."""
    proto = onnx_ir.serde.serialize_node(node)
    graph = onnx.GraphProto(name="rearrangement")
    graph.node.append(proto)
    sources = data_sources(node)
    kind = onnx.TensorProto.FLOAT
    fed: dict[str, Array] = {}
    for source, x in zip(sources, feeds, strict=True):
        name = str(source.name)
        fed[name] = x.astype(np.float32)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, list(x.shape)))
    for position, value in enumerate(node.inputs):
        if value is None or value in sources or not value.name:
            continue
        array = np.asarray(constant(value))
        if node.op_type == "Pad" and position == 2:
            array = np.zeros((), np.float32)
        if value.name not in {i.name for i in graph.initializer}:
            graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    graph.output.append(onnx.ValueInfoProto(name=proto.output[0]))
    opset = node.graph.opset_imports.get("", 18) if node.graph is not None else 18
    return np.asarray(session(graph, opset, threads=1).run(None, fed)[0])


def rearrange(found: Rearrangement, arrays: Sequence[Array], fill: int | float) -> Array:
    """Apply a rearrangement to arrays (N, ...) of any dtype; `fill` in the arrays' own units."""
    flat = np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)
    out = flat[:, found.index.ravel()]
    if np.any(padding := found.index.ravel() < 0):
        out[:, padding] = fill
    return np.asarray(out.reshape(len(flat), *found.index.shape))
