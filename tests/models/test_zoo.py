"""The zoo: models of real shapes through every road, with nothing unexplained."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx_ir import Model
from support.emulation_runs import shared_cache  # noqa: F401 - a fixture
from zoo import brevitas_models, channels_last, files, imagenet, own_layers
from zoo.digits import accuracy, digits
from zoo.source import Source

import hqc
from hqc import pipeline
from hqc.driver import steps_of
from hqc.equivalence.float_error import deviations, undecided
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import against_oracle, compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.ir import Array
from hqc.pipeline import PassEvent
from hqc.pipeline.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")
long = pytest.mark.long

SAMPLES = 48
#: From Brevitas, from hqc's own layers, as a graph, or from other tools' files.
SMALL: dict[str, Callable[[Path], Source]] = {
    "brevitas residual": lambda _: brevitas_models.residual_digits(),
    "brevitas depthwise": lambda _: brevitas_models.depthwise(),
    "brevitas autoencoder": lambda _: brevitas_models.autoencoder(),
    "brevitas conv1d": lambda _: brevitas_models.conv1d(),
    "own depthwise": lambda _: own_layers.depthwise(),
    "own autoencoder": lambda _: own_layers.autoencoder(),
    "own conv1d": lambda _: own_layers.conv1d(),
    "own squeeze and excite": lambda _: own_layers.squeeze_excite(),
    "own late residual": lambda _: own_layers.late_residual(),
    "keras classifier": lambda _: channels_last.classifier(),
    "keras segmentation": lambda _: channels_last.segmentation(),
    "keras dense on images": lambda _: channels_last.dense_on_images(),
    "onnxruntime cnn": files.onnxruntime_cnn,
    "pt2e mlp": files.pt2e_mlp,
    "pt2e cnn": files.pt2e_cnn,
    "hawq residual": files.hawq_resconv,
}
CNV: dict[str, Callable[[Path], Source]] = {
    "cnv 1w1a": lambda _: brevitas_models.cnv_1w1a(),
    "cnv 1w2a": lambda _: brevitas_models.cnv_1w2a(),
}
IMAGENET = {"mobilenet v1": imagenet.mobilenet_v1, "resnet 18": imagenet.resnet18}

Made = Callable[[str], Source]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Each model, made once per worker."""
    made: dict[str, Source] = {}

    def source(name: str) -> Source:
        if name not in made:
            made[name] = (SMALL | CNV)[name](tmp_path_factory.mktemp("zoo"))
        return made[name]

    return source


def imported(source: Source) -> Model:
    return hqc.load(source.model, **source.keywords)


def inputs_of(model: Model, source: Source, count: int) -> dict[str, Array]:
    """Samples that the model was made for, and generated ones."""
    made = generate(model, count, seed=7)
    if source.samples is None:
        return dict(made)
    ((name, x),) = made.items()
    return {name: np.concatenate([source.samples[: count // 2], x[: count - count // 2]])}


def agrees_with_the_original(
    source: Source, model: Model, inputs: dict[str, Array], want: dict[str, Array]
) -> None:
    """Equal outputs, but where no float32 executor decides, or rounds within its error."""
    if source.floats is None:
        return
    (x,), ((output, expected),) = inputs.values(), want.items()
    trace = Reference(model).trace(inputs)
    exact = {str(v.name): tensor.values() for v, tensor in trace.items()}
    mine = source.floats(x)
    explained = undecided(model, inputs)
    found = deviations(model, inputs, {**exact, output: mine}, range(len(x)))
    close = np.array([d.kind == "rounding" for d in found])
    differs = (mine != expected).reshape(len(x), -1).any(axis=1)
    assert not np.any(differs & ~explained & ~close)


def compiles_exactly(source: Source, count: int) -> None:
    """Import, every pass, both executors and qonnx's, on the first and the last state."""
    model = imported(source)
    inputs = inputs_of(model, source, count)
    want = Reference(model).run(inputs)
    agrees_with_the_original(source, model, inputs, want)
    first = against_oracle(model, inputs)
    assert first.unexplained == 0, first.first
    records = pipeline.run(model, steps_of(None), Registry.builtin()).records
    assert all(record.checked >= 4 for record in records)
    assert compare(Reference(model).run(inputs), want).equal
    result = compare(Fast(model).run(inputs), want)
    assert result.equal, result.first
    last = against_oracle(model, inputs)
    assert last.unexplained == 0, last.first


@pytest.mark.parametrize("name", SMALL)
def test_every_road_gives_the_same_numbers(name: str, zoo: Made) -> None:
    compiles_exactly(zoo(name), SAMPLES)


@long
@pytest.mark.parametrize("name", CNV)
def test_cnv_gives_the_same_numbers(name: str, zoo: Made) -> None:
    compiles_exactly(zoo(name), 16)


def test_the_residual_network_has_learnt(zoo: Made) -> None:
    source = zoo("brevitas residual")
    model = imported(source)
    ((images, _),) = (digits()[1],)
    (name,) = (str(v.name) for v in model.graph.inputs)
    (outputs,) = Reference(model).run({name: images.numpy()}).values()
    assert accuracy(outputs) > 0.9


EMULATED = {"brevitas depthwise": "vitis", "keras segmentation": "catapult"}


@pytest.mark.emulation
@pytest.mark.parametrize(("name", "backend"), EMULATED.items())
def test_a_sample_is_bit_exact(name: str, backend: str, zoo: Made, tmp_path: Path) -> None:
    is_bit_exact(zoo(name), backend, tmp_path)


@long
@pytest.mark.emulation
@pytest.mark.parametrize("backend", ["vitis", "catapult"])
@pytest.mark.parametrize("name", SMALL)
def test_all_are_bit_exact(name: str, backend: str, zoo: Made, tmp_path: Path) -> None:
    is_bit_exact(zoo(name), backend, tmp_path)


def is_bit_exact(source: Source, backend: str, folder: Path, **options: object) -> None:
    arguments = {"samples": source.samples, "check": 200, **source.keywords, **options}
    made = hqc.compile(source.model, backend, folder / "out", **arguments)
    verdict = made.manifest.verdict
    assert (verdict.checked, verdict.exact, verdict.mismatches) == (True, True, 0)
    assert verdict.overflow_free


@long
@pytest.mark.emulation
@pytest.mark.parametrize("backend", ["vitis", "catapult"])
@pytest.mark.parametrize("name", CNV)
def test_cnv_is_bit_exact(name: str, backend: str, zoo: Made, tmp_path: Path) -> None:
    """With 64 products to a multiplier, as such a network is built."""
    is_bit_exact(zoo(name), backend, tmp_path, check=8, strategy="resource", reuse_factor=64)


@long
@pytest.mark.parametrize("name", IMAGENET)
def test_networks_for_imagenet(name: str) -> None:
    """All default passes with their checks, and exact runs, in two minutes and four gigabytes."""
    source = IMAGENET[name]()
    begun = time.process_time()
    model = imported(source)
    inputs = dict(generate(model, 4, seed=3))
    want = Reference(model).run(inputs)
    checked: list[int] = []
    pipeline.run(model, steps_of(None), Registry.builtin(), on_event=partial(_count, checked))
    assert min(checked) >= 4
    assert compare(Reference(model).run(inputs), want).equal
    result = compare(Fast(model).run(inputs), want)
    assert result.equal, result.first
    assert time.process_time() - begun < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KiB


def _count(checked: list[int], event: PassEvent) -> None:
    if event.record is not None:
        checked.append(event.record.checked)
