"""Jet data for training: the embedded Monte Carlo, the official OpenML set, or a file.

The official set is OpenML 42468 (`hls4ml_lhc_jets_hlf`, 830,000 jets). The embedded one is a toy
made by `montecarlo` with the same 16 observables; accuracies on the two must not be compared.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_dir

from hqc.codesign.jets import montecarlo
from hqc.codesign.jets.observables import NAMES, observables
from hqc.diagnostics import Exit, reject

CLASSES = montecarlo.CLASSES
"""Order of the labels in every source: g, q, w, z, t."""
DEFAULT_JETS = 30_000
OPENML_ID = 42468
SPLIT_SEED, TEST_PART = 42, 0.2
_GENERATOR = ("splitting", "decays", "hadrons", "montecarlo", "clustering", "observables")


@dataclass(frozen=True)
class JetData:
    """Standardised inputs (N, 16) float32 and labels (N,) int64 of the two parts.

    `mean` and `std` (16,) are of the training part; `names` are the inputs, `classes` the labels.
    """

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    source: str
    names: tuple[str, ...] = NAMES
    classes: tuple[str, ...] = CLASSES


def load_jets(
    source: str = "embedded", *, n: int | None = None, seed: int = 1, cache: Path | None = None
) -> JetData:
    """Load jets, split them 80/20 and standardise both parts with the training mean and std.

    `source` is "embedded" (n jets, 30,000 unless told, generated under `seed`), "openml" or the
    path of an npz with X (N, 16) and y (labels or one-hot), and optionally `features` and
    `classes` where their order differs. The split is `openml_split`; n then limits the jets used.

    Raises:
        HqcError: HQC001, bad source or n; HQC005, a file that does not fit; HQC404, OpenML asked
            for without scikit-learn; HQC405, OpenML out of reach.
    """
    if n is not None and n < 100:
        raise reject("HQC001", f"{n} jets are too few: take 100 or more", exit_=Exit.USAGE)
    folder = cache or Path(user_cache_dir("hqc")) / "jets"
    if source == "embedded":
        x, y = embedded(n or DEFAULT_JETS, seed, folder)
    elif source == "openml":
        x, y = _cached(folder / f"openml-{OPENML_ID}.npz", lambda: _openml(folder))
    elif source.endswith(".npz"):
        x, y = _from_file(Path(source))
    else:
        raise reject(
            "HQC001",
            f"unknown jet data {source!r}",
            helps=("one of embedded, openml, or the path of an .npz file",),
            exit_=Exit.USAGE,
        )
    train, test = openml_split(len(x))
    if n is not None and n < len(x):
        held = math.ceil(TEST_PART * n)
        train, test = train[: n - held], test[:held]
    return _standardised(x[train], y[train], x[test], y[test], source)


def openml_split(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of training and test jets, as the published models split the official set.

    The same as scikit-learn's `train_test_split(test_size=0.2, random_state=42)`: a permutation of
    numpy's legacy generator whose head is the test part.
    """
    order = np.random.RandomState(SPLIT_SEED).permutation(n)
    held = math.ceil(TEST_PART * n)
    return order[held:], order[:held]


def embedded(n: int, seed: int, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The 16 observables and labels of n Monte Carlo jets, from the cache if it has them."""
    path = folder / f"embedded-{generator_key()}-n{n}-s{seed}.npz"
    return _cached(path, lambda: simulate(n, seed))


def simulate(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Generate n jets and compute their observables, (n, 16), and labels (n,)."""
    jets = montecarlo.generate(n, seed)
    x = observables(jets.constituents)
    x[:, NAMES.index("multiplicity")] = jets.multiplicity
    return x.astype(np.float32), jets.labels


def generator_key() -> str:
    """Version of the generator: a hash of its own source and of numpy's version."""
    digest = hashlib.sha256(np.__version__.encode())
    for name in _GENERATOR:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:12]


Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def _cached(path: Path, make: Callable[[], Labelled]) -> Labelled:
    """Read the file, or make it: written beside and renamed, so that no one sees half of it."""
    if path.is_file():
        with np.load(path) as file:
            return file["x"], file["y"]
    x, y = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, x=x, y=y)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return x, y


