"""What the user said about the hardware, checked against what the backend can do.

A backend states which of the general options apply to it, and may have options of its own: a
frozen dataclass, whose fields are the keys of `--backend-option KEY=VALUE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hqc.diagnostics import HqcError
from hqc.pipeline.backend import Backend, BackendOptions, Capabilities
from hqc.pipeline.options import CompileOptions, closest, usage

#: How the command line spells the general options.
_FLAGS = {
    "io": "--io",
    "part": "--part",
    "technology": "--technology",
    "libraries": "--libraries",
    "clock_ns": "--clock",
    "reuse_factor": "--reuse-factor",
    "strategy": "--strategy",
}
_BOOLS = {"true": True, "false": False}


def resolve(backend: Backend, options: CompileOptions) -> dict[str, Any]:
    """Fields of `BackendOptions` that the user chose, checked.

    Raises:
        HqcError: HQC001, an option that this backend does not have, or a value it does not know.
    """
    given = options.for_backend()
    able = backend.capabilities()
    for name, value in given.items():
        if name not in able.options:
            raise usage(f"{backend.name} has no {_FLAGS[name]}", *_known(backend, able))
        known = _values(able, name)
        if known is not None and value not in known:
            message = f"{backend.name} has no {_FLAGS[name]} {value!r}"
            raise usage(message, *closest(value, known))
    return {**given, "own": own_options(backend, options.backend_options)}


def own_options(backend: Backend, given: Mapping[str, Any]) -> Any:
    """An instance of the backend's own options, or None where it has none.

    Args:
        backend: whose options.
        given: values by name, as text or as what they are.

    Raises:
        HqcError: HQC001, there is no such option, or its value is of another type.
    """
    made = backend.own_options
    if made is None:
        if given:
            able = backend.capabilities()
            raise usage(f"{backend.name} has no --backend-option", *_known(backend, able))
        return None
    hints = get_type_hints(made)
    names = {f.name.replace("_", "-"): f.name for f in fields(made)}
    values = {}
    for key, value in given.items():
        name = names.get(key.replace("_", "-"))
        if name is None:
            raise usage(f"{backend.name} has no option {key}", *closest(key, names))
        values[name] = _convert(f"--backend-option {key}={value}", value, hints[name])
    try:
        return made(**values)
    except ValueError as error:
        raise usage(f"--backend-option: {error}") from error


def parse_backend_options(texts: Iterable[str]) -> dict[str, str]:
    """Read `KEY=VALUE`.

    Raises:
        HqcError: HQC001, a text has another form or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals or key in found:
            raise usage(f"--backend-option {text}: KEY=VALUE is wanted, each key once")
        found[key] = value
    return found


def describe(backend: Backend, settings: BackendOptions) -> dict[str, Any]:
    """The settings that mean something to a backend, for the manifest."""
    applies = ("project", *backend.capabilities().options)
    found = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name in applies}
    return found if settings.own is None else {**found, "own": asdict(settings.own)}


def listing(backend: Backend) -> dict[str, Any]:
    """The backend's own options with their defaults, for people and programs."""
    made = backend.own_options
    return {} if made is None else asdict(made())


def _values(able: Capabilities, name: str) -> tuple[str, ...] | None:
    return {
        "io": able.io,
        "strategy": able.strategies,
        "technology": able.technologies,
    }.get(name)


def _known(backend: Backend, able: Capabilities) -> tuple[str, ...]:
    """Help lines that say what there is instead."""
    own = [f"--backend-option {key}={value}" for key, value in listing(backend).items()]
    words = [*(_FLAGS[name] for name in able.options), *own]
    return (f"options of {backend.name}: {', '.join(words) or 'none'}",)


def _convert(what: str, value: Any, wanted: Any) -> Any:
    """A value of the wanted type, read from text where it is one."""
    if get_origin(wanted) is Literal:
        known = tuple(map(str, get_args(wanted)))
        if value not in known:
            raise usage(f"{what}: no such value", *closest(str(value), known))
        return value
    if isinstance(value, str) and wanted is not str:
        value = _read(what, value, wanted)
    if type(value) is not wanted:
        raise _wrong(what, wanted)
    return value


def _read(what: str, text: str, wanted: Any) -> Any:
    if wanted is bool:
        if text not in _BOOLS:
            raise usage(f"{what}: true or false is wanted")
        return _BOOLS[text]
    try:
        return wanted(text)
    except (TypeError, ValueError) as error:
        raise _wrong(what, wanted) from error


def _wrong(what: str, wanted: Any) -> HqcError:
    return usage(f"{what}: a value of type {getattr(wanted, '__name__', wanted)} is wanted")
