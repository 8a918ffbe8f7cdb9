"""What a quantised network will be in logic, known before any width is chosen.

A layer is a constant matrix, and each value that layers need as integers a row of requantisers.
Both are found in the form that the training uses (`quantize_model`), whatever the widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from hqc.codesign.hessian.objective import Samples
from hqc.frontends.hawq.layers import (
    HawqAct,
    HawqAdd,
    HawqAverage,
    HawqConv,
    HawqLayer,
    HawqLinear,
)
from hqc.frontends.hawq.patterns import called
from hqc.frontends.hawq.wrap import quantize_model
from hqc.ir import Array


@dataclass(frozen=True, eq=False)
class Matrix:
    """The weights of a layer.

    Attributes:
        weight: float, (outputs, inputs per group, ...), batch norms folded in.
        groups: of a convolution; 1 else.
        positive: whether what enters is never negative.
        needs_bias: whether the layer has a bias or a batch norm.
    """

    weight: torch.Tensor
    groups: int
    positive: bool
    needs_bias: bool

    def parts(self, codes: Array) -> list[Array]:
        """Codes of the weights as matrices (n_in, n_out), one per group."""
        rows = codes.reshape(len(codes), -1)
        return [part.T for part in rows.reshape(self.groups, -1, rows.shape[1])]


@dataclass(frozen=True)
class Requantisers:
    """A value's quantiser, as logic.

    Attributes:
        sources: layers whose sums it takes; "" for a value that is on a grid already.
        readers: layers that read what it gives.
        elements: of the value, per sample.
        positive: whether the value is never negative.
    """

    sources: tuple[str, ...]
    readers: tuple[str, ...]
    elements: int
    positive: bool


@dataclass(frozen=True)
class Pool:
    """Maxima or averages of what some layers read.

    Attributes:
        readers: the layers.
        joined: values that take part, less those that come out.
        results: values that come out.
        average: whether it is of averages.
    """

    readers: tuple[str, ...]
    joined: int
    results: int
    average: bool


@dataclass(frozen=True, eq=False)
class Logic:
    """All matrices by layer, all requantisers and all pools of a network."""

    matrices: Mapping[str, Matrix] = field(default_factory=dict)
    requantisers: tuple[Requantisers, ...] = ()
    pools: tuple[Pool, ...] = ()


def logic_of(model: nn.Module, samples: Samples) -> Logic:
    """The logic of a float model, its layers named as in `layer_names`.

    Args:
        model: with batch norms folded, as `hqc.codesign.training.models.folded` has it.
        samples: the first ones are run, for shapes.

    Raises:
        HqcError: HQC603, the model has no quantised form.
    """
    net = quantize_model(model, 8).train()  # quantisers without ranges yet take them from data
    with torch.no_grad():
        ShapeProp(net).propagate(*samples.part(0, 2).inputs)
    return _Finder(net).find()


class _Finder:
    def __init__(self, net: fx.GraphModule) -> None:
        self.net = net
        self.modules = dict(net.named_modules())

    def find(self) -> Logic:
        matrices, rows, pools = {}, [], []
        for node in self.net.graph.nodes:
            module = self._module(node)
            if isinstance(module, HawqLayer):
                matrices[str(node.target)] = self._matrix(node, module)
            elif isinstance(module, HawqAct | HawqAdd) and (found := self._row(node, module)):
                rows.append(found)
            elif isinstance(module, HawqAverage) or _picks(node, module):
                pools.append(self._pool(node, isinstance(module, HawqAverage)))
        return Logic(matrices, tuple(rows), tuple(pools))

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def _matrix(self, node: fx.Node, module: HawqLayer) -> Matrix:
        assert isinstance(module, HawqLinear | HawqConv)
        weight, bias = module.folded_parameters()
        groups = module.conv.groups if isinstance(module, HawqConv) else 1
        scale = node.args[1]  # the quantiser's, as an attribute of it
        assert isinstance(scale, fx.Node)
        quant = self.modules[str(scale.target).rpartition(".")[0]]
        assert isinstance(quant, HawqAct)
        return Matrix(weight.detach(), groups, not quant.signed, bias is not None)

    def _row(self, node: fx.Node, module: HawqAct | HawqAdd) -> Requantisers | None:
        """The requantisers in front of a quantised value; None for inputs of the network."""
        given = [a for a in node.args if isinstance(a, fx.Node)]
        sources = [self._source(value) for value in given]
        if all(source is None for source in sources):
            return None
        positive = isinstance(module, HawqAct) and not module.signed
        named = tuple(source or "" for source in sources)
        return Requantisers(named, self._readers(node), _size(node), positive)

    def _source(self, node: fx.Node) -> str | None:
        """The layer whose sums a value is; "" for other values on a grid, None for an input."""
        while True:
            module = self._module(node)
            if isinstance(module, HawqLayer):
                return str(node.target)
            if isinstance(module, HawqAct | HawqAdd | HawqAverage):
                return ""
            given = [a for a in node.args if isinstance(a, fx.Node)]
            if not given:
                return None
            node = given[0]

    def _readers(self, node: fx.Node) -> tuple[str, ...]:
        """Layers that read a value, through what is no layer."""
        found, pending, seen = [], [node], {node}
        while pending:
            for user in pending.pop(0).users:
                if isinstance(self._module(user), HawqLayer):
                    found.append(str(user.target))
                elif user not in seen and not isinstance(self._module(user), HawqAct):
                    seen.add(user)
                    pending.append(user)
        return tuple(dict.fromkeys(found))

    def _pool(self, node: fx.Node, average: bool) -> Pool:
        given = node.args[0]
        assert isinstance(given, fx.Node)
        results = _size(node)
        return Pool(self._readers(node), max(0, _size(given) - results), results, average)


def _picks(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node takes maxima of windows."""
    kinds = nn.MaxPool1d | nn.MaxPool2d | nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d
    return isinstance(module, kinds) or "max_pool" in called(node)


def _size(node: fx.Node) -> int:
    """Elements per sample."""
    shape: Sequence[int] = node.meta["tensor_meta"].shape
    return int(torch.Size(shape[1:]).numel())
