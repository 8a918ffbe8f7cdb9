"""Quantise a float model for training, whatever its module tree: nested, sequential, residual.

The forward is traced once (`torch.fx`) and its layers replaced where they stand; nothing is
rewritten by hand. Each value that a layer needs as integers gets a quantiser exactly once.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.hawq.layers import HawqAct, HawqAdd, HawqLinear, Scheme

__all__ = ["layer_names", "quantize_model"]

Bits = int | Mapping[str, tuple[int, int]]

_MOVES = {"flatten", "view", "reshape", "contiguous", "squeeze", "unsqueeze", "dropout", "size"}
_MOVERS = (nn.Flatten, nn.Dropout, nn.Identity)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
_RELUS = {"relu", "relu_"}
_SUMS = {"add", "iadd", "add_"}


def layer_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that take bit widths, in the order of `forward`.

    Raises:
        HqcError: HQC603, the forward cannot be traced.
    """
    modules = dict(model.named_modules())
    return tuple(
        dict.fromkeys(
            str(n.target)
            for n in _trace(model).graph.nodes
            if n.op == "call_module" and isinstance(modules[n.target], nn.Linear)
        )
    )


def quantize_model(model: nn.Module, bits: Bits, scheme: Scheme | None = None) -> fx.GraphModule:
    """A copy of a float model with quantised weights, biases and activations, ready for training.

    Args:
        model: of `nn.Linear`, `nn.BatchNorm1d` behind them, ReLU as module or function, sums of
            two values, flattening and dropout, in any nesting. A softmax at the end stays float.
        bits: one width for all, or (weight bits, activation bits) by name of the layer; the
            activation bits are those of what the layer reads, the largest where several read it.
        scheme: modes and ranges; by default HAWQ's.

    Returns:
        A module of the same forward; train it, then `hqc.compile(module, example_inputs=...)`.

    Raises:
        HqcError: HQC603, the forward cannot be traced, a layer has no quantised form, such as a
            convolution, or is called twice; HQC107, a bit width is missing or impossible.
    """
    traced = _trace(copy.deepcopy(model))
    widths = _widths(bits, layer_names(model))
    _Wrapper(traced, widths, scheme or Scheme()).run()
    traced.graph.lint()
    traced.recompile()
    return traced


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the user's forward, which may raise anything
        raise reject(
            "HQC603",
            f"the forward of {type(model).__name__} cannot be traced",
            notes=(str(error).strip()[:300],),
            helps=("forward must not branch on values of tensors",),
        ) from error


