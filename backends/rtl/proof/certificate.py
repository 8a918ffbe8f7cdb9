"""What was proven of a design, for reports and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hqc.backends.rtl.proof.subject import Claim
from hqc.numerics.types import Range

#: What each kind of layer is called in a sentence.
_PLURALS = {"dense": "dense layers", "conv": "convolutions", "maxpool": "max pools"}


@dataclass(frozen=True)
class LayerProof:
    """The proof of one layer.

    Attributes:
        name, kind: of the layer, as in `hqc.pipeline.backend.EmittedLayer`.
        where: the node it comes from.
        instances: how often its circuit stands in the design.
        range: what an element of the result can be, as a code.
        claims: what is proven.
        open: why the proof is not complete, or "".
    """

    name: str
    kind: str
    where: str
    instances: int
    range: Range
    claims: tuple[Claim, ...]
    open: str

    @property
    def cases(self) -> int:
        """Cases that were computed."""
        return sum(claim.cases for claim in self.claims)

    def describe(self) -> dict[str, Any]:
        """A flat JSON-able record."""
        methods = dict.fromkeys(f"{claim.what}: {claim.method}" for claim in self.claims)
        found: dict[str, Any] = {
            "layer": self.name,
            "kind": self.kind,
            "where": self.where,
            "method": "; ".join(methods),
            "instances": self.instances,
            "cases": self.cases,
        }
        if self.open:
            found["open"] = self.open
        return found


@dataclass(frozen=True)
class Certificate:
    """What is proven of a design for all inputs.

    Attributes:
        layers: in order, without the ports.
        source: what was proven: "circuits", or "text" if they were read from the Verilog.
        tested: what no proof covers, and only simulation shows.
    """

    layers: tuple[LayerProof, ...]
    source: str
    tested: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """Whether every layer is."""
        return not any(layer.open for layer in self.layers)

    @property
    def cases(self) -> int:
        """Cases that were computed."""
        return sum(layer.cases for layer in self.layers)

    def summary(self) -> str:
        """One line."""
        subject = "the Verilog" if self.source == "text" else "the logic"
        if self.proven:
            return f"{subject} computes what the layers say, proven for all inputs: {self._how()}"
        left = ", ".join(layer.name for layer in self.layers if layer.open)
        return f"{subject} is proven but for {left}: {self._how()}"

    def _how(self) -> str:
        done = [layer for layer in self.layers if not layer.open]
        linear = [layer for layer in done if any(c.what == "sums" for c in layer.claims)]
        others = [layer for layer in done if layer not in linear and layer.cases]
        parts = []
        if linear:
            parts.append(f"{_kinds(linear)} by affine propagation")
        if others:
            parts.append(f"{_kinds(others)} by enumeration")
        text = ", ".join(parts) or "wiring alone"
        return f"{text} ({self.cases:,} cases)" if self.cases else text

    def describe(self) -> dict[str, Any]:
        """A JSON-able record: `claim`, `proven`, `tested` and figures."""
        return {
            "claim": self.summary(),
            "complete": self.proven,
            "source": self.source,
            "cases": self.cases,
            "proven": [layer.describe() for layer in self.layers if not layer.open],
            "open": [layer.describe() for layer in self.layers if layer.open],
            "tested": list(self.tested),
        }


def _kinds(layers: Sequence[LayerProof]) -> str:
    """Layers in words: "2 dense layers and 1 add"."""
    counts = Counter(layer.kind for layer in layers)
    return _and(f"{count} {_word(kind, count)}" for kind, count in counts.items())


def _word(kind: str, count: int) -> str:
    plural = _PLURALS.get(kind, f"{kind} layers")
    return plural if count > 1 else plural[:-1]


def _and(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
