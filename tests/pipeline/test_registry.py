"""The registry: names and options of passes, states, plug-ins of installed packages."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as onnx_ir
import pytest
from onnx_ir import Model
from support.small_model import Ended, Run
from support.wrong_passes import BUILTIN, Demanding, Picky, Settles, net, one, refused

from hqc import __version__, ir, pipeline
from hqc.diagnostics import Exit, HqcError
from hqc.pipeline.passes import Outcome, Pass
from hqc.pipeline.registry import Registry
from hqc.pipeline.reproducer import check_packages
from hqc.text import Step, parse_pipeline

PLUGIN = Path(__file__).resolve().parents[1] / "plugins" / "wrong_pass"
# --- names and options --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("no-such-pass", "no pass is called no-such-pass"),
        ("picky{size=1}", "no option size"),
        ("picky{limit=1.5}", "limit as int"),
        ("picky{limit=true}", "limit as int"),
        ("picky{loud=1}", "loud as bool"),
        ("picky{label-text=3}", "label-text as str"),
        ("picky{ratio=half}", "ratio as float"),
        ("picky{limit=-1}", "limit is negative"),
        ("repeat(dce,repeat(picky{size=1}))", "no option size"),
    ],
)
def test_bad_names_and_options_are_found_before_anything_runs(
    text: str, word: str, tmp_path: Path
) -> None:
    model = net()
    before = ir.to_bytes(model)
    error = refused("HQC301", Picky, tmp_path, model, f"fold-quantizers,{text}")
    assert word in str(error)
    assert error.exit is Exit.USAGE
    assert ir.to_bytes(model) == before


def test_a_missing_option_is_named(tmp_path: Path) -> None:
    assert "limit" in str(refused("HQC301", Demanding, tmp_path))
    assert one(Demanding, net(), tmp_path, "demanding{limit=2}").records


def test_options_are_converted(tmp_path: Path) -> None:
    text = 'picky{limit=7,loud=true,ratio=2,label-text="b c"}'
    (record,) = one(Picky, net(), tmp_path, text).records
    assert record.remarks[0].message == "7 True 2.0 b c"
    assert record.step == text


@pytest.mark.parametrize("text", ["propagate-precision", "lower-scales,lower-scales"])
def test_passes_in_the_wrong_state(text: str, tmp_path: Path) -> None:
    refused("HQC304", Settles, tmp_path, text=f"fold-quantizers,{text}")


# --- registry and plug-ins ----------------------------------------------------------------------


def test_the_builtin_registry() -> None:
    assert {str(step) for step in parse_pipeline(pipeline.DEFAULT)} <= set(BUILTIN.passes)
    assert {"vitis", "catapult"} <= set(BUILTIN.backends)
    assert {"qonnx", "torch", "brevitas"} <= set(BUILTIN.frontends)
    for name, kind in BUILTIN.passes.items():
        assert kind.name == name
        assert kind.summary().endswith((".", ":"))


def test_registries_are_values() -> None:
    more = BUILTIN.with_pass(Picky)
    assert "picky" in more.passes
    assert "picky" not in BUILTIN.passes
    assert more.with_pass(Picky).passes == more.passes


class Impostor(Picky):
    """Another class of the same name."""


class Nameless(Picky):
    """No name."""

    name: ClassVar[str] = ""


class Unfinished(Pass):
    """Implements nothing."""

    name: ClassVar[str] = "unfinished"


@pytest.mark.parametrize("wrong", [Impostor, Nameless, Unfinished, int, "text"])
def test_what_is_no_pass_or_has_a_taken_name_is_refused(wrong: type[Pass]) -> None:
    with pytest.raises(HqcError, match="HQC305"):
        BUILTIN.with_pass(Picky).with_pass(wrong)


def test_clashes_of_backends_and_frontends() -> None:
    backend = BUILTIN.backends["vitis"]
    assert BUILTIN.with_backend(backend).backends == BUILTIN.backends
    with pytest.raises(HqcError, match="HQC305"):
        BUILTIN.with_frontend("qonnx", lambda: None)
    with pytest.raises(HqcError, match="HQC305"):
        BUILTIN.with_backend(type(backend)())


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with entry points into a folder that Python looks into."""
    site = tmp_path / "site"
    site.mkdir()

    def make(points: dict[str, str], module: str = "") -> Path:
        info = site / "wrong_pass-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-pass\nVersion: 1.0\n")
        groups: dict[str, list[str]] = {}
        for name, target in points.items():
            group, _, point = name.partition(":")
            groups.setdefault(group, []).append(f"{point} = {target}")
        text = "".join(f"[{g}]\n" + "\n".join(lines) + "\n" for g, lines in groups.items())
        (info / "entry_points.txt").write_text(text)
        if module:
            (site / "broken_plugin.py").write_text(module)
        else:
            shutil.copy(PLUGIN / "wrong_pass.py", site)
        monkeypatch.syspath_prepend(str(site))
        return site

    yield make
    for name in ("wrong_pass", "other_pass", "broken_plugin"):
        sys.modules.pop(name, None)


