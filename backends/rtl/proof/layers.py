"""What one layer says of each output of its circuit, put to the proofs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hqc.backends.rtl.design import Block
from hqc.backends.rtl.proof.elements import (
    Curve,
    Pair,
    Window,
    prove_curves,
    prove_pairs,
    prove_windows,
)
from hqc.backends.rtl.proof.linear import Sum, prove_sums
from hqc.backends.rtl.proof.specs import PADDING, Linear, Maximum, Spec, Times, Unary
from hqc.backends.rtl.proof.subject import Claim, Refuted, Subject
from hqc.backends.rtl.proof.wiring import NOTHING, Elements, Wiring
from hqc.numerics.types import Codes

#: The name of the function of a tap that is padding.
_PADDED = -1


@dataclass(frozen=True, eq=False)
class Task:
    """A block, its layer's description, how they are wired, and the circuit under proof."""

    block: Block
    spec: Spec
    wiring: Wiring
    elements: Elements
    subject: Subject

    def claims(self) -> list[Claim]:
        """Prove every output.

        Raises:
            Refuted: one is wrong.
            Undecided: the proof would take too long.
        """
        outputs = range(len(self.block.circuit.outputs))
        match self.spec:
            case Linear() as spec:
                if self.block.fill != 0 and np.any(self.wiring.given == PADDING):
                    raise Refuted(f"padding is {self.block.fill}, the layer's 0")
                return prove_sums(self.subject, [self._sum(spec, output) for output in outputs])
            case Unary() as spec:
                curves = [curve for output in outputs for curve in self._curves(spec, output)]
                return prove_curves(self.subject, curves)
            case Maximum() as spec:
                return prove_windows(self.subject, [self._window(spec, o) for o in outputs])
            case Times() as spec:
                return prove_pairs(self.subject, [self._pair(spec, o) for o in outputs])
        raise TypeError(f"{type(self.spec).__name__} has no proof")

    def _taps(self, output: int) -> range:
        """The taps of an instance that an output's group reads."""
        count = self.spec.reads.shape[1]
        group = output // self.spec.width
        return range(group * count, (group + 1) * count)

    def _refuted(self, output: int, message: str) -> Refuted:
        return Refuted(f"output {output} {message}", self.block.circuit.outputs[output])

    # --- sums ---------------------------------------------------------------------------------

    def _sum(self, spec: Linear, output: int) -> Sum:
        taps, column = self._taps(output), output % spec.width
        weight = np.zeros(self.wiring.reads.shape[1], spec.weight.dtype)
        weight[taps.start : taps.stop] = spec.weight[:, column]
        for tap in self.wiring.missing():
            if not weight[tap] or np.all(self.wiring.reads[:, tap] == PADDING):
                continue
            same = self.wiring.input_of(tap)
            if same is None:
                raise self._refuted(output, f"does not read tap {tap} of weight {weight[tap]}")
            weight[self.wiring.taps[same]] += weight[tap]
        held = np.where(self.wiring.taps >= 0, weight[self.wiring.taps], 0)
        # An input may stand for a tap that another one stands for: then one has the weight.
        again = np.ones(len(held), bool)
        again[np.unique(self.wiring.taps, return_index=True)[1]] = False
        bias = int(spec.bias[column])
        return Sum(output, np.where(again, 0, held), bias, spec.fraction, spec.result)

    # --- functions of one element ---------------------------------------------------------------

    def _curves(self, spec: Unary, output: int) -> list[Curve]:
        """One for each function that the output is in some instance."""
        tap = self._taps(output).start
        input_ = self.wiring.input_of(tap)
        keys = spec.keys.reshape(-1, len(self.block.circuit.outputs))[:, output]
        column = self.wiring.reads[:, tap]
        found = []
        for key in np.unique(keys[column != PADDING]).tolist():
            own = column[(column != PADDING) & (keys == key)]
            (bounds,) = self.elements.hull(own[:, None], 0)
            sum_ = spec.linear[key] if spec.linear else None
            function = spec.functions[key]
            found.append(Curve(output, input_, bounds, key, function, sum_, spec.result))
        if np.any(column == PADDING):
            found.append(self._padded(spec, output, input_))
        return found

    def _padded(self, spec: Unary, output: int, input_: int | None) -> Curve:
        """Where the tap is padding, the output is the layer's fill."""
        fill = self.block.fill
        (bounds,) = self.elements.hull(np.array([[PADDING]]), fill)
        input_ = self.wiring.input_of(NOTHING) if input_ is None else input_
        function = _constant(spec.padding)
        return Curve(output, input_, bounds, _PADDED, function, None, spec.result)

    # --- windows and pairs ----------------------------------------------------------------------

    def _window(self, spec: Maximum, output: int) -> Window:
        taps = self._taps(output)
        inputs = [self.wiring.input_of(tap) for tap in taps]
        found = frozenset(index for index in inputs if index is not None)
        if None in inputs:
            tap = inputs.index(None)
            raise self._refuted(output, f"does not read tap {tap} of its window")
        return Window(output, found, spec.fraction, spec.result)

    def _pair(self, spec: Times, output: int) -> Pair:
        first, second = (self.wiring.input_of(tap) for tap in self._taps(output))
        if first is None or second is None:
            raise self._refuted(output, "does not read both factors")
        return Pair(output, (first, second), spec.fraction, spec.result)


def _constant(value: int) -> Callable[[Codes], Codes]:
    return lambda codes: np.full(len(codes), value, np.int64)
