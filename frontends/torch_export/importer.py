"""PyTorch to the IR: `torch.export`, then a translation of the ATen graph.

The translation keeps what the compiler needs and a generic exporter loses: a linear layer is
`MatMul` and `Add`, batch norm is one node, quantisers are QONNX `Quant` nodes, nodes are named
after their modules, and each knows the user's source line. The same program gives the same bytes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir
import torch
from onnx_ir import Model, Value
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.torch_export.operators import FOLDABLE, KEPT, TRANSLATORS
from hqc.frontends.torch_export.translation import (
    BATCH,
    MAX_FOLDED,
    Batch,
    Builder,
    Const,
    module_of,
    refuse,
)

#: onnx IR version of the files; the newest that all readers of opset 17 know.
_IR_VERSION = 8
#: On a constant, these give the constant itself where they keep its shape.
_VIEWS = {f"aten::{name}" for name in ("slice", "alias", "detach", "clone", "view", "reshape")}


def from_module(module: nn.Module, example_inputs: Any) -> Model:
    """Translate a module in eval mode.

    Args:
        module: built from the layers of `hqc.frontends.torch` and ordinary PyTorch layers.
        example_inputs: a tensor, or a tuple of them, batch first; only shape and dtype matter.

    Raises:
        HqcError: HQC001 no example inputs; HQC102 the module cannot be exported; HQC104 a shape
            other than the batch is dynamic; HQC101 an operator has no translation.
    """
    return from_exported(export_module(module, example_inputs))


def export_module(module: nn.Module, example_inputs: Any) -> ExportedProgram:
    """`torch.export` in eval mode with a dynamic batch; the module keeps its own mode."""
    inputs = as_examples(example_inputs)
    batch = Dim("batch")
    shapes = tuple({0: batch} for _ in inputs)
    with _eval_mode(module):
        try:
            return torch.export.export(module, inputs, dynamic_shapes=shapes)
        except HqcError:
            raise
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            code = "HQC104" if "Constraints violated" in str(error) else "HQC102"
            raise reject(
                code,
                f"torch.export refused {type(module).__name__}",
                notes=tuple(line[:300] for line in lines[:3]),
                helps=("forward must be a graph of tensor operations, for any batch size",),
            ) from error


def as_examples(example_inputs: Any) -> tuple[torch.Tensor, ...]:
    """Example inputs as a tuple of tensors with a batch of two or more.

    Raises:
        HqcError: HQC001, there are none, or one has no batch axis.
    """
    if example_inputs is None:
        raise reject(
            "HQC001",
            "a PyTorch module needs example inputs",
            helps=("pass example_inputs=torch.zeros(2, n_inputs)",),
        )
    given = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    tensors = tuple(torch.as_tensor(x) for x in given)
    if any(x.dim() < 1 or x.shape[0] < 1 for x in tensors):
        raise reject("HQC001", "example inputs have the batch as their first axis")
    # A batch of one would be taken for a constant.
    return tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in tensors)


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    if isinstance(module, fx.GraphModule) and "eval" in vars(module):
        yield  # torch.export made it: its mode is part of the graph, and cannot be switched
        return
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


def from_exported(program: ExportedProgram) -> Model:
    """Translate an exported program to ONNX + QONNX nodes; nothing of it is run.

    Graph inputs are named after the arguments of `forward`, outputs `output`, or `output_0`,
    `output_1`, ...; the batch axis is symbolic.

    Raises:
        HqcError: HQC101/102/104/106/108, each with the user's source line.
    """
    builder = Builder("main", _batch_of(program))
    _bind_inputs(builder, program)
    for node in program.graph.nodes:
        if node.op == "call_function":
            builder.env[node] = _translate(builder, node)
        elif node.op not in ("placeholder", "output"):
            raise refuse("HQC102", f"a program with {node.op} nodes", node)
    _bind_outputs(builder, program)
    _drop_unused(builder)
    return Model(builder.graph, ir_version=_IR_VERSION, producer_name="hqc")


def _user_inputs(program: ExportedProgram) -> list[tuple[str, fx.Node]]:
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    return [
        (spec.arg.name, placeholders[spec.arg.name])
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)
    ]


def _batch_of(program: ExportedProgram) -> str:
    """The size of axis 0 of the inputs, as torch writes it: a symbol, or a number if static."""
    sizes = {}
    for name, node in _user_inputs(program):
        shape = node.meta["val"].shape
        if not shape:
            raise refuse("HQC104", f"input {name} is a scalar: the batch axis is missing", node)
        sizes[str(shape[0])] = name
    if len(sizes) != 1:
        raise reject(
            "HQC104",
            "inputs do not share one batch axis" if sizes else "the program has no tensor inputs",
            notes=tuple(f"{name}: axis 0 is {size}" for size, name in sizes.items()),
        )
    return next(iter(sizes))


def _bind_inputs(builder: Builder, program: ExportedProgram) -> None:
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    for name, node in _user_inputs(program):
        value = Value(name=builder.unique(name), shape=builder.shape_of(node))
        value.type = onnx_ir.TensorType(_dtype(node))
        builder.graph.inputs.append(value)
        builder.env[node] = value
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if node in builder.env:
            continue
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            builder.env[node] = Const(str(spec.target), _stored(program, str(spec.target)))
        else:
            builder.env[node] = getattr(spec.arg, "value", None)


def _stored(program: ExportedProgram, target: str) -> torch.Tensor:
    tensor = program.state_dict.get(target)
    if tensor is None:
        tensor = program.constants.get(target)
    if not isinstance(tensor, torch.Tensor):
        raise reject("HQC102", f"the program holds no tensor {target}", where=Location(node=target))
    return tensor.detach()


def _dtype(node: fx.Node) -> onnx_ir.DataType:
    name = str(node.meta["val"].dtype).removeprefix("torch.")
    known = {"float32": "FLOAT", "float64": "DOUBLE", "int64": "INT64", "int32": "INT32"}
    if name not in known:
        raise refuse("HQC102", f"input {node.name} has dtype {name}", node, "use float32")
    return onnx_ir.DataType[known[name]]


def _translate(builder: Builder, node: fx.Node) -> Any:
    if node.target is operator.getitem:
        source, index = node.args
        return builder.env[source][index]
    if not isinstance(node.target, torch._ops.OpOverload):
        return _symbolic(builder, node)
    schema = node.target._schema
    args = _arguments(node, schema)
    if schema.name not in KEPT and _is_constant(builder, node):
        return _fold(builder, node, schema.name)
    translator = TRANSLATORS.get(schema.name)
    if translator is None:
        raise refuse(
            "HQC101",
            f"operator {schema.name} has no translation",
            node,
            "write it with operators that have one, such as linear, relu, add, flatten, softmax",
        )
    return translator(builder, node, args)


def _symbolic(builder: Builder, node: fx.Node) -> Any:
    """Arithmetic on the batch size: what comes out is only read through shapes, or refused."""
    if "val" in node.meta and isinstance(node.meta["val"], int | torch.SymInt | torch.SymBool):
        return Batch()
    raise refuse("HQC101", f"{node.target} has no translation", node)


def _arguments(node: fx.Node, schema: Any) -> dict[str, Any]:
    by_default = {a.name: a.default_value for a in schema.arguments}
    by_position = dict(zip(by_default, node.args, strict=False))
    return {**by_default, **node.kwargs, **by_position}


def _is_constant(builder: Builder, node: fx.Node) -> bool:
    operands = [builder.env[n] for n in node.all_input_nodes]
    return all(isinstance(x, Const | int | float) for x in operands)


def _fold(builder: Builder, node: fx.Node, name: str) -> Any:
    """Evaluate an operator on constants, as scales are computed from weights."""
    shape = getattr(node.meta.get("val"), "shape", ())
    if any(not isinstance(d, int) for d in shape) or math.prod(shape) > MAX_FOLDED:
        raise refuse("HQC102", f"constant {node.name} is too large or of dynamic size", node)
    if name not in FOLDABLE and name not in TRANSLATORS:
        raise refuse("HQC101", f"operator {name} on constants has no translation", node)

    def operand(n: fx.Node) -> Any:
        found = builder.env[n]
        return found.tensor if isinstance(found, Const) else found

    args, kwargs = fx.map_arg((node.args, node.kwargs), operand)
    with torch.no_grad():
        result = node.target(*args, **kwargs)
    first = builder.find(node.args[0]) if node.args else None
    if name in _VIEWS and isinstance(first, Const) and result.shape == first.tensor.shape:
        return first
    path, _ = module_of(node)
    return _consts(result, f"{path}/{node.name}" if path else node.name)


def _consts(result: Any, name: str) -> Any:
    if isinstance(result, torch.Tensor):
        return Const(name, result)
    if isinstance(result, tuple | list):
        return tuple(_consts(r, f"{name}_{i}") for i, r in enumerate(result))
    return result


def _bind_outputs(builder: Builder, program: ExportedProgram) -> None:
    specs = program.graph_signature.output_specs
    mutated = [s.target for s in specs if s.kind is not OutputKind.USER_OUTPUT]
    if mutated:
        raise reject(
            "HQC102",
            f"the program changes its state: {', '.join(map(str, mutated[:3]))}",
            helps=("export in eval mode: model.eval()",),
        )
    output = next(n for n in program.graph.nodes if n.op == "output")
    results = list(output.args[0]) if isinstance(output.args[0], tuple | list) else [output.args[0]]
    for i, result in enumerate(results):
        name = "output" if len(results) == 1 else f"output_{i}"
        if not isinstance(result, fx.Node):
            raise refuse("HQC102", f"output {i} is {result!r}, not a tensor", output)
        value = builder.value(result)
        if value.producer() is None or value.is_graph_output():
            value = builder.add("Identity", [value], result)
        value.name = builder.unique(name)
        builder.graph.outputs.append(value)
    for value in builder.graph.outputs:
        if value.shape is None or not value.shape or value.shape[0] != BATCH:
            raise reject("HQC104", f"{value.name} does not depend on the input batch")


def _drop_unused(builder: Builder) -> None:
    """Remove nodes and constants that no output needs."""
    for node in reversed(tuple(builder.graph)):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            builder.graph.remove(node, safe=True)
    for name, value in tuple(builder.graph.initializers.items()):
        if not value.uses():
            del builder.graph.initializers[name]
