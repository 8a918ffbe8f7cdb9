"""From whatever a user calls a model to the IR's quantised state."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_ir import Model

from hqc import ir
from hqc.diagnostics import reject
from hqc.ir import State, state_of
from hqc.ir.collector import collector_paused
from hqc.numerics.types import FixedType
from hqc.pipeline import extensions
from hqc.pipeline.passes import Remark
from hqc.pipeline.registry import SUFFIXES, Registry


@dataclass(frozen=True)
class Source:
    """A model as it came, before normalisation.

    Attributes:
        model: the graph.
        name: file name without suffix, or the class of a module.
        file: file name, or a description of the Python object.
        sha256: of the file's bytes, or of the translated graph of a Python object.
    """

    model: Model
    name: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Loaded:
    """A model in one of the IR's states, where it came from, and what its import remarked."""

    model: Model
    source: Source
    remarks: tuple[Remark, ...]


@collector_paused()
def read(
    model: object,
    example_inputs: object = None,
    hawq_model: object = None,
    registry: Registry | None = None,
) -> Source:
    """Read a file or translate a Python object, without normalising it.

    Args:
        model: a path, an `onnx_ir.Model`, an `onnx.ModelProto`, a `torch.nn.Module` or a
            `torch.export.ExportedProgram`.
        example_inputs: for a module: a tensor or a tuple of them, batch first.
        hawq_model: for a HAWQ state dict in a .pt file: the module whose forward calls its
            layers, or "FILE.py:NAME" for one; None for a plain MLP.
        registry: whose frontends read files of other suffixes; by default what is installed.

    Raises:
        HqcError: HQC002 for files that are not models; HQC003 for pickles; HQC001 for another
            kind of object, or a module without example inputs.
    """
    if isinstance(model, str | Path):
        return _read_file(Path(model), hawq_model, registry)
    if hawq_model is not None:
        raise reject("HQC001", "hawq_model is for a HAWQ state dict in a .pt file")
    if isinstance(model, Model):
        return _from_graph(ir.from_bytes(ir.to_bytes(model), "the model"), "model")
    torch = sys.modules.get("torch")  # an object of torch's cannot exist before its import
    if torch is not None and isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
        return _from_torch(model, example_inputs)
    if hasattr(model, "SerializeToString"):
        return _from_graph(ir.from_bytes(model.SerializeToString(), "the model"), "model")
    raise reject(
        "HQC001",
        f"a model cannot be a {type(model).__name__}",
        helps=("pass a path, an onnx_ir.Model, a torch.nn.Module or an ExportedProgram",),
    )


def _read_file(path: Path, hawq_model: object, registry: Registry | None) -> Source:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise reject("HQC002", f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise reject("HQC002", f"{path} is empty")
    graph = _parse(path, data, hawq_model, registry)
    return Source(graph, path.stem, path.name, hashlib.sha256(data).hexdigest())


def _parse(path: Path, data: bytes, hawq_model: object, registry: Registry | None) -> Model:
    if hawq_model is not None and path.suffix not in (".pt", ".pth"):
        raise reject("HQC001", f"{path}: --hawq-model is for a HAWQ state dict in a .pt file")
    if path.suffix == ".onnx":
        return ir.from_bytes(data, str(path), path.parent)
    if path.suffix in (".pt", ".pth", ".pt2"):
        from hqc.frontends.hawq.files import is_checkpoint, load_file
        from hqc.frontends.torch_export import from_exported
        from hqc.frontends.torch_export.program_files import load_program

        if path.suffix != ".pt2" and is_checkpoint(path):
            found = load_file(path, hawq_model)
            if found is not None:
                return found
        return from_exported(load_program(path))
    if path.suffix == ".hqir":
        from hqc.text import parse_module

        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise reject("HQC002", f"{path} is not text: {error}") from error
        return parse_module(text)
    return _by_plugin(path, (registry or Registry.default()).frontends)


def _by_plugin(path: Path, frontends: Mapping[str, Any]) -> Model:
    name = extensions.frontend_for(path, frontends)
    if name is not None:
        return extensions.read_file(name, frontends[name], path)
    others = {suffix for f in frontends.values() for suffix in getattr(f, "suffixes", ())}
    raise reject(
        "HQC002",
        f"{path} is of an unknown format",
        helps=(f"known suffixes: {', '.join((*SUFFIXES, *sorted(others)))}",),
    )


def _from_torch(model: Any, example_inputs: object) -> Source:
    from torch.export import ExportedProgram

    from hqc.frontends.torch_export import from_torch

    name = "program" if isinstance(model, ExportedProgram) else type(model).__name__
    return _from_graph(from_torch(model, example_inputs), name)


def _from_graph(graph: Model, name: str) -> Source:
    digest = hashlib.sha256(ir.to_bytes(graph)).hexdigest()
    return Source(graph, name, f"{name} (in memory)", digest)


@collector_paused()
def normalise(
    source: Source,
    input_types: Mapping[str, FixedType] | None = None,
    registry: Registry | None = None,
) -> Loaded:
    """Bring a source into the quantised state; an integer graph stays as it is.

    Args:
        source: is edited in place.
        input_types: types of the inputs' quantisers, by name.
        registry: whose operators are written in known ones; by default what is installed.

    Raises:
        HqcError: HQC1xx with every problem that the import found.
    """
    from hqc.frontends.qcdq import is_integer_graph
    from hqc.frontends.qonnx import DOMAINS, normalise_import
    from hqc.frontends.torch_export.calibration import require_quantised

    if state_of(source.model) is State.INTEGER:
        if input_types:
            raise reject("HQC001", "input types are for models that are not lowered yet")
        return Loaded(source.model, source, ())
    remarks: tuple[Remark, ...] = ()
    if any(node.domain not in ("", "ai.onnx", *DOMAINS) for node in source.model.graph):
        operators = (registry or Registry.default()).operators
        remarks = extensions.rewrite_operators(source.model, operators)
    has_domain = any(node.domain for node in source.model.graph)  # QONNX operators have one
    if not has_domain and not is_integer_graph(source.model):
        require_quantised(source.model)
    imported = normalise_import(source.model, input_types=input_types)
    return Loaded(imported.model, source, (*remarks, *imported.remarks))
