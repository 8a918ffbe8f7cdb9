"""Random quantised graphs through every executor and pass: find where anything disagrees.

    python tools/fuzz.py --graphs 500 --seed 7
    python tools/fuzz.py --graphs 60 --emulate vitis,catapult,rtl

Each graph is run by qonnx as it came, by the exact reference on every state of the pipeline, by
qonnx on those states, and by the fast executor; all must agree bit for bit, float32 differing only
on samples that it provably cannot decide. With --emulate, the C++ or Verilog of the backends must
agree, too. A failure is shrunk and written as text, ready for tests/regressions/.

Exit status: 0 if nothing failed, 3 if something did, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OK, USAGE, FAILED = 0, 2, 3
#: What a worker may take beyond the time it was given, in seconds.
GRACE = 900.0


def main() -> int:
    """Run workers, gather what they print, and sum it up."""
    asked = _parser().parse_args()
    deadline = time.time() + 60 * asked.minutes
    begun = time.perf_counter()
    records = _run(asked, deadline)
    figures = summarise(records)
    figures["seed"], figures["minutes"] = asked.seed, round((time.perf_counter() - begun) / 60, 2)
    if asked.format == "json":
        print(json.dumps(figures, indent=2))
    else:
        print(_text(figures))
    return FAILED if figures["failures"] else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the run; graph n has seed S*10^6+n")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after that long")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--emulate", default="", help="backends, as in vitis,catapult,rtl")
    parser.add_argument("--io", default="io_parallel", help="io_parallel or io_stream")
    parser.add_argument("--batch", type=int, default=24, help="graphs of one compilation")
    parser.add_argument("--no-shrink", action="store_true", help="write failures as they are")
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"), help="their folder")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    return parser


def _run(asked: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """What all workers said; one that died counts as a failure."""
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    workers = []
    for job in range(asked.jobs):
        command = [sys.executable, "-m", "fuzzing.worker", "--seed", str(asked.seed)]
        command += ["--indices", f"{job}:{asked.graphs}:{asked.jobs}"]
        command += ["--deadline", str(deadline), "--folder", str(asked.failures.resolve())]
        command += ["--shrink", str(int(not asked.no_shrink))]
        if asked.emulate:
            command += ["--emulate", asked.emulate, "--io", asked.io, "--batch", str(asked.batch)]
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed below
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        workers.append((process, output, errors))
    records: list[dict[str, Any]] = []
    for process, output, errors in workers:
        try:
            status = process.wait(max(1.0, deadline - time.time()) + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        output.seek(0)
        errors.seek(0)
        records += [json.loads(line) for line in output if line.startswith("{")]
        if status:
            last = errors.read().splitlines()[-12:]
            records.append({"seed": -1, "failure": f"a worker ended with {status}", "error": last})
        output.close()
        errors.close()
    return records


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of a run."""
    failures = [r for r in records if "failure" in r]
    graphs = [r for r in records if "failure" not in r and "refused" in r]
    compiled = [r for r in graphs if not r["refused"]]
    refused: Counter[str] = Counter(r["refused"][0] for r in graphs if r["refused"])
    reasons: dict[str, dict[str, Any]] = {}
    for record in graphs:
        if record["refused"]:
            reason = reasons.setdefault(_reason(record["message"]), {"count": 0, "seeds": []})
            reason["count"] += 1
            reason["seeds"] = [*reason["seeds"], record["seed"]][:5]
    kinds: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    for record in compiled:
        kinds.update(record["kinds"])
        operators.update(record["operators"])
    emulated: dict[str, Counter[str]] = {}
    for record in records:
        for name, found in record.get("emulated", {}).items():
            emulated.setdefault(name, Counter()).update(found)
    return {
        "graphs": len(graphs) + len(failures),
        "compiled": len(compiled),
        "refused": dict(refused),
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1]["count"])),
        "values": sum(r["values"] for r in compiled),
        "float32": dict(kinds),
        "operators": dict(operators.most_common()),
        "emulated": {name: dict(found) for name, found in emulated.items()},
        "failures": failures,
    }


def _reason(message: str) -> str:
    words = message.splitlines()[0].split()
    return " ".join("*" if any(c.isdigit() for c in w) and "HQC" not in w else w for w in words)


def _text(figures: dict[str, Any]) -> str:
    lines = [
        f"seed {figures['seed']}: {figures['graphs']} graphs in {figures['minutes']} min",
        f"  compiled, every executor agrees on every state: {figures['compiled']} "
        f"({figures['values']} output values)",
        f"  refused with a reason: {sum(figures['refused'].values())}  {figures['refused']}",
    ]
    lines += [f"    {v['count']:5}  {k}  {v['seeds']}" for k, v in figures["reasons"].items()]
    lines.append(f"  samples float32 cannot decide, all proven: {figures['float32']}")
    for name, found in figures["emulated"].items():
        lines.append(f"  emulated on {name}: {found}")
    lines.append(f"  failures: {len(figures['failures'])}")
    for failure in figures["failures"]:
        lines.append(f"    {failure['seed']}  {failure['failure']}  {failure.get('file', '')}")
        lines += [f"      {line}" for line in failure["error"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
