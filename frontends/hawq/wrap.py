"""Quantise a float model for training, whatever its module tree: nested, sequential, residual.

The forward is traced once (`torch.fx`) and its layers replaced where they stand; nothing is
rewritten by hand. Each value that a layer needs as integers gets a quantiser exactly once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import fx, nn

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.hawq import patterns
from hqc.frontends.hawq.layers import HawqAct, HawqAdd, HawqAverage, HawqConv, HawqLinear, Scheme

Bits = int | Mapping[str, tuple[int, int]]


def layer_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that take bit widths, in the order of `forward`.

    Raises:
        HqcError: HQC603, the forward cannot be traced.
    """
    modules = dict(model.named_modules())
    return tuple(
        dict.fromkeys(
            str(n.target)
            for n in traced_forward(model).graph.nodes
            if isinstance(patterns.module_of(n, modules), patterns.LAYERS)
        )
    )


def quantize_model(model: nn.Module, bits: Bits, scheme: Scheme | None = None) -> fx.GraphModule:
    """A copy of a float model with quantised weights, biases and activations, ready for training.

    Args:
        model: of `nn.Linear`, `nn.Conv1d` and `nn.Conv2d`, batch norms behind them, ReLU as module
            or function, pooling, sums of two values, flattening and dropout, in any nesting. Max
            pools pick codes; averages become integer means (`HawqAverage`). Other functions stay
            float, between the layer in front and the quantiser behind; what no layer reads, such
            as a softmax at the end, stays float as well.
        bits: one width for all, or (weight bits, activation bits) by name of the layer; the
            activation bits are those of what the layer reads, the largest where several read it.
        scheme: modes and ranges; by default HAWQ's.

    Returns:
        A module of the same forward; train it, then `hqc.compile(module, example_inputs=...)`.

    Raises:
        HqcError: HQC603, the forward cannot be traced, a layer has no quantised form, such as a
            transposed convolution, or is called twice; HQC107, a bit width is missing or
            impossible.
    """
    traced = traced_forward(copy.deepcopy(model))
    widths = _widths(bits, layer_names(model))
    _Wrapper(traced, widths, scheme or Scheme()).run()
    traced.graph.lint()
    traced.recompile()
    return traced


