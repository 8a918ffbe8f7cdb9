"""The command that hands a model to other compilers: export."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from hqc.cli.console import Console
from hqc.cli.result import Result
from hqc.ir.array_files import cannot_write
from hqc.pipeline.options import usage

#: Suffix of each form.
FORMS = {"mlir": ".mlir", "onnx-integer": ".onnx", "finn": ".onnx"}


def export_command(options: Namespace, console: Console) -> Result:
    """`hqc export`."""
    path = Path(options.output)
    if path.suffix != FORMS[options.to]:
        raise usage(f"{path}: --to {options.to} writes a {FORMS[options.to]} file")
    from hqc.integrations.core import lowered

    cut = lowered(options.model)
    data = _written(options.to, cut)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise cannot_write(path, error) from error
    ports = {p.name: str(p.type) for p in (*cut.inputs, *cut.outputs)}
    console.line(f"{path}: {options.to}, {len(data)} bytes; its ports carry codes")
    return Result(document={"output": str(path), "form": options.to, "ports": ports})


def _written(form: str, cut: object) -> bytes:
    if form == "mlir":
        from hqc.integrations.mlir import export_mlir

        return export_mlir(cut).encode()
    if form == "finn":
        from hqc.integrations.finn import export_finn

        return bytes(export_finn(cut).SerializeToString(deterministic=True))
    from hqc.integrations.onnx_integer import export_onnx_integer

    return bytes(export_onnx_integer(cut).SerializeToString(deterministic=True))
