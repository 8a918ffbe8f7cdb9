"""The training loop: it learns, repeats itself, resumes, stops, and says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqc.codesign.training.loop import Batches, Options, Outcome, calibrated, evaluate, train
from hqc.diagnostics import HqcError
from hqc.frontends.hawq.layers import HawqAct, HawqLinear
from hqc.frontends.hawq.wrap import quantize_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the layers are too small to share
    yield
    torch.set_num_threads(threads)


def net() -> nn.Module:
    torch.manual_seed(3)
    hidden = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.05))
    return quantize_model(nn.Sequential(hidden, nn.Linear(16, 3)), 6)


def data(samples: int = 300, size: int = 64) -> Batches:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(samples, 4, generator=generator)
    return Batches(x, x[:, :3].argmax(1), size)


def run(model: nn.Module, *args: Any, log: Any = None, **keywords: Any) -> Outcome:
    lines: list[str] = []
    return train(model, data(), *args, log=log or lines.append, **keywords)


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_it_learns_and_says_so() -> None:
    model, lines = net(), list[str]()
    options = Options(epochs=8, learning_rate=2e-2, freeze_ranges=5, fold_norms=5)
    valid = data(100)
    outcome = run(model, valid, options=options, log=lines.append)
    assert len(lines) == len(outcome.epochs) == 8
    assert lines[7].startswith("epoch 8: loss ")
    assert "accuracy" in lines[7]
    assert "validation" in lines[7]
    assert outcome.epochs[-1].accuracy > 0.8 > outcome.epochs[0].accuracy
    assert not model.training
    assert calibrated(model)
    best = outcome.epochs[outcome.best - 1]
    assert evaluate(model, valid)[0] == pytest.approx(best.valid_loss, rel=1e-5)
    assert all(bool(m.frozen) for m in model.modules() if isinstance(m, HawqAct))
    assert any(bool(m.folded) for m in model.modules() if isinstance(m, HawqLinear))


def test_the_seed_decides() -> None:
    first, again, other = net(), net(), net()
    run(first, options=Options(epochs=2, seed=1))
    run(again, options=Options(epochs=2, seed=1))
    run(other, options=Options(epochs=2, seed=2))
    assert same(first, again)
    assert not same(first, other)


def test_a_resumed_training_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    whole, parts, lines = net(), net(), list[str]()
    keywords = {"freeze_ranges": 3, "fold_norms": 2}
    want = run(whole, options=Options(epochs=4, **keywords))
    file = tmp_path / "training.pt"
    run(parts, options=Options(epochs=2, **keywords), checkpoint=file)
    fresh = net()
    got = run(fresh, options=Options(epochs=4, **keywords), checkpoint=file, log=lines.append)
    assert "resumed" in lines[0]
    assert got == want
    assert same(whole, fresh)
    assert [p.name for p in tmp_path.iterdir()] == ["training.pt"]


def test_l1_makes_weights_smaller() -> None:
    sizes = []
    for l1 in (0.0, 0.05):
        model = net()
        run(model, options=Options(epochs=4, learning_rate=1e-2, l1=l1))
        sizes.append(sum(float(p.detach().abs().sum()) for p in model.parameters() if p.dim() > 1))
    assert sizes[1] < 0.8 * sizes[0]


def test_patience_ends_it() -> None:
    options = Options(epochs=50, learning_rate=0.3, patience=2)
    outcome = run(net(), data(50), options=options)
    assert outcome.stopped_early
    assert len(outcome.epochs) == outcome.best + 2 < 50


def nan_after(_: Tensor, labels: Tensor) -> Tensor:
    return torch.tensor(float("nan"), requires_grad=True)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "HQC605.*no samples"),
        ([(torch.zeros(4, 4), torch.tensor([0, 1, 2, 3]))], "HQC605.*labels from 0 to 3"),
        ([(torch.zeros(2, 4), torch.tensor([0, -1]))], "HQC605.*labels from -1"),
        ([(torch.zeros(2, 4), torch.zeros(2))], "HQC605.*float32"),
        ([(torch.full((4, 4), float("nan")), torch.zeros(4, dtype=torch.int64))], "HQC604|HQC106"),
    ],
)
def test_data_that_do_not_fit(loader: Any, message: str) -> None:
    with pytest.raises(HqcError, match=message):
        train(net(), loader, log=str)


def test_a_loss_that_is_no_number() -> None:
    with pytest.raises(HqcError, match=r"HQC604.*nan(.|\n)*epoch 1, batch 1"):
        run(net(), loss=nan_after)


def test_a_generator_is_empty_the_second_time() -> None:
    batches = iter(list(data()))
    with pytest.raises(HqcError, match=r"HQC605(.|\n)*generator"):
        train(net(), batches, options=Options(epochs=2), log=str)


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    run(net(), options=Options(epochs=1), checkpoint=file)
    with pytest.raises(HqcError, match="HQC606"):
        run(net(), options=Options(epochs=2, seed=9), checkpoint=file)
    other = quantize_model(nn.Sequential(nn.Linear(4, 3)), 6)
    with pytest.raises(HqcError, match=r"HQC606.*another model"):
        run(other, options=Options(epochs=2), checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(HqcError, match=r"HQC606.*corrupt"):
        run(net(), options=Options(epochs=2), checkpoint=file)
    torch.save({"x": 1}, file)
    with pytest.raises(HqcError, match=r"HQC606.*no checkpoint"):
        run(net(), options=Options(epochs=2), checkpoint=file)


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"learning_rate": -1.0}, {"l1": float("nan")}, {"patience": 0}],
)
def test_options_out_of_range(options: Any) -> None:
    with pytest.raises(HqcError, match="HQC001"):
        Options(**options)


def test_no_such_device() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(HqcError, match=r"HQC001.*cuda"):
        run(net(), options=Options(epochs=1, device="cuda"))
