"""Compare layer-wise Hessian traces with PyHessian 0.1: time to one standard error, in one run.

The model is a float jet tagger 16-64-32-32-5, trained for a moment on made-up classes, or on
jets (`--data`, an npz with X (N, 16) and y); both sides
get the same network, samples, loss and number of threads. PyHessian gives the trace of all
parameters that require gradients, so a trace per layer takes a run per layer. As a second, harder
baseline its Hessian-vector product is used with inner products per layer, which its interface does
not offer: one run gives all layers. Every side runs until each layer's standard error is within the
tolerance; nothing is extrapolated. PyHessian runs with torch 2.13 as it is for these calls.

    pip install PyHessian==0.1 && python tools/bench_hessian.py
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hqc.codesign.hessian.objective import Samples, Weights
from hqc.codesign.hessian.sensitivity import fisher_traces, hessian_traces

SIZES = (16, 64, 32, 32, 5)
CHUNK, MOST = 10, 20_000


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


def timed(call: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=4096, help="at most")
    parser.add_argument("--data", type=Path, help="an npz in place of made-up samples")
    parser.add_argument("--tolerance", type=float, default=0.02, help="relative standard error")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    samples = read(given.data) if given.data else made_up(given.samples, given.seed)
    samples = samples.part(0, given.samples)
    model = tagger(samples, given.seed)
    objective = Weights(model, nn.functional.cross_entropy)

    first, _ = timed(lambda: hessian_traces(objective, samples.part(0, 64), max_probes=2))
    print(f"first call of torch.func, which loads what it needs: {first:.2f} s, not counted below")
    wanted = fisher_traces(objective, samples, labels="model")  # exact for rectifiers: no probes
    print("exact          " + "".join(f"{x.trace:18.4f}" for x in wanted.layers))

    def ours() -> object:
        return hessian_traces(objective, samples, tolerance=given.tolerance, seed=given.seed)

    rows: dict[str, tuple[float, list[tuple[float, float]]]] = {}
    seconds, found = min((timed(ours) for _ in range(3)), key=lambda pair: pair[0])
    rows["hqc"] = (seconds, [(x.trace, x.error) for x in found.layers])  # type: ignore[attr-defined]
    for name, run in (("PyHessian", by_layer), ("its product", at_once)):
        seconds, columns = timed(lambda run=run: run(model, samples, given.tolerance))  # type: ignore[misc]
        rows[name] = (seconds, summary(columns))  # type: ignore[arg-type]
        counts = ", ".join(str(len(c)) for c in columns)  # type: ignore[attr-defined]
        print(f"{name}: probes {counts}")
    for name, (seconds, layers) in rows.items():
        figures = "".join(f"{trace:10.3f} +-{error:6.3f}" for trace, error in layers)
        print(f"{name:15}{figures}  {seconds:9.3f} s")
    for name in ("PyHessian", "its product"):
        print(f"{name} / hqc: {rows[name][0] / rows['hqc'][0]:.0f} times the time")


if __name__ == "__main__":
    main()
