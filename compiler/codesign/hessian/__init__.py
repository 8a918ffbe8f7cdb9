"""How much the loss rises when weights or activations move: Hessian and Fisher traces, spectra.

Only a model, samples and a loss are known here; widths and budgets are not.
"""

from __future__ import annotations

from hqc.codesign.hessian.objective import Samples, Weights
from hqc.codesign.hessian.sensitivity import Sensitivity, hessian_traces

__all__ = ["Samples", "Sensitivity", "Weights", "hessian_traces"]