def _openml(folder: Path) -> Labelled:
    if importlib.util.find_spec("sklearn") is None:
        raise reject(
            "HQC404",
            f"OpenML {OPENML_ID} needs scikit-learn, which is not installed",
            helps=("pip install 'hqc[datasets]'", "or take the embedded data"),
            exit_=Exit.TOOL,
        )
    from sklearn.datasets import fetch_openml

    parser = "liac-arff" if importlib.util.find_spec("pandas") is None else "pandas"
    try:
        found = fetch_openml(
            data_id=OPENML_ID, as_frame=False, parser=parser, data_home=str(folder), cache=True
        )
    except (OSError, ValueError) as error:
        raise reject(
            "HQC405",
            f"OpenML {OPENML_ID} could not be fetched",
            notes=(f"{type(error).__name__}: {error}"[:300],),
            helps=("check the network, or take the embedded data",),
            exit_=Exit.TOOL,
        ) from error
    labels = np.asarray(found.target).astype(str)
    return _ordered(
        np.asarray(found.data), np.array([CLASSES.index(c) for c in labels]), found.feature_names
    )


def _from_file(path: Path) -> Labelled:
    try:
        with np.load(path) as file:
            arrays: Mapping[str, NDArray[np.generic]] = {k: file[k] for k in file.files}
    except (OSError, ValueError) as error:
        raise reject("HQC005", f"cannot read jets from {path}", notes=(str(error),)) from error
    missing = {"X", "y"} - set(arrays)
    if missing:
        raise reject("HQC005", f"{path} has no array {' and no '.join(sorted(missing))}")
    x, y = np.asarray(arrays["X"]), np.asarray(arrays["y"])
    names = [str(name) for name in arrays.get("features", np.array(NAMES))]
    classes = [str(name) for name in arrays.get("classes", np.array(CLASSES))]
    if x.ndim != 2 or len(x) != len(y) or len(x) < 100 or not np.isfinite(x).all():
        raise reject("HQC005", f"{path}: X {x.shape} and y {y.shape} are not 100 or more jets")
    if x.shape[1] != len(names) or sorted(classes) != sorted(CLASSES):
        raise reject(
            "HQC005",
            f"{path}: {x.shape[1]} columns and classes {', '.join(classes)} do not fit",
            notes=(f"wanted: {len(names)} columns, classes {', '.join(CLASSES)} in any order",),
        )
    index = y.argmax(axis=1) if y.ndim == 2 else y.astype(np.int64)
    if index.min() < 0 or index.max() >= len(CLASSES):
        raise reject("HQC005", f"{path}: labels outside 0..{len(CLASSES) - 1}")
    return _ordered(x, np.array([CLASSES.index(c) for c in classes])[index], names)


def _ordered(x: NDArray[np.generic], y: NDArray[np.int64], names: list[str]) -> Labelled:
    """Columns in the order of NAMES."""
    missing = [name for name in NAMES if name not in names]
    if missing:
        raise reject("HQC005", f"the data have no column {', '.join(missing)}")
    return x[:, [names.index(name) for name in NAMES]].astype(np.float32), y.astype(np.int64)


def _standardised(
    train_x: NDArray[np.float32],
    train_y: NDArray[np.int64],
    test_x: NDArray[np.float32],
    test_y: NDArray[np.int64],
    source: str,
) -> JetData:
    mean, std = train_x.mean(axis=0, dtype=np.float64), train_x.std(axis=0, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)
    parts = [((x - mean) / std).astype(np.float32) for x in (train_x, test_x)]
    return JetData(parts[0], train_y, parts[1], test_y, mean, std, source)
