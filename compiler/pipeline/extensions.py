"""What plug-ins add in front of the compiler: file formats, and operators of other domains.

A frontend reads files of its own suffixes. An operator is given by what it means: a function that
writes it in operators that hqc knows, exactly, before the import looks at the graph. Types, ranges,
execution and lowering then follow from those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnx_ir import Model, Node, Value

from hqc import ir
from hqc.diagnostics import HqcError, reject
from hqc.ir import location_of, replace_output
from hqc.pipeline.passes import Remark
from hqc.pipeline.rewriter import Builder

#: Writes an operator in others: gets the node and a builder, gives the tensor that its output is.
Operator = Callable[[Node, Builder], Value]

#: Operators written in operators written in others: deeper than this, they write themselves.
_DEEPEST = 32


def operator_name(node: Node) -> str:
    """How entry points of the group `hqc.operators` call the operator of a node."""
    return f"{node.domain}::{node.op_type}"


def rewrite_operators(model: Model, operators: Mapping[str, Operator]) -> tuple[Remark, ...]:
    """Write each node of a registered operator in others, in place.

    Args:
        model: as it was read; what the operators leave must be known to the import.
        operators: by "domain::Op".

    Raises:
        HqcError: HQC305, a plug-in failed or gave something else than a tensor; what it raised
            itself, where that is an HqcError.
    """
    remarks: list[Remark] = []
    pending = [(node, 0) for node in model.graph if operator_name(node) in operators]
    while pending:
        node, depth = pending.pop()
        if depth == _DEEPEST:
            raise _failed(node, "it writes itself, without an end")
        remarks.append(Remark(f"{operator_name(node)} is written in others", location_of(node)))
        made = _rewrite(model, node, operators[operator_name(node)])
        pending += [(new, depth + 1) for new in made if operator_name(new) in operators]
    return tuple(remarks)


def _rewrite(model: Model, node: Node, operator: Operator) -> list[Node]:
    new = Builder(model.graph, node, typed=False)
    if len(node.outputs) != 1:
        raise _failed(node, f"it has {len(node.outputs)} outputs; a plug-in's operator has one")
    try:
        found = operator(node, new)
    except HqcError:
        raise
    except Exception as error:  # a plug-in may fail in any way; the user is told which
        raise _failed(node, repr(error)) from error
    if not isinstance(found, Value):
        raise _failed(node, f"it gave {type(found).__name__}, not a tensor")
    if not new.nodes or found.producer() is not new.nodes[-1]:
        found = new.op("Identity", found)  # the graph keeps the names of its outputs
    replace_output(node, new.nodes, operator_name(node))
    return new.nodes


def _failed(node: Node, reason: str) -> HqcError:
    return reject("HQC305", f"operator {operator_name(node)}: {reason}", where=location_of(node))


def frontend_for(path: Path, frontends: Mapping[str, Any]) -> str | None:
    """The name of the frontend that reads files with this ending, or None.

    The longest ending wins, so that `.mlp.json` is another than `.json`.
    """
    endings = [
        (len(suffix), name)
        for name, frontend in frontends.items()
        for suffix in getattr(frontend, "suffixes", ())
        if path.name.endswith(suffix)
    ]
    return max(endings)[1] if endings else None


def read_file(name: str, frontend: Any, path: Path) -> Model:
    """A model as a plug-in's frontend reads it.

    Raises:
        HqcError: what the frontend raised; HQC305, it failed in another way, or gave something
            else than an `onnx_ir.Model` or an `onnx.ModelProto`.
    """
    try:
        found = frontend(path)
    except HqcError:
        raise
    except Exception as error:  # a plug-in may fail in any way; the user is told which
        raise reject("HQC305", f"frontend {name} failed on {path}: {error!r}") from error
    if isinstance(found, Model):
        return ir.from_bytes(ir.to_bytes(found), str(path))
    if hasattr(found, "SerializeToString"):
        return ir.from_bytes(found.SerializeToString(), str(path))
    raise reject("HQC305", f"frontend {name} gave a {type(found).__name__}, not an ONNX model")
