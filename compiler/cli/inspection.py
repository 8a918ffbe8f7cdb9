"""The commands that look at things: show, passes, backends, doctor, explain."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hqc.cli.console import Console
from hqc.cli.result import Result, table
from hqc.diagnostics import CODES, Exit
from hqc.pipeline.options import closest, usage


def show_command(options: Namespace, console: Console) -> Result:
    """`hqc show`."""
    path = Path(options.model)
    if path.is_dir():
        return _show_directory(path)
    from hqc.driver import load
    from hqc.frontends.torch_export.training_record import whole_record
    from hqc.text import print_module

    text = print_module(load(path, hawq_model=options.hawq_model))
    document: dict[str, Any] = {"model": path.name, "text": text}
    if record := whole_record(path):
        from hqc.cli.training.text import record_text

        document["training"] = record
        text = f"{record_text(path, record)}\n\n{text}"
    return Result(text.rstrip(), document)


def _show_directory(path: Path) -> Result:
    from hqc.artifact.manifest import read

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
        "  hardware  " + ", ".join(f"{k}={v}" for k, v in _flat(settings) if v is not None),
        "  versions  " + ", ".join(f"{k} {v}" for k, v in found.versions.items()),
    ]
    return Result("\n".join(lines), found.to_json())


def _flat(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings, and the backend's own behind them."""
    for key, value in settings.items():
        yield from value.items() if isinstance(value, dict) else ((key, value),)


def _port_line(side: str, port: Any) -> str:
    shape = "x".join(str(n) for n in port["shape"]) or "scalar"
    kind = "the model's units" if port["kind"] == "fixed" else "codes, the host scales"
    return f"  {side:<8}  {port['external']}: {shape} of {port['type']} on {port['name']} ({kind})"


def passes_command(options: Namespace, console: Console) -> Result:
    """`hqc passes`."""
    from hqc import pipeline
    from hqc.cli.opt import registry_of

    found = registry_of(options, console).passes
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
    from hqc.driver.hardware_settings import listing
    from hqc.pipeline.registry import Registry

    found = Registry.default().backends
    rows = [(name, found[name].summary) for name in sorted(found)]
    able = {
        name: dataclasses.asdict(backend.capabilities()) | {"own_options": listing(backend)}
        for name, backend in found.items()
    }
    lines = [table(rows)]
    for name in sorted(found):
        lines.append(f"\n{name}")
        lines += [f"  {key:<14}{_words(value)}" for key, value in able[name].items() if value]
    document = {
        name: {"summary": found[name].summary, "capabilities": able[name]} for name in sorted(found)
    }
    return Result("\n".join(lines), document)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={default}" for key, default in value.items())
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def doctor_command(options: Namespace, console: Console) -> Result:
    """`hqc doctor`."""
    from hqc.cli.doctor import examine

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
        digits = code.replace("O", "0").replace("I", "1")  # as they are read off a screen
        raise usage(f"no diagnostic is called {code}", *closest(digits, CODES))
    from hqc.diagnostics.explanations import explained

    found = explained(code)
    return Result(str(found), {code: dataclasses.asdict(found)})
