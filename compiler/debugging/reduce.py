"""Make a graph on which passes fail as small as it gets: delta debugging.

A candidate replaces the graph if it is valid on its own and fails in the same way. Candidates cut
outputs off, make inner tensors inputs, bypass nodes in ever smaller groups (ddmin: Zeller and
Hildebrandt, "Simplifying and isolating failure-inducing input", 2002), shorten axes and level
constants, until nothing helps or the time is over.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc import pipeline
from hqc.analysis.partition import computed_nodes
from hqc.debugging.bisect import Judge
from hqc.diagnostics import CODES, HqcError, reject
from hqc.equivalence.samples import probes
from hqc.ir import (
    QONNX,
    Array,
    add_constant,
    constant,
    fresh_name,
    from_bytes,
    make_node,
    set_type,
    to_bytes,
    type_of,
)
from hqc.ir.edits import remove_unused
from hqc.ir.operators import is_quantiser
from hqc.pipeline import verifier
from hqc.pipeline.registry import Registry
from hqc.pipeline.time_limit import TimeUp, time_limit
from hqc.text import Repeat, Step

#: The words of `--check`, beside codes of diagnostics.
VALUE_CHANGED, CRASH = "value-changed", "crash"
#: Samples on which candidates are judged.
SAMPLES = 32

Edit = Callable[[Model], None]


@dataclass
class Check:
    """How a graph fails under a pipeline, and whether another fails in the same way.

    Attributes:
        wanted: `value-changed`, `crash` (HQC307 or a time-out), or a code of a diagnostic.
        tried: candidates so far.
        given: the user's samples, used as long as the inputs are what they were.
    """

    steps: Sequence[Step | Repeat]
    registry: Registry
    wanted: str
    seed: int = 0
    pass_timeout: float = 60.0
    given: Mapping[str, Array] | None = None
    tried: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.wanted not in (VALUE_CHANGED, CRASH, *CODES):
            known = f"{VALUE_CHANGED}, {CRASH}, or a code such as HQC303"
            raise reject("HQC001", f"--check {self.wanted}: unknown", helps=(f"known: {known}",))

    def fails(self, data: bytes) -> bool:
        """Whether a graph that is valid, and can be run, fails in the wanted way."""
        self.tried += 1
        model = from_bytes(data, "candidate")
        try:
            verifier.check(model)
            inputs = probes(model, self._samples(model), self.seed, SAMPLES)
            judge = Judge.of(model, inputs)
        except Exception:  # noqa: BLE001 - a candidate may make no sense at all
            return False
        found = self._outcome(model, inputs)
        if self.wanted == CRASH:
            return found in ("HQC307", "HQC308")
        if self.wanted == VALUE_CHANGED:
            return found is None and judge.difference(model) is not None
        return found == self.wanted

    def _outcome(self, model: Model, inputs: Mapping[str, Array]) -> str | None:
        """The code of what the pipeline raises, or None."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                pipeline.run(
                    model,
                    self.steps,
                    self.registry,
                    samples=inputs,
                    check_samples=SAMPLES,
                    verify=self.wanted not in (VALUE_CHANGED, CRASH),
                    reproducers=Path(folder),
                    pass_timeout=self.pass_timeout,
                )
            except HqcError as error:
                return error.diagnostics[0].code
        return None

    def _samples(self, model: Model) -> Mapping[str, Array] | None:
        given = self.given or {}
        shapes = {str(v.name): tuple(v.shape or ())[1:] for v in model.graph.inputs}
        same = shapes.keys() == given.keys()
        return given if same and all(given[n].shape[1:] == s for n, s in shapes.items()) else None


def reduce(model: Model, check: Check, seconds: float = 300.0) -> Model:
    """The smallest graph that was found to fail in the same way.

    Args:
        model: fails as `check` says.
        check: the failure.
        seconds: after which the smallest so far is taken, in the middle of a candidate if need
            be (see `hqc.pipeline.time_limit`); the model itself is always judged to the end.

    Raises:
        HqcError: HQC309, the model does not fail so.
    """
    begun = time.monotonic()
    data = to_bytes(model)
    if not check.fails(data):
        raise reject(
            "HQC309",
            f"the model does not show {check.wanted} under this pipeline",
            notes=(f"on {SAMPLES} samples, seed {check.seed}",),
            helps=(f"--check {VALUE_CHANGED}, {CRASH} or the code of the diagnostic",),
        )
    left = max(0.0, begun + seconds - time.monotonic())
    search = _Search(data, check, time.monotonic() + left)
    limit = None
    try:
        with time_limit(left) as limit:  # ends a candidate that takes long, too
            while search.round():
                pass
    except TimeUp as error:
        if error.limit not in (None, limit):
            raise
    return from_bytes(search.data, "reduced")  # the smallest so far is the answer


