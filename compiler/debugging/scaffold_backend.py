"""`hqc new backend`: a package with a backend that works, to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from hqc.diagnostics import reject
from hqc.ir.array_files import cannot_write
from hqc.pipeline import Registry

_TEMPLATES = Path(__file__).with_name("templates") / "backend"
#: Where each template goes, in the folder of the new package.
_FILES = {
    "pyproject.toml.in": "pyproject.toml",
    "README.md.in": "README.md",
    "init.py.in": "{module}/__init__.py",
    "backend.py.in": "{module}/backend.py",
    "form.py.in": "{module}/form.py",
    "net.hqir.in": "tests/net.hqir",
    "test_backend.py.in": "tests/test_backend.py",
}


def new_backend(name: str, folder: Path) -> tuple[Path, ...]:
    """Write the package `hqc-NAME` into `folder/hqc-NAME`; the paths of its files.

    Args:
        name: of the backend, in kebab-case.
        folder: made if it is not there.

    Raises:
        HqcError: HQC001, the name does not do; HQC004, the package is there already; HQC007, the
            folder cannot be written.
    """
    title = "".join(word.capitalize() for word in name.split("-"))
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(title):
        raise reject("HQC001", f"{name!r} is no name for a backend", helps=("such as my-target",))
    if title in ("Backend", "Options", "Emulation"):
        raise reject("HQC001", f"{name!r} is what the package calls something else")
    if name in Registry.default().backends:
        raise reject("HQC001", f"there is a backend {name} already", helps=("hqc backends",))
    package = folder / f"hqc-{name}"
    if package.exists():
        raise reject("HQC004", f"{package} is there already, and is not overwritten")
    words = {"name": name, "title": title, "module": f"hqc_{name.replace('-', '_')}"}
    made = []
    try:
        for template, place in _FILES.items():
            path = package / place.format(**words)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (_TEMPLATES / template).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(words), encoding="utf-8")
            made.append(path)
    except OSError as error:
        raise cannot_write(package, error) from error
    return tuple(made)
