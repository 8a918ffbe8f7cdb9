"""What becomes of each form in the coverage table: its rows are lowered, and looked at."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import onnx
from fuzzing.emulate import lowered
from fuzzing.rows import rows

from hqc.diagnostics import HqcError
from hqc.ir import location_of

COVERAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
#: Operators that the frame of every row has, beside the one that it is about.
_FRAME = {"Quant", "MatMul", "Conv", "Identity"}


@dataclass(frozen=True)
class Form:
    """One row of the coverage table.

    Attributes:
        title: of the row.
        operators: all of its file.
        becomes: operators of the integer graph that have the form's nodes as their origin, or a
            sentence; empty where it is refused.
        verdict: of the emulations, as docs/coverage.md has it, or the refusal.
    """

    title: str
    operators: frozenset[str]
    becomes: str
    verdict: str


def forms() -> list[Form]:
    """All rows, lowered."""
    verdicts = _verdicts()
    return [_form(title, proto, verdicts) for _, title, proto in rows()]


def _form(title: str, proto: onnx.ModelProto, verdicts: dict[str, str]) -> Form:
    found = frozenset(node.op_type for node in proto.graph.node)
    try:
        _, model, _ = lowered(proto)
    except HqcError as error:
        return Form(title, found, "", f"refused, {error.diagnostics[0].code}")
    origin: dict[str, list[str]] = defaultdict(list)
    for node in model.graph:
        origin[location_of(node).source].append(node.op_type)
    verdict = verdicts.get(title, "not in the table yet")
    return Form(title, found, _becomes(title, proto, origin), verdict)


def _becomes(title: str, proto: onnx.ModelProto, origin: dict[str, list[str]]) -> str:
    nodes = list(proto.graph.node)
    about = _about(title, nodes)
    parts = [op for node in about for op in origin.get(node.name, ())]
    if parts:
        return ", ".join(parts)
    behind = next((n for n in nodes[nodes.index(about[-1]) :] if n.op_type == "Quant"), None)
    inside = origin.get(behind.name, []) if behind is not None else []
    return f"in the quantiser behind it: {', '.join(inside)}" if inside else "nothing is left"


def _about(title: str, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that a row is about: those it names, or what is not in the frame of every row."""
    quants = [n for n in nodes if n.op_type in ("Quant", "BipolarQuant")]
    if title.startswith("input:"):
        return quants[:1]
    if title.startswith("weights:"):
        return [n for n in nodes if n.op_type == "MatMul"][:1]
    named = [n for n in nodes if re.search(rf"\b{n.op_type}(\d?d)?\b", title)]
    special = [n for n in nodes if n.op_type not in _FRAME]
    # the last quantiser: those of inputs and weights stand in front of what the row is about
    return [n for n in named if n.op_type != "Quant"] or special or quants[-1:]


def _verdicts() -> dict[str, str]:
    """The cells of docs/coverage.md, one for a row: all targets, or each that differs."""
    found: dict[str, str] = {}
    for line in COVERAGE.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\| (.+?) \|((?: [^|]+ \|)+)", line):
            cells = [cell.strip() for cell in match[2].strip("|").split("|")]
            found[match[1]] = " / ".join(dict.fromkeys(cells))
    return found
