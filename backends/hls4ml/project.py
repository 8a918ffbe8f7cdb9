"""Write a complete project: hls4ml's sources and scripts, exact weights, test-bench vectors.

hls4ml's writers are run step by step. Left out are the parts that only its own Python runtime
uses (bridge, build script of the bridge) and those that would make the project depend on the
moment or the machine it was written on (random stamp, absolute paths, archive).
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hqc.analysis.partition import Partition, Port
from hqc.backends.hls4ml.custom_layers import TEMPLATES
from hqc.backends.hls4ml.model_graph import CATAPULT, VITIS, Flavour, build_graph
from hqc.backends.hls4ml.streams import depths
from hqc.backends.hls4ml.technology import FILE as TECHNOLOGY
from hqc.backends.hls4ml.technology import script, with_technology
from hqc.backends.layers import Network
from hqc.backends.layers.layout import to_hardware
from hqc.numerics.types import Codes
from hqc.pipeline.backend import BackendOptions, Batch

_INPUT_VECTORS = "tb_input_features.dat"
_OUTPUT_VECTORS = "tb_output_predictions.dat"
#: Where the test bench opens its log; six digits, the default, would hide differences.
_LOG_OPENED = "std::ofstream fout(RESULTS_LOG);"
#: Arrays of constants are defined in `weights/*.h`, so nothing is loaded at run time.
_LOADING = re.compile(r"^\s*nnet::load_weights_from_txt<.*\n", re.MULTILINE)

_SCRIPT_START = "set design_top "
_SET_DEPTHS = """# Packets that the FIFO of each stream holds. A copy that bypasses other layers
# holds a whole sample: with less, the layers on both sides may wait for each other.
set hqc_fifo_depths {{{pairs}}}
proc hqc_set_fifo_depths {{}} {{
  set design [solution get -name]
  foreach {{channel depth}} $::hqc_fifo_depths {{
    set mapped $design/$channel:cns/MAP_TO_MODULE
    foreach found [directive get -match glob -checkpath 0 -ret p $mapped] {{
      set fifo [join [lrange [split $found '/'] 0 end-1] /]/FIFO_DEPTH
      directive set -match glob $fifo $depth
    }}
  }}
}}
"""


def write_project(
    network: Network,
    partition: Partition,
    flavour: Flavour,
    options: BackendOptions,
    directory: Path,
    vectors: tuple[Batch, Batch] | None,
) -> tuple[str, ...]:
    """Write the project and return its files, relative to `directory`, sorted."""
    directory.mkdir(parents=True, exist_ok=True)
    if (directory / "firmware" / "parameters.h").is_file():  # of an earlier, other network
        shutil.rmtree(directory / "firmware")
    with contextlib.redirect_stdout(io.StringIO()):  # hls4ml's progress messages
        graph = build_graph(network, flavour, options, directory)
        _write_sources(graph, flavour, directory)
        _write_scripts(graph, flavour, directory, vectors is not None)
    if flavour is CATAPULT:
        _edit(directory / "build_prj.tcl", with_technology)
        text = script(network, options)
        (directory / TECHNOLOGY).write_text(text, encoding="utf-8")
    if network.stream and flavour is CATAPULT:
        _write_depths(directory / "build_prj.tcl", graph, network)
    _finish_test_bench(graph, directory, options.project)
    if vectors is not None:
        folder = directory / "tb_data"
        _write_vectors(folder / _INPUT_VECTORS, partition.inputs, vectors[0])
        _write_vectors(folder / _OUTPUT_VECTORS, partition.outputs, vectors[1])
    files = (p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
    return tuple(sorted(files))


def _write_sources(graph: Any, flavour: Flavour, directory: Path) -> None:
    writer = graph.config.backend.writer
    firmware = directory / "firmware"
    (firmware / "weights").mkdir(parents=True, exist_ok=True)
    writer.write_project_cpp(graph)
    writer.write_project_header(graph)
    writer.write_defines(graph)
    writer.write_parameters(graph)
    for layer in graph.get_layers():
        for array in layer.get_weights():
            writer.print_array_to_cpp(array, str(directory), write_txt_file=False)
    writer.write_nnet_utils(graph)
    if flavour is VITIS:
        writer.write_nnet_utils_overrides(graph)
    writer.write_generated_code(graph)
    for header in sorted(TEMPLATES.glob("*.h")):
        shutil.copyfile(header, firmware / "nnet_utils" / header.name)
    _edit(firmware / f"{graph.config.get_project_name()}.cpp", _without_loading)


def _write_scripts(graph: Any, flavour: Flavour, directory: Path, vectors: bool) -> None:
    writer = graph.config.backend.writer
    writer.write_test_bench(graph)
    if vectors:  # names only: the files themselves are written with full precision
        graph.config.config["InputData"] = _INPUT_VECTORS
        graph.config.config["OutputPredictions"] = _OUTPUT_VECTORS
    writer.write_build_script(graph)
    if flavour is VITIS:
        writer.write_board_script_override(graph)
        writer.write_build_prj_override(graph)
        writer.write_build_opts(graph)
    (directory / "build_lib.sh").unlink()
    for compiled in sorted(directory.rglob("__pycache__")):  # copied along with the headers
        shutil.rmtree(compiled)
    _write_settings(graph, directory)


def _write_settings(graph: Any, directory: Path) -> None:
    """The settings file that hls4ml's report functions look for, without paths and dates."""
    config = graph.config
    lines = [
        f"Backend: {config.get_config_value('Backend')}",
        f"ProjectName: {config.get_project_name()}",
        f"ProjectDir: {config.get_project_dir()}",
        "OutputDir: .",
        f"IOType: {config.get_config_value('IOType')}",
        f"ClockPeriod: {config.get_config_value('ClockPeriod')}",
    ]
    (directory / "hls4ml_config.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_depths(script: Path, graph: Any, network: Network) -> None:
    """Depths of FIFOs as directives: hls4ml's script sets all to 1 in one flow, none in another."""
    found = depths(network).items()
    names = ((graph.get_layer_output_variable(name).name, depth) for name, depth in found)
    pairs = " ".join(f"{name} {depth}" for name, depth in names)

    def edit(text: str) -> str:
        before, _, rest = text.partition(_SCRIPT_START)
        calls = re.sub(r"^( *)(go architect)$", r"\1hqc_set_fifo_depths\n\1\2", rest, flags=re.M)
        return f"{before}{_SET_DEPTHS.format(pairs=pairs)}{_SCRIPT_START}{calls}"

    _edit(script, edit)


def _finish_test_bench(graph: Any, directory: Path, project: str) -> None:
    """Read vectors as double (float would round wide codes) and take constants from the headers."""
    own = {f"{array.definition_cpp()};\n" for array in graph.get_weight_variables()}

    def edit(text: str) -> str:
        kept = "".join(line for line in text.splitlines(keepends=True) if line not in own)
        kept = kept.replace("std::vector<float>", "std::vector<double>")
        kept = kept.replace(_LOG_OPENED, f"{_LOG_OPENED}\n    fout.precision(17);")
        return _without_loading(kept.replace("nnet::copy_data<float,", "nnet::copy_data<double,"))

    _edit(directory / f"{project}_test.cpp", edit)


def _without_loading(text: str) -> str:
    return _LOADING.sub("", text)


def _edit(path: Path, change: Any) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def _write_vectors(path: Path, ports: Sequence[Port], codes: Batch) -> None:
    """One line per sample, the elements of all ports as the hardware orders them, in decimals."""
    columns = [_decimals(to_hardware(codes[port.name]), port.type.fraction) for port in ports]
    rows = zip(*columns, strict=True)
    text = "".join(" ".join(" ".join(part) for part in row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _decimals(codes: Codes, fraction: int) -> list[list[str]]:
    flat = np.asarray(codes, np.int64).reshape(len(codes), -1)
    known: dict[int, str] = {}
    return [[known.setdefault(c, decimal(c, fraction)) for c in row] for row in flat.tolist()]


def decimal(code: int, fraction: int) -> str:
    """`code * 2**-fraction` as an exact decimal."""
    if fraction <= 0:
        return str(code << -fraction)
    digits = str(abs(code) * 5**fraction).rjust(fraction + 1, "0")
    sign = "-" if code < 0 else ""
    return f"{sign}{digits[:-fraction]}.{digits[-fraction:]}"
