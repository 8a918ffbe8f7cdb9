"""Translation state of one program: what each FX node became, with names, shapes and sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnx_ir import Graph, Value
from torch import fx

from hqc.diagnostics import HqcError, Location, reject
from hqc.ir import QONNX, Array, add_constant, make_node
from hqc.ir.operators import Quant
from hqc.numerics.types import Rounding
from hqc.pipeline.node_builder import grow

#: Standard opset of translated graphs.
OPSET = 17
BATCH = "batch"
#: Constants that are computed from others during translation are no larger than this.
MAX_FOLDED = 1 << 26

_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in [^\n]*(?:\n\s*([^\n]*))?')
_LIBRARY = re.compile(
    r"[/\\](?:torch|brevitas)[/\\](?:nn|_|export|fx|functional|library|proxy|core|ops|quant)"
)
#: Modules inside a layer, whose names say nothing to the user.
_INNER = ("brevitas.proxy.", "brevitas.core.", "brevitas.export.")


@dataclass(frozen=True)
class Const:
    """A tensor known at translation time; it becomes an initializer where it is used."""

    name: str
    tensor: torch.Tensor

    def array(self) -> Array:
        """The values as numpy."""
        found: Array = self.tensor.detach().cpu().numpy()
        return found


@dataclass(frozen=True)
class QuantisedConst:
    """A quantiser on a constant; it becomes a `Quant` node where it is used."""

    const: Const
    quant: Quant
    node: fx.Node


@dataclass(frozen=True)
class Batch:
    """The size of the batch axis as a number in the program."""


def node_value(arg: fx.Node) -> Any:
    """The fake tensor of an FX node, or a tuple of them, for their shapes."""
    return arg.meta["val"]


def source_of(node: fx.Node) -> str:
    """The user's line that made a node: `model.py:41  x = self.act2(x)`, else its module."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    for file, line, code in reversed(frames):
        if not _is_library(file):
            return f"{PurePath(file.replace(chr(92), '/')).name}:{line}  {code.strip()}".rstrip()
    path, class_ = module_of(node)
    return f"module {path} ({class_})" if path else ""


def _is_library(file: str) -> bool:
    parts = PurePath(file.replace("\\", "/")).parts
    return parts[-3:-1] == ("frontends", "torch") or bool(_LIBRARY.search(file))


def module_of(node: fx.Node) -> tuple[str, str]:
    """Path and class name of the innermost module a node was traced in."""
    found = "", ""
    for path, class_ in (node.meta.get("nn_module_stack") or {}).values():
        name = class_ if isinstance(class_, str) else f"{class_.__module__}.{class_.__name__}"
        if name.startswith(_INNER):
            break
        found = path.replace("@", "_"), name.rpartition(".")[2]
    return found


def location(node: fx.Node) -> Location:
    """Where a diagnostic about a node points."""
    path, _ = module_of(node)
    return Location(source=source_of(node), node=f"{path}/{node.name}" if path else node.name)


def refuse(code: str, message: str, node: fx.Node, *helps: str, note: str = "") -> HqcError:
    """An error about a node, for the caller to raise."""
    return reject(code, message, where=location(node), helps=helps, notes=(note,) if note else ())


