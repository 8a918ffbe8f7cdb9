"""Compare layer-wise Hessian traces with PyHessian 0.1: time to one standard error, in one run.

The model is a float jet tagger 16-64-32-32-5, trained for a moment on made-up classes, or on
jets (`--data`, an npz with X (N, 16) and y); both sides
get the same network, samples, loss and number of threads. PyHessian gives the trace of all
parameters that require gradients, so a trace per layer takes a run per layer. As a second, harder
baseline its Hessian-vector product is used with inner products per layer, which its interface does
not offer: one run gives all layers. Every side runs until each layer's standard error is within the
tolerance; nothing is extrapolated. PyHessian runs with torch 2.13 as it is for these calls.

    pip install --no-deps PyHessian==0.1 && python tools/bench_hessian.py
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from comparison import Comparison, Figure, versions
from torch import Tensor, nn

from hqc.codesign.hessian.objective import Samples, Weights
from hqc.codesign.hessian.sensitivity import Sensitivity, fisher_traces, hessian_traces
from hqc.version import __version__

SIZES = (16, 64, 32, 32, 5)
CHUNK, MOST = 10, 20_000
T = TypeVar("T")


def tagger(samples: Samples, seed: int) -> nn.Sequential:
    """The network after a few epochs of Adam."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(SIZES):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(5):
        for part in samples.batches(128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(*part.inputs), part.targets).backward()
            optimiser.step()
    return model


def made_up(count: int, seed: int) -> Samples:
    """Correlated inputs, and noisy labels of a random function of them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = normal(count, SIZES[0]) @ (normal(SIZES[0], SIZES[0]) / SIZES[0] ** 0.5)
    scores = torch.tanh(x @ normal(SIZES[0], 24)) @ normal(24, SIZES[-1]) + normal(count, SIZES[-1])
    return Samples((x,), scores.argmax(dim=1))


def read(file: Path) -> Samples:
    """X, standardised, and y (numbers or names of classes, or one-hot) of an npz."""
    arrays = np.load(file)
    x = np.asarray(arrays["X"], np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    labels = arrays["y"].argmax(axis=1) if arrays["y"].ndim == 2 else arrays["y"]
    y = np.unique(labels, return_inverse=True)[1]
    return Samples((torch.from_numpy(x).float(),), torch.from_numpy(y))


def enough(forms: list[list[float]], tolerance: float) -> bool:
    """Whether each column's standard error is within the tolerance of its mean."""
    values = np.array(forms)
    error = values.std(axis=0, ddof=1) / len(values) ** 0.5
    return bool((error <= tolerance * np.abs(values.mean(axis=0))).all())


def summary(columns: list[np.ndarray]) -> list[tuple[float, float]]:
    return [(float(c.mean()), float(c.std(ddof=1) / len(c) ** 0.5)) for c in columns]


def by_layer(model: nn.Sequential, samples: Samples, tolerance: float) -> list[np.ndarray]:
    """PyHessian's `trace`, a run per layer."""
    from pyhessian import hessian

    found = []
    weights = {n: p for n, p in model.named_parameters() if n.endswith("weight")}
    for chosen in weights:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name == chosen)
        model.zero_grad(set_to_none=True)
        data = (samples.inputs[0], samples.targets)
        runner = hessian(model, nn.functional.cross_entropy, data=data, cuda=False)
        forms: list[list[float]] = []
        while len(forms) < MOST and not (forms and enough(forms, tolerance)):
            forms += [[form] for form in runner.trace(maxIter=CHUNK, tol=0.0)]
        found.append(np.array(forms)[:, 0])
    model.requires_grad_(True)
    return found


def at_once(model: nn.Sequential, samples: Samples, tolerance: float) -> list[np.ndarray]:
    """PyHessian's product with a probe over all weights, inner products per layer."""
    from pyhessian import hessian, hessian_vector_product

    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("weight"))
    model.zero_grad(set_to_none=True)
    data = (samples.inputs[0], samples.targets)
    runner = hessian(model, nn.functional.cross_entropy, data=data, cuda=False)
    forms: list[list[float]] = []
    while len(forms) < MOST and not (forms and enough(forms, tolerance)):
        for _ in range(CHUNK):
            probe = [2 * torch.randint_like(p, high=2) - 1 for p in runner.params]
            product = hessian_vector_product(runner.gradsH, runner.params, probe)
            forms.append([float((v * h).sum()) for v, h in zip(probe, product, strict=True)])
    model.requires_grad_(True)
    return list(np.array(forms).T)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def compared(samples: Samples, seed: int, tolerance: float) -> Comparison:
    """Seconds of each side; what they found stands in the notes."""
    model = tagger(samples, seed)
    objective = Weights(model, nn.functional.cross_entropy)
    # torch.func loads what it needs at the first call: that is counted for nobody.
    hessian_traces(objective, samples.part(0, 64), max_probes=2)
    exact = fisher_traces(objective, samples, labels="model")  # for rectifiers; needs no probes
    notes = [told("exact", [(x.trace, 0.0) for x in exact.layers])]

    def ours() -> Sensitivity:
        return hessian_traces(objective, samples, tolerance=tolerance, seed=seed)

    seconds, found = min((timed(ours) for _ in range(3)), key=lambda pair: pair[0])
    notes.append(told("hqc", [(x.trace, x.error) for x in found.layers]))
    peers = {}
    for name, run in PEERS.items():
        peers[name], columns = timed(lambda run=run: run(model, samples, tolerance))  # type: ignore[misc]
        notes.append(told(name, summary(columns), [len(column) for column in columns]))
    shape, amount = "-".join(map(str, SIZES)), len(samples.targets)
    return Comparison(
        f"A float jet tagger {shape}, {amount:,} samples, each layer's trace to a standard error "
        f"of {tolerance:.0%}, {torch.get_num_threads()} thread(s).",
        (Figure("seconds for the traces of all layers", seconds, peers),),
        {**versions("torch", "PyHessian"), "hqc": __version__},
        notes,
    )


def told(
    name: str, layers: Sequence[tuple[float, float]], probes: Sequence[int] | None = None
) -> str:
    found = ", ".join(f"{t:.3f}" + (f" ± {e:.3f}" if e else "") for t, e in layers)
    return f"Traces, {name}: {found}" + (f"; probes {probes}" if probes else "") + "."


#: PyHessian's own way, and what its parts allow beyond it.
PEERS: dict[str, Callable[[nn.Sequential, Samples, float], list[np.ndarray]]] = {
    "PyHessian, a run per layer": by_layer,
    "PyHessian's product, all layers at once": at_once,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=4096, help="at most")
    parser.add_argument("--data", type=Path, help="an npz in place of made-up samples")
    parser.add_argument("--tolerance", type=float, default=0.02, help="relative standard error")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="256 samples to 20 %%: seconds")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    given = parser.parse_args()
    if find_spec("pyhessian") is None:
        print("error: PyHessian is not here: pip install --no-deps PyHessian==0.1", file=sys.stderr)
        return 4
    count, tolerance = (256, 0.2) if given.small else (given.samples, given.tolerance)
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    samples = read(given.data) if given.data else made_up(count, given.seed)
    found = compared(samples.part(0, count), given.seed, tolerance)
    print(found.json() if given.format == "json" else found.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
