"""Catapult's technology file: what is chosen stands in it, and the vendor's script does as it says.

No Catapult is here. The script runs in tclsh, with Catapult's commands replaced by ones that print
what they are given, so the order and the arguments are tested, not what the tool makes of them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from support.backend_graphs import zoo
from support.small_model import Run, small_model

from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.technology import CatapultOptions, with_technology
from hqc.diagnostics import Exit, HqcError
from hqc.pipeline.backend import BackendOptions

STUBS = Path(__file__).resolve().parents[2] / "support" / "technology_stubs.tcl"
SAED = "saed32rvt_tt0p78v125c_beh"
tcl = pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")


def emit(folder: Path, **options: object) -> Path:
    model, partition = zoo()
    backend = Catapult()
    chosen = backend.complete(BackendOptions(project="net", **options))  # type: ignore[arg-type]
    backend.emit(model, partition, chosen, folder / "project")
    return folder / "project"


def settings(project: Path) -> dict[str, str]:
    """The variables of `technology.tcl`, read back without a Tcl."""
    text = (project / "technology.tcl").read_text(encoding="utf-8")
    found = re.findall(r"^set hqc_(\w+) (\{[^}]*\}|\S+)$", text, re.M)
    return {name: value.strip("{}") for name, value in found}


def calls(project: Path, *steps: str) -> list[str]:
    """What Catapult would be told, in order."""
    done = subprocess.run(
        ["tclsh", STUBS, "build_prj.tcl", *steps],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line[5:] for line in done.stdout.splitlines() if line.startswith("CALL ")]


def of(found: list[str], start: str) -> list[str]:
    return [call for call in found if call.startswith(start)]


@pytest.fixture(scope="module")
def asic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = CatapultOptions(clock_uncertainty=0.1, memories="ram_a, ram_b", memory_threshold=100)
    return emit(
        tmp_path_factory.mktemp("asic"),
        technology="asic",
        libraries=f"{SAED},other_beh",
        clock_ns=1.25,
        reuse_factor=2,
        own=own,
    )


def test_everything_chosen_stands_in_the_file(asic: Path) -> None:
    assert settings(asic) == {
        "technology": "asic",
        "libraries": f"{SAED} other_beh",
        "synthesis": "DesignCompiler",
        "memories": "ram_a ram_b",
        "clock_period": "1.25",
        "clock_uncertainty": "0.1",
        "pipeline_interval": "2",
        "memory_threshold": "100",
        "register_threshold": "2050",
    }


def test_an_fpga_has_a_part_and_no_cells(tmp_path: Path) -> None:
    found = settings(emit(tmp_path, part="xcvu9p-flgb2104-2-e"))
    assert found["technology"] == "fpga"
    assert found["part"] == "xcvu9p-flgb2104-2-e"
    assert not {"libraries", "synthesis", "memories"} & set(found)


def test_the_script_states_nothing_twice(asic: Path) -> None:
    text = (asic / "build_prj.tcl").read_text(encoding="utf-8")
    assert "technology.tcl" in text
    for word in ("CLOCK_UNCERTAINTY", "MEM_MAP_THRESHOLD", "1.25", "other_beh", "2050"):
        assert word not in text


@tcl
@pytest.mark.parametrize("bottom_up", [False, True])
def test_what_catapult_is_told_for_an_asic(asic: Path, bottom_up: bool) -> None:
    found = calls(asic, "csim=0", "synth=1", f"bup={int(bottom_up)}")
    wanted = [
        f"solution library add {SAED} -- -rtlsyntool DesignCompiler",
        "solution library add other_beh -- -rtlsyntool DesignCompiler",
        "solution library add ram_a",
        "solution library add ram_b",
        "solution library add hls4ml_lib",
    ]
    times = 1 if not bottom_up else len(of(found, f"solution library add {SAED}"))
    assert times >= 1
    assert [c for c in of(found, "solution library add") if c in wanted] == wanted * times
    assert "source /mgc/pkgs/siflibs/saed/setup_saedlib.tcl" in found
    (clock,) = set(of(found, "directive set -CLOCKS"))
    assert "-CLOCK_PERIOD 1.25" in clock
    assert "-CLOCK_UNCERTAINTY 0.1" in clock
    assert "directive set -MEM_MAP_THRESHOLD 100" in found
    pipeline = of(found, "directive set -match glob found:net/core/main/PIPELINE_INIT_INTERVAL")
    assert pipeline == ["directive set -match glob found:net/core/main/PIPELINE_INIT_INTERVAL 2"]
    assert found.index(pipeline[0]) < found.index("go architect")
    assert found.index("go libraries") < found.index("go architect")
    assert found.index("go libraries") < found.index("go extract")


@tcl
def test_what_catapult_is_told_for_an_fpga(tmp_path: Path) -> None:
    found = calls(emit(tmp_path, clock_ns=2.5), "csim=0")
    assert of(found, "solution library add Xilinx_RAMS")
    assert not of(found, "solution library add hls4ml_lib")
    assert any("-CLOCK_PERIOD 2.5 " in call for call in found)


@tcl
def test_libraries_elsewhere(asic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "solution options set ComponentLibs/SearchPath /cells -append"
    assert path not in calls(asic)
    monkeypatch.setenv("HQC_CATAPULT_LIBRARIES", "/cells")
    found = calls(asic)
    assert found.index(path) < found.index("solution library add ram_a")


def test_streams_leave_their_loops_to_catapult(hqc: Run, model: Path, tmp_path: Path) -> None:
    arguments = ("-b", "catapult", "--io", "io_stream", "--check", "off", "-o", "out")
    assert hqc("compile", model, *arguments).status == Exit.OK
    project = tmp_path / "out" / "project"
    assert settings(project)["pipeline_interval"] == "0"
    if shutil.which("tclsh"):
        found = calls(project, "csim=0")
        assert not [call for call in found if "PIPELINE_INIT_INTERVAL" in call]
        assert "solution options set Architectural/DefaultRegisterThreshold 2050" in found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"technology": "asic", "libraries": "good; exec rm"}, "'good;' is no name of a library"),
        ({"technology": "asic", "libraries": "a}{b"}, "is no name of a library"),
        ({"technology": "asic", "libraries": " , "}, "no library is named"),
        ({"part": "[exec ls]"}, "is no name of a part"),
        ({"clock_ns": 1.0, "own": CatapultOptions(clock_uncertainty=1.0)}, "uncertainty is not"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(HqcError, match=re.escape(said)) as error:
        emit(tmp_path, **options)
    assert error.value.diagnostics[0].code == "HQC401"


@pytest.mark.parametrize(
    "option",
    ["clock-uncertainty=-1", "clock-uncertainty=nan", "memories=a}b", "memory-threshold=-1",
     "synthesis=$x", "speed=3"],
)  # fmt: skip
def test_wrong_options_are_usage(hqc: Run, tmp_path: Path, option: str) -> None:
    onnx.save(small_model(), tmp_path / "small.onnx")
    ended = hqc("compile", "small.onnx", "-b", "catapult", "--backend-option", option)
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC001"])


def test_another_script_is_noticed() -> None:
    with pytest.raises(HqcError, match="not 1") as error:
        with_technology("set design_top x\n")
    assert error.value.exit == Exit.INTERNAL
