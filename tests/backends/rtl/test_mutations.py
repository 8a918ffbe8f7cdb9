"""Random changes of emitted Verilog: refused, refuted, or proven and then right in simulation."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.backend_graphs import corner_codes, evaluate
from support.rtl_designs import needs_icarus
from support.tensor_graphs import elementwise, together

from hqc.backends.layers.network import read_network
from hqc.backends.rtl.emission.project import write
from hqc.backends.rtl.lowering.lower import lower
from hqc.backends.rtl.options import RtlOptions
from hqc.backends.rtl.proof.certify import certify
from hqc.backends.rtl.simulation.simulate import emulator
from hqc.diagnostics import HqcError
from hqc.pipeline.backend import BackendOptions

CHANGES = 60
OPERATORS = ("+", "-", "&", "|", "^", "~", "*", ">=")
Change = Callable[[str, random.Random], str]


def _replaced(pattern: str, by: Callable[[str, random.Random], str]) -> Change:
    """A change of one match of a pattern."""

    def change(text: str, rng: random.Random) -> str:
        found = rng.choice(list(re.finditer(pattern, text)) or [re.search("", text)])
        assert found is not None
        return text[: found.start()] + by(found[0], rng) + text[found.end() :]

    return change


def _without_a_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


def _other_letter(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice("0127vxys+-*&|~^?:{}[](),;<= ") + text[at + 1 :]


KINDS: tuple[Change, ...] = (
    _replaced(r"\d+", lambda n, rng: str(max(0, int(n or 0) + rng.choice((-2, -1, 1, 2, 8))))),
    _replaced(r"[-+*&|~^?]|>=|<=", lambda _, rng: rng.choice(OPERATORS)),
    _replaced(r"\bv\d+(_s\d+)?\b", lambda _, rng: f"v{rng.randrange(12)}"),
    _replaced(r"signed ", lambda *_: ""),
    _without_a_line,
    _other_letter,
)


def code_of(text: str) -> list[str]:
    return re.sub(r"//[^\n]*", "", text).split()


@needs_icarus
@pytest.mark.parametrize("interface", ["fixed", "handshake"])
def test_no_change_of_the_verilog_goes_unnoticed(tmp_path: Path, interface: str) -> None:
    model, parts = together(elementwise)
    network = read_network(model, parts)
    own = RtlOptions(interface=interface, simulator="icarus")  # type: ignore[arg-type]
    write(lower(network), parts, BackendOptions(project="net", clock_ns=2.0, own=own), tmp_path)
    codes = corner_codes(parts, 60, 3)
    want = evaluate(parts, codes)
    rng = random.Random(interface)
    files = sorted((tmp_path / "rtl").iterdir())
    seen: Counter[str] = Counter()
    for _ in range(CHANGES):
        file = rng.choice(files)
        text = file.read_text()
        changed = rng.choice(KINDS)(text, rng)
        if code_of(changed) == code_of(text):
            continue
        file.write_text(changed)
        try:
            assert certify(network, parts, tmp_path).proven
            got = emulator(tmp_path, parts).run(codes)
            for name, held in want.items():
                np.testing.assert_array_equal(got[name], held, err_msg=changed)
            seen["harmless"] += 1
        except HqcError as error:
            seen[error.diagnostics[0].code] += 1
        file.write_text(text)
    assert set(seen) <= {"HQC424", "HQC425", "harmless"}
    assert seen["HQC424"] >= 1
    assert seen["HQC425"] >= 15
    assert seen["harmless"] < seen["HQC425"]
