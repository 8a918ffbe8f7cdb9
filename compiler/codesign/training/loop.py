"""Quantisation-aware training: one loop, reproducible, resumable, and frank about what fails.

Gradients pass straight through the quantisers. Ranges are frozen and batch norms folded at the
epochs that the options say; each epoch draws its order from the seed and its own number, so a
training that is resumed goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hqc.diagnostics import HqcError, Location, reject
from hqc.diagnostics.events import Event, Watch, stage
from hqc.frontends.hawq.layers import HawqAct, freeze

Loader = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

_VERSION = 1


@dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        epochs: at most so many.
        learning_rate: of Adam.
        l1: factor of the sum of weight magnitudes in the loss; biases and norms are left alone.
        seed: of the order of samples, and of dropout.
        freeze_ranges: epoch from which activation ranges are fixed; None: only at the end.
        fold_norms: epoch from which batch norms are folded; None: when evaluating only.
        patience: epochs without a better validation loss after which training stops; None: never.
        device: "cpu" or "cuda", or None for the GPU where there is one.
    """

    epochs: int = 20
    learning_rate: float = 1e-3
    l1: float = 0.0
    seed: int = 0
    freeze_ranges: int | None = None
    fold_norms: int | None = None
    patience: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        ends = (self.epochs, self.learning_rate)
        if min(ends) <= 0 or self.l1 < 0 or not math.isfinite(self.learning_rate + self.l1):
            raise reject("HQC001", f"training options out of range: {self}")
        if self.patience is not None and self.patience < 1:
            raise reject("HQC001", f"patience {self.patience} is less than one epoch")
        if self.freeze_ranges is not None and self.freeze_ranges < 2:
            raise reject(
                "HQC001", "ranges are found in the first epoch: freeze them from the second"
            )


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave; accuracies are fractions of the samples."""

    number: int
    loss: float
    accuracy: float
    valid_loss: float | None = None
    valid_accuracy: float | None = None

    def __str__(self) -> str:
        text = f"loss {self.loss:.4f}, accuracy {self.accuracy:.4f}"
        if self.valid_loss is None:
            return text
        return f"{text}; validation loss {self.valid_loss:.4f}, accuracy {self.valid_accuracy:.4f}"

    @property
    def score(self) -> float:
        """The loss that early stopping watches."""
        return self.loss if self.valid_loss is None else self.valid_loss


@dataclass(frozen=True)
class Outcome:
    """All epochs, which of them was the best, and whether patience ended the training."""

    epochs: tuple[Epoch, ...]
    best: int
    stopped_early: bool


@dataclass(frozen=True)
class Batches:
    """Samples in batches, in an order drawn anew for each epoch from torch's generator.

    Attributes:
        x, y: samples (N, ...) and labels (N,).
        size: of a batch.
        shuffle: whether to draw an order.
    """

    x: Tensor
    y: Tensor
    size: int = 256
    shuffle: bool = True

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.x)) if self.shuffle else torch.arange(len(self.x))
        for part in order.split(self.size):
            yield self.x[part], self.y[part]


def train(
    model: nn.Module,
    data: Loader,
    valid: Loader | None = None,
    *,
    options: Options | None = None,
    loss: Loss | None = None,
    checkpoint: str | Path | None = None,
    log: Callable[[str], None] = print,
    watch: Watch | None = None,
) -> Outcome:
    """Train a module in place for classification; it ends in eval mode, ranges frozen, at its best.

    Args:
        model: from `quantize_model`, or of any layers; gives logits (N, classes).
        data: batches (x, y), iterated once per epoch.
        valid: batches that early stopping and the choice of the best epoch look at; else the
            training loss decides.
        options: see `Options`.
        loss: of logits and labels (N,); by default cross entropy.
        checkpoint: file written after each epoch, in one step; if it is there, training resumes.
        log: receives one line per epoch.
        watch: receives the beginning and end of each epoch, in place of those lines.

    Raises:
        HqcError: HQC604 the loss is NaN or infinite; HQC605 a loader is empty, or labels are no
            classes of the model; HQC606 the checkpoint is corrupt, or of another model or other
            options; HQC001 no such device.
    """
    chosen = options or Options()
    run = _Run(model, chosen, loss or nn.functional.cross_entropy)
    tell = watch or _in_lines(log)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        run.resume(path)
        tell(Event("resumed", 0.0, f"from {path.name} after epoch {len(run.history)}"))
    while len(run.history) < chosen.epochs and not run.stopped_early:
        with stage(f"epoch {len(run.history) + 1}", tell) as note:
            note.detail = str(run.epoch(data, valid))
            if path is not None:
                run.save(path)
    return run.finish()


def _in_lines(log: Callable[[str], None]) -> Watch:
    def tell(event: Event) -> None:
        if event.seconds is not None:
            log(f"{event.name}: {event.detail}")

    return tell


@torch.no_grad()  # type: ignore[untyped-decorator]
def evaluate(model: nn.Module, data: Loader, loss: Loss | None = None) -> tuple[float, float]:
    """Mean loss and accuracy over batches, in eval mode; the module keeps its own mode.

    Raises:
        HqcError: HQC605 as `train`.
    """
    training = model.training
    model.eval()
    meter = _Meter()
    device = _device_of(model)
    for x, y in data:
        x, y = x.to(device), y.to(device)
        logits = model(x)
        _check(logits, y)
        meter.add((loss or nn.functional.cross_entropy)(logits, y), logits, y)
    model.train(training)
    return meter.result("validation")


class _Meter:
    """Running means, weighted by batch sizes."""

    def __init__(self) -> None:
        self._loss, self._right, self._count = 0.0, 0, 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self._loss += float(loss.detach()) * len(labels)
        self._right += int((logits.argmax(1) == labels).sum())
        self._count += len(labels)

    def result(self, what: str) -> tuple[float, float]:
        if not self._count:
            raise reject(
                "HQC605",
                f"the {what} loader gave no samples",
                helps=("a generator is empty after one epoch: pass something iterable again",),
            )
        return self._loss / self._count, self._right / self._count


class _Run:
    """A training under way."""

    def __init__(self, model: nn.Module, options: Options, loss: Loss) -> None:
        self._model, self._options, self._loss = model, options, loss
        self._device = _device(options.device)
        model.to(self._device)
        self._optimiser = torch.optim.Adam(model.parameters(), options.learning_rate)
        self.history: list[Epoch] = []
        self._best: dict[str, Tensor] = {}

    @property
    def best(self) -> int:
        """Index of the best epoch."""
        return min(range(len(self.history)), key=lambda i: self.history[i].score)

    @property
    def stopped_early(self) -> bool:
        """Whether the best epoch is too long ago."""
        patience = self._options.patience
        return (
            bool(self.history)
            and patience is not None
            and (len(self.history) - 1 - self.best >= patience)
        )

    def epoch(self, data: Loader, valid: Loader | None) -> Epoch:
        """One epoch over all batches."""
        number = len(self.history) + 1
        torch.manual_seed(self._options.seed * 1_000_003 + number)
        self._freeze(number)
        self._model.train()
        meter = _Meter()
        for batch, (x, y) in enumerate(data):
            x, y = x.to(self._device), y.to(self._device)
            self._step(x, y, meter, f"epoch {number}, batch {batch + 1}")
        loss, accuracy = meter.result("training")
        checked = (None, None) if valid is None else evaluate(self._model, valid, self._loss)
        found = Epoch(number, loss, accuracy, *checked)
        if not math.isfinite(found.score):
            raise _diverged(f"epoch {number}, validation", found.score)
        self.history.append(found)
        if self.best == number - 1:
            state = self._model.state_dict()
            self._best = {name: value.detach().clone() for name, value in state.items()}
        return found

    def _freeze(self, number: int) -> None:
        ranges, norms = self._options.freeze_ranges, self._options.fold_norms
        freeze(
            self._model,
            ranges=ranges is not None and number >= ranges,
            norms=norms is not None and number >= norms,
        )

    def _step(self, x: Tensor, y: Tensor, meter: _Meter, where: str) -> None:
        self._optimiser.zero_grad()
        logits = self._model(x)
        _check(logits, y)
        loss = self._loss(logits, y)
        total = loss
        if self._options.l1:
            weights = [p for p in self._model.parameters() if p.dim() > 1]
            total = loss + self._options.l1 * torch.stack([w.abs().sum() for w in weights]).sum()
        if not bool(torch.isfinite(total)):
            raise _diverged(where, float(total.detach()))
        total.backward()
        self._optimiser.step()
        meter.add(loss, logits, y)

    def finish(self) -> Outcome:
        """Put the best epoch's weights in place, ranges frozen, in eval mode."""
        if self._best:
            self._model.load_state_dict(self._best)
        freeze(self._model, norms=False)
        self._model.eval()
        return Outcome(tuple(self.history), self.best + 1, self.stopped_early)

    # --- checkpoints ---

    def save(self, path: Path) -> None:
        """Write the state beside its place, then move it there in one step."""
        state = {
            "version": _VERSION,
            "options": _fixed(self._options),
            "model": self._model.state_dict(),
            "best": self._best,
            "optimiser": self._optimiser.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
        }
        handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
            Path(fresh).replace(path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise

    def resume(self, path: Path) -> None:
        """Take up where a checkpoint left off."""
        state = _read(path, self._device)
        if state["options"] != _fixed(self._options):
            raise _misfit(path, f"made with {state['options']}", "epochs alone may change")
        try:
            self._model.load_state_dict(state["model"])
            self._optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise _misfit(path, str(error)[:300], "it is of another model") from error
        self._best = dict(state["best"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]


def _fixed(options: Options) -> dict[str, Any]:
    """The options that a resumed training must share."""
    found = asdict(options)
    for name in ("epochs", "device", "patience"):
        found.pop(name)
    return found


def _read(path: Path, device: torch.device) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, each of which says this
        raise _misfit(path, str(error)[:200], "it is corrupt, or no checkpoint") from error
    keys = {"version", "options", "model", "best", "optimiser", "history"}
    if not isinstance(state, dict) or not keys <= set(state) or state["version"] != _VERSION:
        raise _misfit(path, "the file holds something else", "it is no checkpoint of this version")
    return cast(Mapping[str, Any], state)


def _misfit(path: Path, note: str, message: str) -> HqcError:
    return reject(
        "HQC606",
        f"cannot resume from {path}: {message}",
        notes=(note,),
        helps=("train into another file, or delete this one",),
    )


def _diverged(where: str, loss: float) -> HqcError:
    return reject(
        "HQC604",
        f"the loss is {loss}",
        where=Location(source=where),
        helps=("lower the learning rate, or check the samples for NaN",),
    )


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.dim() != 1 or labels.is_floating_point():
        raise reject(
            "HQC605",
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} of {labels.dtype}",
            helps=("the model gives (N, classes), the loader whole numbers (N,)",),
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise reject(
            "HQC605",
            f"labels from {low} to {high} for {logits.shape[1]} classes",
            helps=("number the classes from 0",),
        )


def _device_of(model: nn.Module) -> torch.device:
    found = next(iter(model.parameters()), None)
    return torch.device("cpu") if found is None else found.device


def _device(name: str | None) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if has_gpu else "cpu")
    if name.partition(":")[0] not in ("cpu", "cuda") or (name.startswith("cuda") and not has_gpu):
        raise reject("HQC001", f"no device {name} here", helps=("cpu, or cuda where there is one",))
    return torch.device(name)


def calibrated(model: nn.Module) -> bool:
    """Whether every activation quantiser has seen data."""
    return all(m.calibrated for m in model.modules() if isinstance(m, HawqAct))
