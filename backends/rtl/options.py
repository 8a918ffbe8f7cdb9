"""Options that only the RTL backend has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RtlOptions:
    """Options of this backend, `--backend-option KEY=VALUE`.

    Attributes:
        interface: "fixed", results leave a constant number of cycles after their inputs, or
            "handshake", ready and valid on both sides, where the receiver may stall.
        latency_cutoff: longest path between registers in nanoseconds, by the backend's own
            estimate; 0 takes the clock period less a margin.
        simulator: what runs the Verilog: "verilator", "icarus", or "auto", the first that is here.
    """

    interface: Literal["fixed", "handshake"] = "fixed"
    latency_cutoff: float = 0.0
    simulator: Literal["auto", "verilator", "icarus"] = "auto"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_cutoff) and self.latency_cutoff >= 0):
            raise ValueError(f"latency_cutoff {self.latency_cutoff}: nanoseconds, 0 or more")
