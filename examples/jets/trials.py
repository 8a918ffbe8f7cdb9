"""Trainings at equal bit operations: uniform widths against allocated ones.

Uniform widths of b bits, for weights and activations alike and 8 for the network's input, set the
budget; every other assignment may use at most the bit operations that they use. All assignments
of a seed start from one float network and are trained by one schedule, in one order of samples.
"""

from __future__ import annotations

import copy
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from tasks import INPUT_BITS, Parts, Task, score, starts, trained
from torch import nn

from hqc.codesign.allocation import Problem, solve
from hqc.codesign.allocation.perturbation import gradient_table, interaction_table, weight_deltas
from hqc.codesign.allocation.plan import Choice, Measuring, Planner, measure
from hqc.codesign.costs import Table
from hqc.codesign.hessian import Samples, Weights
from hqc.diagnostics import reject
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.hawq.wrap import quantize_model
from hqc.frontends.torch import WeightQuant

CANDIDATES = tuple(range(2, 9))
ARMS = ("uniform", "hessian", "input8", "expansion", "random")
"""Uniform widths; the least trace-weighted perturbation; that with the network's input left at 8
bits, so that it saves nothing there; the least expansion of the loss; widths drawn at random."""
MATTERS = 0.003
"""Loss of accuracy of uniform widths from which a budget has something to measure."""
_DRAWS, _NEAR = 200_000, 0.97

Widths = Mapping[str, int]


@dataclass(frozen=True)
class Trial:
    """One training with quantisers.

    Attributes:
        seed: of the float network, the order of samples, and the random assignment.
        bits: uniform width that sets the budget.
        arm: one of `ARMS`.
        widths: bits by knob: LAYER for weights, LAYER.input for what enters it.
        bops: bit operations of the widths.
        loss, accuracy: on the test part.
    """

    seed: int
    bits: int
    arm: str
    widths: Widths
    bops: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Comparison:
    """All trials of a task, and the float networks' accuracies by seed."""

    task: str
    floats: Mapping[int, float]
    trials: tuple[Trial, ...]

    def accuracies(self, arm: str, bits: int) -> list[float]:
        """By seed, in the order of `floats`."""
        found = {t.seed: t.accuracy for t in self.trials if (t.arm, t.bits) == (arm, bits)}
        return [found[seed] for seed in self.floats]

    def gain(self, arm: str, bits: int, over: str = "uniform") -> Paired:
        """What one arm has over another, seed by seed."""
        return paired(self.accuracies(arm, bits), self.accuracies(over, bits))

    def lost(self, bits: int) -> float:
        """Mean accuracy that uniform widths lose against float."""
        return -paired(self.accuracies("uniform", bits), list(self.floats.values())).mean

    def measurable(self, bits: int) -> bool:
        """Whether uniform widths lose enough for a difference to be told."""
        return self.lost(bits) > MATTERS


@dataclass(frozen=True)
class Paired:
    """Differences of pairs: mean, standard error of the mean, and how many are negative."""

    mean: float
    error: float
    negative: int


def paired(one: Sequence[float], other: Sequence[float]) -> Paired:
    """The statistics of one - other; the error is infinite for a single pair."""
    found = [a - b for a, b in zip(one, other, strict=True)]
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.inf
    return Paired(statistics.fmean(found), error, sum(d < 0 for d in found))


def planner_of(net: nn.Module, samples: Samples) -> Planner:
    """The problem of a float network: weights and activations, by traces of the Hessian."""
    how = Measuring()
    traces = [measure(net, samples, how, kind) for kind in ("weights", "activations")]
    choice = Choice(CANDIDATES, CANDIDATES, per_channel=True)
    return Planner.of(net, samples, traces, choice)


def uniform(problem: Problem, bits: int) -> dict[str, int]:
    """Widths of `bits`, but `INPUT_BITS` where the network begins."""
    return {**dict.fromkeys(problem.widths, bits), _first_input(problem): INPUT_BITS}


def _first_input(problem: Problem) -> str:
    return next(knob for knob in problem.widths if knob.endswith(".input"))


