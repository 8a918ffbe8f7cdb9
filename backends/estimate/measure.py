"""Measure modules: each distinct one is synthesised once, two at a time, and remembered."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hqc.backends.estimate import yosys
from hqc.backends.estimate.cache import Cache, Module, key_of
from hqc.backends.estimate.figures import Figures
from hqc.backends.estimate.flows import NETLIST, Flow, flow_of
from hqc.backends.estimate.yosys import SCRIPT, Job, Yosys
from hqc.diagnostics.events import Event, Watch, ignore
from hqc.pipeline.options import usage

#: Seconds that one synthesis may take.
TIMEOUT = 1800.0
_BOXES = "boxes.v"


@dataclass(frozen=True)
class Tools:
    """With what, and how, modules are measured.

    Attributes:
        yosys: that synthesises.
        flow: for which target.
        timeout: seconds that one synthesis may take.
        parallel: how many run side by side.
        cache: where figures are kept.
        watch: told of each synthesis.
    """

    yosys: Yosys
    flow: Flow
    timeout: float = TIMEOUT
    parallel: int = 2
    cache: Cache = field(default_factory=Cache.of_user)
    watch: Watch = ignore


@dataclass(frozen=True)
class Measured:
    """Figures of a module, and whether they were known before this run."""

    figures: Figures
    key: str
    cached: bool


def measure(
    files: Iterable[str | Path],
    top: str,
    target: str = "fpga-xcup",
    *,
    clock_ns: float = 5.0,
    timeout: float = TIMEOUT,
    watch: Watch = ignore,
) -> Figures:
    """Figures of one module, synthesised by itself; from the cache where they are known.

    Args:
        files: Verilog files that hold it and all that it instantiates.
        top: the module's name.
        target: "fpga-xcup", "asic-osu018" or "asic-PATH.lib".
        clock_ns: the period that ASIC mapping aims at, in nanoseconds.
        timeout: seconds that the synthesis may take.
        watch: told when it begins and ends.

    Raises:
        HqcError: HQC430, no Yosys; HQC431, the Verilog is not valid; HQC432, no usable Liberty
            file; HQC433, it took too long; HQC434, unknown target.
    """
    flow = flow_of(target, clock_ns)
    tools = Tools(yosys.find(), flow, timeout, watch=watch)
    module = Module(f"module {top}", top, tuple(Path(file) for file in files))
    return measure_all([module], tools)[0].figures


def measure_all(modules: Sequence[Module], tools: Tools) -> list[Measured]:
    """Figures of each module, in their order.

    Raises:
        HqcError: as `measure`; what was finished until then is kept.
    """
    if tools.timeout <= 0:
        raise usage(f"--timeout {tools.timeout:g}: seconds, more than 0")
    keys = [key_of(module, tools.flow, tools.yosys) for module in modules]
    known = {key: figures for key in keys if (figures := tools.cache.figures(key)) is not None}
    missing = {key: m for key, m in zip(keys, modules, strict=True) if key not in known}
    found = known | _synthesise(missing, tools)
    return [Measured(found[key], key, key in known) for key in keys]


def _synthesise(missing: dict[str, Module], tools: Tools) -> dict[str, Figures]:
    found = {}
    with tempfile.TemporaryDirectory(prefix="hqc-estimate-") as scratch:
        jobs = {_prepare(m, Path(scratch) / key, tools): key for key, m in missing.items()}
        runs = yosys.run_all(tools.yosys, list(jobs), tools.timeout, tools.parallel)
        try:
            for job, took in runs:
                tools.watch(Event(job.label) if took is None else Event(job.label, took.wall))
                if took is not None:
                    key = jobs[job]
                    figures = tools.flow.read(job.folder, missing[key].box_names)
                    found[key] = replace(figures, seconds=round(took.cpu, 3))
                    tools.cache.keep(key, asdict(found[key]), _netlist(missing[key], job.folder))
        finally:
            runs.close()
    return found


def _netlist(module: Module, folder: Path) -> str | None:
    """What the flow left for timing, in names that do not depend on the design."""
    path = folder / NETLIST
    return module.normalise(path.read_text(encoding="utf-8")) if path.is_file() else None


def _prepare(module: Module, folder: Path, tools: Tools) -> Job:
    """A folder with everything that the run reads, under names of ours."""
    folder.mkdir()
    files = {f"part{index}.v": path for index, path in enumerate(module.files)}
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
    names = list(files)
    if module.boxes:
        (folder / _BOXES).write_text(module.boxes, encoding="utf-8")
        names.append(_BOXES)
    if library := tools.flow.liberty:
        shutil.copyfile(library.path, folder / library.local)
        files["liberty"] = library.path
    script = tools.flow.script(tools.yosys, names, module.top)
    (folder / SCRIPT).write_text(script, encoding="utf-8")
    return Job(module.label, folder, tuple(files.items()))
