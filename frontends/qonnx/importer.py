"""The QONNX frontend: from an ONNX file of any origin to the IR's quantised state.

Operator domains met in the wild are normalised, constants folded, the batch axis made symbolic,
quantisers checked, and every input is given a quantiser, since hardware has no float port.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import chain_step, is_pass_through
from hqc.analysis.dependence import data_input, exact_values_known
from hqc.analysis.partition import computed_nodes
from hqc.analysis.rearrangements import RESHAPES
from hqc.diagnostics import Diagnostic, HqcError, Location, reject
from hqc.frontends import qcdq
from hqc.frontends.onnx.constants import fold_parameters, move_constants
from hqc.frontends.onnx.shapes import explicit_ceilings, infer_shapes, is_known
from hqc.frontends.qonnx.embeddings import rewrite_embeddings
from hqc.frontends.qonnx.operators import rewrite_operators
from hqc.ir import QONNX, State, constant, is_marked, location_of, nodes, set_source, set_state
from hqc.ir.edits import redirect, remove_unused
from hqc.ir.operators import BipolarQuant, MultiThreshold, Quant, is_quantiser
from hqc.numerics.types import FixedType, Overflow, Rounding
from hqc.passes.fold_constants import FoldConstants
from hqc.passes.normalize import Normalize
from hqc.pipeline import verifier
from hqc.pipeline.passes import Remark

#: Domains under which QONNX operators occur in files.
DOMAINS = frozenset(
    {QONNX, "onnx.brevitas", "finn.custom_op.general", "finn", "hawq2qonnx", "qonnx"}
)
_ALIASES = {"IntQuant": "Quant"}

#: The port of an input that no quantiser states: hls4ml's customary type, rounding as QONNX does.
DEFAULT_PORT = FixedType(True, 16, 6, Rounding.ROUND, Overflow.SAT)

BATCH = "N"

#: Where onnx_ir keeps a value's quantisation annotation.
_ANNOTATION = "quant_parameter_tensor_names"


@dataclass(frozen=True)
class Imported:
    """A model in the quantised state, and what there is to say about it."""

    model: Model
    remarks: tuple[Remark, ...]


def normalise_import(
    model: Model, *, input_types: Mapping[str, FixedType] | None = None
) -> Imported:
    """Bring a freshly read model into the quantised state, in place.

    Args:
        model: any ONNX model with QONNX operators.
        input_types: port type by input name (or "" for all); inputs that already meet a quantiser
            need none. Each must saturate; rounding is the type's own.

    Raises:
        HqcError: HQC101/102/104/105/106/107/108/109 with every problem that was found.
    """
    if is_marked(model):  # a state that hqc saved: it is what it says, or verification will tell
        verifier.check(model)
        return Imported(model, ())
    graph = model.graph
    for value in [v for v in graph.inputs if v.is_initializer()]:
        graph.inputs.remove(value)
    for node in nodes(graph):
        _normalise_node(node)
    _unique_names(model)
    fold_parameters(model)
    remarks = qcdq.rewrite(model)
    for domain in [d for d in model.opset_imports if d]:  # operators of others are refused below
        del model.opset_imports[domain]
    model.opset_imports[QONNX] = 1
    model.ir_version = max(model.ir_version, 8)
    move_constants(model)
    _check(model, rewrite_operators(model))
    batch = _fix_batch(model)
    explicit_ceilings(model)
    for _ in range(3):  # shapes decide what folds, and folding decides shapes
        infer_shapes(model)
        if not FoldConstants().rewrite(model).rewrites:
            break
    infer_shapes(model)
    remarks += rewrite_embeddings(model)
    Normalize().rewrite(model)
    FoldConstants().rewrite(model)
    _free_batch(model, batch)
    infer_shapes(model)
    remove_unused(model)
    _check_batch(model)
    remarks += _quantise_inputs(model, dict(input_types or {}))
    for node in model.graph:  # annotations of what is inside were true of the file, not of the IR
        for value in node.outputs:
            value.meta.pop(_ANNOTATION, None)
    set_state(model, State.QUANTISED)
    return Imported(model, tuple(remarks))


def _normalise_node(node: Node) -> None:
    set_source(node, str(location_of(node).source or node.name or ""))
    if node.domain in ("ai.onnx", ""):
        node.domain = ""
        return
    if node.domain in DOMAINS or node.domain.startswith("qonnx.custom_op"):
        node.domain = QONNX
        node.op_type = _ALIASES.get(node.op_type, node.op_type)


def _unique_names(model: Model) -> None:
    taken: set[str] = set()
    for node in model.graph:
        base = node.name or f"{node.op_type}_{node.outputs[0].name}"
        name, n = base, 1
        while name in taken:
            n += 1
            name = f"{base}_{n}"
        taken.add(name)
        node.name = name


def _check(model: Model, known: Mapping[Node, list[Diagnostic]]) -> None:
    found: list[Diagnostic] = []
    for node in model.graph:
        if node in known:
            found += known[node]
            continue
        try:
            if Quant.matches(node):
                Quant.read(node)
            elif BipolarQuant.matches(node):
                BipolarQuant.read(node)
            elif MultiThreshold.matches(node):
                MultiThreshold.read(node)
            elif node.domain != "" or not is_known(node, model):
                raise reject(
                    "HQC101",
                    f"unknown operator {node.domain or 'ai.onnx'}::{node.op_type}",
                    where=location_of(node),
                    helps=("replace it by supported operators, or register a frontend for it",),
                )
        except HqcError as error:
            found += error.diagnostics
    for value in model.graph.initializers.values():
        array = constant(value)
        if array is not None and array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            users = [location_of(use.node) for use in value.uses()]
            found.append(
                Diagnostic(
                    "HQC105",
                    f"constant {value.name} holds NaN or infinity",
                    users[0] if users else Location(),
                    helps=("check the training run that produced it",),
                )
            )
    if found:
        raise HqcError(found)


def _data_inputs(model: Model) -> list[Value]:
    return [v for v in model.graph.inputs if not v.is_initializer()]


def _fix_batch(model: Model) -> int:
    """Make the batch a number while shapes are folded; other dynamic axes are refused."""
    batch = 1
    for value in _data_inputs(model):
        dims = list(value.shape or ())
        if not dims:
            raise reject("HQC104", f"input {value.name} has no shape")
        if isinstance(dims[0], int) and dims[0] > 0:
            batch = dims[0]
        for axis, d in enumerate(dims[1:], 1):
            if not isinstance(d, int) or d <= 0:
                raise reject(
                    "HQC104",
                    f"axis {axis} of input {value.name} is dynamic ({value.shape})",
                    notes=("hardware has fixed sizes; only the batch may be dynamic",),
                    helps=("export with a fixed size for this axis",),
                )
    for value in _data_inputs(model):
        value.shape = onnx_ir.Shape((batch, *(value.shape or ())[1:]))
    for value in model.graph.outputs:
        value.shape = None
    return batch


def _free_batch(model: Model, batch: int) -> None:
    for value in _data_inputs(model):
        value.shape = onnx_ir.Shape((BATCH, *(value.shape or ())[1:]))
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Reshape" and source and not exact_values_known(source):
            target = constant(node.inputs[1])
            if target is not None and target.size and target[0] == batch:
                raise reject(
                    "HQC104",
                    "a reshape moves the batch axis or fixes it",
                    where=location_of(node),
                    helps=("flatten with start_dim=1, or use -1 for the batch",),
                )


def _check_batch(model: Model) -> None:
    """Refuse inputs that nothing reads, and reshapes that mix samples."""
    for value in _data_inputs(model):
        if not value.uses():
            raise reject(
                "HQC109",
                f"no output depends on input {value.name}",
                helps=("remove the input from the model",),
            )
    for node in computed_nodes(model):
        if _reshapes(node) and _sample_size(node.inputs[0]) != _sample_size(node.outputs[0]):
            raise reject(
                "HQC104",
                f"{node.op_type} mixes the batch axis with others",
                where=location_of(node),
                helps=("keep the batch first: flatten with start_dim=1, squeeze named axes only",),
            )


def _sample_size(value: Value | None) -> int | None:
    """Elements per sample, or None where the shape of a sample is not known."""
    shape = value.shape if value is not None else None
    dims = [d for d in (shape or ())[1:] if isinstance(d, int)]
    return math.prod(dims) if shape is not None and len(dims) == len(shape) - 1 else None


def _quantise_inputs(model: Model, types: dict[str, FixedType]) -> tuple[Remark, ...]:
    remarks = []
    names = {str(v.name) for v in _data_inputs(model)}
    if unknown := set(types) - names - {""}:
        raise reject(
            "HQC001",
            f"no input is called {', '.join(sorted(unknown))}",
            helps=(f"inputs: {', '.join(sorted(names))}",),
        )
    for value in _data_inputs(model):
        annotated = value.meta.pop(_ANNOTATION, {}).get("finn_datatype", "")
        stated = types.get(str(value.name), types.get(""))
        if stated is None and _meets_quantiser(value):
            continue
        if stated is None and annotated == "BIPOLAR":
            _insert(model, value, BipolarQuant(np.ones((), np.float32)))
            remarks.append(Remark(f"input {value.name} is BIPOLAR, says the file: a 1-bit port"))
            continue
        said = _annotated_type(annotated)
        type_ = stated or said or DEFAULT_PORT
        if type_.overflow is Overflow.WRAP:
            type_ = FixedType(
                type_.signed, type_.width, type_.integer, type_.rounding, Overflow.SAT
            )
        _insert(model, value, Quant.of_type(type_))
        if stated is None and said is not None:
            remarks.append(Remark(f"input {value.name} is {annotated}, says the file: {type_}"))
        elif stated is None:
            remarks.append(
                Remark(
                    f"input {value.name} has no quantiser in the model: its port is {type_} "
                    f"(choose with --input-type {value.name}=fixed<W,I>)"
                )
            )
    return tuple(remarks)


def _insert(model: Model, value: Value, quantiser: Quant | BipolarQuant) -> None:
    node = quantiser.build(model.graph, value, f"{value.name}_port")
    set_source(node, f"input {value.name}")
    redirect(value, node)
    model.graph.insert_before(next(iter(model.graph)), node)


def _annotated_type(datatype: str) -> FixedType | None:
    """The port type of a QONNX datatype annotation such as INT8, UINT4 or FIXED<16,6>."""
    if match := re.fullmatch(r"(U?)INT(\d+)", datatype):
        bits = int(match[2])
        return FixedType(not match[1], bits, bits, Rounding.ROUND, Overflow.SAT)
    if match := re.fullmatch(r"FIXED<(\d+),(\d+)>", datatype):
        return FixedType(True, int(match[1]), int(match[2]), Rounding.ROUND, Overflow.SAT)
    return None


def _meets_quantiser(value: Value) -> bool:
    """Whether every way from an input leads to a quantiser before a linear operator."""
    pending = [value]
    while pending:
        for use in pending.pop().uses():
            node = use.node
            if is_quantiser(node):
                continue
            if not _goes_on(node):
                return False
            pending.append(node.outputs[0])
            if node.outputs[0].is_graph_output():
                return False
    return True


def _goes_on(node: Node) -> bool:
    """Whether the host can compute a node in front of the first quantiser."""
    if is_pass_through(node) or _reshapes(node):
        return True
    return data_input(node) is not None and chain_step(node) is not None


def _reshapes(node: Node) -> bool:
    return node.domain == "" and node.op_type in RESHAPES
