"""Train the quantised jet tagger and save it for `hqc compile`.

python examples/jets/train.py --epochs 5 -o build/jets/jets.pt2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from model import JetTagger
from numpy.typing import NDArray
from torch import Tensor, nn

from hqc.codesign.jets.data import DEFAULT_JETS, JetData, load_jets
from hqc.diagnostics import HqcError

BATCH = 256
EVALUATION_BATCH = 8192


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description="Train the quantised 16-64-32-32-5 jet tagger.")
    found.add_argument("-o", "--output", type=Path, default=Path("build/jets/jets.pt2"))
    found.add_argument("--data", default="embedded", help="embedded, openml, or an .npz file")
    found.add_argument("--jets", type=int, help=f"how many jets (embedded: {DEFAULT_JETS:,})")
    found.add_argument("--epochs", type=int, default=10)
    found.add_argument("--rate", type=float, default=5e-3, help="first learning rate of Adam")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--weight-bits", type=int, default=6)
    found.add_argument("--bits", type=int, default=6, help="width of hidden activations")
    found.add_argument("--samples", type=int, default=1000, help="test jets in samples.npy")
    return found


def train(
    model: nn.Module, data: JetData, *, epochs: int, rate: float = 5e-3, seed: int = 1
) -> nn.Module:
    """Train in place by Adam with a cosine schedule and print a line per epoch."""
    order = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    steps = epochs * (len(x) // BATCH)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), 0.0
        model.train()
        # The last, incomplete batch is left out: batch norm would give it undue weight.
        for rows in torch.randperm(len(x), generator=order).split(BATCH)[: len(x) // BATCH]:
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        good = accuracy(logits(model, data.test_x), data.test_y)
        mean = total / (len(x) // BATCH)
        spent = time.perf_counter() - start
        print(f"epoch {epoch:3d}  loss {mean:.4f}  test accuracy {good:.4f}  {spent:.1f} s")
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs (N, 5) in eval mode."""
    model.eval()
    parts: list[Tensor] = [model(part) for part in torch.from_numpy(x).split(EVALUATION_BATCH)]
    return torch.cat(parts).numpy()


def accuracy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of jets whose largest output is their class; a tie goes to the first class."""
    return float((scores.argmax(axis=1) == labels).mean())


def auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the Mann-Whitney U statistic over n1 n0, ties counted half."""
    _, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - 0.5 * (count - 1))[inverse]
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    return float((rank[positive].sum() - 0.5 * n1 * (n1 + 1)) / (n1 * n0))


def class_aucs(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> list[float]:
    """AUC of each class against all others, by softmax probability."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True).astype(np.float64))
    probability = shifted / shifted.sum(axis=1, keepdims=True)
    return [auc(probability[:, k], labels == k) for k in range(scores.shape[1])]


def save(model: nn.Module, data: JetData, output: Path, samples: int) -> Path:
    """Write the exported program, and test inputs beside it for `hqc compile --samples`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    batch = {0: torch.export.Dim("batch")}
    example = torch.from_numpy(data.test_x[:2])
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=(batch,)), output)
    beside = output.parent / "samples.npy"
    np.save(beside, data.test_x[:samples])
    return beside


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    given = parser().parse_args(arguments)
    if given.output.suffix != ".pt2":
        parser().error(f"the output {given.output} does not end in .pt2")
    with one_thread():
        return run(given)


@contextmanager
def one_thread() -> Iterator[None]:
    """Layers this small gain nothing from threads, and sums keep one order on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run(given: argparse.Namespace) -> int:
    """Load, train, report and save."""
    torch.manual_seed(given.seed)
    try:
        start = time.perf_counter()
        data = load_jets(given.data, n=given.jets, seed=given.seed)
        spent = time.perf_counter() - start
        sizes = f"{len(data.train_x)} train, {len(data.test_x)} test"
        print(f"{given.data} jets: {sizes}, {spent:.1f} s")
        model = JetTagger(weight_bits=given.weight_bits, bits=given.bits)
        train(model, data, epochs=given.epochs, rate=given.rate, seed=given.seed)
    except HqcError as error:
        print(error, file=sys.stderr)
        return int(error.exit)
    scores = logits(model, data.test_x)
    print(f"test accuracy {accuracy(scores, data.test_y):.4f}")
    areas = zip(data.classes, class_aucs(scores, data.test_y), strict=True)
    print("AUC " + "  ".join(f"{name} {area:.4f}" for name, area in areas))
    beside = save(model, data, given.output, given.samples)
    print(f"wrote {given.output} and {beside}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
