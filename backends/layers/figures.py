"""What is known of each hardware layer before any tool runs: ranges, spare bits, work, constants.

These are facts of the integer network, whatever backend writes it: proven bounds and counts. Bit
operations are those of `hqc.codesign.costs.tables` (Campos et al., arXiv:2304.06745): for a layer
of m outputs of n inputs each, of which a part p has the weight zero,

    positions m n ((1 - p) b_a b_w + b_a + b_w + log2 n)

with b_w bits of weights and b_a bits of each element that enters the layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.layers.layers import Conv, Dense, Layer, Network
from hqc.backends.layers.network import Reader
from hqc.diagnostics import HqcError
from hqc.numerics.types import FixedType, Range


def figures(model: Model, partition: Partition) -> dict[str, dict[str, Any]]:
    """Plain data by the name of each layer that `read_network` gives, for `report.json`.

    * `shape`: of the result per sample, channels last; `elements` is its size.
    * `range`: proven bounds of the result: `low` and `high` codes, `exponent` of their step 2**e.
    * `spare_bits`: bits of the result type that this range does not need.
    * of dense layers and convolutions: `products` (multiplications per sample, those by zero
      weights left out), `bit_operations`, `weights`, `zero_weights`, `weight_bits` (of memory) and
      `accumulator_bits`.

    Args:
        model: integer; `partition` is its own.

    Raises:
        HqcError: HQC401, the network holds what no layer of `hqc.backends.layers` does.
    """
    reader = Reader(partition)
    network = reader.read()
    if reader.found:
        raise HqcError(reader.found)
    ranges = _ranges(network, reader.ranges)
    types = {layer.name: layer.result for layer in network.layers}
    return {
        layer.name: {
            "shape": list(layer.shape),
            "elements": layer.size,
            **_bounds(layer, ranges.get(layer.name)),
            **(_work(layer, types[layer.sources[0]]) if isinstance(layer, Dense | Conv) else {}),
        }
        for layer in network.layers
    }


def spare_bits(type_: FixedType, bounds: Range) -> int:
    """Bits of a type that values within the bounds do not need: signs, high and low ones.

    It is negative where bounds leave the type, which then rounds or saturates on purpose.
    """
    return type_.width - bounds.fit().width


def _ranges(network: Network, known: Mapping[str, Range]) -> dict[str, Range]:
    """Copies for output ports have the range of what they copy."""
    found = dict(known)
    for layer in network.layers:
        if layer.name not in found and len(layer.sources) == 1 and layer.sources[0] in found:
            found[layer.name] = found[layer.sources[0]]
    return found


def _bounds(layer: Layer, bounds: Range | None) -> dict[str, Any]:
    if bounds is None:
        return {}
    return {
        "range": {"low": bounds.lo, "high": bounds.hi, "exponent": bounds.exponent},
        "spare_bits": spare_bits(layer.result, bounds),
    }


def _work(layer: Dense | Conv, entering: FixedType) -> dict[str, Any]:
    """How much a layer multiplies, and what it keeps."""
    codes = layer.weight.codes
    inputs = math.prod(codes.shape[:-1])  # of one output of one window
    positions = math.prod(layer.sliding.windows) if isinstance(layer, Conv) else 1
    active, bits = int(np.count_nonzero(codes)), (entering.width, layer.weight.type.width)
    additions = codes.size * (sum(bits) + math.log2(inputs))
    return {
        "products": positions * active,
        "bit_operations": positions * (active * bits[0] * bits[1] + additions),
        "weights": codes.size,
        "zero_weights": codes.size - active,
        "weight_bits": codes.size * layer.weight.type.width,
        "accumulator_bits": layer.accum.width,
    }
