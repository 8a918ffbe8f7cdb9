"""`hqc opt`: passes over a model, and everything to watch them by."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_ir import Model

from hqc import driver, ir, pipeline
from hqc.artifact.assemble import Tracer
from hqc.cli.console import Console
from hqc.cli.result import Result, table
from hqc.debugging.bisect import text_diff
from hqc.diagnostics import reject
from hqc.equivalence.samples import probes
from hqc.equivalence.translation_validation import against_oracle
from hqc.ir import Array
from hqc.ir.array_files import cannot_write
from hqc.pipeline import PassEvent
from hqc.pipeline.options import closest, parse_input_types, usage
from hqc.pipeline.registry import Registry
from hqc.pipeline.reproducer import check_packages
from hqc.text import Repeat, Step, parse_pipeline, print_module, print_pipeline

#: Samples on which --verify-each runs qonnx after each pass.
ORACLE_SAMPLES = 32
DUMP = "dump.json"


def registry_of(options: Namespace, console: Console) -> Registry:
    """What is installed, and the passes of the files given with -P, which are run."""
    registry = Registry.default()
    console.diagnostics(tuple(registry.broken.values()))
    for path in options.passes_from:
        fresh = registry.with_files([path])
        names = [name for name in fresh.passes if name not in registry.passes]
        console.line(f"{path} is run: {', '.join(names)}")
        registry = fresh
    if record := getattr(options, "reproducer", None):
        console.diagnostics(check_packages(Path(record), registry))
    return registry


def loaded_for(options: Namespace) -> tuple[Model, dict[str, Any] | None]:
    """The model in the quantised state (or as it is, if it is integer), and the user's samples."""
    loaded, given = driver.prepare(
        options.model,
        hawq_model=options.hawq_model,
        samples=options.samples,
        quantise=options.quantise,
        input_types=parse_input_types(options.input_type),
    )
    return loaded.model, given


def opt_command(options: Namespace, console: Console) -> Result:
    """`hqc opt`."""
    registry = registry_of(options, console)
    steps = driver.steps_of(options.pipeline)
    for option in ("print_before", "print_after", "print_diff"):
        wanted = getattr(options, option)
        if wanted not in (None, "all", *registry.passes):
            flag = f"--{option.replace('_', '-')}"
            raise usage(f"{flag} {wanted}: no such pass", *closest(wanted, registry.passes))
    if options.output and Path(options.output).suffix not in (".onnx", ".hqir"):
        raise usage(f"{options.output}: the graph goes to .onnx or .hqir")
    if options.start_after is not None and not options.dump_dir:
        raise usage("--start-after N goes on from what --dump-dir DIR holds")
    model, given = loaded_for(options)
    dump = None
    if options.dump_dir:
        digest = hashlib.sha256(ir.to_bytes(model)).hexdigest()
        dump = _Dump(Path(options.dump_dir), digest, print_pipeline(steps))
        if options.start_after is None:
            dump.begin(model, steps)
        else:
            model, steps = dump.resume(options.start_after)
    watcher = _Watcher(options, Tracer(console.watch, keep=False), dump)
    if options.verify_each:
        watcher.oracle = probes(model, given, options.seed, ORACLE_SAMPLES)
    result = pipeline.run(
        model,
        steps,
        registry,
        samples=given,
        seed=options.seed,
        verify=not options.no_verify,
        on_event=watcher.event,
        pass_timeout=options.pass_timeout,
    )
    parts = []
    if options.timing:
        parts.append(_timing(result.records))
    if options.stats:
        parts.append(_stats(result.records))
    if options.output:
        _write(Path(options.output), result.model)
    elif not parts and not watcher.printed and dump is None:
        parts.append(print_module(result.model))
    document = {
        "pipeline": print_pipeline(steps),
        "passes": [
            {
                "pass": r.step,
                "seconds": r.seconds,
                "rewrites": r.rewrites,
                "rules": dict(Counter(change.rule for change in r.changes)),
                "remarks": [str(m) for m in r.remarks],
            }
            for r in result.records
        ],
        "text": print_module(result.model),
    }
    return Result("\n\n".join(parts).rstrip(), document)


