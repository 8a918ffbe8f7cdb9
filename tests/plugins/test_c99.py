"""A backend from another package: listed, bit-exact, with options and a build of its own."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_ir import Model
from support.backend_graphs import corner_codes, evaluate, modes, zoo
from support.emulation_runs import assert_same, shared_cache  # noqa: F401 - a fixture
from support.plugin_site import (  # noqa: F401 - fixtures
    environment,
    importable_plugins,
    installed_plugins,
)
from support.small_model import Run, content, small_model
from support.tensor_graphs import (
    convolutions,
    elementwise,
    large,
    movements,
    pools,
    residual,
    together,
)
from torch import nn

import hqc
from hqc.analysis.partition import Partition
from hqc.diagnostics import Exit, HqcError
from hqc.pipeline import BackendOptions, Registry

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 10_000
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
Graph = tuple[Model, Partition]


@pytest.fixture
def c99(plugins: Path) -> Any:
    return Registry.default().backends["c99"]


# --- it is a backend like others ----------------------------------------------------------------


def test_the_core_does_not_know_it() -> None:
    folders = ("compiler", "passes", "frontends", "backends")
    files = (p for folder in folders for p in (ROOT / folder).rglob("*.py"))
    assert not [p for p in files if "c99" in p.read_text(encoding="utf-8").lower()]


def test_it_is_listed(plugins: Path, hqc: Run) -> None:
    found = hqc("backends", "-f", "json").document["result"]
    assert {"c99", "vitis", "catapult"} <= set(found)
    assert found["c99"]["capabilities"]["own_options"] == {"memory": "static", "word": 64}
    assert "microcontrollers" in hqc("backends").out
    assert "plug-in c99 (hqc.backends)" in hqc("doctor").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--part", "xc7"], "c99 has no --part"),
        (["--clock", "3"], "c99 has no --clock"),
        (["--strategy", "latency"], "c99 has no --strategy"),
        (["--io", "io_parallel"], "c99 has no --io"),
        (["--backend-option", "wrod=32"], "did you mean word?"),
        (["--backend-option", "word=16"], "word 16: 32 or 64"),
        (["--backend-option", "word=many"], "a value of type int is wanted"),
        (["--backend-option", "memory=heap"], "no such value"),
        (["--backend-option", "word"], "KEY=VALUE is wanted"),
        (["--backend-option", "word=32", "--backend-option", "word=64"], "each key once"),
    ],
)
def test_options_that_do_not_apply(
    arguments: list[str], words: str, plugins: Path, hqc: Run, model: Path
) -> None:
    ended = hqc("compile", model, "-b", "c99", "-o", "out", *arguments)
    assert ended.status == Exit.USAGE
    assert ended.codes == ["HQC001"]
    assert words in ended.err
    assert not Path("out").exists()


def test_backends_of_hqc_have_no_own_options(hqc: Run, model: Path) -> None:
    ended = hqc("compile", model, "-b", "vitis", "--backend-option", "word=32")
    assert ended.status == Exit.USAGE
    assert "options of vitis: --part, --technology, --clock" in ended.err


# --- its projects -------------------------------------------------------------------------------


@pytest.mark.emulation
def test_from_the_command_line(plugins: Path, hqc: Run, model: Path) -> None:
    options = ["-b", "c99", "-o", "out", "--backend-option", "memory=stack", "--build"]
    assert hqc("compile", model, *options).status == Exit.OK
    assert "memory=stack, word=64" in hqc("show", "out").out
    made = hqc_open("out")
    assert made.manifest.options["hardware"] == {
        "project": "small_net",
        "own": {"memory": "stack", "word": 64},
    }
    assert made.manifest.versions["hqc-c99"] == "0.1.0"
    assert sorted(p.name for p in Path("out/project").iterdir()) == [
        *("main.c", "small_net.c", "small_net.h"),
    ]
    np.save("x.npy", np.zeros((3, 4), np.float32))
    assert hqc("run", "out", "--input", "x.npy", "-o", "y.npy").status == Exit.OK
    assert np.load("y.npy").shape == (3, 2)
    assert hqc("check", "out", "--samples", "500").status == Exit.OK
    built = hqc("build", "out", "-f", "json").document["result"]["build"]
    assert built["text"] > 100
    assert (built["data"], built["bss"]) == (0, 0)
    before = content(Path("out"))
    assert hqc("compile", model, *options).status == Exit.OK
    assert content(Path("out")) == before


def hqc_open(path: str) -> hqc.Artifact:
    return hqc.Artifact.open(path)


@pytest.mark.emulation
def test_a_changed_constant_is_noticed(plugins: Path, hqc: Run, model: Path) -> None:
    assert hqc("compile", model, "-b", "c99", "-o", "out").status == Exit.OK
    source = Path("out/project/small_net.c")
    text = source.read_text()
    head, _, table = text.partition("_w[")
    source.write_text(head + "_w[" + table.replace("{\n    ", "{\n    1 + ", 1))
    ended = hqc("check", "out")
    assert ended.status == Exit.NOT_EXACT
    assert ended.codes == ["HQC403"]
    source.write_text(text.replace("int32_t sum", "int sum + 1"))
    assert hqc("check", "out").status == Exit.TOOL
    source.unlink()
    assert hqc("check", "out").codes == ["HQC006"]


@pytest.mark.emulation
def test_a_missing_compiler_is_named(
    plugins: Path, hqc: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hqc("compile", model, "-b", "c99", "-o", "out", "--check", "off").status == Exit.OK
    monkeypatch.setenv("CC", "no-such-gcc")
    ended = hqc("build", "out")
    assert (ended.status, ended.codes) == (Exit.TOOL, ["HQC404"])
    monkeypatch.setenv("PATH", "")
    ended = hqc("check", "out")
    assert (ended.status, ended.codes) == (Exit.TOOL, ["HQC404"])


# --- bit for bit --------------------------------------------------------------------------------


class Tagger(nn.Sequential):
    """The jet tagger's shape, with weights of a seed."""

    def __init__(self) -> None:
        sizes = (16, 64, 32, 32, 5)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers[:-1])


