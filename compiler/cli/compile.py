"""The commands that make and use compiled directories: compile, run, build."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from hqc.artifact import Artifact
from hqc.artifact.report_file import read_report
from hqc.cli.console import Console
from hqc.cli.opt import registry_of
from hqc.cli.result import Result, table
from hqc.diagnostics.events import stage
from hqc.driver import compile as compile_model
from hqc.driver.hardware_settings import parse_backend_options
from hqc.ir import array_files
from hqc.pipeline.options import parse_check, parse_input_types, usage

#: Values of a tool's report that are printed; the document and report.json have all.
_PLAIN = (str, int, float, bool)


def compile_command(options: Namespace, console: Console) -> Result:
    """`hqc compile`."""
    artifact = compile_model(
        options.model,
        options.backend,
        options.output,
        hawq_model=options.hawq_model,
        samples=options.samples,
        watch=console.watch,
        pipeline=options.pipeline,
        check=parse_check(options.check),
        seed=options.seed,
        pass_timeout=options.pass_timeout,
        registry=registry_of(options, console),
        quantise=options.quantise,
        input_types=parse_input_types(options.input_type),
        save_ir=options.save_ir,
        build=options.build,
        io=options.io,
        part=options.part,
        technology=options.technology,
        libraries=options.libraries,
        clock_ns=options.clock,
        reuse_factor=options.reuse_factor,
        strategy=options.strategy,
        backend_options=parse_backend_options(options.backend_option),
    )
    verdict = artifact.manifest.verdict
    style = "ok" if verdict.exact and verdict.overflow_free else "warning"
    console.line()
    console.line(console.style(verdict.text, style))
    if verdict.float_text:
        console.line(verdict.float_text)
    report = read_report(artifact.path)
    if claim := report.get("proof", {}).get("claim"):
        console.line(claim)
    if measured := report.get("project", {}).get("measured"):
        console.line(measured.get("text", ""))
    console.line(f"{artifact.path}: project for {artifact.manifest.backend} in project/")
    document = {"directory": str(artifact.path), "manifest": artifact.manifest.to_json()}
    if measured:
        document["measured"] = measured
    return Result(document={**document, "verdict": verdict.text})


def run_command(options: Namespace, console: Console) -> Result:
    """`hqc run`."""
    artifact = Artifact.open(options.directory)
    inputs = array_files.read_arrays(Path(options.input), artifact.inputs)
    output = Path(options.output)
    array_files.check_output_path(output, len(artifact.model.graph.outputs))
    outputs = artifact.run(inputs, options.engine)
    array_files.write_outputs(output, outputs)
    shapes = {name: list(array.shape) for name, array in outputs.items()}
    samples = len(next(iter(outputs.values())))
    console.line(f"{output}: {samples} samples through the {options.engine} engine")
    return Result(document={"output": str(output), "engine": options.engine, "shapes": shapes})


def build_command(options: Namespace, console: Console) -> Result:
    """`hqc build`."""
    if options.timeout <= 0:
        raise usage(f"--timeout {options.timeout:g}: seconds, more than 0")
    artifact = Artifact.open(options.directory)
    with stage(f"build for {artifact.manifest.backend}", console.watch):
        found = artifact.build(options.timeout)
    rows = [(key, str(value)) for key, value in found.items() if isinstance(value, _PLAIN)]
    return Result(table(rows), {"directory": str(artifact.path), "build": found})
