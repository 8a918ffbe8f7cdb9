"""The backend: what hqc calls."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.layers import LayerBackend, Network, read_network
from hqc.backends.vendor_tools import find_tool
from hqc.diagnostics import Diagnostic, HqcError, reject
from hqc.pipeline import BackendOptions, Batch, Emission
from hqc_c99.native import Native, load, run
from hqc_c99.plan import Plan, emitted, make_plan
from hqc_c99.source import driver_text, header_text, source_text
from hqc_c99.words import Target

_OBJECT = "size.o"


@dataclass(frozen=True)
class Options:
    """Options of this backend, `--backend-option KEY=VALUE`.

    Attributes:
        memory: where the working memory is: "static" (not re-entrant) or "stack".
        word: bits of the widest integers that the target computes with, 32 or 64.
    """

    memory: Literal["static", "stack"] = "static"
    word: int = 64

    def __post_init__(self) -> None:
        if self.word not in (32, 64):
            raise ValueError(f"word {self.word}: 32 or 64")


@dataclass(frozen=True)
class C99(LayerBackend):
    """One source file in C99, without libraries, for microcontrollers."""

    name: ClassVar[str] = "c99"
    summary: ClassVar[str] = "microcontrollers, one C99 source file of integer arithmetic"
    own_options: ClassVar[type[Any] | None] = Options
    language: ClassVar[str | None] = "C"

    def unwritable(self, network: Network, options: BackendOptions) -> list[Diagnostic]:
        """What does not fit the words of the target."""
        try:
            _plan(network, options)
        except HqcError as error:
            return list(error.diagnostics)
        return []

    def emit(
        self,
        model: Model,
        partition: Partition,
        options: BackendOptions,
        directory: Path,
        vectors: tuple[Batch, Batch] | None = None,
    ) -> Emission:
        """Write NAME.c, NAME.h and, with vectors, main.c."""
        plan = _plan(read_network(model, partition), options)
        name, stack = options.project, options.own_as(Options).memory == "stack"
        texts = {
            f"{name}.c": source_text(name, plan, stack),
            f"{name}.h": header_text(name, plan, partition, stack),
        }
        if vectors is not None:
            texts["main.c"] = driver_text(name, plan, partition, vectors)
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (directory / file).write_text(text, encoding="utf-8")
        return Emission(self.name, directory, tuple(texts), emitted(plan), report=plan.sizes())

    def emulator(self, directory: Path, partition: Partition) -> Native:
        """The very source, compiled by the C compiler of this machine."""
        return load(directory, _project(directory), partition)

    def build(self, directory: Path, timeout: float) -> dict[str, Any]:
        """Compile for size with $CC (gcc if unset), and measure the object.

        Raises:
            HqcError: HQC404, the compiler or its `size` is missing; HQC405, one failed.
        """
        wanted = os.environ.get("CC", "gcc")
        compiler = find_tool((wanted,), "the C compiler")
        size = find_tool(
            (re.sub(r"(gcc|clang|cc)(?=(-\d+)?$)", "size", wanted), "size"), "binutils"
        )
        flags = ["-std=c99", "-Os", "-ffunction-sections", "-fdata-sections"]
        name = _project(directory)
        run([compiler, *flags, "-c", f"{name}.c", "-o", _OBJECT], directory, timeout)
        rows = run([size, _OBJECT], directory, timeout).splitlines()
        target = run([compiler, "-dumpmachine"], directory, timeout).strip()
        (directory / _OBJECT).unlink()
        found = dict(zip(rows[0].split(), rows[1].split(), strict=False))
        return {
            "compiler": Path(compiler).name,
            "target": target,
            "flags": " ".join(flags),
            **{section: int(found[section]) for section in ("text", "data", "bss")},
        }


def _plan(network: Network, options: BackendOptions) -> Plan:
    return make_plan(network, Target(options.own_as(Options).word))


def _project(directory: Path) -> str:
    """The name of the project: that of its header."""
    found = sorted(directory.glob("*.h"))
    if len(found) != 1:
        raise reject(
            "HQC006", f"{directory} is no project of the c99 backend: one header is wanted"
        )
    return found[0].stem