class Images(nn.Module):
    """Convolutions plain and depthwise, a residual sum, pools, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.depth = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.last = nn.Linear(8 * 3 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.depth(x)) + x
        x = torch.cat([torch.max_pool2d(x, 2), torch.nn.functional.avg_pool2d(x, 2)], 1)
        return self.last(torch.flatten(x, 1))


@pytest.mark.emulation
@pytest.mark.parametrize(
    ("make", "shape", "bits"), [(Tagger, (16,), 6), (Images, (1, 6, 6), 5)], ids=["jets", "images"]
)
def test_models_are_bit_exact(
    make: Callable[[], nn.Module], shape: tuple[int, ...], bits: int, plugins: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    x = np.random.default_rng(4).normal(size=(200, *shape)).astype(np.float32)
    made = hqc.compile(
        make().eval(), "c99", tmp_path / "net", example_inputs=torch.zeros(1, *shape), samples=x,
        quantise=bits, check=SAMPLES,
    )  # fmt: skip
    verdict = made.manifest.verdict
    assert verdict.exact
    assert verdict.overflow_free
    assert verdict.samples >= SAMPLES
    run_driver(made.path / "project")


def run_driver(project: Path) -> None:
    """Compile the project's own test driver, with the sanitiser of undefined behaviour."""
    compiler = shutil.which("gcc")
    assert compiler is not None
    flags = ["-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-o", "driver"]
    sources = sorted(p.name for p in project.glob("*.c"))
    subprocess.run([compiler, *STRICT, *flags, *sources], cwd=project, check=True)
    done = subprocess.run([project / "driver"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("0 codes differ")


GRAPHS: dict[str, Callable[[], Graph]] = {
    "modes": modes,
    "conv1d": lambda: convolutions(1, slice(None, None, 3)),
    "conv2d": lambda: convolutions(2, slice(1, None, 7)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}
LONG: dict[str, Callable[[], Graph]] = {
    "all-conv1d": lambda: convolutions(1, slice(None)),
    "all-conv2d": lambda: convolutions(2, slice(None), 4),
    "images": large,
}


@pytest.mark.emulation
@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=name) for name, make in GRAPHS.items()),
        *(pytest.param(make, id=name, marks=pytest.mark.long) for name, make in LONG.items()),
    ],
)
def test_every_layer_is_bit_exact(make: Callable[[], Graph], c99: Any, tmp_path: Path) -> None:
    model, parts = make()
    codes = corner_codes(parts, 60, 3)
    want = evaluate(parts, codes)
    few = tuple({name: x[:20] for name, x in side.items()} for side in (codes, want))
    emission = c99.emit(model, parts, BackendOptions(project="net"), tmp_path, few)
    assert_same(c99.emulator(tmp_path, parts).run(codes), want, parts)
    assert {"table_bytes", "buffer_bytes", "multiplications"} == set(emission.report)
    run_driver(tmp_path)


