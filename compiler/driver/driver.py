"""From a model to a checked directory: `compile`, and the parts of it that stand alone.

The road: load, quantise if asked, run the pipeline, cut into host and hardware, let the backend
object, emit into a temporary directory, compile and run the emulation, compare every output code
with the exact executor, record the verdict, and put the directory in place. A compile that fails
or is interrupted anywhere leaves what was there before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from onnx_ir import Model

from hqc import pipeline
from hqc.analysis.partition import partition
from hqc.artifact import (
    Artifact,
    Samples,
    assemble,
    atomic_directory,
    backend_named,
    manifest,
)
from hqc.diagnostics import Exit, HqcError
from hqc.diagnostics.events import Watch, ignore, stage
from hqc.driver import hardware_settings
from hqc.driver.job import Job
from hqc.driver.loading import Loaded, normalise, read
from hqc.equivalence.bit_exactness import ExactCore
from hqc.frontends.torch_export.training_record import training_record
from hqc.ir import array_files, boundaries
from hqc.numerics.types import FixedType
from hqc.pipeline.backend import Backend, BackendOptions
from hqc.pipeline.options import CompileOptions, identifier
from hqc.pipeline.plugin_guard import prepared_by
from hqc.pipeline.registry import Registry
from hqc.text import Repeat, Step, parse_pipeline, print_pipeline


class Keywords(TypedDict, total=False):
    """The fields of `CompileOptions` that `compile` takes as keywords."""

    pipeline: str | None
    check: int | None
    seed: int
    pass_timeout: float
    quantise: int | None
    input_types: Mapping[str, FixedType]
    save_ir: bool
    build: bool
    build_timeout: float
    io: str | None
    part: str | None
    technology: str | None
    libraries: str | None
    clock_ns: float | None
    reuse_factor: int | None
    strategy: str | None
    backend_options: Mapping[str, Any]


def load(
    model: object,
    *,
    example_inputs: object = None,
    hawq_model: object = None,
    input_types: Mapping[str, FixedType] | None = None,
    registry: Registry | None = None,
) -> Model:
    """Load a model into the IR's quantised state.

    Args:
        model: a path (.onnx, .pt2, .pt, .hqir), a `torch.nn.Module`, a
            `torch.export.ExportedProgram`, an `onnx.ModelProto` or an `onnx_ir.Model`.
        example_inputs: for a module: a tensor or a tuple of them, batch first.
        hawq_model: for a HAWQ state dict: the module whose forward calls its layers, or
            "FILE.py:NAME" for one; not needed for a plain MLP.
        input_types: types of the input quantisers, by input name.
        registry: where frontends and operators of plug-ins come from.

    Raises:
        HqcError: what is wrong with the file or the model, with its place.
    """
    source = read(model, example_inputs, hawq_model, registry)
    return normalise(source, input_types, registry).model


def run_passes(
    model: Model,
    passes: str,
    *,
    samples: Samples | None = None,
    seed: int = 0,
    verify: bool = True,
    registry: Registry | None = None,
) -> Model:
    """Run a pipeline over a copy of a model.

    Args:
        model: in either state of the IR.
        passes: a pipeline string, such as `fold-constants,repeat(dce)`.
        samples: user samples on which contracts are checked too.
        seed: of the generated samples.
        verify: whether to verify the IR and the contracts after each pass.
        registry: where the passes come from.

    Raises:
        HqcError: HQC306 a malformed pipeline, HQC301 an unknown pass, HQC3xx a pass that fails.
    """
    steps = steps_of(passes)
    own = read(model).model
    given = given_samples(samples, own)
    chosen = registry or Registry.default()
    return pipeline.run(own, steps, chosen, samples=given, seed=seed, verify=verify).model


def steps_of(passes: str | None) -> tuple[Step | Repeat, ...]:
    """Parse a pipeline that a user wrote; a malformed one is wrong usage.

    The step `default` stands for the default pipeline, and so does None.
    """
    default = parse_pipeline(pipeline.DEFAULT)
    try:
        steps = parse_pipeline("default" if passes is None else passes)
    except HqcError as error:
        raise HqcError(error.diagnostics, Exit.USAGE) from error
    found = (default if step == Step("default") else (step,) for step in steps)
    return tuple(step for group in found for step in group)


def given_samples(samples: Samples | None, model: Model) -> dict[str, array_files.Floats] | None:
    """User samples, from wherever they are, checked against the model's inputs."""
    if samples is None:
        return None
    inputs = boundaries([v for v in model.graph.inputs if not v.is_initializer()])
    if isinstance(samples, str | Path):
        samples = array_files.read_arrays(Path(samples), inputs)
    elif not isinstance(samples, Mapping):
        samples = array_files.by_name(np.asarray(samples), inputs)
    return array_files.check_inputs(samples, inputs)


