"""Rounding legalisation: ports that no hardware type can round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import first_quantisers
from hqc.analysis.step_functions import Quantiser
from hqc.ir import State, location_of, nodes, replace_output
from hqc.ir.operators import MultiThreshold, Quant, is_single
from hqc.pipeline.passes import Outcome, Pass, Remark

#: A port with more codes than this is not worth a table of thresholds.
MAX_CODES = 256


@dataclass(frozen=True)
class LegalizeRounding(Pass):
    """Rewrite input quantisers that round like no hardware type into thresholds on the float.

    CEIL, UP and narrow unsigned ranges have no `ap_fixed` mode. At an input each threshold becomes
    the smallest float32 that reaches the code, which is exact for every float32. Inside the
    network nothing is to be done: there `lower-scales` turns any rounding into a floor with an
    offset, or into thresholds on the accumulator.
    """

    name: ClassVar[str] = "legalize-rounding"
    needs: ClassVar[State | None] = State.QUANTISED

    def rewrite(self, model: Model) -> Outcome:
        """Look at the first quantiser behind each input."""
        rewrites, remarks = 0, []
        firsts = first_quantisers(model)
        for node in nodes(model.graph):
            if node not in firsts or not Quant.matches(node):
                continue
            quant = Quant.read(node)
            expressible = quant.rounding.hardware is not None and (quant.signed or not quant.narrow)
            if expressible or quant.is_bipolar:
                continue
            view = _as_thresholds(quant) if not firsts[node][1].steps else None
            if view is None:
                remarks.append(Remark("declined: its thresholds are no float32", location_of(node)))
                continue
            source = node.inputs[0]
            assert source is not None
            built = view.build(model.graph, source, str(node.outputs[0].name))
            replace_output(node, (built,), self.name)
            rewrites += 1
        return Outcome(model, rewrites, tuple(remarks))


def _as_thresholds(quant: Quant) -> MultiThreshold | None:
    coder = Quantiser.of(quant)
    if coder.channels > 1 or coder.hi - coder.lo > MAX_CODES:
        return None
    scale, shift = coder.grid().at(0)
    offset = shift + coder.lo * scale
    if not is_single(offset):
        return None
    codes = range(coder.lo + 1, coder.hi + 1)
    bounds = np.array([[coder.bound(k, 0).outermost(np.float32) for k in codes]])
    return MultiThreshold(bounds, float(scale), float(offset))
