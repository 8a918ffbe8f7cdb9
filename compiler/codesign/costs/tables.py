"""What bit widths cost: bit operations, bits of weights, and measured tables.

A *knob* is something whose width is chosen: a layer's weights, or the activations that enter it. A
`Table` is a cost as a function of the knobs' widths: a constant, a term per knob, and terms of
several knobs.

Bit operations are those of Campos et al. (arXiv:2304.06745), after Baskin et al. (UNIQ,
arXiv:1804.10969), for a layer of m outputs, n inputs each, and a pruned part p:

    m n ((1 - p) b_a b_w + b_a + b_w + log2 n)

with b_w bits of weights and b_a bits of the activations that *enter* the layer. How b_a follows
from what is chosen is the caller's say, by `inputs` of `bops_table`:

* coupled: b_a is the width of the knob that makes the layer's input. Terms then are products of
  two knobs.
* uncoupled: b_a is a function of the layer's own weights, so that a table per layer is all there
  is. The table of the paper's jet tagger is of this form: 16 bits enter the first layer, and 3 bits
  more than the layer's own weights enter each other one (`PUBLISHED_HEADROOM`,
  `PUBLISHED_INPUT_BITS`). It gives 349,248 for weights of (8, 5, 5, 5) bits.

The jet tagger in float counts 4,652,832: 32 bits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

from hqc.codesign.hessian.objective import Activations, Samples, evaluating
from hqc.diagnostics import reject

#: What the numbers of a cost count, where its name does not say so.
UNITS = {"size": " bits"}
PUBLISHED_INPUT_BITS = 16
PUBLISHED_HEADROOM = 3

_K = TypeVar("_K")
_W = TypeVar("_W")
Single = Mapping[str, Mapping[int, float]]
Joint = Mapping[tuple[str, ...], Mapping[tuple[int, ...], float]]


@dataclass(frozen=True)
class Table:
    """A cost, or an objective: a sum of terms.

    Attributes:
        single: by knob, a number for each width.
        joint: by group of two knobs or more, a number for each combination of their widths.
        constant: what depends on no width.
    """

    single: Single = field(default_factory=dict)
    joint: Joint = field(default_factory=dict)
    constant: float = 0.0

    @property
    def knobs(self) -> tuple[str, ...]:
        """All knobs that occur, sorted."""
        return tuple(sorted({*self.single, *(knob for group in self.joint for knob in group)}))

    def value(self, widths: Mapping[str, int]) -> float:
        """The cost at these widths.

        Raises:
            HqcError: HQC612, a knob without a width, or a width that is not in the table.
        """
        try:
            terms = [self.single[k][widths[k]] for k in self.single]
            terms += [grid[tuple(widths[k] for k in ks)] for ks, grid in self.joint.items()]
        except KeyError as error:
            raise reject("HQC612", f"no cost is known for {error.args[0]}") from error
        return math.fsum((self.constant, *terms))

    def __add__(self, other: Table) -> Table:
        single = {k: dict(v) for k, v in self.single.items()}
        joint = {k: dict(v) for k, v in self.joint.items()}
        for knob, column in other.single.items():
            _merge(single, knob, column)
        for group, grid in other.joint.items():
            _merge(joint, group, grid)
        return Table(single, joint, self.constant + other.constant)


def _merge(into: dict[_K, dict[_W, float]], key: _K, column: Mapping[_W, float]) -> None:
    held = into.setdefault(key, dict.fromkeys(column, 0.0))
    if set(held) != set(column):
        raise reject("HQC612", f"two tables know different widths of {key}")
    for width, cost in column.items():
        held[width] += cost


@dataclass(frozen=True)
class Shape:
    """What a linear layer or a convolution computes.

    Attributes:
        name: the layer.
        outputs: m, rows of the weight matrix.
        inputs: n, weights per output.
        positions: how often the matrix is applied per sample: pixels of a convolution's output.
        pruned: weights that are zero for good.
    """

    name: str
    outputs: int
    inputs: int
    positions: int = 1
    pruned: int = 0

    @property
    def weights(self) -> int:
        """Number of weights, pruned ones included."""
        return self.outputs * self.inputs


def layer_bops(shape: Shape, weight_bits: int, input_bits: int) -> float:
    """Bit operations of one layer per sample: the formula at the head of this file."""
    return _products(shape, weight_bits, input_bits) + _additions(shape)


def _products(shape: Shape, weight_bits: int, input_bits: int) -> float:
    """What depends on widths, a whole number."""
    active = shape.weights - shape.pruned
    total = active * input_bits * weight_bits + shape.weights * (input_bits + weight_bits)
    return float(shape.positions * total)


def _additions(shape: Shape) -> float:
    return shape.positions * shape.weights * math.log2(shape.inputs)


def bops_table(
    shapes: Sequence[Shape],
    widths: Mapping[str, Iterable[int]],
    inputs: Mapping[str, str | int],
    *,
    headroom: int = 0,
) -> Table:
    """Bit operations of all layers.

    Args:
        shapes: the layers; the knob of a layer's weights has its name.
        widths: candidates of each knob.
        inputs: for each layer, its input's bits as a number, or the knob that they follow: a knob
            for activations, the layer before, or the layer itself (uncoupled).
        headroom: bits of activations beyond the width of the knob that they follow.

    Raises:
        HqcError: HQC612, a layer without an input, or a knob without candidates.
    """
    single: dict[str, dict[int, float]] = {}
    joint: dict[tuple[str, ...], dict[tuple[int, ...], float]] = {}
    for shape in shapes:
        own = candidates(widths, shape.name)
        source = inputs.get(shape.name)
        if source is None:
            raise reject("HQC612", f"nothing says how many bits enter {shape.name}")
        if isinstance(source, int):
            single[shape.name] = {w: _products(shape, w, source) for w in own}
        elif source == shape.name:
            single[shape.name] = {w: _products(shape, w, w + headroom) for w in own}
        else:
            joint[shape.name, source] = {
                (w, a): _products(shape, w, a + headroom)
                for w in own
                for a in candidates(widths, source)
            }
    return Table(single, joint, math.fsum(_additions(shape) for shape in shapes))


def size_table(shapes: Sequence[Shape], widths: Mapping[str, Iterable[int]]) -> Table:
    """Bits of all weights, pruned ones included; errors as for `bops_table`."""
    return Table(
        {
            shape.name: {w: float(shape.weights * w) for w in candidates(widths, shape.name)}
            for shape in shapes
        }
    )


def measured_table(measured: Mapping[str, Mapping[int, float]]) -> Table:
    """A table per knob and width of anything that adds up: LUTs, flip-flops, latency.

    Raises:
        HqcError: HQC612, a value that is not finite.
    """
    for knob, column in measured.items():
        for width, cost in column.items():
            if not math.isfinite(cost):
                raise reject("HQC612", f"the cost of {knob} at {width} bits is {cost}")
    return Table({knob: dict(column) for knob, column in measured.items()})


def shapes_of(model: nn.Module, samples: Samples, layers: Sequence[str] = ()) -> tuple[Shape, ...]:
    """The shapes of a model's linear layers and convolutions; zero weights count as pruned.

    Args:
        model: run once on the first sample, in eval mode.
        samples: of its inputs.
        layers: module names; none: all modules that have a weight with two axes or more.

    Raises:
        HqcError: HQC610, a layer that is unknown, runs several times, or is neither linear nor
            a convolution.
    """
    taps = Activations(model, _no_loss, layers, side="output")
    with evaluating(model):
        outputs = taps.values(samples.part(0, 1))
    return tuple(_shape(name, model.get_submodule(name), y) for name, y in outputs.items())


def _shape(name: str, module: nn.Module, output: torch.Tensor) -> Shape:
    if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise reject("HQC610", f"{name} is a {type(module).__name__}: its bits cannot be counted")
    weight = module.weight.detach()
    rows = len(weight)
    zeros = int((weight == 0).sum())
    return Shape(name, rows, weight.numel() // rows, output.numel() // rows, zeros)


def _no_loss(outputs: object, targets: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("shapes take no loss")


def candidates(widths: Mapping[str, Iterable[int]], knob: str) -> tuple[int, ...]:
    """The candidate widths of a knob.

    Raises:
        HqcError: HQC612, there are none.
    """
    found = tuple(widths.get(knob, ()))
    if not found:
        raise reject("HQC612", f"no candidate widths are given for {knob}")
    return found
