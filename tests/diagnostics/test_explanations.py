"""Every diagnostic code is explained, and the explanations are of this program."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from support.cli_fixtures import Run
from support.diagnostic_sources import matches, messages, used

from hqc.diagnostics import CODES
from hqc.diagnostics.explanations import explanations

ROOT = Path(__file__).resolve().parents[2]
TEXTS = "compiler/diagnostics/explanations.toml"


def test_every_code_in_the_sources_is_explained() -> None:
    found = used()
    unknown = {code: sorted(files) for code, files in found.items() if code not in CODES}
    assert not unknown, f"add these codes to CODES in compiler/diagnostics/messages.py: {unknown}"
    missing = {code: sorted(found[code]) for code in found if code not in explanations()}
    assert not missing, f"explain these codes in {TEXTS}: {missing}"


def test_every_explained_code_is_in_the_sources() -> None:
    document = tomllib.loads((ROOT / TEXTS).read_text())
    unknown = sorted(set(document) - set(CODES))
    assert not unknown, f"{TEXTS} explains codes that CODES does not have: {unknown}"
    unused = sorted(set(document) - set(used()))
    assert not unused, f"nothing raises these codes any more; remove them from {TEXTS}: {unused}"
    unexplained = sorted(set(CODES) - set(document))
    assert not unexplained, f"explain these codes in {TEXTS}: {unexplained}"


@pytest.mark.parametrize("code", sorted(explanations()))
def test_an_explanation_says_enough(code: str) -> None:
    found = explanations()[code]
    assert len(found.meaning) > 60
    assert found.causes
    assert found.remedies
    sentences = (found.title, found.when, *found.causes, *found.remedies)
    assert all(text == text.strip() and not text.endswith(".") for text in sentences)
    assert found.meaning.endswith(".")
    assert max(map(len, str(found).splitlines())) <= 140


@pytest.mark.parametrize("code", sorted(explanations()))
def test_the_example_is_a_message_of_the_sources(code: str) -> None:
    """Its first line can come from a text that stands beside the code in the sources."""
    first, *rest = explanations()[code].example.splitlines()
    head = re.fullmatch(rf"(?:error|warning)\[{code}\]: (.+)", first)
    assert head is not None, first
    found = messages()
    assert any(matches(text, head[1]) for text in (*found[code], *found[""])), (
        f"nothing in the sources says {head[1]!r}: correct the example of {code} in {TEXTS}; "
        f"beside the code stand: {sorted(found[code])}"
    )
    assert all(re.match(r"  --> |   = (note|help): ", line) for line in rest)


def test_the_command_prints_all_of_it(hqc: Run) -> None:
    ended = hqc("explain", "hqc205")
    assert ended.status == 0
    found = explanations()["HQC205"]
    assert str(found) in ended.out
    assert all(text.split()[0] in ended.out for text in (*found.causes, *found.remedies))
    document = hqc("explain", "HQC205", "-f", "json").document["result"]["HQC205"]
    assert document["remedies"] == list(found.remedies)