def test_an_installed_wrong_pass_is_caught_and_its_reproducer_fails_again(
    install: Install, tmp_path: Path
) -> None:
    """The whole way: a package, its entry point, the contract, and the command it leaves."""
    site = install({"hqc.passes:round-weights": "wrong_pass:RoundWeights"})
    registry = Registry.default()
    assert "round-weights" in registry.passes
    folder = tmp_path / "found"
    with pytest.raises(HqcError) as found:
        pipeline.run(
            net(),
            parse_pipeline("dce,round-weights{layer=1},fold-quantizers"),
            registry,
            reproducers=folder,
        )
    assert found.value.diagnostics[0].code == "HQC303"
    assert "round-weights" in found.value.diagnostics[0].message
    (directory,) = folder.iterdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ended = subprocess.run(
        ["sh", str(directory / "command.sh")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == Exit.REJECTED, ended.stderr
    assert "HQC303" in ended.stderr
    assert "round-weights changed the model" in ended.stderr


@pytest.mark.parametrize(
    ("points", "module"),
    [
        ({"hqc.passes:a": "broken_plugin:Missing"}, "x = 1"),
        ({"hqc.passes:a": "broken_plugin:x"}, "x = 1"),
        ({"hqc.passes:a": "broken_plugin:x"}, "import no_such_module"),
        ({"hqc.passes:a": "broken_plugin:x"}, "x = (1"),
        ({"hqc.backends:a": "broken_plugin:x"}, "x = 1"),
        ({"hqc.frontends:qonnx": "broken_plugin:x"}, "def x(): pass"),
    ],
)
def test_broken_plugins_are_named_and_left_out(
    points: dict[str, str], module: str, install: Install
) -> None:
    install(points, module)
    registry = Registry.default()
    assert registry.passes == BUILTIN.passes
    assert registry.backends.keys() == BUILTIN.backends.keys()
    name = next(iter(points)).partition(":")[2]
    warning = registry.broken[name]
    assert (warning.code, warning.severity) == ("HQC305", "warning")
    assert name in warning.message
    if "hqc.passes:a" in points:
        with pytest.raises(HqcError, match="HQC305") as found:
            registry.make(Step("a"))
        assert found.value.diagnostics[0].severity == "error"


def test_plugins_with_one_name_clash(install: Install) -> None:
    install(
        {
            "hqc.passes:one": "wrong_pass:RoundWeights",
            "hqc.frontends:extra": "wrong_pass:RoundWeights",
        }
    )
    registry = Registry.default()
    assert "extra" in registry.frontends

    @dataclass(frozen=True)
    class Same(Pass):
        """Has the plug-in's name."""

        name: ClassVar[str] = "round-weights"

        def rewrite(self, model: Model) -> Outcome:
            return Outcome(model)

    with pytest.raises(HqcError, match="HQC305"):
        registry.with_pass(Same)


def test_two_plugins_of_one_name_are_both_left_out(install: Install) -> None:
    site = install({"hqc.passes:round-weights": "wrong_pass:RoundWeights"})
    info = site / "other_pass-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-pass\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hqc.passes]\nround-weights = other:Rounds\n")
    registry = Registry.default()
    assert registry.passes == BUILTIN.passes
    message = registry.broken["round-weights"].message
    assert "other:Rounds and wrong_pass:RoundWeights" in message
    assert pipeline.run(net(), parse_pipeline("dce"), registry).records
    with pytest.raises(HqcError, match="HQC305"):
        registry.make(Step("round-weights"))


def other_package(site: Path, point: str) -> None:
    """A second installed package with a pass called round-weights, under that entry point."""
    info = site / "other_pass-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-pass\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[hqc.passes]\n{point} = other_pass:RoundWeights\n")
    text = (site / "wrong_pass.py").read_text()
    (site / "other_pass.py").write_text(text.replace("flip the lowest bit", "do something else"))


