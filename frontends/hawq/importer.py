"""HAWQ checkpoints to the IR's quantised state: an ONNX + QONNX graph on integer codes.

Weights and biases are HAWQ's integers, activations its codes; every `Quant` has scale 1. The input
is multiplied by the reciprocal of its scale in float32, requantisers are products with dyadic
constants in float64, and the last accumulator is scaled in float32, as HAWQ does it. Convolutions
are `Conv` and `Add` of integers, pooling works on codes, and both parts of a residual sum are
requantised by multipliers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Model

from hqc.frontends.hawq.graph import build
from hqc.frontends.hawq.network import Network
from hqc.frontends.hawq.state import arrays
from hqc.frontends.hawq.structure import sequential


def load(
    state_dict: Mapping[str, Any],
    structure: Any = None,
    *,
    config: Mapping[str, Any] | None = None,
) -> Model:
    """Translate a state dict of the original HAWQ into a graph that computes the same codes.

    Args:
        state_dict: tensors by name, as HAWQ's modules write them; `module.` prefixes are dropped.
        structure: a module whose forward gives the order: of HAWQ's layers (their calls say which
            scales they pass on), or the float module they were made from. None takes the order
            of the state dict, for a plain MLP.
        config: what the training knew, where the state dict leaves it open: `weight_bit`,
            `bias_bit`, `act_bit`, `input_bit`, `quant_mode`, and `pass_weight_scale`, whether
            activations are told the scale of the weights in front. The training scripts of the
            HAWQ jet tagger do not tell them, so that they round twice. A class of HAWQ's layers
            says so itself; else the configuration must. `input_shape`, of one sample, is needed
            where convolutions read images of a size that no linear layer fixes; an attribute of
            the same name of `structure` does as well.

    Raises:
        HqcError: HQC601 the state dict does not fit the structure, or bits cannot be told; HQC602
            a layer has no exact form here, or the size of images is not known; HQC105 NaN or
            infinity.
    """
    return build(parse(state_dict, structure, config=config))


def parse(
    state_dict: Mapping[str, Any],
    structure: Any = None,
    *,
    config: Mapping[str, Any] | None = None,
) -> Network:
    """Read a state dict as plain data; `hqc.frontends.hawq.evaluate` runs it in numpy.

    Arguments and errors as for `load`.
    """
    state = arrays(
        {k: v for k, v in state_dict.items() if np.ndim(v) > 0 or "num_batches" not in k}
    )
    if structure is None:
        return sequential(state, config or {})
    from hqc.frontends.hawq.trace import trace

    return trace(structure, state, config or {})
