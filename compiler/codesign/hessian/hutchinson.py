"""Traces of Hessian blocks from random probes (Hutchinson 1990).

For a probe v of independent signs, the expectation of v_l^T (H v)_l is tr(H_ll): cross terms with
the other layers' signs have mean zero, so one Hessian-vector product serves all layers. They do add
variance, the sum of |H_lm|^2 over the other layers m; a product per layer would avoid it at several
times the work, which did not pay on the nets measured.

The loss is a mean over samples, and so is the Hessian. A probe for the whole data would spend one
pass over it for one random number. Here each *group* of a few samples has its own probe, so that
one pass averages as many independent numbers as there are groups:

    T = sum_g (n_g / N) v_g^T H_g v_g,    Var T = sum_g (n_g / N)^2 Var(v^T H_g v).

Its mean is the trace over exactly these samples, whatever the groups. The variance within each
group, over the passes, gives the standard error, which therefore is about the probes alone and not
about the choice of samples.

Activations of different samples do not interact: there each sample is a group, at the cost of one
product for the whole batch. The same holds for the weights of a linear layer y = W a that sees one
vector per sample: its block for a sample is the Hessian of y times a a^T (Martens and Grosse,
arXiv:1503.05671), so its trace is |a|^2 times that of y, and probes on y suffice. Other weights
(convolutions) have probes on the weights themselves, in groups of `group` samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from hqc.codesign.hessian.objective import (
    Activations,
    Objective,
    Point,
    Samples,
    Weights,
    checked,
    hessian_product,
)
from hqc.diagnostics import Exit, reject

#: Elements of probes held at a time.
_MOST_ELEMENTS = 1 << 21
#: Degrees of freedom of a standard error that is worth stopping for.
_FREEDOM = 30
_MOST_AT_ONCE = 64
#: Samples on which the factors of a linear layer are compared with its gradient.
_TRIED = 4


@dataclass(frozen=True)
class Estimate:
    """Traces and standard errors in the order of the objective's names."""

    traces: list[float]
    errors: list[float]
    probes: int
    group: int


@dataclass(frozen=True, eq=False)
class _Stack:
    """Groups that one call takes.

    Attributes:
        samples: (G, k, ...) for weights; (G, ...) for activations, a group a sample.
        point: where derivatives are taken; for activations (G, ...).
        factors: what the forms are multiplied by, (G, layers) or (1, layers).
        share: each group's share of all samples.
    """

    samples: Samples
    point: Point
    factors: Tensor
    share: float

    @property
    def elements(self) -> int:
        """Elements of one probe for all groups."""
        return sum(int(value.numel()) for value in self.point.values())


def hutchinson(
    objective: Objective,
    samples: Samples,
    tolerance: float,
    max_probes: int,
    group: int,
    seed: int,
) -> Estimate:
    """Probe until each standard error is at most `tolerance` of its trace, or `max_probes`.

    Raises:
        HqcError: HQC001, an option out of range; HQC610, a loss without second derivatives, or
            one that is not finite.
    """
    if not (tolerance >= 0 and max_probes >= 2 and group >= 1):
        raise reject(
            "HQC001",
            f"tolerance {tolerance}, {max_probes} probes, groups of {group}",
            helps=("a tolerance of 0 or more, two probes or more, groups of one or more",),
            exit_=Exit.USAGE,
        )
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, tuple[float, float]] = {}
    probes = 0
    with checked(objective, samples):
        for part in _parts(objective, samples, min(group, len(samples))):
            names, traces, errors, done = _converge(part, tolerance, max_probes, generator)
            found |= {n: (t, e) for n, t, e in zip(names, traces, errors, strict=True)}
            probes = max(probes, done)
    ordered = [found[name] for name in objective.names]
    return Estimate([t for t, _ in ordered], [e for _, e in ordered], probes, group)


@dataclass(frozen=True, eq=False)
class _Part:
    """Layers that are probed alike."""

    objective: Objective
    stacks: list[_Stack]


def _parts(objective: Objective, samples: Samples, group: int) -> Iterator[_Part]:
    if isinstance(objective, Activations):
        yield _Part(objective, list(_by_sample(objective, None, samples)))
        return
    assert isinstance(objective, Weights)
    linear = _linear(objective, samples)
    if linear:
        ends = Activations(objective.model, objective.criterion, linear, "output")
        starts = Activations(objective.model, objective.criterion, linear, "input")
        yield _Part(ends, list(_by_sample(ends, starts, samples)))
    rest = tuple(name for name in objective.names if name not in linear)
    if rest:
        others = replace(objective, layers=rest)
        yield _Part(others, list(_by_group(others, samples, group)))


def _linear(objective: Weights, samples: Samples) -> tuple[str, ...]:
    """Layers whose gradient is that of their output times their input: tried, not assumed."""
    modules = dict(objective.model.named_modules())
    plain = tuple(name for name in objective.names if type(modules.get(name)) is nn.Linear)
    if not plain:
        return ()
    few = samples.part(0, _TRIED)
    calls = dict.fromkeys(plain, 0)

    def count(name: str, value: Tensor) -> Tensor:
        calls[name] += 1 if value.dim() == 2 else 2
        return value

    with torch.no_grad(), Activations(objective.model, objective.criterion, plain).tapped(count):
        objective.model(*few.inputs)
    once = tuple(name for name in plain if calls[name] == 1)
    if not once:
        return ()
    ends = Activations(objective.model, objective.criterion, once, "output")
    inputs = Activations(objective.model, objective.criterion, once, "input").values(few)
    slopes = grad(ends.loss)(ends.point(few), few.inputs, few.targets)
    wanted = grad(objective.loss)(objective.point(few), few.inputs, few.targets)
    return tuple(n for n in once if _close(slopes[n].T @ inputs[n].detach(), wanted[n]))


