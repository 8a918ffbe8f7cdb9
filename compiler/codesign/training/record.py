"""The archive that a training ends in: the exported program, and a record of how it came about."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqc.diagnostics import reject
from hqc.frontends.torch_export import export_module
from hqc.frontends.torch_export.training_record import FORMAT, MAGIC, MEMBER, read_record
from hqc.ir.array_files import cannot_write


def check_output(path: Path) -> None:
    """See that a file may be written, before the work begins.

    Raises:
        HqcError: HQC001, its suffix is another; HQC004, something is there that hqc did not train;
            HQC007, its directory is missing.
    """
    if path.suffix not in (".pt", ".pt2"):
        raise reject("HQC001", f"{path}: the output is a .pt or .pt2 file")
    if path.exists() and (path.is_dir() or read_record(path) is None):
        helps = ("choose another output",)
        raise reject("HQC004", f"{path} is not overwritten: hqc did not train it", helps=helps)
    if not path.parent.is_dir():
        raise reject("HQC007", f"cannot write {path}: there is no directory {path.parent}")


def save_trained(path: Path, net: nn.Module, example: Tensor, record: Mapping[str, Any]) -> None:
    """Write what `torch.export.load` and `hqc compile` read; the same net gives the same bytes.

    The record is in the archive, as the extra file `hqc-training.json`.

    Raises:
        HqcError: HQC007, it cannot be written; HQC102, `torch.export` refuses the net.
    """
    program = export_module(net, example)
    for node in program.graph.nodes:  # where torch took a node from: addresses in memory
        node.meta.pop("from_node", None)
    text = json.dumps({"magic": MAGIC, "format": FORMAT, **record}, indent=2, allow_nan=False)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={MEMBER: text + "\n"})
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        fresh.write_bytes(buffer.getvalue())
        fresh.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)
