"""`report.html`: one page about a compiled directory, without scripts and without other files.

Jinja2 comes with torch, and its automatic escaping is what keeps names of a model from becoming
markup. The page holds no script, and its own policy forbids any.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hqc.artifact import manifest
from hqc.artifact.manifest import Manifest
from hqc.artifact.page import training
from hqc.artifact.page.numbers import amount
from hqc.artifact.page.timing import CROSSING_NS
from hqc.artifact.page.view import View, view_of
from hqc.artifact.report_file import damaged, read_report
from hqc.ir.array_files import cannot_write
from hqc.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template

PAGE = "report.html"
_TEMPLATES = Path(__file__).with_name("templates")


def write_page(directory: Path, found: Manifest | None = None) -> Path:
    """Write the page of a compiled directory from its `hqc.json` and `report.json`; its path.

    The same two files give the same bytes.

    Args:
        directory: made by `compile`.
        found: its manifest, if it was read already.

    Raises:
        HqcError: HQC006, it is no such directory, or its `report.json` is missing or damaged;
            HQC007, the page cannot be written.
    """
    known = found or manifest.read(directory)
    report = read_report(directory)
    try:
        view = view_of(known, report)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise damaged(directory, f"it is not as hqc writes it ({reason})") from error
    path = directory / PAGE
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(render(view), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def render(view: View) -> str:
    """The page as text."""
    return _template().render(
        view=view, version=__version__, amount=amount, chart=training, crossing=CROSSING_NS
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