def test_what_no_word_holds_is_refused(c99: Any) -> None:
    found = c99.check(*zoo(), BackendOptions())
    assert found
    assert all(d.code == "HQC401" and "more than 64 bits" in d.message for d in found)
    assert all(str(d.where) for d in found)
    narrow = BackendOptions(own=c99.own_options(word=32))
    assert len(c99.check(*zoo(), narrow)) > len(found)


@pytest.mark.emulation
@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["qkeras_jettagging", "unsw_nb15-mlp-w2a2", "TFC_1W1A", "TFC_1W2A"]
)
def test_public_models(name: str, plugins: Path, shared_models: Path, tmp_path: Path) -> None:
    made = hqc.compile(shared_models / f"{name}.onnx", "c99", tmp_path / "net", check=SAMPLES)
    assert made.manifest.verdict.exact
    found = made.build()
    print(f"{name}: {found['text']} bytes of text, {found['bss']} of bss")


# --- what the protocol gives a backend ----------------------------------------------------------


def test_a_backend_can_ask_for_passes(c99: Any, tmp_path: Path) -> None:
    class Tidy(type(c99)):  # type: ignore[misc]
        name = "tidy"
        legalise = "propagate-precision,dce"

    registry = Registry.builtin().with_backend(Tidy())
    made = hqc.compile(
        small_model(), "tidy", tmp_path / "a", registry=registry, check=None, pipeline="default"
    )
    assert made.manifest.pipeline.endswith("dce,propagate-precision,propagate-precision,dce")
    again = hqc.compile(
        small_model(),
        "tidy",
        tmp_path / "b",
        registry=registry,
        check=None,
        pipeline=made.manifest.pipeline,
    )
    assert again.manifest.pipeline == made.manifest.pipeline


def test_a_backend_that_prepares_is_asked_for_nothing_else(c99: Any, tmp_path: Path) -> None:
    class Once(type(c99)):  # type: ignore[misc]
        name = "once"

        def prepare(self, model: Model, partition: Partition, options: BackendOptions) -> Any:
            self.check = self.emit = None
            ready = type("Ready", (), {"objections": super().check(model, partition, options)})
            emit = super().emit
            ready.emit = lambda _, *where: emit(model, partition, options, *where)
            return ready()

    registry = Registry.builtin().with_backend(Once())
    made = hqc.compile(small_model(), "once", tmp_path / "a", registry=registry, check=None)
    assert (made.path / "project" / "main.c").is_file()


def _raises(self: Any, *_: object) -> Any:
    raise RuntimeError("no more paper")


class _Emulator:
    """Gives something for every port."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def run(self, codes: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"check": _raises}, "no more paper"),
        ({"prepare": _raises}, "no more paper"),
        ({"prepare": lambda *_: None}, "raised AttributeError"),
        ({"emit": _raises}, "no more paper"),
        ({"emulator": _raises}, "no more paper"),
        ({"emulator": lambda *_: _Emulator({})}, "raised KeyError"),
        ({"emulator": lambda *_: _Emulator({"y": np.zeros((1, 2), np.int64)})}, "is wanted"),
        ({"emulator": lambda *_: _Emulator({"y": [[1, 2]]})}, "is wanted"),
    ],
)
def test_a_backend_that_fails_is_named(
    methods: dict[str, Any], words: str, c99: Any, tmp_path: Path
) -> None:
    wrong = type("Wrong", (type(c99),), {"name": "wrong", **methods})()
    registry = Registry.builtin().with_backend(wrong)
    with pytest.raises(HqcError) as found:
        hqc.compile(small_model(), "wrong", tmp_path / "a", registry=registry, check=50)
    assert [d.code for d in found.value.diagnostics] == ["HQC407"]
    assert found.value.exit is Exit.TOOL
    assert "the backend wrong raised" in str(found.value)
    assert words in str(found.value)
    assert not (tmp_path / "a").exists()


def test_half_a_backend_is_refused() -> None:
    class Half:
        name = "half"
        summary = "has no emulator"

    with pytest.raises(HqcError, match="HQC305") as found:
        Registry.builtin().with_backend(Half())  # type: ignore[arg-type]
    assert "it has no own_options" in str(found.value)
