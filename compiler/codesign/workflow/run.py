"""The steps of a run that take long, with the state of each in a file."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from hqc.artifact.page.numbers import scales_text
from hqc.codesign.allocation.budget import bits_text
from hqc.codesign.allocation.plan import measure
from hqc.codesign.allocation.schemes import Candidate
from hqc.codesign.hessian.objective import Samples
from hqc.codesign.hessian.sensitivity import Sensitivity
from hqc.codesign.training.datasets import Dataset
from hqc.codesign.training.loop import Epoch, Options, evaluate, train
from hqc.codesign.workflow.workdir import Workdir
from hqc.diagnostics import HqcError, reject
from hqc.diagnostics.events import Event, Watch, ignore, stage
from hqc.frontends.hawq.wrap import quantize_model

if TYPE_CHECKING:
    from hqc.codesign.workflow.settings import Settings


class Run:
    """The steps that take long, with the state of each in a file."""

    def __init__(
        self, data: Dataset, settings: Settings, folder: Workdir | None, watch: Watch
    ) -> None:
        self._data, self._settings, self._watch = data, settings, watch
        self._folder = folder
        self.judge = "training" if data.valid is None else "validation"

    def _file(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder.file(name)

    def train_float(self, model: nn.Module) -> tuple[nn.Module, tuple[Epoch, ...]]:
        """The model after its float training, and the epochs of that."""
        chosen = self._settings
        model = copy.deepcopy(model)
        if not chosen.float_epochs:
            return model.eval(), ()
        options = Options(
            epochs=chosen.float_epochs,
            learning_rate=chosen.float_rate,
            seed=chosen.options.seed,
            device=chosen.options.device,
        )
        return self._train("float", model, options, "float.pt")

    def try_out(self, model: nn.Module, found: Sequence[Candidate]) -> list[float]:
        """The least loss of each candidate in a short training; none where nothing is to choose.

        It is infinite for one that diverges.

        Raises:
            HqcError: HQC604, all of them diverge.
        """
        epochs, losses = self._settings.trial_epochs, []
        if len(found) < 2 or not epochs:
            return []
        for one in found:
            scales = scales_text(one.scheme.per_channel, one.scheme.power_of_two)
            with stage(f"trial, scales {scales}", self._watch) as note:
                try:
                    losses.append(self._short(model, one, epochs))
                    said = f"loss {losses[-1]:.4f} after {epochs} epochs"
                except HqcError as error:
                    last = error
                    if error.diagnostics[0].code != "HQC604":
                        raise
                    losses.append(math.inf)
                    said = "it diverges"
                note.detail = f"{bits_text(one.plan.bits)}; {said}"
        if math.isinf(min(losses)):
            raise last
        return losses

    def _short(self, model: nn.Module, one: Candidate, epochs: int) -> float:
        options = replace(self._settings.options, epochs=epochs, freeze_ranges=None, patience=None)
        net = quantize_model(model, dict(one.plan.bits), one.scheme)
        batches = self._data.batches(self._settings.batch), self._data.valid_batches()
        found = train(net, *batches, options=options, watch=ignore)
        return min(epoch.score for epoch in found.epochs)

    def train_quantised(
        self, model: nn.Module, chosen: Candidate
    ) -> tuple[nn.Module, tuple[Epoch, ...]]:
        """The model with quantisers, after its training."""
        net = quantize_model(model, dict(chosen.plan.bits), chosen.scheme)
        return self._train("quantised", net, self._settings.options, "quantised.pt")

    def _train(
        self, name: str, model: nn.Module, options: Options, file: str
    ) -> tuple[nn.Module, tuple[Epoch, ...]]:
        def watch(event: Event) -> None:
            self._watch(replace(event, name=f"{name}, {event.name}"))

        found = train(
            model,
            self._data.batches(self._settings.batch),
            self._data.valid_batches(),
            options=options,
            checkpoint=self._file(file),
            watch=watch,
        )
        return model.cpu(), found.epochs

    def traces(self, model: nn.Module, samples: Samples) -> tuple[Sensitivity, ...]:
        """Sensitivities of weights, and of activations if their widths are chosen."""
        choice, kinds = self._settings.choice, ["weights"]
        several = len(choice.activation_bits) > 1 and not choice.uncoupled
        if self._settings.bits is None and several:
            kinds.append("activations")
        return tuple(self._trace(model, samples, kind) for kind in kinds)

    def _trace(self, model: nn.Module, samples: Samples, kind: str) -> Sensitivity:
        file = self._file(f"{kind}.json")
        with stage(f"traces of {kind}", self._watch) as note:
            if file is not None and file.exists():
                note.detail = f"from {file.name}"
                return _loaded(file)
            found = measure(model, samples, self._settings.measuring, kind)
            if file is not None:
                fresh = file.with_name(f".{file.name}-")
                found.save(fresh)
                fresh.replace(file)
            note.detail = quality(found)
        return found

    def accuracy(self, model: nn.Module) -> float:
        """On the validation samples, or the training ones where there are no others."""
        batches = self._data.valid_batches() or replace(self._data.batches(4096), shuffle=False)
        return float(evaluate(model, batches)[1])


def _loaded(file: Path) -> Sensitivity:
    try:
        return Sensitivity.load(file)
    except HqcError as error:
        notes = [note for d in error.diagnostics for note in d.notes]
        helps = ("--restart throws that state away and starts afresh",)
        raise reject("HQC606", f"{file} is damaged", notes=notes, helps=helps) from error


def quality(found: Sensitivity) -> str:
    """How well sensitivities are known, in words."""
    worst = max((x.error / abs(x.trace) for x in found.layers if x.trace), default=0.0)
    text = f"{found.samples} samples, largest standard error {100 * worst:.1f} %"
    return text if found.converged else f"{text}, more than asked for: allow more probes"
