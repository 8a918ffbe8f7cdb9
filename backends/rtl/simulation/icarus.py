"""Icarus Verilog: slow, four-valued, and everywhere; what runs where there is no Verilator.

A test bench plays vectors from a file into the design and prints what it sees. Registers begin
unknown, so what depends on one shows as `x` in a result.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hqc.backends.native import checked
from hqc.backends.rtl.simulation.drive import Drive, Trace
from hqc.backends.rtl.simulation.wrapper import Interface, Wires, wrapper_text
from hqc.diagnostics import Exit, reject
from hqc.ir import Array
from hqc.numerics.types import Codes

_TIMEOUT = 1800.0
_FLAGS = ("-g2005-sv", "-Wportbind", "-s", "hqc_play")
#: Accepted samples, results and everything else that the bench prints, one line each.
_BENCH = """`default_nettype none
module hqc_play;
  reg clk = 0, rst = 0, in_valid = 1, out_ready = 1;
  reg [{x}-1:0] x = {{{x}{{1'b1}}}};
  wire in_ready, out_valid;
  wire [{y}-1:0] y;
  {wrapper} bench (.clk(clk), .rst(rst), .in_valid(in_valid), .out_ready(out_ready), .x(x),
    .in_ready(in_ready), .out_valid(out_valid), .y(y));
  reg [{x}-1:0] samples [0:{samples}-1];
  reg offer [0:{period}-1];
  reg take [0:{period}-1];
  integer cycle, quiet, accepted, produced;
  reg waiting, stalled;
  reg [{y}-1:0] held;
  initial begin
    $readmemh("samples.hex", samples);
    $readmemb("offer.bits", offer);
    $readmemb("take.bits", take);
    repeat ({settle}) begin
      #1 clk = 1;
      #1 clk = 0;
      x = ~x;
    end
    rst = 1;
    in_valid = 0;
    #1 clk = 1;
    #1 clk = 0;
    rst = 0;
    accepted = 0;
    produced = 0;
    waiting = 0;
    stalled = 0;
    quiet = 0;
    for (cycle = 0; quiet <= {patience} && !(produced >= {samples} && quiet >= {tail});
         cycle = cycle + 1) begin
      in_valid = accepted < {samples} && (waiting || offer[cycle % {period}]);
      out_ready = take[cycle % {period}];
      x = in_valid ? samples[accepted] : ~x;
      quiet = quiet + 1;
      #1;
      waiting = in_valid && in_ready !== 1'b1;
      if (in_valid && in_ready === 1'b1) begin
        $display("I %0d", cycle);
        accepted = accepted + 1;
        quiet = 0;
      end
      if (stalled && (out_valid !== 1'b1 || y !== held)) $display("U %0d", cycle);
      if (out_valid !== 1'b0 && out_ready) begin
        $display("%s %0d %h", out_valid === 1'b1 ? "O" : "X", cycle, y);
        produced = produced + 1;
        if (produced <= {samples}) quiet = 0;
      end
      stalled = out_valid === 1'b1 && !out_ready;
      held = y;
      clk = 1;
      #1 clk = 0;
    end
    $finish;
  end
endmodule
"""


def find() -> tuple[str, str] | None:
    """Paths of `iverilog` and `vvp`, or None."""
    compiler, runner = shutil.which("iverilog"), shutil.which("vvp")
    return (compiler, runner) if compiler and runner else None


def version_of(program: str) -> str:
    """Such as `Icarus Verilog 11.0`.

    Raises:
        HqcError: HQC405, it does not run.
    """
    said = checked([program, "-V"], Path(), 60.0)
    found = re.search(r"Icarus Verilog\D*([\d.]+)", said)
    return f"Icarus Verilog {found[1]}" if found else "Icarus Verilog"


@dataclass(frozen=True, eq=False)
class Icarus:
    """A project that Icarus runs.

    Attributes:
        title: product and version.
        interface: of the project.
        compiler, runner: `iverilog` and `vvp`.
    """

    title: str
    interface: Interface
    compiler: str
    runner: str
    parallel: bool = True

    def run(self, codes: Sequence[Codes], drive: Drive) -> Trace:
        """Run it once; several may run at once, in threads.

        Raises:
            HqcError: HQC405, the simulator refuses the Verilog or fails; HQC402, the ports of the
                top module are not those of `rtl.json`.
        """
        with tempfile.TemporaryDirectory(prefix="hqc-icarus-") as folder:
            work = Path(folder)
            self._write(work, codes, drive)
            self._translate(work)
            said = checked([self.runner, "-n", "bench.vvp"], work, _TIMEOUT)
        return self._trace(said, len(codes[0]))

    def _write(self, work: Path, codes: Sequence[Codes], drive: Drive) -> None:
        bits = [
            sum(w.bits for w in side) for side in (self.interface.inputs, self.interface.outputs)
        ]
        bench = _BENCH.format(
            x=bits[0],
            y=bits[1],
            wrapper=self.interface.wrapper,
            samples=len(codes[0]),
            period=len(drive.offer),
            settle=drive.settle,
            patience=drive.patience,
            tail=drive.tail,
        )
        (work / "bench.v").write_text(wrapper_text(self.interface) + bench, encoding="utf-8")
        words = "\n".join(_hex(row) for row in _rows(self.interface.inputs, codes))
        (work / "samples.hex").write_text(words + "\n", encoding="ascii")
        for name, pattern in (("offer", drive.offer), ("take", drive.take)):
            text = "\n".join(map(str, pattern.tolist()))
            (work / f"{name}.bits").write_text(text + "\n", encoding="ascii")

    def _translate(self, work: Path) -> None:
        sources = [str(path.resolve()) for path in self.interface.sources]
        command = [self.compiler, *_FLAGS, "-o", "bench.vvp", "bench.v", *sources]
        said = checked(command, work, _TIMEOUT)
        misfits = [line for line in said.splitlines() if line.startswith("bench.v:")]
        if misfits:
            raise reject(
                "HQC402",
                f"the ports of module {self.interface.top} are not those that rtl.json states",
                notes=tuple(misfits[:4]),
            )

    def _trace(self, said: str, samples: int) -> Trace:
        events = [
            line.split() for line in said.splitlines() if line[:2] in ("I ", "O ", "X ", "U ")
        ]
        accepted = np.array([int(e[1]) for e in events if e[0] == "I"], np.int64)
        came = [e for e in events if e[0] in "OX"]
        unknown = sum(e[0] == "X" or not _is_hex(e[2]) for e in came)
        words = [e[2] if _is_hex(e[2]) else "0" for e in came[:samples]]
        results = _codes(self.interface.outputs, words, samples)
        produced = np.array([int(e[1]) for e in came[:samples]], np.int64)
        unstable = sum(e[0] == "U" for e in events)
        extra = max(0, len(came) - samples)
        return Trace(accepted, produced, results, extra, unstable, unknown)


def load(interface: Interface) -> Icarus:
    """A project ready to run; nothing is compiled yet.

    Raises:
        HqcError: HQC404, Icarus is not here; HQC405, it does not run.
    """
    tools = find()
    if tools is None:
        raise reject("HQC404", "Icarus Verilog is not here", exit_=Exit.TOOL)
    return Icarus(version_of(tools[0]), interface, *tools)


# --- vectors --------------------------------------------------------------------------------


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]+", text) is not None


def _hex(bits: Array) -> str:
    """Hexadecimal of bits, the lowest first."""
    packed = np.packbits(bits, bitorder="little")[::-1]
    return packed.tobytes().hex()


def _rows(ports: Sequence[Wires], codes: Sequence[Codes]) -> Array:
    """(N, bits): every sample as the bits of the bus, the lowest first."""
    parts = []
    for wires, array in zip(ports, codes, strict=True):
        places = np.arange(wires.width, dtype=np.int64)
        bits = (array[:, :, None] >> places) & 1
        parts.append(bits.reshape(len(array), -1).astype(np.uint8))
    return np.concatenate(parts, axis=1)


def _codes(ports: Sequence[Wires], words: Sequence[str], samples: int) -> tuple[Codes, ...]:
    """Codes (N, size) of each port, from the bus in hexadecimal; zero where no word came."""
    total = sum(w.bits for w in ports)
    bus = np.zeros((samples, total), np.int64)
    for row, word in enumerate(words):
        data = int(word, 16).to_bytes(total // 8 + 1, "little")
        bus[row] = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:total]
    found, first = [], 0
    for wires in ports:
        bits = bus[:, first : first + wires.bits].reshape(samples, wires.size, wires.width)
        weights = np.left_shift(np.int64(1), np.arange(wires.width, dtype=np.int64))
        if wires.signed:
            weights[-1] = -weights[-1]
        found.append((bits * weights).sum(axis=2))
        first += wires.bits
    return tuple(found)
