"""The loss as a function of what is to be quantised: weights, or activations.

A *point* is a dictionary of tensors, one per layer: weights as they are, or zeros that are added to
activations. Sensitivities are derivatives of `loss(point, inputs, targets)` at the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from hqc.diagnostics import reject

Point = dict[str, Tensor]
#: `loss(outputs, targets)`, a mean over the samples of a batch.
Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Samples:
    """Inputs, each (N, ...), and targets (N, ...)."""

    inputs: tuple[Tensor, ...]
    targets: Tensor

    @classmethod
    def of(cls, data: Iterable[Any] | tuple[Any, Tensor]) -> Samples:
        """All samples of a loader of `(inputs, targets)` batches, or of one such pair.

        Inputs are a tensor or a tuple of them. The loader is read once, into memory, so that one
        which shuffles gives the same samples to every probe.

        Raises:
            HqcError: HQC005, no samples, or inputs and targets of different lengths.
        """
        pair = isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor)
        found = [data] if pair else list(data)
        if not found:
            raise reject("HQC005", "the loader has no batches")
        inputs = [(x,) if isinstance(x, Tensor) else tuple(x) for x, _ in found]
        targets = torch.cat([torch.as_tensor(y) for _, y in found])
        columns = tuple(torch.cat(parts).detach() for parts in zip(*inputs, strict=True))
        if not len(targets) or any(len(x) != len(targets) for x in columns):
            lengths = ", ".join(str(len(x)) for x in columns)
            raise reject("HQC005", f"inputs have {lengths} samples, targets {len(targets)}")
        return cls(columns, targets)

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, start: int, stop: int) -> Samples:
        """Samples start..stop."""
        return Samples(tuple(x[start:stop] for x in self.inputs), self.targets[start:stop])

    def batches(self, size: int) -> Iterator[Samples]:
        """Consecutive parts of at most `size` samples."""
        for start in range(0, len(self), size):
            yield self.part(start, min(start + size, len(self)))

    def grouped(self, groups: int, size: int) -> Samples:
        """The same samples with a leading axis: (groups, size, ...)."""

        def shape(x: Tensor) -> Tensor:
            return x.reshape(groups, size, *x.shape[1:])

        return Samples(tuple(shape(x) for x in self.inputs), shape(self.targets))


class Objective(Protocol):
    """A loss as a function of a point."""

    @property
    def model(self) -> nn.Module:
        """The network."""

    @property
    def names(self) -> tuple[str, ...]:
        """The layers, in the order of results."""

    @property
    def kind(self) -> str:
        """What a point holds: "weights" or "activations"."""

    def point(self, samples: Samples) -> Point:
        """Where derivatives are taken, for a batch of this size."""

    def outputs(self, point: Point, inputs: tuple[Tensor, ...]) -> Any:
        """The outputs of the network."""

    def loss(self, point: Point, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """The mean loss of a batch."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The loss as a function of the weights of chosen layers.

    Attributes:
        model: evaluated in eval mode, and twice differentiable: no quantisers in it.
        criterion: `criterion(outputs, targets)`, a mean over samples.
        layers: parameters by name, `.weight` left out ("fc1" is "fc1.weight"); none: all
            weights with two axes or more.
    """

    model: nn.Module
    criterion: Loss
    layers: Sequence[str] = ()
    kind: str = "weights"

    @property
    def names(self) -> tuple[str, ...]:
        """The layers."""
        return tuple(self._parameters())

    def _parameters(self) -> dict[str, str]:
        known = dict(self.model.named_parameters())
        if not self.layers:
            chosen = [n for n, p in known.items() if n.endswith("weight") and p.dim() > 1]
            if not chosen:
                raise reject("HQC610", "the model has no weights with two axes or more")
            return {_layer(name): name for name in chosen}
        found = {}
        for layer in self.layers:
            name = next((n for n in (layer, f"{layer}.weight") if n in known), None)
            if name is None:
                raise _unknown(layer, [_layer(n) for n in known])
            found[layer] = name
        return found

    def point(self, samples: Samples) -> Point:
        """The weights themselves."""
        known = dict(self.model.named_parameters())
        return {layer: known[name].detach() for layer, name in self._parameters().items()}

    def outputs(self, point: Point, inputs: tuple[Tensor, ...]) -> Any:
        """The outputs with the weights at the point."""
        names = self._parameters()
        state = {n: p.detach() for n, p in self.model.named_parameters()}
        state |= {names[layer]: value for layer, value in point.items()}
        return functional_call(self.model, state, inputs)

    def loss(self, point: Point, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return self.criterion(self.outputs(point, inputs), targets)


@dataclass(frozen=True, eq=False)
class Activations:
    """The loss as a function of what is added to the activations at chosen modules.

    Attributes:
        model, criterion: as for `Weights`.
        layers: module names; none: all modules that have a weight with two axes or more.
        side: "input", the (first) input of each module, or "output".
    """

    model: nn.Module
    criterion: Loss
    layers: Sequence[str] = ()
    side: str = "input"
    kind: str = "activations"

    def __post_init__(self) -> None:
        if self.side not in {"input", "output"}:
            raise reject("HQC610", f"unknown side {self.side!r}", helps=("input or output",))

    @property
    def names(self) -> tuple[str, ...]:
        """The modules."""
        return tuple(self._modules())

    def _modules(self) -> dict[str, nn.Module]:
        known = dict(self.model.named_modules())
        if not self.layers:
            return {
                name: module
                for name, module in known.items()
                if isinstance(getattr(module, "weight", None), Tensor) and module.weight.dim() > 1
            }
        for layer in self.layers:
            if layer not in known:
                raise _unknown(layer, [n for n in known if n])
        return {layer: known[layer] for layer in self.layers}

    def point(self, samples: Samples) -> Point:
        """Zeros of the activations' shapes (N, ...); errors as for `values`."""
        return {name: torch.zeros_like(value) for name, value in self.values(samples).items()}

    def values(self, samples: Samples) -> Point:
        """The activations themselves, (N, ...) each.

        Raises:
            HqcError: HQC610, a module that runs not once, but several times or never.
        """
        seen: dict[str, list[Tensor]] = {name: [] for name in self.names}

        def note(name: str, value: Tensor) -> Tensor:
            seen[name].append(value)
            return value

        with torch.no_grad(), self.tapped(note):
            self.model(*samples.inputs)
        for name, found in seen.items():
            if len(found) != 1:
                raise reject(
                    "HQC610",
                    f"{name} runs {len(found)} times in one forward pass: its activations are not "
                    "one tensor",
                )
        return {name: found[0] for name, found in seen.items()}

    def outputs(self, point: Point, inputs: tuple[Tensor, ...]) -> Any:
        """The outputs with the point added to the activations."""
        state = {n: p.detach() for n, p in self.model.named_parameters()}
        with self.tapped(lambda name, value: value + point[name]):
            return functional_call(self.model, state, inputs)

    def loss(self, point: Point, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """The mean loss of a batch."""
        return self.criterion(self.outputs(point, inputs), targets)

    @contextmanager
    def tapped(self, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
        """Within, `change(name, value)` replaces the activations of each layer."""

        def before(name: str) -> Any:
            return lambda _, inputs: (change(name, inputs[0]), *inputs[1:])

        def after(name: str) -> Any:
            return lambda _, inputs, output: change(name, output)

        with ExitStack() as stack:
            for name, module in self._modules().items():
                if self.side == "input":
                    handle = module.register_forward_pre_hook(before(name))
                else:
                    handle = module.register_forward_hook(after(name))
                stack.callback(handle.remove)
            yield


def hessian_product(
    objective: Objective, point: Point, inputs: tuple[Tensor, ...], targets: Tensor
) -> Callable[[Point], Point]:
    """H v as a function of v, for the Hessian of the loss at a point.

    The gradient's own backward pass: forward mode over it is as fast, but lacks operators, the
    mean squared error among them (torch 2.13).
    """

    def slope(at: Point) -> Point:
        found: Point = grad(objective.loss)(at, inputs, targets)
        return found

    _, pull = vjp(slope, point)

    def product(vector: Point) -> Point:
        found: Point = pull(vector)[0]
        return found

    return product


@contextmanager
def checked(objective: Objective, samples: Samples) -> Iterator[None]:
    """Eval mode within, and failures of differentiation as diagnostics.

    Raises:
        HqcError: HQC610, a model or loss that fails, or is not a mean over samples, or not
            finite; an operator without second derivatives, quantisers among them.
    """
    with evaluating(objective.model):
        try:
            _require_mean(objective, samples)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise _failure("the model or its loss fails on the first samples", error) from error
        try:
            yield
        except (RuntimeError, NotImplementedError) as error:
            help_ = "measure sensitivities on the float model, before quantisers go in"
            message = "the loss of this model cannot be differentiated twice"
            raise _failure(message, error, help_) from error


def _failure(message: str, error: Exception, *helps: str) -> Exception:
    lines = [line.strip()[:300] for line in str(error).splitlines() if line.strip()]
    return reject("HQC610", message, notes=lines[:2], helps=helps)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode within; each module's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _require_mean(objective: Objective, samples: Samples) -> None:
    few = samples.part(0, min(4, len(samples)))

    def loss(part: Samples) -> float:
        with torch.no_grad():
            value = objective.loss(objective.point(part), part.inputs, part.targets)
        if value.dim():
            raise reject("HQC610", f"the loss has shape {tuple(value.shape)}, not ()")
        return float(value)

    whole = loss(few)
    mean = sum(loss(one) for one in few.batches(1)) / len(few)
    if not math.isfinite(whole):
        raise reject("HQC610", f"the loss is {whole} on the first samples")
    if abs(whole - mean) > 1e-3 * max(abs(whole), abs(mean)):
        raise reject(
            "HQC610",
            "the loss is not a mean over samples",
            notes=(f"{whole:.6g} on a batch of {len(few)}, whose samples have mean {mean:.6g}",),
            helps=("use a loss with reduction='mean', and a model whose samples do not interact",),
        )


def _layer(parameter: str) -> str:
    return parameter.removesuffix(".weight")


def _unknown(layer: str, known: Sequence[str]) -> Exception:
    names = ", ".join(known[:20])
    return reject("HQC610", f"the model has no layer {layer!r}", helps=(f"one of {names}",))
