"""The commands that look at things: opt, show, passes, backends, doctor, explain."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hqc.cli_console import Console
from hqc.cli_result import Result, table
from hqc.diagnostics import CODES, Exit
from hqc.options import closest, parse_input_types, usage


def show_command(options: Namespace, console: Console) -> Result:
    """`hqc show`."""
    path = Path(options.model)
    if path.is_dir():
        return _show_directory(path)
    from hqc.driver import load
    from hqc.text import print_module

    text = print_module(load(path, hawq_model=options.hawq_model))
    document: dict[str, Any] = {"model": path.name, "text": text}
    if record := _training_record(path):
        from hqc.cli_training_text import record_text

        document["training"] = record
        text = f"{record_text(path, record)}\n\n{text}"
    return Result(text.rstrip(), document)


def _training_record(path: Path) -> dict[str, Any] | None:
    """How a program came about, where `hqc quantize` made it."""
    if path.suffix not in (".pt", ".pt2"):
        return None
    from hqc.frontends.hawq.record import read_record

    return read_record(path)


def _show_directory(path: Path) -> Result:
    from hqc.manifest import read

    found = read(path)
    hardware = found.options.get("hardware")
    settings = hardware if isinstance(hardware, dict) else {}
    lines = [
        f"{path}: {found.model.get('file')} for {found.backend}",
        f"  verdict   {found.verdict.text}",
        *([f"            {found.verdict.float_text}"] if found.verdict.float_text else []),
        f"  pipeline  {found.pipeline}",
        *(_port_line("input", port) for port in found.inputs),
        *(_port_line("output", port) for port in found.outputs),
        "  hardware  " + ", ".join(f"{k}={v}" for k, v in settings.items() if v is not None),
        "  versions  " + ", ".join(f"{k} {v}" for k, v in found.versions.items()),
    ]
    return Result("\n".join(lines), found.to_json())


def _port_line(side: str, port: Any) -> str:
    shape = "x".join(str(n) for n in port["shape"]) or "scalar"
    kind = "the model's units" if port["kind"] == "fixed" else "codes, the host scales"
    return f"  {side:<8}  {port['external']}: {shape} of {port['type']} on {port['name']} ({kind})"


def opt_command(options: Namespace, console: Console) -> Result:
    """`hqc opt`."""
    from hqc import driver, ir, pipeline
    from hqc.assemble import Tracer
    from hqc.registry import Registry
    from hqc.text import print_module, print_pipeline

    registry = Registry.default()
    steps = driver.steps_of(options.pipeline)
    wanted = options.print_after
    if wanted not in (None, "all", *registry.passes):
        raise usage(f"--print-after {wanted}: no such pass", *closest(wanted, registry.passes))
    if options.output and Path(options.output).suffix not in (".onnx", ".hqir"):
        raise usage(f"{options.output}: the graph goes to .onnx or .hqir")
    loaded, given = driver.prepare(
        options.model,
        hawq_model=options.hawq_model,
        samples=options.samples,
        quantise=options.quantise,
        input_types=parse_input_types(options.input_type),
    )
    tracer = Tracer(console.watch, keep=wanted is not None)
    result = pipeline.run(
        loaded.model,
        steps,
        registry,
        samples=given,
        seed=options.seed,
        verify=not options.no_verify,
        on_event=tracer.event,
    )
    parts = [
        f"; after {name}\n{print_module(ir.from_bytes(data, name))}"
        for name, data in tracer.states
        if wanted in ("all", name)
    ]
    if options.timing:
        parts.append(_timing(result.records))
    if options.output:
        _write(Path(options.output), result.model)
    elif not parts:
        parts.append(print_module(result.model))
    document = {
        "pipeline": print_pipeline(steps),
        "passes": [
            {
                "pass": r.step,
                "seconds": r.seconds,
                "rewrites": r.rewrites,
                "remarks": [str(m) for m in r.remarks],
            }
            for r in result.records
        ],
        "text": print_module(result.model),
    }
    return Result("\n".join(parts).rstrip(), document)


def _timing(records: Sequence[Any]) -> str:
    rows = [(r.name, f"{r.seconds:.3f} s", f"{r.rewrites} rewrites") for r in records]
    total = sum(r.seconds for r in records)
    return table([*rows, ("total", f"{total:.3f} s", "")])


def _write(path: Path, model: Any) -> None:
    from hqc import ir
    from hqc.arrays import cannot_write
    from hqc.text import print_module

    if path.suffix == ".onnx":
        data = ir.to_bytes(model)
    else:
        data = print_module(model, weights="full").encode()
    try:
        path.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error) from error


def passes_command(options: Namespace, console: Console) -> Result:
    """`hqc passes`."""
    from hqc import pipeline
    from hqc.registry import Registry

    found = Registry.default().passes
    rows = [(name, str(found[name].contract), found[name].summary()) for name in sorted(found)]
    document = {
        "default": pipeline.DEFAULT,
        "passes": [
            {
                "name": name,
                "summary": found[name].summary(),
                "contract": str(found[name].contract),
                "options": {f.name: _default(f) for f in dataclasses.fields(found[name])},
            }
            for name in sorted(found)
        ],
    }
    return Result(f"{table(rows)}\n\ndefault pipeline: {pipeline.DEFAULT}", document)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is dataclasses.MISSING:
        return None
    plain = field.default is None or isinstance(field.default, bool | int | float | str)
    return field.default if plain else str(field.default)


def backends_command(options: Namespace, console: Console) -> Result:
    """`hqc backends`."""
    from hqc.registry import Registry

    found = Registry.default().backends
    rows = [(name, found[name].summary) for name in sorted(found)]
    able = {name: dataclasses.asdict(found[name].capabilities()) for name in found}
    lines = [table(rows)]
    for name in sorted(found):
        lines.append(f"\n{name}")
        lines += [
            f"  {key:<14}{', '.join(value) if isinstance(value, list | tuple) else value}"
            for key, value in able[name].items()
        ]
    document = {
        name: {"summary": found[name].summary, "capabilities": able[name]} for name in sorted(found)
    }
    return Result("\n".join(lines), document)


def doctor_command(options: Namespace, console: Console) -> Result:
    """`hqc doctor`."""
    from hqc.doctor import examine

    found = examine()
    missing = [f for f in found if f.state == "missing"]
    text = table([(f.topic, f.state, f.detail) for f in found])
    ending = "everything that hqc needs is here"
    if missing:
        ending = f"missing: {', '.join(f.topic for f in missing)}"
    return Result(
        f"{text}\n\n{ending}",
        {"ok": not missing, "findings": [dataclasses.asdict(f) for f in found]},
        Exit.TOOL if missing else Exit.OK,
    )


def explain_command(options: Namespace, console: Console) -> Result:
    """`hqc explain`."""
    if options.code is None:
        return Result(table(list(CODES.items())), dict(CODES))
    code = options.code.upper()
    if code not in CODES:
        raise usage(f"no diagnostic is called {code}", *closest(code, CODES))
    return Result(f"{code}: {CODES[code]}", {code: CODES[code]})
