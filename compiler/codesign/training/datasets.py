"""Samples to measure and train on: a file, the user's own function, or a set that comes along.

Everything is read once, into memory, so that each step of a workflow, and a resumed one, sees the
same samples; a loader that augments at random therefore does so once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hqc.codesign.hessian.objective import Samples
from hqc.codesign.training.loop import Batches
from hqc.diagnostics import Exit, reject
from hqc.pipeline.user_code import is_reference, make, theirs

SPLIT_SEED, HELD_PART = 1, 5


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and labels of a classification.

    Attributes:
        name: where they are from.
        x, y: float32 inputs (N, ...) and int64 labels (N,) to train on.
        valid: the same, to choose the best epoch by and to report; None: there are none.
    """

    name: str
    x: Tensor
    y: Tensor
    valid: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        _check(self.name, "", self.x, self.y)
        if self.valid is not None:
            _check(self.name, "validation ", *self.valid)
            if self.valid[0].shape[1:] != self.x.shape[1:]:
                shapes = f"{tuple(self.valid[0].shape[1:])} and {tuple(self.x.shape[1:])}"
                raise _misfit(f"{self.name}: validation and training inputs differ: {shapes}")

    @property
    def digest(self) -> str:
        """SHA-256 of all samples."""
        found = hashlib.sha256()
        for tensor in (self.x, self.y, *(self.valid or ())):
            found.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()

    def batches(self, size: int) -> Batches:
        """Training batches, in an order drawn for each epoch."""
        return Batches(self.x, self.y, size)

    def valid_batches(self, size: int = 4096) -> Batches | None:
        """Validation batches, in order."""
        return None if self.valid is None else Batches(*self.valid, size, shuffle=False)

    def samples(self, most: int, seed: int) -> Samples:
        """At most so many training samples, drawn without repetition and kept in order."""
        if most >= len(self.y):
            return Samples((self.x,), self.y)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self.y), generator=generator)[:most].sort().values
        return Samples((self.x[rows],), self.y[rows])


def load_dataset(reference: str, seed: int = 0) -> Dataset:
    """Read samples.

    Args:
        reference: an .npz with x (N, ...), y (N,) and perhaps x_valid, y_valid; "FILE.py:NAME",
            a function that returns (train, valid) or train, each a loader of (x, y), a pair of
            tensors or `Batches`; or one of `NAMED`.
        seed: of torch's generator, for loaders that shuffle.

    Raises:
        HqcError: HQC001, nothing is called that, or the user's function fails; HQC003, a file
            with pickled arrays; HQC005, a file that cannot be read; HQC605, samples or labels
            that are no classification; HQC404, a library is missing.
    """
    if reference in NAMED:
        return NAMED[reference]()
    if reference.endswith(".npz"):
        return _from_file(Path(reference))
    if is_reference(reference):
        torch.manual_seed(seed)
        found = make(reference, "--data", call=Batches)
        file = Path(reference.rpartition(":")[0])
        with theirs(file, f"--data {reference}: reading it"):
            return _from_object(found, Path(reference).name)
    raise reject(
        "HQC001",
        f"--data {reference}: no such data",
        helps=(f"an .npz file, FILE.py:NAME, or one of {', '.join(NAMED)}",),
    )


def _from_file(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            known = {"x", "y", "x_valid", "y_valid"} & set(file.files)
            arrays = {name: file[name] for name in known}
            others = sorted(set(file.files) - known)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error) and zipfile.is_zipfile(path):
            raise reject(
                "HQC003",
                f"{path} holds pickled objects",
                notes=("unpickling can run any code, so hqc never does it",),
                helps=("save arrays of numbers: numpy.savez(path, x=x, y=y)",),
            ) from error
        reason = getattr(error, "strerror", None) or "it is no .npz file of numpy"
        raise reject("HQC005", f"cannot read {path}: {reason}") from error
    missing = [n for n in ("x", "y") if n not in arrays]
    if len(arrays) % 2 and not missing:
        missing = [n for n in ("x_valid", "y_valid") if n not in arrays]
    if missing:
        notes = (f"it has {', '.join(others)} instead",) if others else ()
        helps = ("numpy.savez(path, x=x, y=y), and x_valid, y_valid if there are such",)
        raise reject(
            "HQC005", f"{path} has no array {' and no '.join(missing)}", notes=notes, helps=helps
        )
    parts = [
        _tensors(arrays[f"x{s}"], arrays[f"y{s}"]) for s in ("", "_valid") if f"x{s}" in arrays
    ]
    return Dataset(path.name, *parts[0], parts[1] if len(parts) > 1 else None)


