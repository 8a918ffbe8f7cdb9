"""What is trained on what: jets, and scikit-learn's digits as a second, real set."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from hqc.codesign.hessian import Samples
from hqc.codesign.jets.data import load_jets
from hqc.codesign.training import Batches, Options, evaluate, train
from hqc.codesign.training.datasets import load_dataset

FOLDS = 5
"""Parts of the digits: each is the test part of one seed in five."""
VALID_PART = 8
"""One in so many of the training samples is for choosing the epoch."""
INPUT_BITS = 8

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Parts:
    """Inputs (N, ...) and labels (N,) to train on, to choose the epoch by, and to report."""

    train: Pair
    valid: Pair
    test: Pair


@dataclass(frozen=True)
class Schedule:
    """How every network of a study is trained.

    Attributes:
        float_epochs, float_rate: of the float network; epochs, and learning rate of Adam.
        epochs, rate: of the training with quantisers, which starts from the float network.
        batch: samples of a step.
    """

    float_epochs: int
    epochs: int
    batch: int
    float_rate: float = 2e-3
    rate: float = 1e-3

    def options(self, seed: int, *, quantised: bool) -> Options:
        """Options of one training; ranges are frozen for the last fifth of the epochs."""
        if not quantised:
            return Options(epochs=self.float_epochs, learning_rate=self.float_rate, seed=seed)
        frozen = 1 + self.epochs - self.epochs // 5
        return Options(epochs=self.epochs, learning_rate=self.rate, seed=seed, freeze_ranges=frozen)


@dataclass(frozen=True, eq=False)
class Task:
    """A data set, a network for it, and how it is trained.

    Attributes:
        name: of the data.
        make: a float network with weights drawn from torch's generator.
        parts: the samples, by seed.
        schedule: of all trainings.
    """

    name: str
    make: Callable[[], nn.Module]
    parts: Callable[[int], Parts]
    schedule: Schedule

    def with_epochs(self, epochs: int | None) -> Task:
        """The same with so many epochs with quantisers, and twice as many of the float network."""
        if epochs is None:
            return self
        schedule = replace(self.schedule, float_epochs=2 * epochs, epochs=epochs)
        return replace(self, schedule=schedule)


@dataclass(frozen=True, eq=False)
class Start:
    """The float network of a seed, which all trainings with quantisers begin with.

    Attributes:
        seed: of it.
        parts: the samples.
        net: trained.
        accuracy: on the test part.
        samples: of the training part, to measure sensitivities on.
    """

    seed: int
    parts: Parts
    net: nn.Module
    accuracy: float
    samples: Samples


def task_of(name: str, jets: int | None = None) -> Task:
    """The task of a name: "digits", "digits-images", or what `load_jets` knows.

    Raises:
        HqcError: as `load_jets` and `load_dataset`.
    """
    if name == "digits":
        return Task(name, lambda: mlp(64, 64, 32, 32, 10), folds(name), Schedule(60, 60, 64))
    if name == "digits-images":
        return Task(name, cnn, folds(name), Schedule(40, 40, 64))
    found = load_jets(name, n=jets)
    x, y = torch.from_numpy(found.train_x), torch.from_numpy(found.train_y)
    held = len(x) // VALID_PART
    test = torch.from_numpy(found.test_x), torch.from_numpy(found.test_y)
    parts = Parts((x[held:], y[held:]), (x[:held], y[:held]), test)
    return Task(name, lambda: mlp(16, 64, 32, 32, 5), lambda _: parts, Schedule(40, 20, 256))


def mlp(*sizes: int) -> nn.Module:
    """Linear layers `fc1`, ... with rectifiers between them; the jet tagger is (16, 64, 32, 32, 5).

    That one is of Duarte et al., JINST 13 (2018) P07027.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        layers[f"fc{i}"] = nn.Linear(n_in, n_out)
        if i < len(sizes) - 1:
            layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)


def cnn() -> nn.Module:
    """A small convolutional network for images of 1 x 8 x 8."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            fc1=nn.Linear(64, 32),
            relu3=nn.ReLU(),
            fc2=nn.Linear(32, 10),
        )
    )


def folds(name: str) -> Callable[[int], Parts]:
    """Cross-validation: seeds 0 to 4 are tested on one fifth each, seeds 5 to 9 on others."""
    found = load_dataset(name)
    held = found.valid
    x = found.x if held is None else torch.cat([found.x, held[0]])
    y = found.y if held is None else torch.cat([found.y, held[1]])

    def parts(seed: int) -> Parts:
        order = torch.from_numpy(np.random.default_rng(seed // FOLDS).permutation(len(y)))
        split = list(order.chunk(FOLDS))
        test = split.pop(seed % FOLDS)
        rest = torch.cat(split)
        valid, train_ = rest[: len(rest) // VALID_PART], rest[len(rest) // VALID_PART :]
        return Parts((x[train_], y[train_]), (x[valid], y[valid]), (x[test], y[test]))

    return parts


def trained(
    net: nn.Module, parts: Parts, schedule: Schedule, seed: int, *, quantised: bool
) -> list[float]:
    """Train a network in place; the loss on the validation part after each epoch."""
    outcome = train(
        net,
        Batches(*parts.train, schedule.batch),
        Batches(*parts.valid, 4096, shuffle=False),
        options=schedule.options(seed, quantised=quantised),
        log=lambda _: None,
    )
    return [epoch.score for epoch in outcome.epochs]


def starts(
    task: Task, seeds: Sequence[int], most: int, log: Callable[[str], None]
) -> Iterator[Start]:
    """The float networks of some seeds; `log` receives a line for each."""
    for seed in seeds:
        parts = task.parts(seed)
        net = float_start(task, parts, seed)
        accuracy = score(net, parts.test)[1]
        log(f"seed {seed}: float accuracy {accuracy:.4f}")
        samples = Samples.of(parts.train).part(0, min(most, len(parts.train[1])))
        yield Start(seed, parts, net, accuracy, samples)


def float_start(task: Task, parts: Parts, seed: int) -> nn.Module:
    """The float network of a seed, trained."""
    torch.manual_seed(seed)
    net = task.make()
    trained(net, parts, task.schedule, seed, quantised=False)
    return net


def score(net: nn.Module, part: Pair) -> tuple[float, float]:
    """Mean loss and accuracy."""
    loss, accuracy = evaluate(net, Batches(*part, 4096, shuffle=False))
    return loss, accuracy