@dataclass
class _Watcher:
    """Prints, dumps and verifies as passes begin and end: what a failing one got is seen too."""

    options: Namespace
    tracer: Tracer
    dump: _Dump | None
    oracle: dict[str, Array] | None = None
    printed: bool = False
    before: bytes = b""

    def event(self, event: PassEvent) -> None:
        """What the pipeline calls."""
        self.tracer.event(event)
        if event.record is None:
            self.before = ir.to_bytes(event.model) if self.options.print_diff else b""
            if self.options.print_before in ("all", event.name):
                self._print(f"// before {event.name}", print_module(event.model))
            return
        if self.options.print_after in ("all", event.name):
            self._print(f"// after {event.name}", print_module(event.model))
        if self.options.print_diff in ("all", event.name):
            before = ir.from_bytes(self.before, event.name)
            sides = f"before {event.name}", f"after {event.name}"
            text = text_diff(before, event.model, *sides)
            self._print(text or f"// {event.name} changes nothing")
        if self.dump is not None:
            self.dump.add(event.name, event.model, event.rest)
        if self.oracle is not None:
            _against_qonnx(event, self.oracle)

    def _print(self, *texts: str) -> None:
        self.printed = True
        if self.options.format == "text":
            print("\n".join(texts).rstrip(), end="\n\n", flush=True)


def _against_qonnx(event: PassEvent, inputs: dict[str, Array]) -> None:
    found = against_oracle(event.model, inputs)
    if not found.proven:
        raise reject(
            "HQC303",
            f"after {event.name}, qonnx computes something else: {found.first}",
            notes=(f"{found.unexplained} of {found.samples} samples differ without a reason",),
        )


@dataclass
class _Dump:
    """A folder `NN-pass.onnx`, `NN-pass.hqir`, and what remained to be done after each."""

    folder: Path
    digest: str
    pipeline: str
    states: list[dict[str, str]] = field(default_factory=list)

    def begin(self, model: Model, steps: Sequence[Step | Repeat]) -> None:
        """Start anew, in a folder that is empty or a dump."""
        known = (self.folder / DUMP).is_file()
        if self.folder.exists() and not known and any(self.folder.iterdir()):
            raise reject("HQC004", f"{self.folder} is not empty, and no dump of hqc opt")
        if known:
            self._forget(_read(self.folder)["states"])
        self.add("input", model, tuple(steps))

    def resume(self, after: int) -> tuple[Model, tuple[Step | Repeat, ...]]:
        """The state after that many passes, and the passes that follow it."""
        found = _read(self.folder)
        if (found["model"], found["pipeline"]) != (self.digest, self.pipeline):
            raise usage(
                f"{self.folder} holds a run of another model or pipeline",
                f"its pipeline is {found['pipeline']}",
                "a single state can be used on its own: hqc opt DIR/NN-pass.onnx -p ...",
            )
        states = found["states"]
        if not 0 <= after < len(states):
            raise usage(f"--start-after {after}: {self.folder} holds 0 to {len(states) - 1}")
        self.states = states[: after + 1]
        self._forget(states[after + 1 :])
        model = ir.load(self.folder / f"{self.states[-1]['file']}.onnx")
        return model, parse_pipeline(self.states[-1]["rest"])

    def add(self, name: str, model: Model, rest: tuple[Step | Repeat, ...]) -> None:
        """Write the graph at this moment."""
        file = f"{len(self.states):02d}-{name}"
        self.states.append({"file": file, "rest": print_pipeline(rest)})
        document = {"model": self.digest, "pipeline": self.pipeline, "states": self.states}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{file}.onnx").write_bytes(ir.to_bytes(model))
            (self.folder / f"{file}.hqir").write_text(print_module(model), encoding="utf-8")
            (self.folder / DUMP).write_text(json.dumps(document, indent=2) + "\n")
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _forget(self, states: Sequence[dict[str, str]]) -> None:
        for state in states:
            for suffix in (".onnx", ".hqir"):
                (self.folder / f"{state['file']}{suffix}").unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / DUMP).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"model", "pipeline", "states"} <= found.keys():
            raise ValueError("its entries are not those of a dump")
    except (OSError, ValueError) as error:
        raise reject("HQC006", f"{folder} holds no dump of hqc opt: {error}") from error
    return found


def _timing(records: Sequence[Any]) -> str:
    rows = [(r.name, f"{r.seconds:.3f} s", f"{r.rewrites} rewrites") for r in records]
    total = sum(r.seconds for r in records)
    return table([*rows, ("total", f"{total:.3f} s", "")])


def _stats(records: Sequence[Any]) -> str:
    """Rewrites and remarks by pass, and by rule where a pass keeps count."""
    rows = []
    for r in records:
        rows.append((r.step, f"{r.rewrites} rewrites", f"{len(r.remarks)} remarks"))
        rewritten = Counter(change.rule for change in r.changes)
        remarked = Counter(remark.rule for remark in r.remarks if remark.rule)
        rows += [
            (f"  {rule}", f"{rewritten[rule]} rewrites", f"{remarked[rule]} remarks")
            for rule in dict.fromkeys((*rewritten, *remarked))
        ]
    return table(rows)


def _write(path: Path, model: Model) -> None:
    if path.suffix == ".onnx":
        data = ir.to_bytes(model)
    else:
        data = print_module(model, weights="full").encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error) from error
