"""A float module from an exported program, as its author wrote it: layers with weights and names.

An exported program is a graph of operators that can neither be trained nor hooked into. Here each
operator that came from a layer becomes that layer again, at the path that its parameters name; the
others stay operators. Nothing of the file is executed: the program comes from `load_program`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from hqc.diagnostics import Location, reject


def module_of(program: ExportedProgram) -> fx.GraphModule:
    """The float module of a program, in eval mode.

    Raises:
        HqcError: HQC603, the program is quantised already, or a layer has a form that no module
            of PyTorch has.
    """
    return _Rebuilder(program).run()


class _Rebuilder:
    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._new: dict[fx.Node, fx.Node] = {}
        self._lifted: dict[fx.Node, str] = {}

    def run(self) -> fx.GraphModule:
        """Go through the program's nodes in order."""
        signature = self._program.graph_signature
        specs = {s.arg.name: s for s in signature.input_specs}
        for node in self._program.graph.nodes:
            if node.op == "placeholder":
                spec = specs[node.name]
                if spec.kind is InputKind.USER_INPUT:
                    self._new[node] = self._graph.placeholder(node.name)
                else:
                    self._lifted[node] = str(spec.target)
            elif node.op == "output":
                found = [self._argument(x) for x in node.args[0]]
                self._graph.output(found[0] if len(found) == 1 else tuple(found))
            else:
                self._visit(node)
        self._graph.lint()
        return fx.GraphModule(self._root, self._graph).eval()

    def _visit(self, node: fx.Node) -> None:
        space, _, rest = str(node.target).partition(".")
        kind = rest.partition(".")[0] if space == "aten" else ""
        if space == "hqc":
            raise _refuse(node, "the program is quantised already: give the float one")
        if kind == "sym_size":
            self._new[node] = self._graph.call_method("size", fx.map_arg(node.args, self._argument))
            return
        made = _MODULES.get(kind)
        values = _arguments(node)
        if made is None or not self._is_layer(kind, values):
            plain = len(node.args) <= 2 and not node.kwargs
            target = _FUNCTIONS.get(kind, node.target) if plain else node.target
            args, kwargs = fx.map_arg((node.args, node.kwargs), self._argument)
            self._new[node] = self._graph.call_function(target, args, kwargs)
            return
        tensors = {k: self._tensor(v) for k, v in values.items() if self._is_own(v)}
        try:
            module = made(values, tensors)
        except (TypeError, KeyError, ValueError) as error:
            raise _refuse(node, f"{kind} has a form that no layer has: {error}") from error
        path = self._path(node, values) or node.name
        if not _has(self._root, path):
            _put(self._root, path, module)
        source = self._argument(next(v for v in values.values() if isinstance(v, fx.Node)))
        self._new[node] = self._graph.call_module(path, (source,))

    def _is_own(self, value: Any) -> bool:
        """Whether a value is a tensor of the program's, not one that it computes."""
        return isinstance(value, fx.Node) and value in self._lifted

    def _is_layer(self, kind: str, values: Mapping[str, Any]) -> bool:
        """Whether all tensors but the first argument are the program's own."""
        nodes = [v for v in values.values() if isinstance(v, fx.Node)]
        if kind in _PLAIN:
            return len(nodes) == 1
        return bool(nodes) and "weight" in values and all(map(self._is_own, nodes[1:]))

    def _path(self, node: fx.Node, values: Mapping[str, Any]) -> str:
        """Where the layer was: its tensors say so, else the node's name serves."""
        own = [self._lifted[v] for v in values.values() if self._is_own(v)]
        return own[0].rpartition(".")[0] if own else node.name

    def _tensor(self, node: fx.Node) -> Tensor:
        target = self._lifted[node]
        found = self._program.state_dict.get(target)
        return self._program.constants[target] if found is None else found

    def _argument(self, value: Any) -> Any:
        """What stands for a value of the program in the new graph."""
        if not isinstance(value, fx.Node):
            return value
        if self._is_own(value) and value not in self._new:
            path = f"lifted_{value.name}"
            tensor = self._tensor(value).detach().clone()
            if isinstance(self._tensor(value), nn.Parameter):
                self._root.register_parameter(path, nn.Parameter(tensor))
            else:
                self._root.register_buffer(path, tensor)
            self._new[value] = self._graph.get_attr(path)
        return self._new[value]


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Arguments by the names of the operator's schema and in its order, defaults included."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    found = {a.name: a.default_value for a in schema.arguments}
    found |= {a.name: v for a, v in zip(schema.arguments, node.args, strict=False)}
    return {**found, **node.kwargs}


def _linear(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    rows, columns = tensors["weight"].shape
    return _loaded(nn.Linear(columns, rows, "bias" in tensors), tensors)


def _convolution(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    def made(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        rows, columns, *kernel = tensors["weight"].shape
        padding = values["padding"]
        module = kind(
            *(columns * values["groups"], rows, tuple(kernel), tuple(values["stride"])),
            padding if isinstance(padding, str) else tuple(padding),
            tuple(values["dilation"]),
            values["groups"],
            "bias" in tensors,
        )
        return _loaded(module, tensors)

    return made


def _norm(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    mean, affine = tensors["running_mean"], "weight" in tensors
    rank = values["input"].meta["val"].dim()
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[rank]
    module = kind(len(mean), values["eps"], values["momentum"], affine)
    return _loaded(module, tensors)


def _dropout(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    return nn.Dropout(values["p"])


def _relu(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    return nn.ReLU()


def _pool(kind: type[nn.Module], *names: str) -> Callable[..., nn.Module]:
    def made(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        given = {name: values[name] for name in names}
        given = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
        if not given["stride"]:
            given["stride"] = None
        return kind(**given)

    return made


def _loaded(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    with torch.no_grad():
        for name, tensor in tensors.items():
            getattr(module, name).copy_(tensor)
    return module


_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_MODULES: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear,
    "conv1d": _convolution(nn.Conv1d),
    "conv2d": _convolution(nn.Conv2d),
    "batch_norm": _norm,
    "relu": _relu,
    "relu_": _relu,
    "dropout": _dropout,
    "max_pool1d": _pool(nn.MaxPool1d, *_MAX),
    "max_pool2d": _pool(nn.MaxPool2d, *_MAX),
    "avg_pool2d": _pool(nn.AvgPool2d, *_AVERAGE),
}
#: Layers without tensors of their own.
_PLAIN = {"relu", "relu_", "dropout", "max_pool1d", "max_pool2d", "avg_pool2d"}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "flatten": torch.flatten,
    "view": torch.reshape,
    "reshape": torch.reshape,
    "softmax": torch.softmax,
}


def _has(root: nn.Module, path: str) -> bool:
    return path in dict(root.named_modules())


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, nn.Module())
        root = getattr(root, folder)
    root.add_module(name, module)


def _refuse(node: fx.Node, message: str) -> Exception:
    return reject("HQC603", message, where=Location(node=node.name))