def drawn(problem: Problem, budget: float, seed: int) -> dict[str, int]:
    """Random widths that use 97 to 100 % of a budget of bit operations.

    Raises:
        HqcError: HQC611, hardly any assignment is that close to the budget.
    """
    source, cost = random.Random(seed), problem.costs["bops"]
    for _ in range(_DRAWS):
        widths = {knob: source.choice(list(of)) for knob, of in problem.widths.items()}
        for group in problem.ties:
            widths |= dict.fromkeys(group, widths[group[0]])
        if _NEAR * budget <= cost.value(widths) <= budget:
            return widths
    raise reject("HQC611", f"no random assignment came close to {budget:,.0f} bit operations")


def expansion(net: nn.Module, samples: Samples, problem: Problem) -> Problem:
    """The problem with the loss expanded in the weights' own errors in place of their traces."""
    layers = [knob for knob in problem.widths if not knob.endswith(".input")]
    objective = Weights(net, nn.functional.cross_entropy, layers)
    deltas = weight_deltas(objective, problem.widths, per_channel)
    inputs = {k: v for k, v in problem.objective.single.items() if k not in layers}
    table = interaction_table(objective, samples, deltas)
    table = table + gradient_table(objective, samples, deltas)
    return replace(problem, objective=table + Table(inputs))


def per_channel(bits: int) -> nn.Module:
    """The quantiser of weights that the trainings use."""
    return WeightQuant(bits, per_channel=True)


def pairs_of(widths: Widths) -> dict[str, tuple[int, int]]:
    """(weights, activations) by layer, for `quantize_model`."""
    layers = [knob for knob in widths if not knob.endswith(".input")]
    return {layer: (widths[layer], widths[f"{layer}.input"]) for layer in layers}


def assignments(
    net: nn.Module, samples: Samples, arms: Sequence[str], bits: Sequence[int], seed: int
) -> Iterator[tuple[int, str, Widths, float]]:
    """(budget's bits, arm, widths, bit operations) of one float network."""
    problem = planner_of(net, samples).problem
    fixed = {**problem.widths, _first_input(problem): (INPUT_BITS,)}
    problems = {"hessian": problem, "input8": replace(problem, widths=fixed)}
    if "expansion" in arms:
        problems["expansion"] = expansion(net, samples, problem)
    cost = problem.costs["bops"]
    for b in bits:
        budget = cost.value(uniform(problem, b))
        for arm in arms:
            widths: Widths
            if arm == "uniform":
                widths = uniform(problem, b)
            elif arm == "random":
                widths = drawn(problem, budget, seed)
            else:
                widths = solve(problems[arm], {"bops": budget}).widths
            used = cost.value(widths)
            assert used <= budget, "an allocation beyond its budget"
            yield b, arm, widths, used


def compare(
    task: Task,
    *,
    seeds: Sequence[int],
    bits: Sequence[int],
    arms: Sequence[str] = ARMS,
    most: int = 4096,
    log: Callable[[str], None] = print,
) -> Comparison:
    """Train every arm at every budget from every seed's float network.

    Args:
        task: what to train.
        seeds: of float networks.
        bits: uniform widths that set the budgets.
        arms: of `ARMS`; "uniform" is what the others are compared with.
        most: training samples on which sensitivities are measured.
        log: receives a line per training.
    """
    floats: dict[int, float] = {}
    trials: list[Trial] = []
    for start in starts(task, seeds, most, log):
        seed, net = start.seed, start.net
        floats[seed] = start.accuracy
        for b, arm, widths, used in assignments(net, start.samples, arms, bits, seed):
            loss, accuracy = quantised_score(task, net, start.parts, widths, seed)
            trials.append(Trial(seed, b, arm, widths, used, loss, accuracy))
            shown = " ".join(f"{k}={w}" for k, w in widths.items())
            log(f"  {b} bits, {arm}: accuracy {accuracy:.4f}, {used:,.0f} BOPs, {shown}")
    return Comparison(task.name, floats, tuple(trials))


def quantised_score(
    task: Task, net: nn.Module, parts: Parts, widths: Widths, seed: int
) -> tuple[float, float]:
    """Loss and accuracy on the test part after training with quantisers; `net` is left alone."""
    model = quantize_model(copy.deepcopy(net), pairs_of(widths), Scheme(per_channel=True))
    trained(model, parts, task.schedule, seed, quantised=True)
    with torch.no_grad():
        return score(model, parts.test)
