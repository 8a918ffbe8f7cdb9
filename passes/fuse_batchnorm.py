"""Batch-norm fusion that never leaves the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx_ir import Model, Node

from hqc.analysis.chain_steps import chain_step
from hqc.ir import State, location_of, nodes, replace_output
from hqc.ir.names import kept_names
from hqc.ir.operators import is_single
from hqc.numerics.monotone_chain import Affine
from hqc.pipeline.node_builder import NodeBuilder
from hqc.pipeline.passes import Outcome, Pass, Remark


@dataclass(frozen=True)
class FuseBatchNorm(Pass):
    """Turn batch norms into a factor and an offset per channel, where float32 holds both exactly.

    Folding gamma / sqrt(var + epsilon) into weights that already lie on a grid would move them
    off it, so a batch norm whose factor has to be rounded is declined: `lower-scales` folds it,
    unrounded, into the requantiser that follows.
    """

    name: ClassVar[str] = "fuse-batchnorm"
    needs: ClassVar[State | None] = State.QUANTISED

    def rewrite(self, model: Model) -> Outcome:
        """One sweep."""
        with kept_names(model.graph):
            return self._sweep(model)

    def _sweep(self, model: Model) -> Outcome:
        rewrites, remarks = 0, []
        for node in nodes(model.graph):
            if node.op_type != "BatchNormalization" or node.domain != "":
                continue
            step = chain_step(node)
            if not isinstance(step, Affine):
                continue
            if not all(is_single(x) for x in (*step.a, *step.b)):
                reason = "its factor would have to be rounded: left to the requantiser behind it"
                remarks.append(Remark(f"declined: {reason}", location_of(node)))
                continue
            _replace(model, node, step)
            rewrites += 1
        return Outcome(model, rewrites, tuple(remarks))


def _replace(model: Model, node: Node, step: Affine) -> None:
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    rank = len(out.shape) if out.shape is not None else 2
    new = NodeBuilder(model.graph, str(node.name), out)
    value = source
    for op, numbers, unit in (("Mul", step.a, 1), ("Add", step.b, 0)):
        if all(x == unit for x in numbers) and not (op == "Add" and not new.nodes):
            continue
        array = np.array([float(x) for x in numbers], np.float32)
        shaped = array.reshape(1, -1, *(1,) * (rank - 2))
        value = new.add(op, (value, new.constant(shaped, op.lower())), op)
    replace_output(node, new.nodes, FuseBatchNorm.name)