class Builder:
    """Grows one ONNX + QONNX graph from the nodes of one program."""

    def __init__(self, name: str, batch: str) -> None:
        self.graph = Graph([], [], nodes=[], opset_imports={"": OPSET, QONNX: 1}, name=name)
        self.env: dict[fx.Node, Any] = {}
        self.batch = batch
        self._names: set[str] = set()
        self._made: dict[tuple[int, bool], Value] = {}
        self._kept: list[Const | QuantisedConst] = []

    # --- names and shapes ---

    def unique(self, name: str) -> str:
        """A name that no node or value has yet."""
        found, n = name, 0
        while found in self._names or found in self.graph.initializers:
            n += 1
            found = f"{name}_{n}"
        self._names.add(found)
        return found

    def name_for(self, node: fx.Node, op: str) -> str:
        """`fc1/MatMul`: the module path and the operator."""
        path, _ = module_of(node)
        return self.unique(f"{path}/{op}" if path else op)

    def shape_of(self, node: fx.Node) -> onnx_ir.Shape:
        """The shape of a computed tensor: the batch, then fixed sizes.

        Raises:
            HqcError: HQC104, another axis is dynamic or axis 0 is not the batch.
        """
        return self.shape_like(node.meta["val"], node)

    def shape_like(self, tensor: Any, node: fx.Node) -> onnx_ir.Shape:
        """The shape of one of the tensors that a node computes; see `shape_of`."""
        dims = list(tensor.shape)
        rest = [d for d in dims[1:] if isinstance(d, int)]
        if not dims or str(dims[0]) != self.batch or len(rest) != len(dims) - 1:
            raise refuse(
                "HQC104",
                f"{node.name} has shape ({', '.join(map(str, dims))}): axis 0 must be the batch"
                " and no other axis dynamic",
                node,
                "keep the batch as the first axis; use flatten(1), not view(-1, n)",
            )
        return onnx_ir.Shape([BATCH, *rest])

    # --- operands ---

    def find(self, arg: Any) -> Any:
        """What an FX argument became; plain numbers are themselves."""
        return self.env[arg] if isinstance(arg, fx.Node) else arg

    def value(self, arg: Any, *, transposed: bool = False) -> Value:
        """The ONNX value of an FX argument; `transposed` swaps the two axes of a matrix."""
        found = self.find(arg)
        if isinstance(found, int | float):
            return add_constant(self.graph, self.unique("constant"), np.array(found, np.float32))
        if isinstance(found, Const | QuantisedConst):
            return self.value_of(found, transposed=transposed)
        if isinstance(found, Value):
            return self._transpose(found, arg) if transposed else found
        raise refuse("HQC102", f"{arg} is not a tensor that can be translated", arg)

    def value_of(self, found: Const | QuantisedConst, *, transposed: bool = False) -> Value:
        """The ONNX value of a constant, made where it is first used."""
        key = (id(found), transposed)
        if key not in self._made:
            self._made[key] = self._materialise(found, transposed)
            self._kept.append(found)  # so that no other object takes its id
        return self._made[key]

    def _materialise(self, found: Const | QuantisedConst, transposed: bool) -> Value:
        if isinstance(found, Const):
            array = found.array()
            return self._initializer(found.name, array.T if transposed else array)
        array, quant = found.const.array(), found.quant
        if transposed:
            array = array.T
            scale, zero_point = _transposed(quant.scale), _transposed(quant.zero_point)
            quant = replace(quant, scale=scale, zero_point=zero_point)
        weight = self._initializer(found.const.name, array)
        return self.quantise(weight, quant, self.unique(f"{found.const.name}/Quant"), found.node)

    def _initializer(self, name: str, array: Array) -> Value:
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise reject("HQC105", f"{name} holds NaN or infinity", where=Location(node=name))
        return add_constant(self.graph, self.unique(name), array)

    def _transpose(self, found: Value, arg: Any) -> Value:
        rows, columns = found.shape or (None, None)
        shape = onnx_ir.Shape([columns, rows])
        return self.add("Transpose", [found], arg, shape=shape, attributes={"perm": [1, 0]})

    # --- results ---

    def quantise(self, x: Value, quant: Quant, name: str, node: fx.Node) -> Value:
        """Append a `Quant` node."""
        return grow(self.graph, quant.build(self.graph, x, name), source_of(node))

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        node: fx.Node,
        *,
        attributes: dict[str, Any] | None = None,
        shape: onnx_ir.Shape | None = None,
    ) -> Value:
        """Append a standard node; its output has the shape of the FX node unless given."""
        name, given = self.name_for(node, op), [v for v in inputs if v is not None]
        like = next((v for v in given if v.dtype is not None), given[0])
        made = make_node(op, inputs, like=like, name=name, attributes=attributes)
        made.outputs[0].shape = shape if shape is not None else self.shape_of(node)
        return grow(self.graph, made, source_of(node))


def read_quant(builder: Builder, node: fx.Node, args: dict[str, Any]) -> Quant:
    """The quantiser that an `hqc::quant` node stands for.

    Raises:
        HqcError: HQC106/107/108/102 for parameters that are not constants or make no sense.
    """
    scale, zero_point = builder.find(args["scale"]), builder.find(args["zero_point"])
    if not isinstance(scale, Const) or not isinstance(zero_point, Const):
        raise refuse("HQC108", "scale and zero point must not depend on the input", node)
    scales, zeros = scale.array(), zero_point.array()
    if not np.all(np.isfinite(scales)) or np.any(scales <= 0) or not np.all(np.isfinite(zeros)):
        raise refuse(
            "HQC106",
            f"{scale.name} is not positive and finite",
            node,
            "run a few batches in training mode, so that the quantiser finds its range",
        )
    if np.any(zeros != np.round(zeros)):
        raise refuse("HQC102", f"{zero_point.name} is not an integer", node)
    if not 1 <= args["bits"] <= 32 or args["rounding"] not in Rounding.__members__:
        raise refuse("HQC107", f"{args['bits']} bits, rounding {args['rounding']}", node)
    return Quant(
        scale=scales,
        zero_point=zeros.astype(np.int64),
        bits=args["bits"],
        signed=args["signed"],
        narrow=args["narrow"],
        rounding=Rounding(args["rounding"]),
    )


def along_channels(found: Const | QuantisedConst, rank: int) -> Const | QuantisedConst:
    """A vector () or (C,), shaped to broadcast along axis 1 of tensors of a rank."""
    shape = (-1, *(1,) * (rank - 2))
    if isinstance(found, Const):
        return Const(found.name, found.tensor.reshape(shape))
    quant = found.quant
    scale, zero_point = (
        parameter if parameter.size == 1 else parameter.reshape(shape)
        for parameter in (quant.scale, quant.zero_point)
    )
    const = Const(found.const.name, found.const.tensor.reshape(shape))
    return QuantisedConst(const, replace(quant, scale=scale, zero_point=zero_point), found.node)


def _transposed(parameter: Array) -> Array:
    if parameter.ndim == 0 or parameter.size == 1:
        return parameter.reshape(())
    return np.atleast_2d(parameter).T


Args = dict[str, Any]
#: From an FX node and its arguments by name to what it becomes.
Translator = Callable[[Builder, fx.Node, Args], Any]
