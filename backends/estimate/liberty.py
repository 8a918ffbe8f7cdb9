"""Liberty files: the cell libraries of ASIC targets, found on this machine or named by the user."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from hqc.diagnostics import HqcError, reject

#: Debian's and Ubuntu's package, and the path of the file in it.
OSU018_PACKAGE = "qflow-tech-osu018"
OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
_LIBRARY = re.compile(r"\blibrary\s*\(\s*\"?([\w.$-]+)\"?\s*\)\s*\{")
_CELL = re.compile(r"\bcell\s*\(\s*\"?([\w.$-]+)\"?\s*\)\s*\{")
_REGISTER = re.compile(r"\bff(?:_bank)?\s*\(")
_STATE = re.compile(r"\b(?:ff|latch)(?:_bank)?\s*\(")
_FOLLOWS = re.compile(r"\bfunction\s*:\s*\"\s*\(?\s*[A-Za-z_]\w*\s*\)?\s*\"")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Liberty:
    """A Liberty file.

    Attributes:
        path: where it is.
        library: the name it gives itself.
        sha256: of its bytes.
        cells: how many it has.
        registers: names of those that are flip-flops.
    """

    path: Path
    library: str
    sha256: str
    cells: int
    registers: frozenset[str]

    @property
    def local(self) -> str:
        """A name for a copy: it tells the content, since abc caches libraries by name."""
        return f"liberty_{self.sha256[:16]}.lib"


def named(name: str) -> Liberty:
    """The library of a target: "osu018", or the path of a .lib file.

    Raises:
        HqcError: HQC432, it is not here or not a Liberty file.
    """
    if name != "osu018":
        return read(Path(name))
    if not OSU018.is_file():
        raise reject(
            "HQC432",
            f"the Liberty file of osu018 is not here: {OSU018}",
            helps=(
                f"on Debian and Ubuntu: apt install {OSU018_PACKAGE}",
                "or name another Liberty file: --target asic-PATH.lib",
            ),
        )
    return read(OSU018)


def read(path: Path) -> Liberty:
    """Read what is needed of a Liberty file; Yosys reads the rest.

    Raises:
        HqcError: HQC432, it cannot be read, or has no library, no cell, no flip-flop or no
            buffer: abc, which buffers and sizes, crashes without one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    text = _COMMENT.sub(" ", data.decode("utf-8", errors="replace"))
    library = _LIBRARY.search(text)
    if library is None:
        raise _refused(path, "it has no library group")
    _, *groups = _CELL.split(text)  # name, body, name, body, ...
    cells = dict(zip(groups[::2], groups[1::2], strict=True))
    registers = frozenset(name for name, body in cells.items() if _REGISTER.search(body))
    if not registers:
        what = "no flip-flop" if cells else "no cell"
        raise _refused(path, f"its library {library[1]} has {what}")
    if not any(_FOLLOWS.search(body) for body in cells.values() if not _STATE.search(body)):
        raise _refused(path, f"its library {library[1]} has no buffer")
    digest = hashlib.sha256(data).hexdigest()
    return Liberty(path, library[1], digest, len(cells), registers)


def _refused(path: Path, reason: str) -> HqcError:
    return reject(
        "HQC432",
        f"{path} cannot serve as a Liberty file: {reason}",
        helps=("name a file with NLDM tables, a D flip-flop and a buffer: --target asic-PATH.lib",),
    )
