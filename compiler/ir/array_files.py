"""Arrays in files: samples in, outputs out, checked against the model and with stable bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hqc.diagnostics import HqcError, reject
from hqc.ir.store import Array, Boundary

Floats = npt.NDArray[np.float32]

#: Zip members need a date; one fixed date keeps equal content at equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def read_arrays(path: Path, inputs: Sequence[Boundary]) -> dict[str, Array]:
    """Read a `.npy` file (the single input) or an `.npz` file (inputs by name).

    Raises:
        HqcError: HQC005, unreadable or of an unknown format; HQC003, it holds pickled objects.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return by_name(found, inputs)
        with found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise _bad(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error).lower():
            raise reject(
                "HQC003",
                f"{path} is a pickle, or not an array file at all",
                notes=("arrays of Python objects are code, which hqc does not run",),
                helps=("save numbers with numpy.save or numpy.savez",),
            ) from error
        raise _bad(f"{path} is not a readable .npy or .npz file", notes=(str(error),)) from error


def by_name(array: Array, inputs: Sequence[Boundary]) -> dict[str, Array]:
    """A lone array as the mapping that a model with one input takes.

    Raises:
        HqcError: HQC005, the model has several inputs.
    """
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs)
        raise _bad(
            f"one array for a model with {len(inputs)} inputs",
            helps=(f"give an .npz file or a mapping with the names {names}",),
        )
    return {inputs[0].name: array}


def several_outputs(outputs: Mapping[str, object]) -> HqcError:
    """HQC005 for one array asked of a model with several outputs."""
    return _bad(
        f"one array in, but the model has the outputs {_names(outputs)}",
        helps=("give a mapping of inputs, and get one of outputs",),
    )


def check_inputs(arrays: Mapping[str, Array], inputs: Sequence[Boundary]) -> dict[str, Floats]:
    """Samples as float32, batch first, exactly as given.

    Numbers of another type are accepted when float32 holds each of them exactly.

    Raises:
        HqcError: HQC005, a name, shape or type does not fit, a value is NaN, infinite or would
            be rounded, or there are no samples.
    """
    wanted = {i.name: i for i in inputs}
    if set(arrays) != set(wanted):
        raise _bad(
            f"inputs {_names(arrays)} given, the model takes {_names(wanted)}",
            helps=("name the arrays of the .npz file after the model's inputs",),
        )
    checked = {name: _check(name, arrays[name], wanted[name].shape) for name in wanted}
    sizes = {name: len(array) for name, array in checked.items()}
    if len(set(sizes.values())) != 1:
        raise _bad(f"inputs with different numbers of samples: {sizes}")
    return checked


def _check(name: str, array: Array, shape: tuple[int, ...]) -> Floats:
    want = f"(N{''.join(f', {n}' for n in shape)})"
    if array.ndim == 0 or array.shape[1:] != shape:
        raise _bad(f"input {name} has shape {array.shape}, the model takes {want}")
    if len(array) == 0:
        raise _bad(f"input {name} holds no samples")
    if array.dtype.kind not in "fiub":
        raise _bad(f"input {name} has dtype {array.dtype}, not a real number")
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise _bad(f"input {name}{list(index)} is {array[index]}: every sample must be finite")
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, np.float32)
    if array.dtype != np.float32 and not np.array_equal(single.astype(array.dtype), array):
        raise _bad(
            f"input {name} has dtype {array.dtype} and values that float32 would round",
            helps=("convert it yourself, if that is meant: x.astype(numpy.float32)",),
        )
    return single


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "(none)"


def _bad(message: str, notes: Sequence[str] = (), helps: Sequence[str] = ()) -> HqcError:
    return reject("HQC005", message, notes=notes, helps=helps)


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an `.npz` file whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", _DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, _npy(arrays[name]))


def write_outputs(path: Path, outputs: Mapping[str, Array]) -> None:
    """Write outputs to `.npz` by name, or a lone output to `.npy`.

    Raises:
        HqcError: HQC001, another suffix, or several outputs for one `.npy`; HQC007.
    """
    check_output_path(path, len(outputs))
    try:
        if path.suffix == ".npz":
            write_npz(path, outputs)
        else:
            path.write_bytes(_npy(next(iter(outputs.values()))))
    except OSError as error:
        raise cannot_write(path, error) from error


def check_output_path(path: Path, outputs: int) -> None:
    """Refuse a file name that cannot hold that many outputs (HQC001)."""
    if path.suffix not in (".npy", ".npz"):
        raise reject("HQC001", f"{path}: outputs go to .npy or .npz")
    if path.suffix == ".npy" and outputs != 1:
        raise reject(
            "HQC001",
            f"{path} holds one array, the model has {outputs} outputs",
            helps=(f"write {path.with_suffix('.npz')} instead",),
        )


def cannot_write(path: Path, error: OSError) -> HqcError:
    """HQC007 for a file the system did not let us write."""
    return reject("HQC007", f"cannot write {path}: {error.strerror or error}")


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