def _widths(bits: Bits, layers: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    if not layers:
        raise reject("HQC603", "the model has no linear layers to quantise")
    found = dict.fromkeys(layers, (bits, bits)) if isinstance(bits, int) else dict(bits)
    missing, unknown = set(layers) - set(found), set(found) - set(layers)
    if missing or unknown:
        raise reject(
            "HQC107",
            f"bit widths for {', '.join(sorted(missing or unknown))}: "
            + ("missing" if missing else "no such layer"),
            helps=(f"layers: {', '.join(layers)}",),
        )
    for name, pair in found.items():
        if len(pair) != 2 or not all(isinstance(b, int) and 2 <= b <= 16 for b in pair):
            raise reject("HQC107", f"{name}: {pair} is no pair of bit widths from 2 to 16")
    return found


@dataclass(frozen=True)
class _Grid:
    """A value on a grid: the node, and the path of its quantiser's scale ("" for a sum)."""

    node: fx.Node
    scale: str


class _Wrapper:
    def __init__(
        self, traced: fx.GraphModule, widths: Mapping[str, tuple[int, int]], scheme: Scheme
    ) -> None:
        self._traced, self._graph = traced, traced.graph
        self._widths, self._scheme = widths, scheme
        self._grids: dict[fx.Node, _Grid] = {}
        self._modules = dict(traced.named_modules())
        self._done: set[str] = set()

    def run(self) -> None:
        """Replace nodes in order."""
        for node in tuple(self._graph.nodes):
            if not node._erased:
                self._visit(node)

    def _visit(self, node: fx.Node) -> None:
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        name = getattr(node.target, "__name__", str(node.target))
        is_call = node.op in ("call_function", "call_method")
        if isinstance(module, nn.Linear):
            self._linear(node, module)
        elif isinstance(module, nn.ReLU) or (is_call and name in _RELUS):
            self._relu(node)
        elif is_call and (name in _SUMS or node.target is operator.add):
            self._sum(node)
        elif isinstance(module, _MOVERS) or (is_call and name in _MOVES):
            self._move(node)
        elif isinstance(module, _CONVOLUTIONS):
            raise _refuse(node, "a convolution has no quantised form yet")

    # --- layers ---

    def _linear(self, node: fx.Node, module: nn.Linear) -> None:
        name = str(node.target)
        if name in self._done:
            raise _refuse(node, f"{name} is called twice: give each call a layer of its own")
        self._done.add(name)
        norm = self._norm_behind(node)
        weight_bits, act_bits = self._widths[name]
        x = self._on_grid(node.args[0], act_bits, node)
        layer = HawqLinear(module, norm, weight_bits, self._scheme)
        self._replace(name, layer)
        with self._graph.inserting_before(node):
            scale = self._graph.get_attr(x.scale)
        node.args, node.kwargs = (x.node, scale), {}

    def _norm_behind(self, node: fx.Node) -> nn.BatchNorm1d | None:
        users = list(node.users)
        if len(users) != 1 or users[0].op != "call_module":
            return None
        norm = self._modules.get(str(users[0].target))
        if not isinstance(norm, nn.BatchNorm1d):
            return None
        if norm.running_mean is None:
            raise _refuse(users[0], "a batch norm without running statistics cannot be folded")
        path = str(users[0].target)
        if sum(n.target == path for n in self._graph.nodes) > 1:
            raise _refuse(users[0], f"{path} is called twice")
        users[0].replace_all_uses_with(node)
        self._graph.erase_node(users[0])
        self._traced.delete_submodule(path)
        return norm

    def _relu(self, node: fx.Node) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        bits = self._bits_of_readers(node)
        if bits is None:
            return  # nothing needs integers of it
        quant = HawqAct(bits, self._scheme, rectified=True)
        path = self._fresh(node)
        made = self._call(path, quant, (source,), before=node)
        node.replace_all_uses_with(made)
        self._graph.erase_node(node)
        self._grids[made] = _Grid(made, f"{path}.scale")

    def _sum(self, node: fx.Node) -> None:
        left, right = node.args[:2]
        if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
            return  # adding a number
        bits = self._bits_of_readers(node)
        if bits is None:
            return
        made = self._call(self._fresh(node), HawqAdd(bits, self._scheme), (left, right), node)
        node.replace_all_uses_with(made)
        self._graph.erase_node(node)

    def _move(self, node: fx.Node) -> None:
        """What rearranges a value on a grid is on that grid."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source in self._grids:
            self._grids[node] = _Grid(node, self._grids[source].scale)

    # --- quantisers ---

    def _on_grid(self, source: Any, bits: int, reader: fx.Node) -> _Grid:
        assert isinstance(source, fx.Node)
        if source in self._grids:
            return self._grids[source]
        wanted = self._bits_of_readers(source) or bits
        path = self._fresh(source)
        quant = HawqAct(max(bits, wanted), self._scheme)
        made = self._call(path, quant, (source,), before=self._after(source, reader))
        for user in [u for u in source.users if u is not made]:
            user.replace_input_with(source, made)
        self._grids[made] = _Grid(made, f"{path}.scale")
        return self._grids[made]

    def _after(self, source: fx.Node, reader: fx.Node) -> fx.Node:
        """The first node behind a value, skipping other inputs of the graph."""
        following = source.next
        while following.op in ("placeholder", "get_attr") and following is not reader:
            following = following.next
        return following

    def _bits_of_readers(self, node: fx.Node) -> int | None:
        """The widest activation that a layer wants of a value, through what needs no layer."""
        found: list[int] = []
        pending, seen = [node], {node}
        while pending:
            for user in pending.pop().users:
                if user.op == "call_module" and str(user.target) in self._widths:
                    found.append(self._widths[str(user.target)][1])
                elif user not in seen and user.op != "output":
                    seen.add(user)
                    pending.append(user)
        return max(found, default=None)

    def _call(
        self, path: str, module: nn.Module, args: tuple[fx.Node, ...], before: fx.Node
    ) -> fx.Node:
        self._traced.add_submodule(path, module)
        with self._graph.inserting_before(before):
            made: fx.Node = self._graph.call_module(path, args)
        made.stack_trace = before.stack_trace
        return made

    def _replace(self, path: str, module: nn.Module) -> None:
        self._traced.delete_submodule(path)
        self._traced.add_submodule(path, module)

    def _fresh(self, node: fx.Node) -> str:
        """A path for a quantiser: that of the module it replaces, or of the value it follows."""
        if node.op == "call_module" and isinstance(self._modules.get(str(node.target)), nn.ReLU):
            path = str(node.target)
            if path not in self._done:
                self._done.add(path)
                self._traced.delete_submodule(path)
                return path
        base = f"{str(node.name).strip('_')}_quant"
        taken = dict(self._traced.named_modules())
        path, n = base, 1
        while path in taken:
            n += 1
            path = f"{base}_{n}"
        return path


def _refuse(node: fx.Node, message: str) -> HqcError:
    return reject("HQC603", message, where=Location(node=str(node.target)))