def _close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4 * other.abs().max())


def _by_sample(
    objective: Activations, inputs: Activations | None, samples: Samples
) -> Iterator[_Stack]:
    """Each sample with a probe of its own; factors are the squared norms of `inputs`."""
    each = sum(int(v.numel()) for v in objective.point(samples.part(0, 1)).values())
    for part in samples.batches(max(1, _MOST_ELEMENTS // each)):
        factors = torch.ones(1, len(objective.names), dtype=torch.float64)
        if inputs is not None:
            with torch.no_grad():
                values = inputs.values(part)
            norms = [values[n].cpu().double().square().sum(dim=1) for n in objective.names]
            factors = torch.stack(norms, dim=1)
        yield _Stack(part, objective.point(part), factors, 1 / len(samples))


def _by_group(objective: Weights, samples: Samples, size: int) -> Iterator[_Stack]:
    """All samples in groups of `size`, and one smaller group of what is left."""
    factors = torch.ones(1, len(objective.names), dtype=torch.float64)
    point = objective.point(samples)
    most = max(1, _MOST_ELEMENTS // sum(int(v.numel()) for v in point.values()))
    whole = len(samples) // size * size
    for part in samples.part(0, whole).batches(most * size):
        groups = part.grouped(len(part) // size, size)
        yield _Stack(groups, _repeated(point, len(groups)), factors, size / len(samples))
    if whole < len(samples):
        rest = len(samples) - whole
        last = samples.part(whole, len(samples)).grouped(1, rest)
        yield _Stack(last, _repeated(point, 1), factors, rest / len(samples))


def _repeated(point: Point, count: int) -> Point:
    return {name: value.expand(count, *value.shape) for name, value in point.items()}


def _converge(
    part: _Part, tolerance: float, max_probes: int, generator: torch.Generator
) -> tuple[tuple[str, ...], list[float], list[float], int]:
    """Names, traces, errors, and how many probes each group had."""
    names, stacks = part.objective.names, part.stacks
    groups = sum(len(stack.samples) for stack in stacks)
    least = min(max_probes, 1 + math.ceil(_FREEDOM / groups))
    elements = sum(stack.elements for stack in stacks)
    at_once = max(1, min(_MOST_AT_ONCE, _MOST_ELEMENTS // elements))
    sums = [torch.zeros(2, len(s.samples), len(names), dtype=torch.float64) for s in stacks]
    done = 0
    while True:
        step = min(max(at_once if done else 1, least - done), max_probes - done)
        for stack, total in zip(stacks, sums, strict=True):
            forms = _forms(part.objective, stack, step, generator)
            total += torch.stack([forms.sum(dim=0), forms.square().sum(dim=0)])
        done += step
        traces, errors = _moments(stacks, sums, done)
        if not all(math.isfinite(x) for x in traces):
            raise reject("HQC610", "the second derivatives of the loss are not finite")
        good = all(e <= tolerance * abs(t) for t, e in zip(traces, errors, strict=True))
        if done >= max_probes or (good and done >= least):
            return names, traces, errors, done


def _forms(objective: Objective, stack: _Stack, probes: int, generator: torch.Generator) -> Tensor:
    """v_l^T (H_g v)_l times the factors, for fresh probes: (probes, groups, layers), float64."""
    samples = stack.samples
    signs = {name: _signs(probes, x, generator) for name, x in stack.point.items()}

    if objective.kind == "activations":
        product = hessian_product(objective, stack.point, samples.inputs, samples.targets)
        images = vmap(product)(signs)
        scale = float(len(samples))  # the loss is a mean: a sample's own Hessian is that much more
    else:
        point = {name: value[0] for name, value in stack.point.items()}

        def group(probes: Point, inputs: tuple[Tensor, ...], targets: Tensor) -> Point:
            found: Point = vmap(hessian_product(objective, point, inputs, targets))(probes)
            return found

        each = vmap(group, in_dims=(1, 0, 0), out_dims=1)
        images, scale = each(signs, samples.inputs, samples.targets), 1.0
    terms = {name: signs[name] * images[name] for name in objective.names}
    forms = [terms[name].flatten(2).sum(dim=2).cpu().double() for name in objective.names]
    return scale * torch.stack(forms, dim=2) * stack.factors


def _signs(probes: int, like: Tensor, generator: torch.Generator) -> Tensor:
    bits = torch.randint(0, 2, (probes, *like.shape), generator=generator, dtype=torch.int8)
    return (2 * bits - 1).to(like)


def _moments(
    stacks: list[_Stack], sums: list[Tensor], probes: int
) -> tuple[list[float], list[float]]:
    trace = variance = torch.zeros((), dtype=torch.float64)
    for stack, (first, second) in zip(stacks, sums, strict=True):
        mean = first / probes
        trace = trace + stack.share * mean.sum(dim=0)
        if probes > 1:
            spread = (second - probes * mean.square()).clamp(min=0) / (probes - 1)
        else:
            spread = torch.full_like(mean, math.inf)
        variance = variance + stack.share**2 * spread.sum(dim=0) / probes
    return trace.tolist(), variance.sqrt().tolist()