def prepare(
    model: object,
    *,
    example_inputs: object = None,
    hawq_model: object = None,
    samples: Samples | None = None,
    quantise: int | None = None,
    input_types: Mapping[str, FixedType] | None = None,
    registry: Registry | None = None,
) -> tuple[Loaded, dict[str, array_files.Floats] | None]:
    """Load, quantise after training if a bit width says so, and normalise; and the samples."""
    source = read(model, example_inputs, hawq_model, registry)
    given = given_samples(samples, source.model)
    if quantise is not None:
        from hqc.frontends.torch_export import calibration

        source = replace(source, model=calibration.quantise(source.model, quantise, given))
    return normalise(source, input_types, registry), given


def compile(
    model: object,
    backend: str = "vitis",
    output: str | Path | None = None,
    *,
    example_inputs: object = None,
    hawq_model: object = None,
    samples: Samples | None = None,
    registry: Registry | None = None,
    watch: Watch = ignore,
    **options: Unpack[Keywords],
) -> Artifact:
    """Compile a model into a checked directory.

    Args:
        model: see `load`.
        backend: name of the backend, such as "vitis" or "catapult".
        output: the directory to make or replace; by default `build/NAME-BACKEND`.
        example_inputs: for a module: a tensor or a tuple of them, batch first.
        hawq_model: see `load`.
        samples: your own samples, in the model's units: calibrate with, and compared on.
        registry: where passes and backends come from.
        watch: called at the beginning and the end of each stage.
        options: fields of `hqc.pipeline.options.CompileOptions`.

    Raises:
        HqcError: the model is rejected, HQC403 when the emulation is not bit-exact, HQC404/405
            when a tool is missing or fails. The output is then as it was before.
    """
    known = registry or Registry.default()
    chosen = CompileOptions(backend=backend, passes_from=known.digests(), **options)
    target = backend_named(backend, known)
    hardware = hardware_settings.resolve(target, chosen)
    steps = with_legalisation(steps_of(chosen.pipeline), target)
    with stage("load", watch) as note:
        loaded, given = prepare(
            model,
            example_inputs=example_inputs,
            hawq_model=hawq_model,
            samples=samples,
            quantise=chosen.quantise,
            input_types=chosen.input_types,
            registry=known,
        )
        note.detail = loaded.source.file
        note.remarks += [str(remark) for remark in loaded.remarks]
    directory = Path(output or Path("build") / f"{loaded.source.name}-{backend}")
    atomic_directory.check_replaceable(atomic_directory.absolute(directory), manifest.objection)
    reference = read(loaded.model).model  # passes edit in place; the comparison needs the original
    tracer = assemble.Tracer(watch, chosen.save_ir)
    result = pipeline.run(
        loaded.model,
        steps,
        known,
        samples=given,
        seed=chosen.seed,
        on_event=tracer.event,
        pass_timeout=chosen.pass_timeout,
    )
    cut = partition(result.model)
    job = Job(
        loaded=loaded,
        reference=reference,
        model=result.model,
        cut=cut,
        exact=ExactCore(cut),
        backend=target,
        options=chosen,
        settings=target.complete(
            BackendOptions(project=identifier(loaded.source.name), **hardware)
        ),
        training=training_record(model),
        watch=watch,
    )
    ready = prepared_by(target, job.model, job.cut, job.settings)
    inputs = job.inputs(given)
    with atomic_directory.replacing(directory, manifest.objection) as fresh:
        emission = job.emit(fresh, inputs, ready)
        del ready  # a large design; the proof reads its own from the files
        proof = job.prove(fresh)
        verdict, measured = job.verdict(fresh, inputs)
        if measured:
            emission = replace(emission, report={**emission.report, "measured": measured})
        assemble.write_states(fresh, tracer.states)
        job.describe(fresh, print_pipeline(steps), result.records, emission, verdict)
        if proof:
            assemble.add_to_report(fresh, "proof", proof)
    artifact = Artifact(directory, manifest.read(directory), known)
    if chosen.build:
        with stage("build", watch):
            artifact.build(chosen.build_timeout)
    return artifact


def with_legalisation(
    steps: tuple[Step | Repeat, ...], backend: Backend
) -> tuple[Step | Repeat, ...]:
    """A pipeline and behind it the passes that a backend asks for, unless it ends with them."""
    if not backend.legalise:
        return steps
    extra = parse_pipeline(backend.legalise)
    return steps if steps[-len(extra) :] == extra else (*steps, *extra)
