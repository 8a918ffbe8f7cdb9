"""The jet example: its Monte Carlo, observables, data sources and training script."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hqc.diagnostics import HqcError

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "jets"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
LIBRARY = (
    *("splitting", "decays", "hadrons", "clustering", "observables", "montecarlo"),
    "data",
)
SCRIPTS = ("model", "train")
JETS = 6000


@pytest.fixture(scope="module")
def jets() -> Iterator[Any]:
    """The modules of jets, and those of the example as its scripts import them."""
    library = {name: importlib.import_module(f"hqc.codesign.jets.{name}") for name in LIBRARY}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**library, **{n: importlib.import_module(n) for n in SCRIPTS})
        for name in SCRIPTS:
            del sys.modules[name]


@pytest.fixture(scope="module")
def sample(jets: Any) -> Any:
    """Generated jets and their observables."""
    made = jets.montecarlo.generate(JETS, seed=7)
    values = jets.observables.observables(made.constituents)
    columns = dict(zip(jets.observables.NAMES, values.T, strict=True))
    columns["multiplicity"] = made.multiplicity
    return SimpleNamespace(jets=made, values=values, **columns)


def of(sample: Any, jets: Any, name: str) -> np.ndarray:
    return sample.jets.labels == jets.montecarlo.CLASSES.index(name)


# Observables


def test_identities_hold(sample: Any) -> None:
    assert np.array_equal(sample.d2_a1_b1_mmdt, sample.d2_b1_mmdt)
    for b in ("b1", "b2"):
        c1, c2, d2 = (getattr(sample, f"{name}_{b}_mmdt") for name in ("c1", "c2", "d2"))
        np.testing.assert_allclose(c2, c1 * d2, rtol=1e-12)
    assert np.isfinite(sample.values).all()
    assert (sample.zlogz <= 0).all()
    assert (sample.c1_b0_mmdt <= 0.5).all()


def test_correlators_equal_their_sums(jets: Any) -> None:
    random = np.random.default_rng(3)
    n = 7
    pt, eta, phi = random.uniform(1, 50, n), *random.normal(0, 0.2, (2, n))
    found = jets.observables.shapes(np.stack([pt, eta, phi], axis=1)[None])
    z = pt / pt.sum()

    def angle(i: int, j: int) -> float:
        return float(np.hypot(eta[i] - eta[j], phi[i] - phi[j]))

    pairs = [(z[i] * z[j], angle(i, j)) for i, j in itertools.combinations(range(n), 2)]
    triples = [
        (z[i] * z[j] * z[k], sorted((angle(i, j), angle(i, k), angle(j, k))))
        for i, j, k in itertools.combinations(range(n), 3)
    ]
    for b in (1, 2):
        e2 = sum(w * r**b for w, r in pairs)
        e3 = sum(w * np.prod(r) ** b for w, r in triples)
        want = {
            "c1": e2,
            "c2": e3 / e2**2,
            "d2": e3 / e2**3,
            "m2": sum(w * r[0] ** b for w, r in triples) / e2,
            "n2": sum(w * (r[0] * r[1]) ** b for w, r in triples) / e2**2,
        }
        for name, value in want.items():
            np.testing.assert_allclose(found[f"{name}_b{b}_mmdt"][0], value, rtol=1e-12)
    np.testing.assert_allclose(found["c1_b0_mmdt"][0], sum(w for w, _ in pairs), rtol=1e-12)


def test_mass_drop_follows_the_momentum_fraction(jets: Any) -> None:
    def kept(soft: float) -> list[bool]:
        rows = np.array([[[60, 0.0, 0.0], [40, 0.1, 0.0], [soft, 0.5, 0.0], [0, 0, 0]]])
        history = jets.clustering.cluster(jets.clustering.four_vectors(rows))
        return list(jets.clustering.mass_drop(history)[0])

    assert kept(10.0) == [True, True, False, False]
    assert kept(13.0) == [True, True, True, False]


def test_empty_and_single_jets_give_zeros(jets: Any) -> None:
    rows = np.zeros((2, 3, 3))
    rows[1, 1] = [5.0, 0.1, 0.2]
    found = jets.observables.observables(rows)
    assert found[0].tolist() == [0.0] * 16
    assert found[1, :14].tolist() == [0.0] * 14
    assert found[1, 14] < 1e-5
    assert found[1, 15] == 1


def test_invariances(jets: Any, sample: Any) -> None:
    rows, want = sample.jets.constituents[:300], sample.values[:300]
    mass = jets.observables.NAMES.index("mass_mmdt")
    random = np.random.default_rng(1)
    shuffled = random.permuted(np.arange(rows.shape[1])[None].repeat(len(rows), 0), axis=1)
    permuted = np.take_along_axis(rows, shuffled[..., None], axis=1)
    moved = np.where(rows[..., :1] > 0, rows + np.array([0.0, 0.7, 2.9]), 0.0)
    for changed in (permuted, moved, rows * np.array([1.0, 1.0, -1.0])):
        found = jets.observables.observables(changed)
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)
    scaled = jets.observables.observables(rows * np.array([8.0, 1.0, 1.0]))
    scaled[:, mass] /= 8.0
    np.testing.assert_allclose(scaled, want, rtol=1e-9, atol=1e-6)
    # A turn about the axis is no exact symmetry of distances in rapidity, but nearly one.
    turned = rows.copy()
    turned[..., 1], turned[..., 2] = rows[..., 2], -rows[..., 1]
    found = jets.observables.observables(turned)
    close = np.isclose(found, want, rtol=0.05, atol=1e-6).mean(axis=0)
    assert close.min() > 0.9


def test_observables_agree_with_those_of_the_reference_jets(jets: Any) -> None:
    files = SHARED / "l1jetid_x_test_32const.npy", SHARED / "jets3000_hlf16.npz"
    if not all(file.is_file() for file in files):
        pytest.skip("the reference jets are not present beside the repository")
    found = jets.observables.observables(np.load(files[0]))
    with np.load(files[1]) as reference:
        names, want = list(reference["features"]), reference["X"]
    for column, name in enumerate(jets.observables.NAMES):
        mine, given = found[:, column], want[:, names.index(name)]
        # The file sets ratios to zero where their denominator is below 1e-15.
        floor = found[:, jets.observables.NAMES.index("c1_b2_mmdt")] ** 3 < 1e-15
        rows = ~floor if name == "d2_b2_mmdt" else np.ones(len(mine), dtype=bool)
        assert not given[~rows].any()
        np.testing.assert_allclose(mine[rows], given[rows], rtol=2e-5, atol=1e-3)


# Physics of the generator


@pytest.mark.parametrize(("name", "mass"), [("w", 80.377), ("z", 91.1876), ("t", 172.69)])
def test_groomed_mass_peaks_at_the_true_mass(
    jets: Any, sample: Any, name: str, mass: float
) -> None:
    found = sample.mass_mmdt[of(sample, jets, name)]
    near = found[np.abs(found - mass) < 15]
    assert len(near) > 0.35 * len(found)
    assert np.median(near) == pytest.approx(mass, abs=3)


def test_quarks_and_gluons_differ_by_their_colour(jets: Any, sample: Any) -> None:
    gluon, quark = of(sample, jets, "g"), of(sample, jets, "q")
    ratio = sample.multiplicity[gluon].mean() / sample.multiplicity[quark].mean()
    assert 1.2 < ratio < 2.25
    assert np.median(sample.mass_mmdt[gluon]) > np.median(sample.mass_mmdt[quark])


def test_two_prongs_have_smaller_d2_than_quarks_and_gluons(jets: Any, sample: Any) -> None:
    heavy = sample.mass_mmdt > 50
    d2 = {n: np.median(sample.d2_b1_mmdt[of(sample, jets, n) & heavy]) for n in "gqwz"}
    assert max(d2["w"], d2["z"]) < 0.9 * min(d2["g"], d2["q"])


def test_emission_probability_is_the_sudakov_factor(jets: Any) -> None:
    splitting = jets.splitting
    size, pt, reach = 20_000, 60.0, 0.8
    # The rate in ln(theta^2) and z, integrated over the region above the cutoff.
    angle = np.exp(np.linspace(np.log(2 / pt), np.log(reach), 400))[:, None]
    edges = np.linspace(np.log(1e-3), 0.0, 4001)
    z = np.exp(0.5 * (edges[1:] + edges[:-1]))[None]
    kt = np.minimum(z, 1 - z) * angle * pt
    flavours = {"g": splitting.GLUON, "q": splitting.QUARK}
    for label, flavour in flavours.items():
        density = splitting.alpha_s(kt) / (2 * np.pi) * splitting.kernel(np.array(flavour), z) * z
        rate = (density * (kt > splitting.KT_CUT)).sum(axis=1) * (edges[1] - edges[0])
        expected = np.exp(-np.trapezoid(rate, 2 * np.log(angle[:, 0])))
        zero = np.zeros(size)
        start = splitting.Partons(
            np.arange(size), np.full(size, flavour), zero + pt, zero, zero, zero + reach, zero
        )
        final = splitting.shower(start, np.random.default_rng(5))
        alone = (np.bincount(final.system) == 1).mean()
        assert alone == pytest.approx(expected, abs=0.01), label
        assert np.bincount(final.system, weights=final.pt) == pytest.approx(pt)
        z_all = np.linspace(1e-4, 1 - 1e-4, 1000)
        colour = splitting.C_F if label == "q" else splitting.C_A
        assert (splitting.kernel(np.full(1000, flavour), z_all) <= 2 * colour / z_all).all()


def test_decays_conserve_momentum(jets: Any) -> None:
    decays, random = jets.decays, np.random.default_rng(2)
    momentum = random.normal(0, 300, (50, 3))
    energy = np.sqrt((momentum**2).sum(axis=1) + decays.M_TOP**2)
    parent = np.concatenate([energy[:, None], momentum], axis=1)
    one, two = decays.two_body(parent, np.full(50, 4.78), np.full(50, decays.M_W), random)
    np.testing.assert_allclose(one + two, parent, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(decays.mass_of(two), decays.M_W, rtol=1e-6)
    space = random.normal(0, 10, (500, 3))
    loose = np.concatenate([np.linalg.norm(space, axis=1)[:, None], space], axis=1)
    system = np.arange(500) % 50
    moved = decays.remass(loose, system, parent)
    np.testing.assert_allclose(decays.totals(moved, system, 50), parent, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(decays.mass_of(moved), 0, atol=1e-3)


def test_decayed_bosons_have_their_mass_without_a_detector(jets: Any) -> None:
    perfect = jets.hadrons.Detector(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    made = jets.montecarlo.generate(1000, seed=3, detector=perfect)
    few = made.multiplicity <= made.constituents.shape[1]
    mass = jets.observables.mass(made.constituents[few & (made.labels == 3)])
    # What is missing left the cone.
    assert np.median(mass) == pytest.approx(jets.decays.M_Z, abs=1.0)


def test_generation_is_deterministic(jets: Any) -> None:
    one, same, other = (jets.data.simulate(400, seed) for seed in (11, 11, 12))
    assert np.array_equal(one[0], same[0])
    assert np.array_equal(one[1], same[1])
    assert not np.array_equal(one[0], other[0])
    assert np.bincount(one[1]).tolist() == [80] * 5


# Data


def test_the_split_is_that_of_the_papers(jets: Any) -> None:
    train, test = jets.data.openml_split(10)
    assert test.tolist() == [8, 1]
    assert train.tolist() == [5, 0, 7, 2, 9, 4, 3, 6]


def test_embedded_data_are_cached_and_standardised(
    jets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = jets.data.load_jets(n=500, seed=4, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(jets.data, "simulate", None)
    again = jets.data.load_jets(n=500, seed=4, cache=tmp_path)
    assert np.array_equal(first.train_x, again.train_x)
    assert first.train_x.shape == (400, 16)
    assert first.test_x.shape == (100, 16)
    np.testing.assert_allclose(first.train_x.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(first.train_x.std(axis=0), 1, atol=1e-3)


def test_a_file_is_put_in_order(jets: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 16)).astype(np.float32), random.integers(0, 5, 200)
    names, classes = jets.data.NAMES, jets.data.CLASSES
    np.savez(tmp_path / "plain.npz", X=x, y=y)
    np.savez(
        tmp_path / "turned.npz",
        X=x[:, ::-1],
        y=np.eye(5)[:, ::-1][y],
        features=np.array(names[::-1]),
        classes=np.array(classes[::-1]),
    )
    plain, turned = (jets.data.load_jets(str(tmp_path / f"{n}.npz")) for n in ("plain", "turned"))
    assert np.array_equal(plain.train_x, turned.train_x)
    assert np.array_equal(plain.test_y, turned.test_y)


def test_bad_data_are_refused_with_a_code(jets: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "empty.npz", X=np.zeros((200, 16)))
    np.savez(tmp_path / "narrow.npz", X=np.zeros((200, 3)), y=np.zeros(200))
    (tmp_path / "text.npz").write_text("no archive")
    cases = {
        "cloud": "HQC001",
        str(tmp_path / "absent.npz"): "HQC005",
        str(tmp_path / "text.npz"): "HQC005",
        str(tmp_path / "empty.npz"): "HQC005",
        str(tmp_path / "narrow.npz"): "HQC005",
    }
    for source, code in cases.items():
        with pytest.raises(HqcError) as caught:
            jets.data.load_jets(source, cache=tmp_path)
        assert caught.value.diagnostics[0].code == code


def fake_openml(monkeypatch: pytest.MonkeyPatch, jets: Any, fetch: Any) -> None:
    """Stand in for scikit-learn, so that no test reaches for the network."""
    datasets = ModuleType("sklearn.datasets")
    datasets.fetch_openml = fetch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    monkeypatch.setattr(jets.data.importlib.util, "find_spec", lambda name: True)


def test_openml_says_what_is_missing(
    jets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(jets.data.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(HqcError, match="HQC404"):
            jets.data.load_jets("openml", cache=tmp_path)

    def unreachable(**options: Any) -> None:
        raise OSError("no route")

    fake_openml(monkeypatch, jets, unreachable)
    with pytest.raises(HqcError, match="HQC405"):
        jets.data.load_jets("openml", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_openml_labels_take_the_order_of_the_classes(
    jets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.array(["g", "q", "t", "w", "z"] * 40)
    x = np.random.default_rng(0).normal(size=(200, 16))
    answer = SimpleNamespace(data=x, target=labels, feature_names=list(jets.data.NAMES))
    fake_openml(monkeypatch, jets, lambda **options: answer)
    found = jets.data.load_jets("openml", cache=tmp_path)
    _, test = jets.data.openml_split(200)
    assert [found.classes[k] for k in found.test_y] == labels[test].tolist()


# Training


def test_auc_by_hand(jets: Any) -> None:
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    assert jets.train.auc(scores, positive) == pytest.approx(3.5 / 4)


def test_the_script_trains_and_saves(
    jets: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jets.data, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    outputs = []
    for folder in ("one", "two"):
        path = tmp_path / folder / "jets.pt2"
        options = ["--jets", "8000", "--epochs", "4", "--seed", "2", "-o", str(path)]
        assert jets.train.main(options) == 0
        program = torch.export.load(path).module()
        samples = np.load(path.with_name("samples.npy"))
        assert samples.dtype == np.float32
        outputs.append(program(torch.from_numpy(samples)).detach().numpy())
        assert program(torch.from_numpy(samples[:3])).shape == (3, 5)
    assert np.array_equal(*outputs)
    printed = capsys.readouterr().out
    good = float(printed.split("test accuracy ")[-1].split()[0])
    assert 0.6 < good < 0.85
    assert "AUC g 0." in printed


def test_the_script_reports_refusals(jets: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert jets.train.main(["--data", "cloud"]) == 2
    assert "HQC001" in capsys.readouterr().err
