"""The pass manager: runs a pipeline, verifies after each pass, and holds passes to their contract.

After each pass the IR is verified, the contract is checked on samples (random, range corners,
rounding ties, and the user's own), and on failure a reproducer is written: the IR as it was
before, the rest of the pipeline, the sample that shows it, and the command to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx_ir import Model, Value
from onnx_ir.passes import PreconditionError

from hqc.diagnostics import Exit, HqcError, Location, reject
from hqc.equivalence.samples import probes
from hqc.equivalence.translation_validation import compare, first_difference, first_row
from hqc.execution.reference import Reference
from hqc.ir import Array, set_state, state_of, to_bytes
from hqc.ir.collector import collector_paused
from hqc.ir.snapshot import is_annotated_only, is_same, snapshot
from hqc.numerics.exact_tensor import ExactTensor
from hqc.pipeline import user_code, verifier
from hqc.pipeline.passes import Change, Contract, Outcome, Pass, Promise, Remark
from hqc.pipeline.registry import Registry
from hqc.pipeline.reproducer import write_reproducer
from hqc.pipeline.time_limit import TimeUp, time_limit
from hqc.text import Repeat, Step

DEFAULT = (
    "fold-constants,normalize,fold-quantizers,fuse-batchnorm,legalize-rounding,dce,"
    "lower-scales,prune-channels,dce,propagate-precision"
)
#: Rounds of a `repeat(...)` that still changes something; more is a loop between two passes.
MAX_ROUNDS = 32
#: Seconds that one run of one pass may take, where the user does not say.
PASS_TIMEOUT = 600.0


@dataclass(frozen=True)
class Record:
    """One run of one pass.

    Attributes:
        name: of the pass; `step` is it with its options, as in the pipeline string.
        seconds: in the pass itself, without the checks.
        rewrites: how many places it changed.
        contract: what it promised; `checked` samples have shown it to hold.
        changes: the rewrites one by one, of passes that keep count.
    """

    name: str
    step: str
    seconds: float
    rewrites: int
    remarks: tuple[Remark, ...]
    contract: Contract
    checked: int
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class PassEvent:
    """A pass begins (`record` is None) or has ended; `model` is the IR at that moment.

    `rest` is the pipeline that goes on from there: within a `repeat(...)` it is run again.
    """

    name: str
    model: Model
    record: Record | None = None
    rest: tuple[Step | Repeat, ...] = ()


@dataclass(frozen=True)
class PipelineResult:
    """The model a pipeline leaves, and what each pass did."""

    model: Model
    records: tuple[Record, ...]


def run(
    model: Model,
    steps: Sequence[Step | Repeat],
    registry: Registry,
    *,
    samples: Mapping[str, Array] | None = None,
    seed: int = 0,
    check_samples: int = 96,
    verify: bool = True,
    on_event: Callable[[PassEvent], None] | None = None,
    reproducers: Path = Path("build/reproducers"),
    pass_timeout: float = PASS_TIMEOUT,
) -> PipelineResult:
    """Run a pipeline on a model, in place.

    Args:
        model: in the state that the first pass needs.
        steps: from `hqc.text.parse_pipeline`.
        registry: where the passes come from.
        samples: the user's own inputs; as many as are generated are checked beside them.
        seed: of the generated samples.
        check_samples: how many are generated, fewer for large models (see
            `hqc.analysis.workload`); the records say how many were checked.
        verify: check structure, types and contracts after each pass.
        on_event: told of each pass that begins and ends.
        reproducers: folder under which a failing pass leaves its reproducer.
        pass_timeout: seconds that one run of a pass may take, 0 for any; see
            `hqc.pipeline.time_limit`.

    Raises:
        HqcError: HQC301 an unknown pass or option; HQC302/303/304/307/308 a pass that fails; or
            what a pass itself refuses.
    """
    passes = [p for step in steps for p in _passes(step, registry)]  # all names checked first
    manager = _Manager(model, samples, seed, check_samples if verify else 0, reproducers)
    manager.on_event = on_event
    manager.pass_timeout, manager.registry = pass_timeout, registry
    assert all(isinstance(p, Pass) for p in passes)
    tail = list(steps)
    while tail:
        step = tail[0]
        manager.rest = tuple(tail[1:])
        manager.again = () if isinstance(step, Step) else (step,)
        if isinstance(step, Repeat):
            _repeat(manager, step, registry)
        else:
            manager.run(registry.make(step), step)
        tail.pop(0)
    return PipelineResult(model, tuple(manager.records))


def _passes(step: Step | Repeat, registry: Registry) -> Iterator[Pass]:
    if isinstance(step, Step):
        yield registry.make(step)
        return
    for inner in step.steps:
        yield from _passes(inner, registry)


def _repeat(manager: _Manager, step: Repeat, registry: Registry) -> int:
    total = 0
    for _ in range(MAX_ROUNDS):
        changed = 0
        for inner in step.steps:
            if isinstance(inner, Repeat):
                changed += _repeat(manager, inner, registry)
            else:
                changed += manager.run(registry.make(inner), inner)
        total += changed
        if not changed:
            return total
    raise reject(
        "HQC307",
        f"{step} still changes the graph after {MAX_ROUNDS} rounds",
        notes=("two of its passes undo each other, or one never settles",),
    )


class _Manager:
    """Runs single passes and keeps what is needed to judge them."""

    def __init__(
        self,
        model: Model,
        samples: Mapping[str, Array] | None,
        seed: int,
        count: int,
        reproducers: Path,
    ):
        set_state(model, state_of(model))  # reproducers are read as states, not as foreign files
        self.model = model
        self.records: list[Record] = []
        self.rest: tuple[Step | Repeat, ...] = ()
        self.again: tuple[Step | Repeat, ...] = ()  # a repeat(...) that is under way
        self.on_event: Callable[[PassEvent], None] | None = None
        self.pass_timeout = PASS_TIMEOUT
        self.registry: Registry | None = None
        self._folder = reproducers
        self._inputs = probes(model, samples, seed, count) if count else {}
        self._before: Model | None = None  # the model as it is now, where that is at hand
        self._trace: dict[str, ExactTensor] = {}
        self._want: dict[str, Array] = {}
        if count:
            self._remember()

    @collector_paused()
    def _remember(self) -> None:
        reference = Reference(self.model)
        trace = reference.trace(self._inputs)
        self._trace, self._want = _named(trace), reference.finish(trace)

    @collector_paused()
    def run(self, pass_: Pass, step: Step) -> int:
        """Run and judge one pass; the number of rewrites."""
        before = self._before or snapshot(self.model)
        self._tell(PassEvent(pass_.name, self.model))
        begun = time.perf_counter()
        outcome = self._call(pass_, step, before)
        seconds = time.perf_counter() - begun
        same = bool(self._inputs or not outcome.rewrites) and is_same(before, self.model)
        checked = self._judge(pass_, step, before, same) if self._inputs else 0
        record = Record(
            pass_.name,
            str(step),
            seconds,
            outcome.rewrites,
            outcome.remarks,
            pass_.contract,
            checked,
            outcome.changes,
        )
        self._before = before if same else None
        self.records.append(record)
        self._tell(PassEvent(pass_.name, self.model, record, (*self.again, *self.rest)))
        return outcome.rewrites

    def _tell(self, event: PassEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def _call(self, pass_: Pass, step: Step, before: Model) -> Outcome:
        limit = None
        try:
            with time_limit(self.pass_timeout) as limit:
                result = pass_(self.model)
        except TimeUp as error:
            if error.limit is not limit:  # of someone who runs pipelines, such as `hqc reduce`
                raise
            message = f"{pass_.name} took longer than {self.pass_timeout:g} s"
            raise self._fail(
                "HQC308", message, step, before, helps=("--pass-timeout allows more",)
            ) from error
        except HqcError:
            raise
        except PreconditionError as error:
            cause = error.__cause__
            if isinstance(cause, HqcError):
                raise cause from error
            raise reject("HQC304", str(error), helps=("reorder the pipeline",)) from error
        except Exception as error:
            raise self._fail(
                "HQC307",
                f"{pass_.name} raised {type(error).__name__}: {error}",
                step,
                before,
                notes=tuple(getattr(error, "__notes__", ())),
                where=user_code.place_of(error, type(pass_)),
            ) from error
        if isinstance(result, Outcome):
            return result
        return Outcome(result.model, int(result.modified))

    def _judge(self, pass_: Pass, step: Step, before: Model, same: bool) -> int:
        """Verify and compare; the number of samples compared. Equal graphs are equal functions."""
        if same:
            return len(next(iter(self._inputs.values())))
        try:
            verifier.check(self.model, after=pass_.name)
        except HqcError as error:
            notes = tuple(str(d) for d in error.diagnostics[1:4])
            raise self._fail(
                "HQC302", error.diagnostics[0].message, step, before, notes=notes
            ) from error
        if pass_.contract.promise is Promise.ANNOTATION:
            if not is_annotated_only(before, self.model):
                raise self._fail(
                    "HQC303",
                    f"{pass_.name} promises annotations only, and changed it",
                    step,
                    before,
                )
            return len(next(iter(self._inputs.values())))
        try:
            reference = Reference(self.model)
            trace = reference.trace(self._inputs)
            got = reference.finish(trace)
        except Exception as error:  # the model could be run before, so the pass broke it
            reason = error.diagnostics[0].message if isinstance(error, HqcError) else repr(error)
            raise self._fail(
                "HQC303", f"what {pass_.name} left cannot be run: {reason}", step, before
            ) from error
        self._compare(pass_, step, before, got, trace)
        self._trace, self._want = _named(trace), got
        return len(next(iter(self._inputs.values())))

    def _compare(
        self,
        pass_: Pass,
        step: Step,
        before: Model,
        got: Mapping[str, Array],
        trace: Mapping[Value, ExactTensor],
    ) -> None:
        result = compare(got, self._want)
        if result.equal:
            return
        if pass_.contract.promise is Promise.BOUNDED:
            worst = max(
                _lsb(got.get(name), want, _unit(name, want, self._trace))
                for name, want in self._want.items()
            )
            if worst <= pass_.contract.lsb:
                return
        notes = [f"promise: {pass_.contract}; {result.mismatches} of {result.total} values differ"]
        if (inner := first_difference(self._trace, trace)) is not None:
            notes.append(f"first tensor that differs: {inner}")
        row = first_row(got, self._want)
        sample = {name: x[row : row + 1] for name, x in self._inputs.items()}
        raise self._fail(
            "HQC303",
            f"{pass_.name} changed the model: {result.first}",
            step,
            before,
            notes=tuple(notes),
            sample=sample,
        )

    def _fail(
        self,
        code: str,
        message: str,
        step: Step,
        before: Model,
        *,
        notes: tuple[str, ...] = (),
        helps: tuple[str, ...] = (),
        sample: Mapping[str, Array] | None = None,
        where: Location | None = None,
    ) -> HqcError:
        tail = (step, *self.rest)
        few = sample or {name: x[:8] for name, x in self._inputs.items()}
        try:
            command = write_reproducer(
                self._folder, step.name, to_bytes(before), tail, few, self.registry
            )
            hint = f"reproduce with: {command}"
        except OSError as error:
            hint = f"make {self._folder} writable for a reproducer: {error.strerror or error}"
        return reject(
            code,
            message,
            where=where,
            notes=notes,
            helps=(*helps, hint, f"leave {step.name} out of the pipeline (-p)"),
            exit_=Exit.INTERNAL if code in ("HQC307", "HQC308") else Exit.REJECTED,
        )


def _lsb(got: Array | None, want: Array, unit: Array) -> float:
    """Largest difference of an output in units, the rounding of its float32 values left out."""
    if got is None or got.shape != want.shape:
        return np.inf
    gap = np.abs(np.asarray(got, np.float64) - want)
    gap = np.maximum(gap - np.spacing(np.maximum(np.abs(got), np.abs(want))), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(gap == 0, 0.0, gap / unit), initial=0))


def _named(trace: Mapping[Value, ExactTensor]) -> dict[str, ExactTensor]:
    """A trace by the names that values have now: passes rename them."""
    return {str(value.name): tensor for value, tensor in trace.items()}


def _unit(name: str, want: Array, trace: Mapping[str, ExactTensor]) -> Array:
    """One step of an output's grid; of what the host computes, the smallest gap that was seen."""
    grid = trace[name].chain.affine if name in trace else None
    if grid is not None:
        return np.array([float(abs(a)) for a in grid.a]).reshape(-1, *(1,) * (want.ndim - 2))
    return np.asarray(np.diff(np.unique(want)).min(initial=np.inf) if np.ptp(want) else 0.0)