def traced_forward(model: nn.Module) -> fx.GraphModule:
    """The graph of a module's forward; raises HqcError HQC603 where it cannot be traced."""
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
        raise reject("HQC603", "the model has no linear layers or convolutions to quantise")
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
    """A value on a grid.

    Attributes:
        node: the value.
        quant: path of the quantiser whose scale and zero point the grid has.
        bits, signed: of the codes.
    """

    node: fx.Node
    quant: str
    bits: int
    signed: bool


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
        self._traced.delete_all_unused_submodules()

    def _visit(self, node: fx.Node) -> None:
        module = patterns.module_of(node, self._modules)
        if isinstance(module, patterns.OTHERS):
            kind = type(module).__name__
            raise _refuse(node, f"a {kind} has no quantised form")
        if patterns.is_function_of_layer(node):
            name = patterns.called(node)
            raise _refuse(node, f"{name} as a function", "make it a layer: nn.Linear, nn.Conv2d")
        if isinstance(module, patterns.LAYERS):
            self._layer(node, module)
        elif patterns.is_relu(node, self._modules):
            self._relu(node)
        elif patterns.is_sum(node):
            self._sum(node)
        elif patterns.is_move(node, self._modules):
            self._move(node)
        else:
            self._average(node)

    # --- layers ---

    def _layer(self, node: fx.Node, module: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        name = str(node.target)
        if name in self._done:
            raise _refuse(node, f"{name} is called twice: give each call a layer of its own")
        if getattr(module, "padding_mode", "zeros") != "zeros":
            raise _refuse(node, f"padding_mode {module.padding_mode!r}", "pad with zeros")
        if isinstance(module.weight, nn.UninitializedParameter):
            raise _refuse(node, "a layer without weights yet", "run the model once")
        self._done.add(name)
        norm = self._norm_behind(node, module)
        weight_bits, act_bits = self._widths[name]
        x = self._on_grid(_input_of(node), act_bits, node)
        kind = HawqLinear if isinstance(module, nn.Linear) else HawqConv
        self._replace(name, kind(module, norm, weight_bits, self._scheme))
        with self._graph.inserting_before(node):
            scale = self._graph.get_attr(f"{x.quant}.scale")
        node.args, node.kwargs = (x.node, scale), {}

    def _norm_behind(self, node: fx.Node, layer: nn.Module) -> nn.Module | None:
        """Take the batch norm behind a layer out of the graph."""
        users = list(node.users)
        if len(users) != 1:
            return None
        norm = patterns.module_of(users[0], self._modules)
        wanted = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
        if not isinstance(norm, wanted) or norm.num_features != len(layer.weight):
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
        """A rectifier with its quantiser: in front of what only rearranges or picks its inputs."""
        bits = self._bits_of_readers(node)
        if bits is None:
            return  # nothing needs integers of it
        source = _input_of(node)
        moves = self._moves_to(source)
        if any(len(move.users) > 1 for move in moves):
            moves = []
        origin = _input_of(moves[-1]) if moves else source
        quant = HawqAct(bits, self._scheme, rectified=True)
        path = self._fresh(node)
        made = self._call(path, quant, (origin,), before=moves[-1] if moves else node)
        if moves:
            moves[-1].replace_input_with(origin, made)
        self._supersede(node, source if moves else made)
        for value in (made, *moves):
            self._grids[value] = _Grid(value, path, bits, quant.signed)

    def _sum(self, node: fx.Node) -> None:
        left, right = node.args[:2]
        assert isinstance(left, fx.Node)
        assert isinstance(right, fx.Node)
        bits = self._bits_of_readers(node)
        if bits is None:
            return
        path = self._fresh(node)
        made = self._call(path, HawqAdd(bits, self._scheme), (left, right), node)
        self._supersede(node, made)
        self._grids[made] = _Grid(made, f"{path}.quant", bits + 1, True)

    def _move(self, node: fx.Node) -> None:
        """What rearranges a value on a grid, or picks of it, is on that grid."""
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source in self._grids:
            self._grids[node] = replace(self._grids[source], node=node)

    def _average(self, node: fx.Node) -> None:
        """An average becomes an integer mean on the grid of what it averages."""
        bits = self._bits_of_readers(node)
        if bits is None:
            return
        try:
            pool = patterns.average_of(node, self._modules)
        except (ValueError, TypeError) as error:
            raise _refuse(node, f"{error} has no integer form") from error
        if pool is None:
            return
        x = self._on_grid(_input_of(node), bits, node)
        path = str(node.target) if self._is_sole_call(node) else self._fresh(node)
        with self._graph.inserting_before(node):
            grid = [self._graph.get_attr(f"{x.quant}.{part}") for part in ("scale", "zero_point")]
        module = HawqAverage(pool, x.bits, signed=x.signed)
        made = self._call(path, module, (x.node, *grid), node)
        self._supersede(node, made)
        self._grids[made] = replace(x, node=made)

    def _supersede(self, node: fx.Node, made: fx.Node) -> None:
        node.replace_all_uses_with(made)
        self._graph.erase_node(node)

    # --- quantisers ---

    def _on_grid(self, source: fx.Node, bits: int, reader: fx.Node) -> _Grid:
        """A value on a grid, through a new quantiser in front of what only moves it if need be."""
        if source in self._grids:
            return self._grids[source]
        moves = self._moves_to(source)
        origin = _input_of(moves[-1]) if moves else source
        grid = self._grids.get(origin) or self._quantise(origin, bits, moves[-1:] or [reader])
        for move in moves:
            self._grids[move] = replace(grid, node=move)
        return replace(grid, node=source) if moves else grid

    def _moves_to(self, node: fx.Node) -> list[fx.Node]:
        """The nodes, from last to first, that only rearrange or pick an earlier value."""
        found: list[fx.Node] = []
        while patterns.is_move(node, self._modules) and node not in self._grids:
            found.append(node)
            node = _input_of(node)
        return found

    def _quantise(self, source: fx.Node, bits: int, readers: list[fx.Node]) -> _Grid:
        bits = max(bits, self._bits_of_readers(source) or bits)
        path = self._fresh(source)
        positive = patterns.is_positive(source, self._modules)
        quant = HawqAct(bits, self._scheme, positive=positive)
        made = self._call(path, quant, (source,), before=self._after(source, readers[0]))
        for user in [u for u in source.users if u is not made]:
            user.replace_input_with(source, made)
        self._grids[made] = _Grid(made, path, bits, quant.signed)
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

    def _is_sole_call(self, node: fx.Node) -> bool:
        """Whether a node alone calls its module."""
        calls = [n for n in self._graph.nodes if n.op == "call_module" and n.target == node.target]
        return node.op == "call_module" and len(calls) == 1

    def _fresh(self, node: fx.Node) -> str:
        """A path for a quantiser: that of the module it replaces, or of the value it follows."""
        is_relu = isinstance(patterns.module_of(node, self._modules), nn.ReLU)
        if is_relu and self._is_sole_call(node):
            path = str(node.target)
            self._traced.delete_submodule(path)
            return path
        base = f"{str(node.name).strip('_')}_quant"
        taken = dict(self._traced.named_modules())
        path, n = base, 1
        while path in taken:
            n += 1
            path = f"{base}_{n}"
        return path


def _input_of(node: fx.Node) -> fx.Node:
    """The first argument of a call, by position or by name."""
    found = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    assert isinstance(found, fx.Node)
    return found


def _refuse(node: fx.Node, message: str, *helps: str) -> HqcError:
    return reject("HQC603", message, where=Location(node=str(node.target)), helps=helps)
