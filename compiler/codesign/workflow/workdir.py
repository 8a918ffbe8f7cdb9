"""A directory with the state of a long run, tied to everything that decides the run's result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqc.diagnostics import reject
from hqc.ir.array_files import cannot_write

MAGIC, FORMAT, FILE = "hqc training run", 1, "run.json"
_ENTRIES = {FILE, "float.pt", "weights.json", "activations.json", "quantised.pt"}
_AFRESH = "--restart throws that state away and starts afresh"


@dataclass(frozen=True)
class Workdir:
    """An open working directory.

    Attributes:
        path: where it is.
        resumed: whether it held the state of the same run already.
    """

    path: Path
    resumed: bool

    @classmethod
    def open(cls, path: Path, key: Mapping[str, Any], *, restart: bool = False) -> Workdir:
        """Make a working directory, or open one that was made with the same key.

        Args:
            path: of the directory.
            key: JSON values by name: all that decides the result.
            restart: throw the state of an earlier run away, whatever its key.

        Raises:
            HqcError: HQC607, it was made with another key; HQC606, what it holds is damaged;
                HQC004, it is no directory of a run; HQC007, it cannot be written.
        """
        try:
            if path.exists() and restart:
                _clear(path)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                _compare(path, key)
                return cls(path, True)
            path.mkdir(parents=True, exist_ok=True)
            document = {"magic": MAGIC, "format": FORMAT, "key": dict(key)}
            text = json.dumps(document, indent=2, allow_nan=False) + "\n"
            (path / FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error
        return cls(path, False)

    def file(self, name: str) -> Path:
        """The path of one of the files that a run writes."""
        if name not in _ENTRIES:
            raise ValueError(f"{name} is not a file of a run")
        return self.path / name


def _clear(path: Path) -> None:
    """Remove a directory that holds nothing but what runs write."""
    entries = [path] if not path.is_dir() else list(path.iterdir())
    foreign = [e.name for e in entries if e.name not in _ENTRIES and not _is_leftover(e.name)]
    if foreign or not path.is_dir():
        raise reject("HQC004", f"{path} is not removed: hqc did not write {sorted(foreign)[0]}")
    shutil.rmtree(path)


def _is_leftover(name: str) -> bool:
    """Whether a file was being written when its run was killed."""
    return any(name.startswith(f".{entry}-") for entry in _ENTRIES)


def _compare(path: Path, key: Mapping[str, Any]) -> None:
    file = path / FILE
    if not file.is_file():
        raise reject("HQC004", f"{path} is there, and is no working directory of hqc")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["magic"] != MAGIC or document["format"] != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        held = dict(document["key"])
    except (ValueError, KeyError, TypeError) as error:
        raise reject(
            "HQC606", f"{file} is damaged", notes=(str(error)[:200],), helps=(_AFRESH,)
        ) from error
    wanted = json.loads(json.dumps(key))
    if held == wanted:
        return
    odd = [name for name in {**held, **wanted} if held.get(name) != wanted.get(name)]
    raise reject(
        "HQC607",
        f"{path} holds a run of other settings",
        notes=[
            f"{name}: {_short(held.get(name))} there, {_short(wanted.get(name))} now"
            for name in odd
        ],
        helps=("give the settings it was begun with, or another output", _AFRESH),
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
