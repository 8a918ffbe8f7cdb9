"""From a float model, its data and what one may choose, to bit widths: knobs, tables, the optimum.

Weights have a knob per layer. What enters a layer is, by `activation_bits`,

* of one given width, and no knob;
* of a width that is chosen as well, by a knob "LAYER.input", with sensitivities of its own; layers
  that read one value share its width;
* of 3 bits more than the layer's own weights (`uncoupled`), 16 at the first layer: the table of
  Campos et al. (arXiv:2304.06745).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from hqc.codesign.allocation.budget import MOST, Bits
from hqc.codesign.allocation.perturbation import (
    activation_perturbations,
    omega_table,
    weight_perturbations,
)
from hqc.codesign.allocation.problem import Allocation, Problem, front, solve
from hqc.codesign.costs.logic import logic_of
from hqc.codesign.costs.providers import COSTS, Cost, Network
from hqc.codesign.costs.tables import PUBLISHED_HEADROOM, PUBLISHED_INPUT_BITS, Table, shapes_of
from hqc.codesign.hessian.objective import Activations, Samples, Weights, evaluating
from hqc.codesign.hessian.sensitivity import (
    Sensitivity,
    exact_traces,
    fisher_traces,
    hessian_traces,
)
from hqc.codesign.training.models import folded
from hqc.diagnostics import reject
from hqc.frontends.hawq.wrap import layer_names
from hqc.frontends.torch import ActQuant, WeightQuant

METHODS = ("hutchinson", "fisher", "exact")


@dataclass(frozen=True)
class Measuring:
    """How sensitivities are measured.

    Attributes:
        method: one of `METHODS`.
        relative_error: standard error, as part of each trace, at which probing stops.
        max_probes: after which it stops in any case.
        samples: at most so many of the training samples, drawn by the seed.
        seed: of samples and probes.
    """

    method: str = "hutchinson"
    relative_error: float = 0.05
    max_probes: int = 500
    samples: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise reject("HQC001", f"method {self.method!r}: one of {', '.join(METHODS)}")
        if self.samples < 1:
            raise reject("HQC001", f"{self.samples} samples are too few to measure anything")


def measure(
    model: nn.Module, samples: Samples, how: Measuring, kind: str = "weights"
) -> Sensitivity:
    """Sensitivities of a float model's weights, or of the activations that enter its layers.

    Batch norms behind layers count as folded into them, as they are in the end.

    Raises:
        HqcError: HQC603, the forward cannot be traced; HQC610, see `hessian_traces`.
    """
    layers = _layers(model)
    side: type[Weights | Activations] = Weights if kind == "weights" else Activations
    objective = side(folded(model, layers), nn.functional.cross_entropy, layers)
    if how.method == "fisher":
        return fisher_traces(objective, samples)
    if how.method == "exact":
        return exact_traces(objective, samples)
    return hessian_traces(
        objective,
        samples,
        tolerance=how.relative_error,
        max_probes=how.max_probes,
        seed=how.seed,
    )


def _layers(model: nn.Module) -> tuple[str, ...]:
    found = layer_names(model)
    if not found:
        raise reject("HQC603", "the model has no layers that take bit widths")
    return found


@dataclass(frozen=True)
class Choice:
    """What may be chosen.

    Attributes:
        candidates: widths of weights.
        activation_bits: widths of activations; one: it is given.
        uncoupled: activations follow the layer's own weights; see the head of this file.
        per_channel: weights have a scale per output channel.
        power_of_two: scales are powers of two.
    """

    candidates: tuple[int, ...] = tuple(range(2, 9))
    activation_bits: tuple[int, ...] = (8,)
    uncoupled: bool = False
    per_channel: bool = False
    power_of_two: bool = False


@dataclass(frozen=True)
class Plan:
    """Bit widths and what is expected of them.

    Attributes:
        bits: (weights, activations that enter) by layer.
        loss_increase: of the training loss, predicted to second order, errors uncorrelated.
        by_layer: the same by knob; activations have knobs only where their width is chosen.
        costs: by name.
        allocation: the answer as the optimiser gave it.
    """

    bits: Bits
    loss_increase: float
    by_layer: Mapping[str, float]
    costs: Mapping[str, float]
    allocation: Allocation = field(compare=False)


@dataclass(frozen=True)
class Planner:
    """A problem ready to be solved for any budget.

    Attributes:
        layers: names, in order.
        choice: what may be chosen.
        problem: the knobs and tables.
    """

    layers: tuple[str, ...]
    choice: Choice
    problem: Problem

    @classmethod
    def of(
        cls,
        model: nn.Module,
        samples: Samples,
        traces: Sequence[Sensitivity],
        choice: Choice,
        costs: Mapping[str, Cost] = COSTS,
        given: Bits | None = None,
    ) -> Planner:
        """Set the problem up.

        Args:
            model: float.
            samples: to find ranges of activations on, and shapes.
            traces: of this model's weights, and of its activations where they are chosen.
            choice: what may be chosen.
            costs: by name.
            given: widths that are given in place of candidates; the problem then has one answer.

        Raises:
            HqcError: HQC613, traces of another model, or none for the activations; HQC612, a
                cost that does not know a width.
        """
        layers = _layers(model)
        flat = folded(model, layers)
        net = network(model, samples, choice, given)
        objective = _weights_table(flat, layers, _of_kind(traces, "weights"), net.widths, choice)
        known = _of_kind(traces, "activations")
        if f"{layers[0]}.input" in net.widths and (known or given is None):
            objective = objective + _inputs_table(flat, samples, layers, known, net.widths, choice)
        tables = {name: cost(net) for name, cost in costs.items()}
        return cls(layers, choice, Problem(net.widths, objective, tables, net.ties))

    def solve(self, budgets: Mapping[str, float]) -> Plan:
        """The widths of least predicted increase of the loss within budgets; as `allocation`."""
        return self.plan_of(solve(self.problem, budgets))

    def front(self, cost: str, budgets: Mapping[str, float] | None = None) -> tuple[Plan, ...]:
        """All best compromises of one cost, ascending in it."""
        return tuple(self.plan_of(found) for found in front(self.problem, cost, budgets))

    def sketch(self, cost: str, points: int = 12) -> tuple[Plan, ...]:
        """Some points of the front, ascending in cost: a whole front can have thousands.

        Args:
            cost: by name.
            points: budgets that are tried, evenly spaced over what the cost can be.
        """
        least = solve(replace(self.problem, objective=self.problem.costs[cost])).objective
        most = self.solve({cost: math.inf}).costs[cost]
        budgets = [least + (most - least) * i / points for i in range(1, points)]
        tried = [self.solve({cost: budget}) for budget in budgets if budget > least]
        found = {plan.costs[cost]: plan for plan in (*tried, self.solve({cost: math.inf}))}
        return tuple(found[key] for key in sorted(found))

    def plan_of(self, found: Allocation) -> Plan:
        """An allocation as widths of layers and a predicted loss."""
        bits = {}
        for i, layer in enumerate(self.layers):
            weights = found.widths[layer]
            bits[layer] = weights, self._entering(i, layer, weights, found)
        single = self.problem.objective.single
        halves = {knob: column[found.widths[knob]] / 2 for knob, column in single.items()}
        return Plan(bits, found.objective / 2, halves, found.costs, found)

    def _entering(self, index: int, layer: str, weights: int, found: Allocation) -> int:
        knob = f"{layer}.input"
        if knob in found.widths:
            return found.widths[knob]
        if self.choice.uncoupled:
            return PUBLISHED_INPUT_BITS if not index else min(MOST, weights + PUBLISHED_HEADROOM)
        return self.choice.activation_bits[0]


def network(
    model: nn.Module, samples: Samples, choice: Choice, given: Bits | None = None
) -> Network:
    """What costs are functions of, before anything is measured; arguments as for `Planner.of`."""
    layers = _layers(model)
    flat = folded(model, layers)
    groups = _shared_inputs(flat, samples, layers)
    knobs = _knobs(layers, choice) if given is None else _given(layers, given, groups)
    return Network(
        shapes_of(flat, samples, layers),
        knobs,
        _inputs(layers, choice, knobs),
        PUBLISHED_HEADROOM if choice.uncoupled and given is None else 0,
        tuple(group for group in groups if group[0] in knobs),
        partial(logic_of, flat, samples),
    )


def _knobs(layers: Sequence[str], choice: Choice) -> dict[str, tuple[int, ...]]:
    knobs = dict.fromkeys(layers, choice.candidates)
    if not choice.uncoupled and len(choice.activation_bits) > 1:
        knobs |= dict.fromkeys((f"{layer}.input" for layer in layers), choice.activation_bits)
    return knobs


def _given(
    layers: Sequence[str], given: Bits, groups: Sequence[tuple[str, ...]]
) -> dict[str, tuple[int, ...]]:
    """Knobs with one width each; a value that several layers read has the largest."""
    inputs = {f"{layer}.input": given[layer][1] for layer in layers}
    for group in groups:
        inputs |= dict.fromkeys(group, max(inputs[knob] for knob in group))
    return {
        **{layer: (given[layer][0],) for layer in layers},
        **{knob: (width,) for knob, width in inputs.items()},
    }


def _inputs(
    layers: Sequence[str], choice: Choice, knobs: Mapping[str, object]
) -> dict[str, str | int]:
    """What enters each layer: a knob, or a width."""
    found: dict[str, str | int] = {}
    for layer in layers:
        if f"{layer}.input" in knobs:
            found[layer] = f"{layer}.input"
        elif choice.uncoupled:
            found[layer] = layer if found else PUBLISHED_INPUT_BITS
        else:
            found[layer] = choice.activation_bits[0]
    return found


def _shared_inputs(
    model: nn.Module, samples: Samples, layers: Sequence[str]
) -> list[tuple[str, ...]]:
    """Groups of two or more ".input" knobs that are about one value, told by its memory."""
    taps = Activations(model, nn.functional.cross_entropy, layers)
    groups: dict[int, list[str]] = {}
    with evaluating(model):
        values = taps.values(samples.part(0, 1))  # all alive at once, so no address comes twice
    for layer, value in values.items():
        groups.setdefault(value.untyped_storage().data_ptr(), []).append(f"{layer}.input")
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _of_kind(traces: Sequence[Sensitivity], kind: str) -> Sensitivity | None:
    return next((found for found in traces if found.kind == kind), None)


def _weights_table(
    model: nn.Module,
    layers: Sequence[str],
    traces: Sensitivity | None,
    knobs: Mapping[str, Sequence[int]],
    choice: Choice,
) -> Table:
    objective = Weights(model, nn.functional.cross_entropy, layers)
    sizes = {n: w.numel() for n, w in objective.point(Samples((), torch.empty(0))).items()}
    found = _checked(traces, "weights", sizes)
    quantiser = partial(
        WeightQuant, per_channel=choice.per_channel, power_of_two=choice.power_of_two
    )
    return omega_table(found, weight_perturbations(objective, knobs, quantiser))


def _inputs_table(
    model: nn.Module,
    samples: Samples,
    layers: Sequence[str],
    traces: Sensitivity | None,
    knobs: Mapping[str, Sequence[int]],
    choice: Choice,
) -> Table:
    objective = Activations(model, nn.functional.cross_entropy, layers)
    with evaluating(model):
        values = objective.values(samples.part(0, 1))
    found = _checked(traces, "activations", {n: v.numel() for n, v in values.items()})
    widths = {layer: knobs[f"{layer}.input"] for layer in layers}
    quantiser = partial(_act_quant, power_of_two=choice.power_of_two)
    moved = activation_perturbations(objective, samples, widths, quantiser)
    return omega_table(found, moved, suffix=".input")


def _act_quant(bits: int, signed: bool, *, power_of_two: bool) -> nn.Module:
    """As `HawqAct` has it: a zero point wherever there are negative values."""
    return ActQuant(bits, signed=signed, symmetric=not signed, power_of_two=power_of_two)


def _checked(traces: Sensitivity | None, kind: str, sizes: Mapping[str, int]) -> Sensitivity:
    if traces is None:
        raise reject(
            "HQC613",
            f"there are no sensitivities of {kind}",
            helps=("measure them: hqc sensitivity, with --activations for activations",),
        )
    measured = {layer.name: layer.elements for layer in traces.layers}
    if measured != dict(sizes):
        odd = sorted(set(measured.items()) ^ set(sizes.items()))
        raise reject(
            "HQC613",
            f"the sensitivities of {kind} are of another model",
            notes=(f"they differ in {odd[0][0]}, of {odd[0][1]} elements",),
            helps=("measure them anew: hqc sensitivity MODEL --data D -o traces.json",),
        )
    return traces
