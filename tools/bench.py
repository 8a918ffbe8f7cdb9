"""Run the comparisons with other tools, and write docs/benchmarks.md from what they print.

    python tools/bench.py                    all of them, 10 to 20 minutes of one core
    python tools/bench.py --only hessian     this one; the page's other sections stay
    python tools/bench.py --small -o x.md    each in seconds: do they run?

Each benchmark is a script of its own, run as a process with `-f json`. One that fails, or whose
peers are not installed, ends the run. Exit status: 0, 1 if a benchmark fails, 2 for wrong usage, 4
if a peer is missing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from comparison import Comparison, number, versioned

from hqc.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
TIMEOUT = 7200.0
HEAD = """# Benchmarks

Made by `make bench`: each section is what one script printed, at its date. A ratio compares hqc
with the best peer of the same run: above 1 hqc is better, below 1 it is *behind*. Only ratios
carry over to other machines. Every side gets one thread; times on a machine that does other work
beside it vary by 10 to 20 %.

Not in here, because they take hours: what the Hessian's bit widths are worth
([study.md](study.md), `examples/jets/study.py`), the cells of sky130 beside published ones
([sky130.md](sky130.md), `tools/sky130/characterise.py`), and the fit of the quick estimate
([hardware.md](hardware.md), `tools/measure_layers.py` and `tools/fit_cost.py`).
"""


class BenchError(Exception):
    """A benchmark did not run; the exit status is the second argument."""


@dataclass(frozen=True)
class Benchmark:
    """One script and its section.

    Attributes:
        name: on the command line.
        title: of the section.
        about: what is compared, in a sentence or two.
        script: below `tools/`.
        render: its JSON as lines of Markdown.
        options: for the page.
        small: for seconds.
        needs: Python modules of the peers, and how each is installed.
    """

    name: str
    title: str
    about: str
    script: str
    render: Callable[[Any], list[str]]
    options: tuple[str, ...] = ()
    small: tuple[str, ...] = ("--small",)
    needs: tuple[tuple[str, str], ...] = ()

    def missing(self) -> list[str]:
        """What has to be installed first."""
        return [package for module, package in self.needs if find_spec(module) is None]


def compared(document: Mapping[str, Any]) -> list[str]:
    """A `Comparison` as a table, one line for a figure."""
    found = Comparison.of(document)
    lines = [
        found.setting,
        "",
        "| | hqc | peers | ratio to the best | |",
        "|---|---:|---|---:|---|",
    ]
    for figure in found.figures:
        peers = "; ".join(f"{name}: {number(value)}" for name, value in figure.peers.items())
        verdict = "**behind**" if figure.verdict == "behind" else figure.verdict
        ratio, ours = f"{figure.ratio:,.2f}", number(figure.ours)
        lines.append(f"| {figure.what} | {ours} | {peers} | {ratio} | {verdict} |")
    lines += ["", *(f"- {note}" for note in found.notes)] if found.notes else []
    return [*lines, "", f"{versioned(found.tools)}."]


def grown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seconds by size of network: the time per node of the largest over that of the smallest."""
    steps: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        steps.setdefault((row["network"], row["step"]), []).append(row)
    lines = ["| network | step | nodes | seconds | time per node, largest over smallest |"]
    lines.append("|---|---|---:|---:|---:|")
    for (network, step), found in steps.items():
        found.sort(key=lambda row: row["nodes"])
        nodes = ", ".join(str(row["nodes"]) for row in found)
        seconds = ", ".join(number(row["seconds"]) for row in found)
        growth = found[-1]["per_node_us"] / found[0]["per_node_us"]
        lines.append(f"| {network} | {step} | {nodes} | {seconds} | {growth:.2f} |")
    return lines


