"""HAWQ checkpoint files, and the user's own Python file that says their structure."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_ir import Model

from hqc.diagnostics import reject
from hqc.frontends.hawq.importer import load
from hqc.frontends.hawq.state import is_hawq
from hqc.pipeline.user_code import make

#: Keys under which training scripts keep the state dict in a checkpoint.
_STATE_KEYS = ("state_dict", "model_state_dict", "model")


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a zip archive of `torch.save`, by the names in it; nothing is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def load_file(path: Path, structure: object = None) -> Model | None:
    """Read a HAWQ checkpoint; None if the file holds something else and no structure is given.

    The file is loaded by torch's restricted reader (`weights_only`), which makes tensors and plain
    containers and runs nothing.

    Args:
        path: of `torch.save`: a state dict, or a dict with one under "state_dict", and perhaps a
            "config" (see `hqc.frontends.hawq.load`).
        structure: a module, or "FILE.py:NAME" for one.

    Raises:
        HqcError: HQC002 the file is corrupt, HQC601/602 as `hqc.frontends.hawq.load`.
    """
    found = _weights(path)
    state, config = _parts(found) if isinstance(found, Mapping) else ({}, {})
    if not is_hawq(list(state)):
        if structure is None:
            return None
        raise reject(
            "HQC601",
            f"{path} holds no state dict of HAWQ's layers",
            notes=("--hawq-model is for checkpoints with QuantAct and QuantLinear layers",),
        )
    module = user_module(structure) if isinstance(structure, str) else structure
    return load(state, module, config=config)


def _weights(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None  # holds more than tensors: the caller says what that means
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise reject(
            "HQC002", f"{path} is corrupt or truncated", notes=(str(error)[:200],)
        ) from error


def _parts(found: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    config = found.get("config")
    inner = next((found[k] for k in _STATE_KEYS if isinstance(found.get(k), Mapping)), found)
    tensors = {str(k): v for k, v in inner.items() if hasattr(v, "detach")}
    return tensors, dict(config) if isinstance(config, Mapping) else {}


def user_module(reference: str) -> Any:
    """The module that "FILE.py:NAME" names: an instance, or a class or function to call.

    The file is the user's own, named by the user: it is run.

    Raises:
        HqcError: HQC001, there is no such file or name, it fails, or it gives no module.
    """
    from torch import nn

    found = make(reference, "--hawq-model", call=nn.Module)
    if not isinstance(found, nn.Module):
        raise reject(
            "HQC001",
            f"--hawq-model {reference} is no torch.nn.Module",
            helps=("hqc.frontends.hawq.modules has HAWQ's layers where its repository is absent",),
        )
    return found
