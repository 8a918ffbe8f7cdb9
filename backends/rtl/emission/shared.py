"""Matrix products whose multipliers serve several outputs, one after the other.

A matrix product unrolled is adders made for its numbers. With a reuse factor it can be instead
one sum of products with weights that come as inputs, at as many places as there are outputs
(`hqc.backends.rtl.emission.reuse` goes through the places); which is smaller depends on the factor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hqc.backends.layers import Dense, Network
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.emission.reuse import area, cost
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Codes, Range


def share(design: Design, network: Network, factor: int) -> Design:
    """The design with shared multipliers in the dense layers where that is smaller.

    Args:
        design: lowered from the network.
        network: its layers.
        factor: the reuse factor; nothing changes for 1.
    """
    layers = {layer.name: layer for layer in network.layers if isinstance(layer, Dense)}
    blocks = []
    for block in design.blocks:
        layer = layers.get(block.name)
        if factor > 1 and layer is not None and layer.weight.codes.shape[1] > 1:
            fraction = design.of(block.sources[0]).type.fraction
            size = sum(design.of(name).size for name in block.sources)
            other = _Products(layer, block, fraction).block(size)
            fits = all(r.magnitude_bits <= INT64_BITS for r in other.circuit.ranges)
            if fits and cost(other, factor) < area(block.circuit):
                block = other
        blocks.append(block)
    return replace(design, blocks=tuple(blocks))


class _Products:
    """One output of a matrix product, with the column of weights as inputs.

    The bounds of each sum are those of its terms in each of the outputs, joined.
    """

    def __init__(self, layer: Dense, block: Block, fraction: int) -> None:
        self.layer = layer
        self.old = block
        self.fraction = fraction + layer.weight.type.fraction
        self.weight = layer.weight.codes.astype(object)
        inputs = block.circuit.inputs
        self.ends = [self._ends(row, x) for row, x in zip(self.weight, inputs, strict=True)]
        rows = (*self.weight, layer.bias.codes)
        self.builder = Builder([*inputs, *(Range(int(r.min()), int(r.max())) for r in rows)])

    @staticmethod
    def _ends(row: Array, x: Range) -> tuple[Array, Array]:
        """The lowest and highest product in each output."""
        return np.minimum(row * x.lo, row * x.hi), np.maximum(row * x.lo, row * x.hi)

    def block(self, size: int) -> Block:
        """The block; `size` elements of the sources stand before the constants."""
        wires, n = self.builder.inputs, len(self.weight)
        known = self.builder.known
        pairs = zip(wires[:n], wires[n : 2 * n], strict=True)
        products = [self.builder.product(known(x), known(weight)) for x, weight in pairs]
        total, ends = self._tree(list(zip(products, self.ends, strict=True)))
        output = self._result(total, ends, known(wires[2 * n]))
        numbers = np.concatenate([self.layer.weight.codes, self.layer.bias.codes[None]]).T
        places = size + np.arange(numbers.size).reshape(numbers.shape)
        index: Codes = np.concatenate([np.repeat(self.old.index, len(numbers), 0), places], axis=1)
        circuit = self.builder.finish([output])
        constants = tuple(int(number) for number in numbers.reshape(-1))
        return replace(self.old, circuit=circuit, index=index, constants=constants)

    def _tree(
        self, terms: list[tuple[Wire, tuple[Array, Array]]]
    ) -> tuple[Wire, tuple[Array, Array]]:
        """The sum of all terms, two at a time."""
        while len(terms) > 1:
            pairs = list(zip(terms[::2], terms[1::2], strict=False))
            made = []
            for (x, (low, high)), (y, (lower, higher)) in pairs:
                ends = low + lower, high + higher
                within = Range(int(ends[0].min()), int(ends[1].max()))
                made.append((self.builder.plus(x, y, within=within), ends))
            terms = made + terms[2 * len(pairs) :]
        return terms[0]

    def _result(self, total: Wire, ends: tuple[Array, Array], bias: Wire) -> Wire:
        """`result(bias + total)`."""
        step = self.layer.bias.type.fraction
        finest = max(self.fraction, step)
        left, right = finest - self.fraction, finest - step
        offsets = self.layer.bias.codes.astype(object) * (1 << right)
        low, high = (end * (1 << left) + offsets for end in ends)
        within = Range(int(low.min()), int(high.max()))
        wire = self.builder.plus(total, bias, left, right, within=within)
        return self.builder.assign(wire, finest, self.layer.result)
