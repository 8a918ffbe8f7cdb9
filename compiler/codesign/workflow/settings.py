"""What a run is told to do; with the model and the data it decides the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hqc.codesign.allocation.budget import Bits
from hqc.codesign.allocation.plan import Choice, Measuring
from hqc.codesign.training.loop import Options
from hqc.diagnostics import reject
from hqc.frontends.hawq.layers import Scheme


@dataclass(frozen=True)
class Settings:
    """What to do; with the model and the data it decides the result.

    Attributes:
        budgets: upper limits by cost; the widths are then chosen.
        bits: the widths by layer, given in place of budgets.
        choice: what may be chosen.
        measuring: of sensitivities.
        float_epochs: of training before anything is quantised; 0: the model is trained.
        float_rate: learning rate of that.
        options: of the quantisation-aware training, its seed and device for both trainings. Batch
            norms are best folded from the first epoch: their statistics are those of the float
            training, and what is trained is what is evaluated.
        batch: samples in one step.
        scheme: how weights and activations are quantised.
        schemes: to choose from in place of it, by the budgets: each that keeps them is trained for
            a while with its best widths, and the one with the least loss is taken.
        trial_epochs: of these short trainings; 0: the least predicted loss decides.
    """

    budgets: Mapping[str, float] = field(default_factory=dict)
    bits: Bits | None = None
    choice: Choice = field(default_factory=Choice)
    measuring: Measuring = field(default_factory=Measuring)
    float_epochs: int = 0
    float_rate: float = 1e-3
    options: Options = field(default_factory=lambda: Options(fold_norms=1))
    batch: int = 256
    scheme: Scheme = field(default_factory=Scheme)
    schemes: tuple[Scheme, ...] = ()
    trial_epochs: int = 2

    def __post_init__(self) -> None:
        if bool(self.budgets) == (self.bits is not None):
            raise reject("HQC001", "give budgets or bit widths, one of the two")
        if self.schemes and self.bits is not None:
            raise reject("HQC001", "schemes are chosen by budgets: give one with bit widths")
        if self.batch < 1 or self.float_epochs < 0 or self.trial_epochs < 0:
            epochs = f"{self.float_epochs} float epochs, {self.trial_epochs} trial epochs"
            raise reject("HQC001", f"batches of {self.batch}, {epochs}")

    @property
    def considered(self) -> tuple[Scheme, ...]:
        """The schemes to choose from."""
        return self.schemes or (self.scheme,)