def _from_object(found: Any, name: str) -> Dataset:
    """(train, valid), or train alone; a pair of tensors is one set."""
    is_pair = isinstance(found, tuple) and len(found) == 2
    if is_pair and not all(isinstance(part, Tensor | np.ndarray) for part in found):
        train, valid = found
    else:
        train, valid = found, None
    return Dataset(name, *_read(train, name), None if valid is None else _read(valid, name))


def _read(source: Any, name: str) -> tuple[Tensor, Tensor]:
    if isinstance(source, Batches):
        return _tensors(source.x, source.y)
    if isinstance(source, tuple) and len(source) == 2:
        return _tensors(*source)
    try:
        batches = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in source]
    except (TypeError, ValueError) as error:
        raise reject(
            "HQC605",
            f"{name} gave no samples and labels",
            notes=(str(error)[:300],),
            helps=("return (train, valid), each a loader of (x, y) batches or a pair of tensors",),
        ) from error
    if not batches:
        raise _misfit(f"{name}: the loader is empty")
    return _tensors(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))


def _tensors(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Tensors whose labels are int64; what is no number stays as it is, to be refused."""
    try:
        x, y = torch.as_tensor(x), torch.as_tensor(y)
    except (TypeError, ValueError) as error:
        raise _misfit(f"samples or labels are no numbers: {error}"[:300]) from error
    if not y.is_floating_point() and y.dtype is not torch.bool:
        y = y.to(torch.int64)
    return x.detach().to(torch.float32).cpu(), y.detach().cpu()


def _check(name: str, part: str, x: Tensor, y: Tensor) -> None:
    if y.dtype != torch.int64 or y.dim() != 1:
        raise _misfit(
            f"{name}: {part}labels {tuple(y.shape)} of {str(y.dtype).removeprefix('torch.')}",
            "labels are whole numbers (N,): the classes, numbered from 0",
        )
    if x.dim() < 2 or len(x) != len(y):
        raise _misfit(f"{name}: {part}inputs {tuple(x.shape)} for labels {tuple(y.shape)}")
    if not len(x):
        raise _misfit(f"{name}: there are no {part}samples")
    bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
    if bad:
        raise _misfit(f"{name}: {bad} of {len(x)} {part}samples hold NaN or infinity")
    if int(y.min()) < 0:
        raise _misfit(f"{name}: {part}label {int(y.min())}", "number the classes from 0")


def _misfit(message: str, *helps: str) -> Exception:
    return reject("HQC605", message, helps=helps)


def _jets() -> Dataset:
    from hqc.codesign.jets.data import load_jets

    return _of_jets(load_jets("embedded"), "jets")


def _openml_jets() -> Dataset:
    from hqc.codesign.jets.data import load_jets

    return _of_jets(load_jets("openml"), "jets-openml")


def _of_jets(found: Any, name: str) -> Dataset:
    test = torch.from_numpy(found.test_x), torch.from_numpy(found.test_y)
    return Dataset(name, torch.from_numpy(found.train_x), torch.from_numpy(found.train_y), test)


def _digits() -> Dataset:
    x, y = _digit_images()
    return _held_out("digits", x.flatten(1), y)


def _digits_images() -> Dataset:
    return _held_out("digits-images", *_digit_images())


def _digit_images() -> tuple[Tensor, Tensor]:
    """The 8 x 8 digits of scikit-learn, (1797, 1, 8, 8) in 0..1, and their labels."""
    if importlib.util.find_spec("sklearn") is None:
        raise reject(
            "HQC404",
            "the digits come with scikit-learn, which is not installed",
            helps=("pip install 'hqc[datasets]'",),
            exit_=Exit.TOOL,
        )
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images.astype(np.float32) / 16).unsqueeze(1)
    return images, torch.from_numpy(found.target.astype(np.int64))


def _held_out(name: str, x: Tensor, y: Tensor) -> Dataset:
    """A fifth, drawn once and for all, is for validation."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held, rest = order[: len(y) // HELD_PART], order[len(y) // HELD_PART :]
    return Dataset(name, x[rest], y[rest], (x[held], y[held]))


#: Data sets by the names that `--data` knows.
NAMED: dict[str, Callable[[], Dataset]] = {
    "jets": _jets,
    "jets-openml": _openml_jets,
    "digits": _digits,
    "digits-images": _digits_images,
}
