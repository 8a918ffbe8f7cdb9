"""The text of docs/operators.md and docs/diagnostics.md."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper
from qonnx.custom_op.registry import getCustomOp

from hqc.diagnostics.explanations import explanations
from hqc.ir import QONNX
from reference.families import Family, families
from reference.forms import Form, forms
from reference.sources import constants, first_paragraph, prose, refusals

_OPERATORS = """# Operators

Made by `python tools/reference.py` from the tables and docstrings of the code: which operators hqc
reads, which of their attributes it looks at, what becomes of them, and what it refuses.

*ONNX* gives the versions of the operator set in which ONNX defines or changes the operator; shapes
are those that ONNX's own inference finds for the version that the file states. *Looked at* are the
attributes that the code of the section names. The *others* act through those shapes (`keepdims`,
`output_shape`), stay on a node that is kept or moved as it is, or have no meaning at inference
(`momentum`, `seed`). *Becomes* is what the default pipeline, run on the form, left in the integer
graph. *Verdict* is that of [the coverage table](coverage.md): the C++ of both backends, emulated
and compared with `==`.

An operator means what it says exactly, over the rational numbers: there is no tolerance. What
cannot be kept exactly is refused; the codes are explained in [Diagnostics](diagnostics.md).
"""
_DIAGNOSTICS = """# Diagnostics

Made by `python tools/reference.py`: what `hqc explain CODE` prints, for every code. Codes are
stable; a number keeps its meaning, or goes.

| codes | about |
|---|---|
| HQC0xx | the command line and files |
| HQC1xx | what the model says |
| HQC2xx | numerics and lowering |
| HQC3xx | passes and verification |
| HQC4xx | backends and checks |
| HQC5xx | defects of hqc |
| HQC6xx | HAWQ and training |
"""


def operators_page() -> str:
    """docs/operators.md."""
    found = forms()
    return (
        "\n".join([_OPERATORS, *(s for f in families() for s in _family(f, found))]).rstrip() + "\n"
    )


def diagnostics_page() -> str:
    """docs/diagnostics.md."""
    parts = [_DIAGNOSTICS]
    for code, explanation in explanations().items():
        parts.append(f"## {code}\n\n{explanation}\n")
    return "\n".join(parts).rstrip() + "\n"


def listed_operators() -> set[str]:
    """Every operator that the page names, without the prefix of QONNX's."""
    return {name.rpartition(".")[2] for family in families() for name in family.operators}


def _family(family: Family, found: list[Form]) -> Iterator[str]:
    yield f"## {family.title}\n"
    seen: set[str] = set()
    for thing in family.about:
        text = prose(thing)
        if text and text not in seen:
            yield f"{_titled(thing, text)}\n"
        seen.add(text)
    if family.remedies:
        yield "| operator | what to do instead |\n|---|---|"
        yield "".join(f"| {_name(n)} | {text} |\n" for n, text in family.remedies.items())
        return
    if family.operators:
        yield "| operator | ONNX | looked at | others | |\n|---|---|---|---|---|"
        yield "".join(_operator(name, family) for name in family.operators)
    mine = [f for f in found if f.title.startswith(family.rows)] if family.rows else []
    if mine:
        yield "| form | becomes | verdict |\n|---|---|---|"
        yield "".join(f"| {f.title} | {f.becomes} | {f.verdict} |\n" for f in mine)
    if family.listing:
        yield f"{_list(set(family.listing))}\n"
    refused = sorted({entry for found in family.refuses for entry in refusals(found)})
    if refused:
        yield "Refused:\n"
        yield "| code | message | help |\n|---|---|---|"
        yield "".join(
            f"| [{code}](diagnostics.md#{code.lower()}) | {_cell(message)} | {_cell(help_)} |\n"
            for code, message, help_ in refused
        )


def _titled(thing: object, text: str) -> str:
    """Classes and functions are named in front of what they say; modules are not."""
    name = getattr(thing, "__qualname__", "")
    return f"`{name}`: {text}" if name and not text.startswith("`") else text


def _operator(name: str, family: Family) -> str:
    """One row of a family's table."""
    known, versions = _schema(name)
    read = set().union(*(constants(module) for module in family.readers)) & known
    read = known if family.runs else read
    thing = family.operators[name]
    text = first_paragraph(thing) if thing is not None and thing not in family.about else ""
    cells = (_name(name), versions, _list(read), _list(known - read), _cell(text))
    return f"| {' | '.join(cells)} |\n"


def _schema(name: str) -> tuple[set[str], str]:
    """The attributes of an operator, and the versions in which ONNX defines it."""
    if name.startswith("qonnx."):
        plain = {"IntQuant": "Quant"}.get(name[6:], name[6:])
        node = helper.make_node(plain, ["x"], ["y"], domain=QONNX)
        return set(getCustomOp(node).get_nodeattr_types()), "QONNX"
    every = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == name]
    own = sorted((s for s in every if s.domain == ""), key=lambda s: s.since_version)
    if not own:
        return set(), "onnxruntime's"
    return set(own[-1].attributes), ", ".join(str(s.since_version) for s in own)


def _name(name: str) -> str:
    return f"`{name.removeprefix('qonnx.')}`"


def _list(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _cell(text: str) -> str:
    """Text in a table: stars are stars, and lines do not end."""
    return text.replace("*", "\\*").replace("|", "\\|").replace("\n", " ")