@dataclass
class _Search:
    """The smallest failing graph so far."""

    data: bytes
    check: Check
    deadline: float

    def round(self) -> bool:
        """Try everything once; whether anything helped."""
        before = self.data
        self._outputs()
        self._inputs()
        self._bypasses()
        for edit in (*_axes(self._model()), *_levels(self._model())):
            self._try(edit)
        return self.data != before

    def _model(self) -> Model:
        return from_bytes(self.data, "smallest")

    def _try(self, edit: Edit) -> bool:
        """Take an edited graph if it still fails; each edit leaves less to look at."""
        if time.monotonic() > self.deadline:
            raise TimeUp
        model = self._model()
        try:
            edit(model)
            remove_unused(model)
            _drop_unused_inputs(model)
            data = to_bytes(model)
        except (ValueError, TypeError, KeyError, StopIteration):  # the edit does not fit any more
            return False
        if data == self.data or not self.check.fails(data):
            return False
        self.data = data
        return True

    def _outputs(self) -> None:
        """Make the earliest tensor that still shows the failure the only output."""
        names = _computed(self._model())
        low, high = 0, len(names)
        while low < high:  # failures downstream of the fault mostly show: bisect, then be content
            middle = (low + high) // 2
            if self._try(_output(names[middle])):
                high = middle
            else:
                low = middle + 1
        for value in self._model().graph.outputs:
            self._try(_output(str(value.name)))

    def _inputs(self) -> None:
        """Make inner tensors inputs, the latest first."""
        for name in reversed(_computed(self._model())):
            self._try(_input(name))

    def _bypasses(self) -> None:
        """Drop nodes in groups of half, a quarter, ... of them, then one by one."""
        size = max(1, len(self._model().graph) // 2)
        while True:
            names = [str(node.outputs[0].name) for node in self._model().graph]
            for start in range(0, len(names), size):
                self._try(_bypass(names[start : start + size]))
            if size == 1:
                return
            size = max(1, size // 2)


def _computed(model: Model) -> list[str]:
    """The names of the tensors that depend on an input, in order."""
    return [str(node.outputs[0].name) for node in computed_nodes(model)]


def _find(model: Model, name: str) -> Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def _output(name: str) -> Edit:
    def edit(model: Model) -> None:
        model.graph.outputs[:] = [_find(model, name)]

    return edit


def _input(name: str) -> Edit:
    """Cut in front of a tensor: a new input, and its quantiser unless a quantiser follows."""

    def edit(model: Model) -> None:
        graph, old = model.graph, _find(model, name)
        producer = old.producer()
        if producer is None or _is_port(producer):
            raise ValueError("it is an input already")
        fresh = Value(name=fresh_name(graph, "in"), shape=old.shape, type=old.type)
        graph.inputs.append(fresh)
        source = fresh
        if not all(is_quantiser(use.node) for use in old.uses()) or old.is_graph_output():
            parts = [
                add_constant(graph, "in_q", np.array(x, np.float32)) for x in (0.125, 0.0, 8.0)
            ]
            names = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
            made = make_node(
                "Quant", (fresh, *parts), like=old, name=fresh_name(graph, "in_quant"),
                attributes=names, domain=QONNX,
            )  # fmt: skip
            graph.opset_imports.setdefault(QONNX, 1)
            graph.insert_before(producer, made)
            source = made.outputs[0]
        onnx_ir.convenience.replace_all_uses_with(old, source, replace_graph_outputs=True)

    return edit


def _is_port(node: Node) -> bool:
    source = node.inputs[0]
    return is_quantiser(node) and source is not None and source.is_graph_input()


def _bypass(names: Sequence[str]) -> Edit:
    """Let the first input of the same shape stand for each of these tensors."""

    def edit(model: Model) -> None:
        for name in names:
            node = next(n for n in model.graph if n.outputs[0].name == name)
            out = node.outputs[0]
            same = (v for v in node.inputs if v is not None and v.shape == out.shape)
            source = next((v for v in same if constant(v) is None), None)
            if source is None or (out.is_graph_output() and source.producer() is None):
                continue
            onnx_ir.convenience.replace_all_uses_with(out, source, replace_graph_outputs=True)

    return edit


def _drop_unused_inputs(model: Model) -> None:
    used = [v for v in model.graph.inputs if v.uses() or v.is_graph_output()]
    if not used:
        raise ValueError("nothing depends on an input")
    model.graph.inputs[:] = used


def _axes(model: Model) -> Iterator[Edit]:
    """Shorten every axis of some length to 1, else to half."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    sizes = {d for v in values for d in list(v.shape or ())[1:] if isinstance(d, int) and d > 1}
    for size in sorted(sizes, reverse=True):
        yield _shorten(size, 1)
        yield _shorten(size, (size + 1) // 2)


def _shorten(size: int, to: int) -> Edit:
    def edit(model: Model) -> None:
        values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
        for value in values:
            if value.shape is not None:
                value.shape = onnx_ir.Shape([to if d == size else d for d in value.shape])
        for value in tuple(model.graph.initializers.values()):
            array = constant(value)
            if array is not None and array.dtype.kind == "i" and array.ndim == 1:  # a shape
                _replace(model, value, np.where(array == size, to, array))
            elif array is not None:
                cut = tuple(slice(to) if n == size else slice(None) for n in array.shape)
                _replace(model, value, array[cut])

    return edit


def _levels(model: Model) -> Iterator[Edit]:
    """Fill a constant of many different numbers with its first one."""
    for name, value in model.graph.initializers.items():
        array = constant(value)
        if array is not None and array.dtype.kind == "f" and np.unique(array).size > 1:
            yield _level(name)


def _level(name: str) -> Edit:
    def edit(model: Model) -> None:
        value = model.graph.initializers[name]
        array = np.asarray(constant(value))
        _replace(model, value, np.full_like(array, array.flat[0]))

    return edit


def _replace(model: Model, value: Value, array: Array) -> None:
    """Give a constant other data; its type stays."""
    if np.array_equal(array, np.asarray(constant(value))):
        return
    made = add_constant(
        model.graph, str(value.name), array.astype(np.asarray(constant(value)).dtype)
    )
    set_type(made, type_of(value))
    onnx_ir.convenience.replace_all_uses_with(value, made)
