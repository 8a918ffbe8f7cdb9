"""Messages: one layout, one table of codes, colours only where they are wanted."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from hqc.cli.console import Console, as_json, wants_colour
from hqc.diagnostics import Diagnostic, Exit, HqcError, Location, reject
from hqc.diagnostics.events import Event, stage

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Diagnostic(
    "HQC203",
    "rounding HALF_UP has no Catapult emission",
    Location("model.py:41  x = self.act2(x)", "act2/Quant", ("lower-scales",)),
    ("QONNX HALF_UP rounds ties away from zero",),
    ("add `legalize-rounding`",),
)
PLAIN = """\
error[HQC203]: rounding HALF_UP has no Catapult emission
  --> model.py:41  x = self.act2(x)  (node act2/Quant, after lower-scales)
   = note: QONNX HALF_UP rounds ties away from zero
   = help: add `legalize-rounding`"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_layout() -> None:
    assert str(EXAMPLE) == PLAIN
    assert Console(io.StringIO()).render(EXAMPLE) == PLAIN


def test_colours_change_nothing_but_colours() -> None:
    coloured = Console(io.StringIO(), colour=True).render(EXAMPLE)
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == PLAIN


@pytest.mark.parametrize(
    ("choice", "terminal", "environment", "wanted"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_when_to_colour(
    choice: str, terminal: bool, environment: dict[str, str], wanted: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    assert wants_colour(choice, stream, environment) is wanted


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    hostile = Diagnostic("HQC405", "a\x1b[2Jb", notes=("c\x07\x9bd\ne",))
    assert "\x1b" not in Console(io.StringIO()).render(hostile)
    assert "\n           e" in Console(io.StringIO()).render(hostile)


def test_progress_is_one_line_per_pass_off_terminals() -> None:
    stream = io.StringIO()
    console = Console(stream)
    with stage("emit", console.watch) as note:
        note.detail = "3 layers"
    console.watch(Event("dce", 0.5, "2 rewrites", ("why",)))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "\r" not in stream.getvalue()
    assert re.fullmatch(r"  emit +0\.0\d s  3 layers", lines[0])
    assert "why" in lines[2]


def test_progress_is_redrawn_on_terminals_and_left_clean() -> None:
    stream = Terminal()
    console = Console(stream, live=True)
    console.watch(Event("compile the emulation"))
    assert stream.getvalue().endswith("...")
    console.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_quiet_keeps_diagnostics() -> None:
    stream = io.StringIO()
    console = Console(stream, quiet=True)
    console.line("progress")
    console.watch(Event("a", 1.0))
    console.diagnostics([EXAMPLE])
    assert stream.getvalue() == f"{PLAIN}\n"


def test_as_programs_read_it() -> None:
    found = as_json(EXAMPLE)
    assert found["code"] == "HQC203"
    assert found["where"] == {
        "source": "model.py:41  x = self.act2(x)",
        "node": "act2/Quant",
        "passes": ["lower-scales"],
    }


def test_errors_carry_diagnostics_and_an_exit() -> None:
    error = reject("HQC404", "g++ is missing", exit_=Exit.TOOL)
    assert isinstance(error, HqcError)
    assert error.exit == 4
    with pytest.raises(ValueError, match="HQC999"):
        Diagnostic("HQC999", "no such code")
    with pytest.raises(ValueError, match="at least one"):
        HqcError(())
