"""The options of a compile, resolved and checked once; no model and no backend in here."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hqc.diagnostics import HqcError, reject
from hqc.ir import parse_type
from hqc.numerics.types import FixedType

#: Samples compared when the user does not say.
SAMPLES = 1000


@dataclass(frozen=True)
class CompileOptions:
    """What `hqc compile` can be told.

    Attributes:
        backend: name of the backend.
        pipeline: pipeline string; None takes the default one.
        check: samples on which the emulation is compared; None compares nothing and says so.
        seed: of the generated samples.
        pass_timeout: seconds that one run of a pass may take, 0 for any.
        quantise: bit width of post-training quantisation for models that are not quantised.
        input_types: types of the inputs' quantisers, by input name, or "" for all.
        passes_from: files of the user's passes in the registry, with their digests.
        save_ir: keep the graph after each pass.
        build: run the vendor's tool.
        build_timeout: seconds that tool may take.
        io, part, technology, libraries, clock_ns, reuse_factor, strategy: for the backend, which
            says in its capabilities which of them it has; None takes its own default.
        backend_options: options that only this backend has, by name.
    """

    backend: str = "vitis"
    pipeline: str | None = None
    check: int | None = SAMPLES
    seed: int = 0
    pass_timeout: float = 600.0
    quantise: int | None = None
    input_types: Mapping[str, FixedType] = field(default_factory=dict)
    passes_from: Mapping[str, str] = field(default_factory=dict)
    save_ir: bool = False
    build: bool = False
    build_timeout: float = 4 * 3600.0
    io: str | None = None
    part: str | None = None
    technology: str | None = None
    libraries: str | None = None
    clock_ns: float | None = None
    reuse_factor: int | None = None
    strategy: str | None = None
    backend_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _within("check", self.check, 1, 10_000_000)
        _within("seed", self.seed, 0, 2**32 - 1)
        _within("quantise", self.quantise, 2, 16)
        _within("reuse factor", self.reuse_factor, 1, 1 << 20)
        if self.clock_ns is not None and not (math.isfinite(self.clock_ns) and self.clock_ns > 0):
            raise usage(f"clock {self.clock_ns} ns: a period is positive")

    def for_backend(self) -> dict[str, Any]:
        """The general options of backends that were given."""
        names = (
            *("io", "part", "technology", "libraries"),
            *("clock_ns", "reuse_factor", "strategy"),
        )
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def to_json(self) -> dict[str, Any]:
        """What the manifest records, beside the backend's resolved options."""
        return {
            "check": self.check,
            "quantise": self.quantise,
            "input_types": {name: str(type_) for name, type_ in self.input_types.items()},
            **({"passes_from": dict(self.passes_from)} if self.passes_from else {}),
            "save_ir": self.save_ir,
            "build": self.build,
        }


def usage(message: str, *helps: str) -> HqcError:
    """HQC001 with the exit status of wrong usage."""
    return reject("HQC001", message, helps=helps)


def parse_check(text: str) -> int | None:
    """Read `--check N` or `--check off`.

    Raises:
        HqcError: HQC001.
    """
    if text == "off":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise usage(f"--check {text}: a number of samples, or off") from error


def parse_input_types(texts: Iterable[str]) -> dict[str, FixedType]:
    """Read `NAME=fixed<16,6>`, or a lone type for a model with one input.

    Raises:
        HqcError: HQC001.
    """
    found: dict[str, FixedType] = {}
    for text in texts:
        name, equals, type_text = text.rpartition("=")
        try:
            type_ = parse_type(type_text)
        except ValueError as error:
            raise usage(f"--input-type {text}: {error}", "such as x=fixed<16,6>") from error
        if name in found or (equals and not name):
            raise usage(f"--input-type {text}: the input is empty or given twice")
        found[name] = type_
    return found


def identifier(name: str) -> str:
    """A C++ identifier for the emitted top function, made of a model's name."""
    words = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower() or "model"
    # The suffix keeps it apart from C++ keywords and the functions of the templates.
    return f"{'m' if words[0].isdigit() else ''}{words}_net"


def closest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help lines for a name that is not known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return (*(f"did you mean {n}?" for n in near), f"known: {', '.join(names)}")


def _within(what: str, value: int | None, lo: int, hi: int) -> None:
    if value is not None and not lo <= value <= hi:
        raise usage(f"{what} {value}: from {lo} to {hi}")
