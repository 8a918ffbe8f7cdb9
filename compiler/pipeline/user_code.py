"""The user's own Python, a file or "FILE.py:NAME" of one: the one place where it is run.

It runs because the user named it, as `python FILE.py` would. What it raises is theirs: it is shown
with their own file and line, never as a traceback through hqc.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from hqc.diagnostics import HqcError, Location, reject


def is_reference(text: str) -> bool:
    """Whether a text has the form "FILE.py:NAME"."""
    file, _, name = text.rpartition(":")
    return file.endswith(".py") and name.isidentifier()


def make(reference: str, option: str, *, call: type | None = None) -> Any:
    """What "FILE.py:NAME" stands for; a function or class is called without arguments.

    Args:
        reference: the file and a name in it.
        option: what it was given for, for messages, such as "--data".
        call: objects of this type are not called, though they may be callable.

    Raises:
        HqcError: HQC001, there is no such file or name, or the user's code raised: then with its
            file and line.
    """
    file, _, name = reference.rpartition(":")
    if not file or not name.isidentifier():
        raise reject("HQC001", f"{option} {reference}: FILE.py:NAME is wanted")
    path = Path(file)
    module = load(path, option, reference)
    with _beside(path), theirs(path, f"{option} {reference}"):
        if not hasattr(module, name):
            known = [n for n in vars(module) if not n.startswith("_")]
            near = tuple(n for n in known if n.lower() == name.lower())
            helps = tuple(f"did you mean {n}?" for n in near)
            raise reject("HQC001", f"{option} {reference}: {file} defines no {name}", helps=helps)
        found = getattr(module, name)
        if callable(found) and (call is None or not isinstance(found, call)):
            found = found()
    return found


def load(path: Path, option: str, reference: str = "") -> ModuleType:
    """Run a file as a module of its own name, once for each call.

    Args:
        path: the file.
        option: what it was given for, for messages, such as "-P".
        reference: how the user wrote it, where that is more than the path.

    Raises:
        HqcError: HQC001, there is no such file, or its code raised: then with its file and line.
    """
    what = f"{option} {reference or path}"
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise reject("HQC001", f"{what}: cannot read {path} as Python")
    module = importlib.util.module_from_spec(spec)
    with _beside(path), theirs(path, what, called=False):
        sys.modules[module.__name__] = module  # dataclasses look their own module up
        spec.loader.exec_module(module)
    return module


def siblings(path: Path) -> tuple[Path, ...]:
    """The file and what it imports from its own folder, for a copy that runs elsewhere."""
    finder = ModuleFinder(path=[str(path.resolve().parent)])
    finder.run_script(str(path))
    files = (getattr(module, "__file__", None) for module in finder.modules.values())
    return tuple(sorted({Path(file).resolve() for file in files if file}))


def place_of(error: BaseException, owner: type) -> Location:
    """The last line that was running in the file of a class which is not hqc's own."""
    if owner.__module__.startswith("hqc."):
        return Location()
    try:
        path = Path(inspect.getfile(owner))
    except (OSError, TypeError):  # made in an interactive session
        return Location()
    return Location(source=line_of(error, path))


def _module_name(path: Path) -> str:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"hqc_user_{path.stem}_{digest}"


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Within, modules beside the file can be imported, as for a script."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def theirs(path: Path, what: str, *, called: bool = True) -> Iterator[None]:
    """Within, code of this file runs: what it raises becomes HQC001, as for `make`."""
    try:
        yield
    except HqcError:
        raise
    except SystemExit as error:
        raise reject("HQC001", f"{what}: the file exits with status {error.code}") from error
    except Exception as error:  # the user's code may raise anything
        raise reject(
            "HQC001",
            f"{what} raised {type(error).__name__}",
            where=Location(source=line_of(error, path)),
            notes=tuple(line[:300] for line in str(error).splitlines()[:3] if line.strip()),
            helps=("it is called without arguments",)
            if called and type(error) is TypeError
            else (),
        ) from error


def line_of(error: BaseException, path: Path) -> str:
    """The last line of the user's file that was running, or that Python could not read."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}  {(error.text or '').strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).resolve() == path.resolve()]
    if not own:
        return str(path)
    return f"{path}:{own[-1].lineno}  {own[-1].line}".rstrip()
