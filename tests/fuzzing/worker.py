"""One process of a fuzzing run: graphs by seed, one line of JSON on stdout for each."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from support.differential import Agreement, Checks, check

from fuzzing import regression
from fuzzing.choices import Choices
from fuzzing.emulate import Graph, emulate
from fuzzing.maker import FEATURES
from fuzzing.networks import network
from fuzzing.shrink import shrink
from hqc.pipeline.backend import BackendOptions
from hqc.pipeline.registry import Registry

#: A graph that takes longer than this, in seconds, is a failure, too.
PATIENCE = 120
SHRINKING = 150.0


def seed_of(run: int, index: int) -> int:
    """The seed of one graph of a run."""
    return run * 1_000_000 + index


def main() -> int:
    """Check graphs until the count or the time is used up; 0 whatever they show."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--indices", required=True, help="first:end:step")
    parser.add_argument("--deadline", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--folder", type=Path, required=True, help="where failures are written")
    parser.add_argument("--shrink", type=int, default=1)
    parser.add_argument("--emulate", default="")
    parser.add_argument("--io", default="io_parallel")
    parser.add_argument("--batch", type=int, default=24)
    asked = parser.parse_args()
    pool: list[Graph] = []
    for index in range(*map(int, asked.indices.split(":"))):
        if time.time() > asked.deadline:
            break
        seed = seed_of(asked.seed, index)
        # graphs are compiled together, so they are all of one version of the operators
        features = FEATURES - {"opsets"} if asked.emulate else FEATURES
        record = examine(seed, asked.folder, features, shrinks=bool(asked.shrink))
        print(json.dumps(record), flush=True)
        if asked.emulate and "failure" not in record and not record["refused"]:
            pool.append(Graph(seed, network(Choices.seeded(seed), features)))
        if len(pool) >= asked.batch:
            _emulate(pool, asked)
            pool = []
    if pool:
        _emulate(pool, asked)
    return 0


def _emulate(pool: list[Graph], asked: argparse.Namespace) -> None:
    """The C++ of all pooled graphs; a line for each backend, and one for each failure."""
    for name in asked.emulate.split(","):
        found = emulate(pool, Registry.builtin().backends[name], BackendOptions(io=asked.io))
        figures = {f"{name} {asked.io}": {**found.figures, "values": found.values}}
        print(json.dumps({"emulated": figures, "reasons": found.refused}), flush=True)
        for graph in pool:
            if graph.seed not in found.failed:
                continue
            why = found.failed[graph.seed]
            path = asked.folder / f"{name}_{graph.seed}.hqir"
            regression.write(graph.proto, path, f"{name} {asked.io}: {why.splitlines()[0]}")
            record = {"seed": graph.seed, "failure": f"{name}: {why[:100]}", "file": str(path)}
            print(json.dumps(record | {"error": why.splitlines()[:12]}), flush=True)


def examine(
    seed: int, folder: Path, features: frozenset[str] = FEATURES, *, shrinks: bool = True
) -> dict[str, Any]:
    """One graph through the chain; a failure is shrunk and written down."""
    choose = Choices.seeded(seed)
    begun = time.perf_counter()
    proto = network(choose, features)
    try:
        found = agreed(proto, seed)
    except Exception as error:  # noqa: BLE001 whatever it raises is what is looked for
        signature = signature_of(error)
        record = {"seed": seed, "failure": signature, "error": _last_lines(error)}
        made = _shrunk(choose.made, seed, features, signature) if shrinks else choose.made
        small = network(Choices.replay(made), features)
        path = folder / f"graph_{seed}.hqir"
        regression.write(small, path, f"{signature}\ndecisions {list(made)}")
        return record | {"file": str(path), "nodes": len(small.graph.node)}
    return {
        "seed": seed,
        "seconds": round(time.perf_counter() - begun, 3),
        "nodes": len(proto.graph.node),
        "operators": sorted({n.op_type for n in proto.graph.node}),
        "refused": list(found.refused),
        "message": found.message,
        "values": found.compared,
        "kinds": dict(found.kinds),
    }


def agreed(proto: onnx.ModelProto, seed: int) -> Agreement:
    """The chain on one graph.

    In qonnx's executor half of the graphs run after every pass, the others after the last; one in
    eight is checked with its text form and with the contracts of the passes, too.
    """
    thorough, states = seed % 8 == 0, seed % 2 == 0
    checks = Checks(
        samples=16, seed=seed, contracts=thorough, text=thorough, states=states, backends=False
    )
    with tempfile.TemporaryDirectory() as folder, _patience(PATIENCE):
        return check(proto, Path(folder), checks)


def signature_of(error: Exception) -> str:
    """What kind of failure it is: its type and message without names and numbers."""
    text = re.sub(r"[\w./]*\d[\w./]*", "#", str(error).split("\n")[0])
    return f"{type(error).__name__}: {text[:80]}"


def _shrunk(made: Sequence[int], seed: int, features: frozenset[str], signature: str) -> list[int]:
    def fails(candidate: Sequence[int]) -> list[int] | None:
        choose = Choices.replay(candidate)
        proto = network(choose, features)
        try:
            agreed(proto, seed)
        except Exception as error:  # noqa: BLE001 as in `examine`
            return choose.made if signature_of(error) == signature else None
        return None

    return shrink(made, fails, SHRINKING)


def _last_lines(error: Exception) -> list[str]:
    lines = traceback.format_exception(error)
    return [line.rstrip() for line in "".join(lines).splitlines()][-12:]


@contextlib.contextmanager
def _patience(seconds: int) -> Iterator[None]:
    """Raise TimeoutError when the body takes longer; where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"took longer than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
