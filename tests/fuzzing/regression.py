"""Shrunk failures as text: what `tests/regressions/` holds, one graph a file."""

from __future__ import annotations

from pathlib import Path

import onnx

from hqc.ir import from_bytes, to_bytes
from hqc.text import parse_module, print_module

FOLDER = Path(__file__).resolve().parents[1] / "regressions"


def write(proto: onnx.ModelProto, path: Path, why: str) -> None:
    """The graph as a module, under a comment that says what went wrong with it."""
    model = from_bytes(proto.SerializeToString(), "net")
    comment = "".join(f"// {line}\n" for line in why.splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(comment + print_module(model, weights="full"), encoding="utf-8")


def read(path: Path) -> onnx.ModelProto:
    """The graph of a file that `write` wrote."""
    proto = onnx.load_from_string(to_bytes(parse_module(path.read_text(encoding="utf-8"))))
    del proto.metadata_props[:]  # a file from elsewhere, not a state of ours: import does its work
    return proto
