"""The pass manager: contracts, verification, reproducers, repetition and records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as onnx_ir
import pytest
from onnx_ir import Model
from support.qonnx_graphs import Net, ops
from support.wrong_passes import (
    BUILTIN,
    Annotates,
    BoundedAway,
    Dangling,
    ExtraOutput,
    NarrowTypes,
    NoTypes,
    Raises,
    Refuses,
    Renames,
    Restless,
    Settles,
    Shifts,
    TypedWeights,
    Unquantised,
    Wider,
    net,
    one,
    quantiser,
    refused,
)

from hqc import ir, pipeline
from hqc.diagnostics import Exit, HqcError
from hqc.execution.reference import Reference
from hqc.ir import State, add_constant, state_of, type_of
from hqc.pipeline import PassEvent, Record
from hqc.pipeline.passes import Outcome, Pass, Promise, Remark
from hqc.text import parse_pipeline

# --- contracts ----------------------------------------------------------------------------------


def test_a_wrong_pass_is_named_with_the_first_tensor_and_a_reproducer(tmp_path: Path) -> None:
    error = refused("HQC303", Wider, tmp_path, text="dce,wider,fold-quantizers")
    diagnostic = error.diagnostics[0]
    assert "wider changed the model" in diagnostic.message
    assert "promise: exact" in diagnostic.notes[0]
    assert "act" in diagnostic.notes[1]
    (directory,) = tmp_path.iterdir()
    assert directory.name.startswith("wider-")
    written = {"before.onnx", "samples.npz", "command.sh", "reproducer.json"}
    assert {p.name for p in directory.iterdir()} == written
    command = (directory / "command.sh").read_text()
    assert "-p wider,fold-quantizers" in command
    assert any(str(directory) in text for text in diagnostic.helps)
    before = ir.load(directory / "before.onnx")
    assert ops(before) == ops(net())
    sample = dict(np.load(directory / "samples.npz"))
    assert sample["x"].shape == (1, 4)
    want = Reference(net()).run(sample)["y"]
    spoiled = Reference(Wider()(net()).model).run(sample)["y"]
    assert not np.array_equal(want, spoiled)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        ("HQC302", Dangling, "nothing"),
        ("HQC302", TypedWeights, "not valid"),
        ("HQC303", Unquantised, "quantised"),
        ("HQC303", Renames, "renamed"),
        ("HQC303", ExtraOutput, "act"),
        ("HQC303", BoundedAway, "y"),
        ("HQC307", Raises, "ZeroDivisionError: in the middle"),
    ],
)
def test_broken_models_are_the_passes_fault(
    code: str, kind: type[Pass], text: str, tmp_path: Path
) -> None:
    error = refused(code, kind, tmp_path)
    assert kind.name in str(error)
    assert text in str(error)
    (directory,) = tmp_path.iterdir()
    assert directory.name.startswith(kind.name)
    assert error.exit is (Exit.INTERNAL if code == "HQC307" else Exit.REJECTED)


def test_a_model_is_left_as_it_was_for_the_reproducer(tmp_path: Path) -> None:
    """The pass spoils the graph before it raises; the reproducer holds what it was given."""
    refused("HQC307", Raises, tmp_path)
    (directory,) = tmp_path.iterdir()
    before = ir.load(directory / "before.onnx")
    assert "q2_node" in {n.name for n in before.graph}


def test_refusals_are_no_failures(tmp_path: Path) -> None:
    refused("HQC205", Refuses, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [NoTypes, NarrowTypes])
def test_corrupt_types_are_found(kind: type[Pass], tmp_path: Path) -> None:
    model = one(Settles, net(), tmp_path, pipeline.DEFAULT).model
    assert state_of(model) is State.INTEGER
    error = refused("HQC302", kind, tmp_path, model)
    assert f"after {kind.name}" in str(error)


def test_annotations_only(tmp_path: Path) -> None:
    assert one(Annotates, net(), tmp_path).records[0].rewrites == 1
    error = refused("HQC303", Annotates, tmp_path, text="annotates{edit=true}")
    assert "annotations only" in str(error)


def test_a_bound_is_kept_or_broken(tmp_path: Path) -> None:
    for steps in (0, 1, -2):
        one(Shifts, net(), tmp_path, f"shifts{{steps={steps}}}")
    error = refused("HQC303", Shifts, tmp_path, text="shifts{steps=3}")
    assert "bounded by 2 LSB" in str(error)


def test_bounds_of_constant_outputs_are_bounds(tmp_path: Path) -> None:
    """All samples give one value: there is no gap to measure a step by, but there is a grid."""
    n = Net()
    x = n.quant(n.input("x", 2), 1.0, 2)
    x = n.quant(n.dense(x, np.zeros((2, 1))), 0.3, 4, name="q2")
    n.op("Identity", x, name="y")
    model = n.model("y")
    data = ir.to_bytes(model)
    one(Shifts, model, tmp_path, "shifts{steps=2,step=0.3}")
    again = ir.from_bytes(data, "again")
    refused("HQC303", Shifts, tmp_path, again, "shifts{steps=3,step=0.3}")


def test_nothing_is_checked_without_verification() -> None:
    registry = BUILTIN.with_pass(Wider)
    result = pipeline.run(net(), parse_pipeline("wider"), registry, verify=False)
    assert result.records[0].checked == 0


def test_user_samples_are_checked_too(tmp_path: Path) -> None:
    """A difference that only the user's sample shows."""

    @dataclass(frozen=True)
    class OnlyThere(Pass):
        """Clip what is never generated."""

        name: ClassVar[str] = "only-there"

        def rewrite(self, model: Model) -> Outcome:
            node = quantiser(model, "wide")
            scale = add_constant(model.graph, "bits", np.float32(23).reshape(()))
            node.replace_input_with(3, scale)
            return Outcome(model, 1)

    n = Net()
    n.quant(n.input("x", 1), 1.0, 24, name="wide")
    n.op("Identity", "wide", name="y")
    data = ir.to_bytes(n.model("y"))
    registry = BUILTIN.with_pass(OnlyThere)
    steps = parse_pipeline("only-there")
    sample = {"x": np.full((1, 1), 2.0**22 + 1, np.float32)}
    with pytest.raises(HqcError, match="HQC303"):
        pipeline.run(ir.from_bytes(data, ""), steps, registry, samples=sample, reproducers=tmp_path)


