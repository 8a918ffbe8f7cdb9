"""Read programs saved by `torch.export.save`, without ever executing anything in the file.

torch's own reader unpickles several members of the archive (sample inputs, tensor subclasses,
custom and opaque objects, the older weight files) and falls back to older formats that are pickles
altogether. This reader opens the archive itself: it takes the program's JSON, through
`hqc.frontends.torch_export.sanitise`, and the tensors as raw bytes; no pickle is ever opened.
"""

from __future__ import annotations

import json
import pickletools
import re
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

import hqc.frontends.torch.quant_operator  # noqa: F401 - registers hqc::quant, which programs refer to
from hqc.diagnostics import HqcError, reject
from hqc.frontends.torch_export import sanitise

_MAX_MEMBERS = 100_000
_MAX_EXTRA = 1 << 26
_SAVE_HELP = (
    "save the program itself: torch.export.save(torch.export.export(model.eval(), inputs), path)"
)
#: Members that are read, and members that are known and left alone.
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
    r"|models/model\.json|data/sample_inputs/model\.pt|extra/.*"
    r"|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)"
)


def load_program(path: Path) -> ExportedProgram:
    """Read a `.pt2` (or `.pt`) file written by `torch.export.save` of torch 2.9 or later.

    Raises:
        HqcError: HQC002, the file is missing, empty, corrupt, truncated or of another format;
            HQC003, it is a pickle or holds pickled or otherwise executable content.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise reject("HQC002", f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise reject("HQC002", f"{path} is empty")
    if not head.startswith(b"PK"):
        raise _not_an_archive(path, head)
    try:
        with zipfile.ZipFile(path) as archive:
            return _load(_Archive(archive, path))
    except HqcError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise reject(
            "HQC002",
            f"{path} is corrupt or truncated",
            notes=(str(error)[:200],),
            helps=("save it again, or check the download",),
        ) from error


def read_extra(path: Path, name: str) -> bytes | None:
    """The bytes of an extra file of `torch.export.save`, or None where there is none.

    No more is asked of the file than to be a zip archive; `load_program` checks programs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [m for m in archive.namelist() if m.partition("/")[2] == f"extra/{name}"]
            if len(found) != 1 or archive.getinfo(found[0]).file_size > _MAX_EXTRA:
                return None
            return archive.read(found[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        return None


def _not_an_archive(path: Path, head: bytes) -> HqcError:
    if _looks_pickled(head):
        return _pickled(path, "a pickle")
    return reject("HQC002", f"{path} is not a program file", helps=(_SAVE_HELP,))


def _looks_pickled(head: bytes) -> bool:
    """Whether bytes begin as a pickle does; the opcodes are listed, not executed."""
    if head[257:262] == b"ustar":  # the oldest torch.save format: a tar of pickles
        return True
    if head[:1] == b"\x80" and head[1:2] and head[1] <= 5:
        return True
    seen = 0
    try:
        for opcode, _, _ in pickletools.genops(head):
            seen += 1
            if opcode.name == "STOP":
                return seen > 1
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        return seen > 8  # cut at the end of `head`, or not a pickle after a few bytes
    return True


def _pickled(path: Path, what: str) -> HqcError:
    return reject(
        "HQC003",
        f"{path} holds {what}",
        notes=("unpickling can run any code, so hqc never does it",),
        helps=(
            _SAVE_HELP,
            "for a state dict: torch.load(path, weights_only=True) into your module, then as above",
        ),
    )


class _Archive:
    """The members of a program archive, after checks that need no content."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self._archive = archive
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if not names or len(names) > _MAX_MEMBERS or len(set(names)) != len(names):
            raise reject("HQC002", f"{path} has no members, too many, or two of one name")
        if min(info.header_offset for info in infos) != 0:
            # The archive found is one inside the file, as where the end of the file is missing.
            raise reject("HQC002", f"{path} is corrupt or truncated")
        self.root = names[0].split("/")[0]
        self._infos = {info.filename.removeprefix(f"{self.root}/"): info for info in infos}
        self._check_kind()
        for name, info in self._infos.items():
            if not _KNOWN.fullmatch(name):
                raise _pickled(path, f"a member that is not part of a plain program, {name}")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise reject("HQC002", f"{path}: member {name} is compressed or encrypted")

    def _check_kind(self) -> None:
        if any(name.endswith(".pkl") for name in self._infos):
            raise _pickled(self.path, "a pickled module or state dict (torch.save or TorchScript)")
        if "serialized_exported_program.json" in self._infos or any(
            re.fullmatch(r"data/(weights|constants)/[^/]*\.pt", name) for name in self._infos
        ):
            raise _pickled(self.path, "a program of an older torch, with pickled weights")
        if "archive_format" not in self._infos or self.read("archive_format") != b"pt2":
            raise reject("HQC002", f"{self.path} is not a program file", helps=(_SAVE_HELP,))

    def read(self, name: str) -> bytes:
        """The bytes of a member, its checksum checked."""
        info = self._infos.get(name)
        if info is None:
            raise reject("HQC002", f"{self.path} has no member {name}")
        return self._archive.read(info)

    def json(self, name: str) -> dict[str, Any]:
        """A member that is a JSON object."""
        try:
            found = json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise reject("HQC002", f"{self.path}: {name} is not readable") from error
        if not isinstance(found, dict):
            raise reject("HQC002", f"{self.path}: {name} is not readable")
        return found


def _load(archive: _Archive) -> ExportedProgram:
    if archive.read("archive_version") != b"0" or archive.read("byteorder") != b"little":
        raise reject("HQC002", f"{archive.path} is of another archive version or byte order")
    if sys.byteorder != "little":
        raise reject("HQC002", "program files are read on little-endian machines only")
    try:
        raw = sanitise.program(archive.json("models/model.json"))
        weights = _tensors(archive, "weights", "weight")
        constants = _tensors(archive, "constants", "tensor")
        program = _deserialise(raw, weights, constants)
    except HqcError:
        raise
    except Exception as error:  # whatever torch raises on a malformed program is the file's fault
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise reject(
            "HQC002",
            f"{archive.path} does not hold a program that torch {torch.__version__} can read",
            notes=(reason[-1][:300],),
            helps=("save it again with torch.export.save of this version of torch",),
        ) from error
    _check_targets(program)
    return program


def _deserialise(
    raw: dict[str, Any], weights: dict[str, torch.Tensor], constants: dict[str, torch.Tensor]
) -> ExportedProgram:
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass

    described = _dict_to_dataclass(schema.ExportedProgram, raw)
    # Sample inputs are the one member that is always a pickle: they are not given.
    return ExportedProgramDeserializer().deserialize(described, weights, constants, None)


def _check_targets(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if node.op != "call_function" or isinstance(node.target, torch._ops.OpOverload):
            continue
        module = getattr(node.target, "__module__", "")
        name = getattr(node.target, "__name__", "")
        if module not in ("_operator", "torch") or (module == "torch" and name[:4] != "sym_"):
            raise sanitise.hostile("an operator", node.target)


def _tensors(archive: _Archive, kind: str, member: str) -> dict[str, torch.Tensor]:
    """The tensors of `data/weights` or `data/constants`, from raw bytes."""
    table = archive.json(f"data/{kind}/model_{kind}_config.json").get("config")
    if not isinstance(table, dict):
        raise reject("HQC002", f"{archive.path} has no table of {kind}")
    found, storages = {}, {}
    for name, entry in table.items():
        if entry.get("use_pickle") or not re.fullmatch(rf"{member}_\d+", entry["path_name"]):
            raise _pickled(archive.path, f"a pickled tensor or object, {str(name)[:80]}")
        entry = sanitise.plain(entry)
        path = entry["path_name"]
        if path not in storages:
            storages[path] = archive.read(f"data/{kind}/{path}")
        tensor = _tensor(archive, name, storages[path], entry["tensor_meta"])
        if entry.get("is_param"):
            grad = tensor.is_floating_point() and bool(entry["tensor_meta"]["requires_grad"])
            tensor = torch.nn.Parameter(tensor, requires_grad=grad)
        found[name] = tensor
    return found


def _tensor(archive: _Archive, name: str, data: bytes, meta: dict[str, Any]) -> torch.Tensor:
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    dtype = _SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]]
    sizes, strides = ([int(d["as_int"]) for d in meta[key]] for key in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    elements = len(data) // dtype.itemsize
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    if min([offset, *sizes, *strides, 0]) < 0 or last >= elements:
        raise reject("HQC002", f"{archive.path}: tensor {name} is larger than its data")
    storage = torch.frombuffer(bytearray(data), dtype=dtype, count=elements)
    return storage.as_strided(sizes, strides, offset).clone()
