"""How much the loss rises when a layer's weights or activations are disturbed.

For a disturbance of variance s^2 per element, independent of the Hessian H, the expected rise of
the loss is tr(H) s^2 / 2 (Dong et al., HAWQ-V2, arXiv:1911.03852). `hessian_traces` estimates
tr(H) of each layer by random probes, `exact_traces` computes it for small nets, `fisher_traces` is
the cheap first-order stand-in. All of them return a `Sensitivity`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hqc.codesign.hessian.exact_trace import exact
from hqc.codesign.hessian.fisher import fisher
from hqc.codesign.hessian.hutchinson import hutchinson
from hqc.codesign.hessian.objective import Objective, Samples
from hqc.diagnostics import reject

_FORMAT = 1


@dataclass(frozen=True)
class Layer:
    """The sensitivity of one layer.

    Attributes:
        name: the layer.
        elements: number of weights, or of activations per sample.
        trace: the trace of the layer's block of the Hessian or Fisher matrix of the mean loss; for
            activations, the mean over samples of the trace of each sample's own block.
        error: standard error of `trace`; 0 where it is exact.
    """

    name: str
    elements: int
    trace: float
    error: float

    @property
    def mean(self) -> float:
        """Trace per element: the mean eigenvalue, HAWQ-V2's weight of a perturbation."""
        return self.trace / self.elements


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of layers, and how they were found.

    Attributes:
        method: "hutchinson", "exact", "fisher-data" or "fisher-model".
        kind: "weights" or "activations".
        layers: in the order of the model.
        samples: number of samples of the loss.
        probes: random probes that each sample saw; 0 where there are none.
        group: samples that share a probe where samples do not have one each; 0: no probes.
        seed: of the probes.
        tolerance: the relative standard error asked for; 0 where none was.
    """

    method: str
    kind: str
    layers: tuple[Layer, ...]
    samples: int
    probes: int = 0
    group: int = 0
    seed: int = 0
    tolerance: float = 0.0

    @property
    def converged(self) -> bool:
        """Whether each standard error is within the tolerance asked for."""
        return all(x.error <= self.tolerance * abs(x.trace) for x in self.layers) or (
            self.method != "hutchinson"
        )

    def __getitem__(self, name: str) -> Layer:
        """The layer of a name.

        Raises:
            KeyError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def save(self, path: Path) -> None:
        """Write JSON; `load` gives an equal value back."""
        document = {"format": _FORMAT, **asdict(self)}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Sensitivity:
        """Read what `save` wrote.

        Raises:
            HqcError: HQC613, a file that is not such a record.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != _FORMAT:
                raise ValueError(f"not of format {_FORMAT}")
            layers = tuple(_layer(entry) for entry in document.pop("layers"))
            return cls(layers=layers, **document)
        except OSError as error:
            raise reject("HQC613", f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise reject("HQC613", f"{path} holds no sensitivities", notes=(f"{error}",)) from error


def _layer(entry: Mapping[str, Any]) -> Layer:
    found = Layer(
        str(entry["name"]), int(entry["elements"]), float(entry["trace"]), float(entry["error"])
    )
    if found.elements < 1 or not math.isfinite(found.trace) or not found.error >= 0:
        raise ValueError(f"layer {found.name} has impossible values")
    return found


def hessian_traces(
    objective: Objective,
    data: Samples | Iterable[Any] | tuple[Any, Tensor],
    *,
    tolerance: float = 0.02,
    max_probes: int = 500,
    group: int = 16,
    seed: int = 0,
) -> Sensitivity:
    """Estimate the trace of each layer's Hessian block; see `hqc.codesign.hessian.hutchinson`.

    Args:
        objective: `Weights(model, loss)` or `Activations(model, loss)`.
        data: a loader of (inputs, targets), one such pair, or `Samples`.
        tolerance: stop when each layer's standard error is within this part of its trace.
        max_probes: stop after so many probes per sample, whether `converged` or not.
        group: samples that share a probe, where weights other than those of linear layers are
            probed; it changes the variance, never the mean.
        seed: of the probes.

    Raises:
        HqcError: HQC610 or HQC005, a model, loss or data that this cannot be done with.
    """
    samples = _samples(data)
    found = hutchinson(objective, samples, tolerance, max_probes, group, seed)
    layers = _layers(objective, samples, found.traces, found.errors)
    return Sensitivity(
        *("hutchinson", objective.kind, layers, len(samples)),
        *(found.probes, found.group, seed, tolerance),
    )


def exact_traces(
    objective: Objective, data: Samples | Iterable[Any] | tuple[Any, Tensor]
) -> Sensitivity:
    """The traces by one Hessian-vector product per element: small nets only.

    Arguments and errors as for `hessian_traces`.
    """
    samples = _samples(data)
    traces = exact(objective, samples)
    layers = _layers(objective, samples, traces, [0.0] * len(traces))
    return Sensitivity("exact", objective.kind, layers, len(samples))


def fisher_traces(
    objective: Objective,
    data: Samples | Iterable[Any] | tuple[Any, Tensor],
    *,
    labels: str = "data",
) -> Sensitivity:
    """Traces of the Fisher matrix, from first derivatives; see `hqc.codesign.hessian.fisher`.

    Args:
        objective, data: as for `hessian_traces`.
        labels: "data" (FIT), or "model" for classifiers whose outputs are logits.

    Raises:
        HqcError: HQC610 or HQC005, as for `hessian_traces`.
    """
    samples = _samples(data)
    traces, errors = fisher(objective, samples, labels)
    layers = _layers(objective, samples, traces, errors)
    return Sensitivity(f"fisher-{labels}", objective.kind, layers, len(samples))


def _samples(data: Samples | Iterable[Any] | tuple[Any, Tensor]) -> Samples:
    return data if isinstance(data, Samples) else Samples.of(data)


def _layers(
    objective: Objective, samples: Samples, traces: list[float], errors: list[float]
) -> tuple[Layer, ...]:
    point = objective.point(samples.part(0, 1))
    return tuple(
        Layer(name, point[name].numel(), trace, error)
        for name, trace, error in zip(objective.names, traces, errors, strict=True)
    )