def test_a_folder_that_cannot_be_written_hides_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    error = refused("HQC303", Wider, blocked)
    assert "wider changed the model" in str(error)
    assert "reproducer" in str(error)


def test_inputs_of_any_name_can_be_reproduced(tmp_path: Path) -> None:
    n = Net()
    n.quant(n.input("file", 2), 0.5, 4, name="act")
    n.op("Identity", "act", name="y")
    refused("HQC303", Wider, tmp_path, n.model("y"))
    (directory,) = tmp_path.iterdir()
    assert "file" in np.load(directory / "samples.npz")


# --- repetition, records, events ----------------------------------------------------------------


def test_a_pass_that_never_settles_is_stopped(tmp_path: Path) -> None:
    error = refused("HQC307", Restless, tmp_path, text="repeat(dce,restless)")
    assert "repeat(dce,restless)" in str(error)


def test_repetition_ends_with_the_first_quiet_round(tmp_path: Path) -> None:
    model = net()
    count = len(tuple(model.graph))
    records = one(Settles, model, tmp_path, "repeat(repeat(settles),dce)").records
    settled = [r for r in records if r.name == "settles"]
    assert sum(r.rewrites for r in settled) == count
    assert settled[-1].rewrites == 0
    assert settled[0].remarks == (Remark("one more"),)


def test_records_and_events() -> None:
    seen: list[tuple[str, bool]] = []

    def listen(event: PassEvent) -> None:
        seen.append((event.name, event.record is None))

    steps = parse_pipeline("fold-constants,fold-quantizers")
    result = pipeline.run(net(), steps, BUILTIN, on_event=listen, check_samples=40)
    assert seen == [
        ("fold-constants", True),
        ("fold-constants", False),
        ("fold-quantizers", True),
        ("fold-quantizers", False),
    ]
    first, second = result.records
    assert isinstance(first, Record)
    assert (first.checked, second.checked) == (40, 40)
    assert second.rewrites == 2
    assert second.contract.promise is Promise.EXACT
    assert str(second.contract) == "exact"


def test_any_onnx_ir_pass_manager_runs_our_passes() -> None:
    from hqc.passes.dce import DeadCode
    from hqc.passes.fold_quantizers import FoldQuantizers

    sequence = onnx_ir.passes.Sequential(FoldQuantizers(), DeadCode())
    model = net()
    sequence(model)
    assert "MatMul" in ops(model)
    assert all(type_of(n.inputs[1]) for n in model.graph if n.op_type == "MatMul")