@pytest.mark.parametrize("point", ["a-first", "z-last"])
def test_two_packages_with_one_name_for_a_pass(point: str, install: Install, hqc: Run) -> None:
    """Entry points of two names, whichever comes first; each has a pass called round-weights."""
    site = install({"hqc.passes:mine": "wrong_pass:RoundWeights"})
    other_package(site, point)
    registry = Registry.default()
    assert registry.passes == BUILTIN.passes
    assert pipeline.run(net(), parse_pipeline("dce"), registry).records
    with pytest.raises(HqcError, match="HQC305") as found:
        registry.make(Step("round-weights"))
    assert found.value.exit is Exit.USAGE
    message = found.value.diagnostics[0].message
    assert "wrong-pass 1.0 (wrong_pass:RoundWeights)" in message
    assert "other-pass 2.5 (other_pass:RoundWeights)" in message
    assert found.value.diagnostics[0].helps == ("uninstall all of these packages but one",)
    assert "other-pass 2.5" in hqc("doctor").out


def test_one_pass_under_two_entry_points_is_no_clash(install: Install) -> None:
    install({"hqc.passes:a": "wrong_pass:RoundWeights", "hqc.passes:b": "wrong_pass:RoundWeights"})
    registry = Registry.default()
    assert "round-weights" in registry.passes
    assert not registry.broken
    assert [p.package for p in registry.providers["round-weights"]] == ["wrong-pass 1.0"] * 2


def failing(folder: Path) -> Path:
    """The reproducer that the installed wrong pass leaves."""
    with pytest.raises(HqcError, match="HQC303"):
        pipeline.run(
            net(),
            parse_pipeline("repeat(dce),round-weights{layer=1},fold-quantizers"),
            Registry.default(),
            reproducers=folder,
        )
    (directory,) = folder.iterdir()
    return directory


def replayed(directory: Path, hqc: Run) -> Ended:
    """What the command of a reproducer leaves, run in this process."""
    words = shlex.split((directory / "command.sh").read_text().splitlines()[-1])
    given = words[words.index("hqc") + 1 :]
    files = ("before.onnx", "samples.npz", "reproducer.json")
    return hqc(*(str(directory / w) if w in files else w for w in given), "-q")


def test_a_reproducer_names_the_package_of_its_pass(
    install: Install, tmp_path: Path, hqc: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install({"hqc.passes:round-weights": "wrong_pass:RoundWeights"})
    directory = failing(tmp_path / "found")
    record = json.loads((directory / "reproducer.json").read_text())
    assert record["passes"] == {"round-weights": {"distribution": "wrong-pass", "version": "1.0"}}
    assert record["hqc"] == __version__
    assert replayed(directory, hqc).codes == ["HQC303"]

    metadata = site / "wrong_pass-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    ended = replayed(directory, hqc)
    assert ended.codes == ["HQC311", "HQC303"]
    assert "warning[HQC311]: pass round-weights comes from wrong-pass 1.1" in ended.err
    assert "written with wrong-pass 1.0" in ended.err

    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(site)])
    ended = replayed(directory, hqc)
    assert (ended.status, ended.codes) == (Exit.REJECTED, ["HQC311"])
    assert "the reproducer needs the package wrong-pass 1.0" in ended.err
    assert "pip install wrong-pass==1.0" in ended.err


def test_a_reproducer_of_another_hqc(tmp_path: Path) -> None:
    path = tmp_path / "reproducer.json"
    frozen = Path(__file__).resolve().parents[1] / "data" / "v1" / "reproducer" / "reproducer.json"
    document = json.loads(frozen.read_text()) | {"hqc": "0.0.1", "passes": {}}
    path.write_text(json.dumps(document))
    (warning,) = check_packages(path, BUILTIN)
    assert (warning.code, warning.severity) == ("HQC311", "warning")
    assert "written with hqc 0.0.1" in warning.message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"magic": "hqc reproducer", "format": 1, "hqc": "0.1.0", "passes": []}',
        '{"magic": "hqc reproducer", "format": 1, "hqc": "0.1.0", "passes": {"a": {}}}',
        '{"magic": "hqc reproducer", "format": 1, "passes": {}}',
    ],
)
def test_damaged_records_of_reproducers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reproducer.json"
    path.write_text(text)
    with pytest.raises(HqcError, match="HQC002"):
        check_packages(path, BUILTIN)
    with pytest.raises(HqcError, match="HQC002"):
        check_packages(tmp_path / "absent.json", BUILTIN)


def test_the_command_line_warns_and_goes_on(install: Install, hqc: Run, model: Path) -> None:
    install(
        {"hqc.passes:a": "broken_plugin:x", "hqc.backends:b": "broken_plugin:x"}, "raise OSError(7)"
    )
    ended = hqc("opt", model, "-p", "dce", "-q")
    assert (ended.status, ended.codes) == (Exit.OK, ["HQC305", "HQC305"])
    assert ended.err.count("warning[HQC305]: plug-in") == 2
    assert hqc("opt", model, "-p", "a", "-q").status == Exit.USAGE
    assert hqc("compile", model, "-b", "b", "-q").codes[-1] == "HQC305"
    assert "OSError" in hqc("doctor").out
