"""The command lines that make a compiled directory again, from its manifest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqc.artifact.manifest import Manifest

#: How the command line spells what the manifest records of the hardware.
_FLAGS = {
    "io": "--io",
    "part": "--part",
    "technology": "--technology",
    "libraries": "--libraries",
    "clock_ns": "--clock",
    "reuse_factor": "--reuse-factor",
    "strategy": "--strategy",
}
_OUTPUT, _SAMPLES = "OUT", "SAMPLES.npz"


@dataclass(frozen=True)
class Reproduction:
    """Commands, and what they need beside the files.

    Attributes:
        commands: for a shell, in order.
        notes: what else must be the same, one sentence each.
    """

    commands: tuple[str, ...]
    notes: tuple[str, ...]


def compile_arguments(manifest: Manifest, output: str = _OUTPUT) -> tuple[str, ...]:
    """The arguments of `hqc` that compile the same bytes from the same file and samples."""
    options = manifest.options
    check = options.get("check")
    found = ["compile", str(manifest.model["file"]), "-o", output, "-b", manifest.backend]
    found += ["-p", manifest.pipeline, "--check", "off" if check is None else str(check)]
    found += ["--seed", str(manifest.seed)]
    if options.get("quantise") is not None:
        found += ["--quantize", str(options["quantise"])]
    if _own_samples(manifest):
        found += ["--samples", _SAMPLES]
    for name, type_ in dict(options.get("input_types") or {}).items():
        found += ["--input-type", f"{name}={type_}" if name else str(type_)]
    for name in dict(options.get("passes_from") or {}):
        found += ["-P", str(name)]
    found += _hardware(options.get("hardware") or {})
    return (*found, "--save-ir") if options.get("save_ir") else tuple(found)


def _hardware(settings: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name, flag in _FLAGS.items():
        if settings.get(name) is not None:
            found += [flag, _text(settings[name])]
    for name, value in dict(settings.get("own") or {}).items():
        found += ["--backend-option", f"{name.replace('_', '-')}={_text(value)}"]
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _own_samples(manifest: Manifest) -> bool:
    """Whether the user gave samples: to calibrate with, or beside the generated ones."""
    if manifest.options.get("quantise") is not None:
        return True
    generated = manifest.options.get("check")
    return generated is not None and manifest.verdict.samples > generated


def reproduction(manifest: Manifest) -> Reproduction:
    """The commands of the page."""
    commands = [
        _lines(compile_arguments(manifest)),
        f"hqc check {_OUTPUT} --samples 10000",
    ]
    notes = ["The same file, options and versions give the same bytes."]
    if str(manifest.model["file"]).endswith("(in memory)"):
        notes.append(
            "The model was a Python object: give it to hqc.compile, or save it, in place of a file."
        )
    if _own_samples(manifest):
        notes.append(f"{_SAMPLES} stands for the samples that were given.")
    return Reproduction(tuple(commands), tuple(notes))


def _lines(arguments: Sequence[str]) -> str:
    """A command for a shell, one option per line."""
    lines: list[list[str]] = [["hqc"]]
    for argument in arguments:
        if argument.startswith("-"):
            lines.append([])
        lines[-1].append(argument)
    return " \\\n  ".join(shlex.join(line) for line in lines)
