"""Which pass, and which of its rewrites, first changes a value.

Passes are run without their checks, and after each the outputs are compared with `==` with those
of the model as it was given. Of the first pass that changes one, if it is made of rules, the number
of rewrites is then bisected: n - 1 of them keep every value, n do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff

from onnx_ir import Model

from hqc import pipeline
from hqc.diagnostics import HqcError, reject
from hqc.equivalence.samples import probes
from hqc.equivalence.translation_validation import compare, first_difference
from hqc.execution.reference import Reference
from hqc.ir import Array, from_bytes, to_bytes
from hqc.numerics.exact_tensor import ExactTensor
from hqc.pipeline import PASS_TIMEOUT, PassEvent
from hqc.pipeline.passes import Change, Outcome
from hqc.pipeline.registry import Registry
from hqc.pipeline.rewriter import Rewriter
from hqc.text import Repeat, Step, parse_pipeline, print_module


@dataclass(frozen=True)
class Culprit:
    """What first changes a value.

    Attributes:
        step: the pass with its options; `run` counts runs of passes from 1.
        contract: what the pass promises: a change within a bound may be meant.
        difference: the first tensor that differs, or why the result cannot be run.
        before, after: the IR around the pass, or around the one rewrite that was found.
        rewrite: its number, from 1, of `rewrites` that the pass makes; None where the pass does
            not keep count, or changes values without rewrites.
        change: the rule and the node of that rewrite.
    """

    step: str
    run: int
    contract: str
    difference: str
    before: Model
    after: Model
    rewrites: int
    rewrite: int | None = None
    change: Change | None = None

    def diff(self) -> str:
        """What changed in the textual IR, as a unified diff."""
        return text_diff(self.before, self.after, "before", "after")


def text_diff(before: Model, after: Model, old: str, new: str) -> str:
    """A unified diff of the textual IR of two models; empty where it is the same."""
    left, right = (print_module(model).splitlines() for model in (before, after))
    return "\n".join(unified_diff(left, right, old, new, n=1, lineterm=""))


class _Found(BaseException):
    """Ends the pipeline, from within its event handler."""


@dataclass
class Judge:
    """Tells whether a model computes what it did at the beginning."""

    inputs: Mapping[str, Array]
    trace: dict[str, ExactTensor]
    want: dict[str, Array]

    @classmethod
    def of(cls, model: Model, inputs: Mapping[str, Array]) -> Judge:
        """The judge that holds models to this one's outputs."""
        reference = Reference(model)
        trace = reference.trace(inputs)
        named = {str(value.name): tensor for value, tensor in trace.items()}
        return cls(inputs, named, reference.finish(trace))

    def difference(self, model: Model) -> str | None:
        """What is different, in words, or None."""
        try:
            reference = Reference(model)
            trace = reference.trace(self.inputs)
            result = compare(reference.finish(trace), self.want)
        except Exception as error:  # noqa: BLE001 - it could be run before, so a pass broke it
            reason = error.diagnostics[0].message if isinstance(error, HqcError) else repr(error)
            return f"it cannot be run: {reason}"
        if result.equal:
            return None
        return first_difference(self.trace, trace) or result.first


def bisect(
    model: Model,
    steps: Sequence[Step | Repeat],
    registry: Registry,
    *,
    samples: Mapping[str, Array] | None = None,
    seed: int = 0,
    pass_timeout: float = PASS_TIMEOUT,
) -> Culprit:
    """Find the first pass, and rewrite, that changes a value.

    Args:
        model: in the state that the first pass needs; it is edited.
        steps, registry, samples, seed, pass_timeout: as `hqc.pipeline.run` takes them.

    Raises:
        HqcError: HQC309, no pass changes a value; what the passes raise.
    """
    inputs = probes(model, samples, seed)
    judge = Judge.of(model, inputs)
    states: list[bytes] = []  # before each run
    found: list[Culprit] = []

    def listen(event: PassEvent) -> None:
        record = event.record
        if record is None:
            states.append(to_bytes(event.model))
            return
        if (difference := judge.difference(event.model)) is not None:
            culprit = Culprit(
                step=record.step,
                run=len(states),
                contract=str(record.contract),
                difference=difference,
                before=from_bytes(states[-1], "before"),
                after=event.model,
                rewrites=record.rewrites,
            )
            found.append(culprit)
            raise _Found

    try:
        pipeline.run(
            model, steps, registry, verify=False, on_event=listen, pass_timeout=pass_timeout
        )
    except _Found:
        return _within(found[0], registry, inputs)
    raise reject("HQC309", f"no pass changes a value on {len(next(iter(inputs.values())))} samples")


def _within(culprit: Culprit, registry: Registry, inputs: Mapping[str, Array]) -> Culprit:
    """Bisect the rewrites of a pass that counts them."""
    (step,) = parse_pipeline(culprit.step)
    assert isinstance(step, Step)
    pass_ = registry.make(step)
    data = to_bytes(culprit.before)
    if not isinstance(pass_, Rewriter) or not culprit.rewrites:
        return culprit
    judge = Judge.of(from_bytes(data, "before"), inputs)

    def after(count: int) -> tuple[Model, tuple[Change, ...]]:
        model = from_bytes(data, "before")
        outcome = replace(pass_, max_rewrites=count).call(model)
        assert isinstance(outcome, Outcome)
        return model, outcome.changes

    good, bad = 0, culprit.rewrites
    if judge.difference(after(good)[0]) is not None:
        return culprit  # it changes values beside its rules
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if judge.difference(after(middle)[0]) else (middle, bad)
    wrong, changes = after(bad)
    return replace(
        culprit,
        difference=judge.difference(wrong) or culprit.difference,
        before=after(good)[0],
        after=wrong,
        rewrite=bad,
        change=changes[-1],
    )