_HARDWARE = (
    ("pyosys", "pyosys"),
    ("da4ml", "da4ml"),
    ("alkaid", "alkaid"),
)
BENCHMARKS = (
    Benchmark(
        "emulation",
        "Emulation and exact execution",
        "A compiled network run on the host, beside hls4ml's `predict` and qonnx's executor.",
        "bench_emulation.py",
        compared,
        small=("--small", "--backends", "catapult"),
        needs=(("hls4ml", "hls4ml"), ("qonnx", "qonnx")),
    ),
    Benchmark(
        "hessian",
        "Traces of the Hessian",
        "Time until the trace of every layer is known to the same standard error.",
        "bench_hessian.py",
        compared,
        needs=(("pyhessian", "--no-deps PyHessian==0.1"),),
    ),
    Benchmark(
        "hardware",
        "Verilog",
        "The same integer network through one script of one Yosys, whole. da4ml and alkaid round "
        "ties up where the model rounds them to even, which costs less logic.",
        "bench_hardware.py",
        compared,
        options=("--styles", "hqc,da4ml,alkaid,csd,multiply"),
        small=("--small", "--styles", "hqc,da4ml,alkaid,csd,multiply"),
        needs=_HARDWARE,
    ),
    Benchmark(
        "sparse",
        "Verilog of a sparse network",
        "The same with few weights. Networks as HGQ2 trains them, with widths that differ from "
        "element to element, are not in these figures.",
        "bench_hardware.py",
        compared,
        options=("--seed", "8", "--zeros", "0.8", "--styles", "hqc,da4ml,alkaid,csd"),
        small=("--small", "--styles", "hqc,alkaid"),  # as `hardware`: the options are what differs
        needs=_HARDWARE,
    ),
    Benchmark(
        "quick",
        "Predicted LUTs",
        "`hqc estimate --quick` beside what other tools say that their own logic costs.",
        "bench_quick.py",
        compared,
        needs=_HARDWARE,
    ),
    Benchmark(
        "passes",
        "How passes grow",
        "No peer: a step is linear where its time per node does not grow with the network.",
        "bench_passes.py",
        grown,
        options=("--rounds", "2"),  # the first call of a process loads what it needs
        small=("21", "41", "--no-verify"),
    ),
)


def main() -> int:
    """Run, and write the page; returns the exit status."""
    words = parser()
    given = words.parse_args()
    if given.small and given.output == PAGE:
        words.error("--small is no benchmark: say with -o where its page goes")
    chosen = [b for b in BENCHMARKS if not given.only or b.name in given.only]
    page = given.output.read_text(encoding="utf-8") if given.output.exists() else ""
    try:
        for benchmark in chosen:
            print(f"{benchmark.name} ...", file=sys.stderr, flush=True)
            options = benchmark.small if given.small else benchmark.options
            text = section(benchmark, options, run(benchmark, options))
            page = with_section(page, benchmark, text)
            given.output.write_text(page, encoding="utf-8")  # what is finished stays
    except BenchError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return int(error.args[1])
    print(f"wrote {given.output}", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [benchmark.name for benchmark in BENCHMARKS]
    found.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    found.add_argument("--small", action="store_true", help="sizes of seconds, to see them run")
    found.add_argument("-o", "--output", type=Path, default=PAGE, help="the page")
    return found


def run(benchmark: Benchmark, options: Sequence[str]) -> Any:
    """The JSON that the script printed."""
    script = ROOT / "tools" / benchmark.script
    if not script.exists():
        raise BenchError(f"{benchmark.name}: there is no {script.relative_to(ROOT)}", 1)
    missing = benchmark.missing()
    if missing:
        packages = " ".join(missing)
        raise BenchError(f"{benchmark.name}: a peer is missing: pip install {packages}", 4)
    command = [sys.executable, str(script), *options, "-f", "json"]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{benchmark.name}: not finished after {TIMEOUT:g} s", 1) from None
    if done.returncode:
        raise BenchError(f"{benchmark.name}: exit status {done.returncode}, see above", 1)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise BenchError(f"{benchmark.name}: what it printed is no JSON: {error}", 1) from None


def section(benchmark: Benchmark, options: Sequence[str], document: Any) -> str:
    """Its Markdown, without the marks around it."""
    told = "\n".join(benchmark.render(document))
    command = " ".join((f"tools/{benchmark.script}", *options))
    made = f"{datetime.datetime.now(tz=datetime.UTC).date()}, {machine()}; `{command}`."
    return f"## {benchmark.title}\n\n{benchmark.about}\n\n{told}\n\n{made}\n"


def with_section(page: str, benchmark: Benchmark, text: str) -> str:
    """The page with this section anew, all in the order of the benchmarks."""
    pattern = r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->"
    sections = dict(re.findall(pattern, page, re.S)) | {benchmark.name: text}
    known = [b.name for b in BENCHMARKS if b.name in sections]
    parts = [f"<!-- begin {name} -->\n{sections[name]}<!-- end {name} -->\n" for name in known]
    return "\n".join((HEAD, *parts))


def machine() -> str:
    """Processor, cores that may be used, Python and hqc."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.M) if info.exists() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return f"{name}, {cores} cores, Python {platform.python_version()}, hqc {__version__}"


if __name__ == "__main__":
    sys.exit(main())
