"""The wheel holds the tree, and importing the package costs nothing."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import hqc

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "hqc": "compiler",
    "hqc.passes": "passes",
    "hqc.frontends": "frontends",
    "hqc.backends": "backends",
    "hqc.integrations": "backends/integrations",
}
#: What may lie in a package folder without belonging to the package.
IGNORED = {"__pycache__"}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_of_the_tree(folder: Path) -> Path:
    """Building writes into the tree, so it is done in a copy."""
    folder.mkdir()
    folders = [name for name in PACKAGES.values() if "/" not in name]
    for name in (*folders, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tree = copy_of_the_tree(folder / "tree")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", str(folder), str(tree), cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


def tree_files() -> set[str]:
    found = set()
    for package, folder in PACKAGES.items():
        base = ROOT / folder
        inner = {ROOT / other for other in PACKAGES.values() if other.startswith(f"{folder}/")}
        for path in base.rglob("*"):
            if inner & set(path.parents):
                continue
            if path.is_file() and not IGNORED & set(path.relative_to(base).parts):
                inside = path.relative_to(base).as_posix()
                found.add(f"{package.replace('.', '/')}/{inside}")
    return found


def test_the_wheel_holds_exactly_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if not n.split("/")[0].endswith(".dist-info")}
        assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())
    assert names == tree_files()


@pytest.mark.long
def test_the_wheel_works_where_the_tree_is_not(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = str(tmp_path / "env" / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel), cwd=tmp_path)
    hqc_command = str(tmp_path / "env" / "bin" / "hqc")
    assert "compile" in run(hqc_command, "--help", cwd=tmp_path)
    assert hqc.__version__ in run(hqc_command, "--version", cwd=tmp_path)


def test_one_version(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert hqc.__version__ == hqc.version.__version__
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        assert f"\nVersion: {hqc.__version__}\n" in archive.read(name).decode()


def test_a_copy_of_the_tree_knows_its_version(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "compiler", tmp_path / "hqc")
    code = "import importlib.util, hqc; print(hqc.__version__, hqc.__file__)"
    done = run(sys.executable, "-S", "-c", code, cwd=tmp_path)
    assert done.split() == [hqc.__version__, str(tmp_path / "hqc" / "__init__.py")]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hqc.__version__
    assert citation["license"] == "Apache-2.0"


def test_the_changelog_has_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert hqc.__version__ in headings


def test_every_dependency_is_pinned_for_development() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = itertools.chain(*project["optional-dependencies"].values())
    wanted = [*project["dependencies"], *extras]
    pins = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.M))
    for requirement in wanted:
        name = re.split(r"[\s<>=\[]", requirement)[0].lower().replace("_", "-")
        assert name in pins, f"{name} has no tested version in constraints.txt"


def test_importing_is_light() -> None:
    heavy = "torch", "hls4ml", "qonnx", "onnx", "onnxruntime", "numpy", "brevitas"
    code = f"import sys, hqc, hqc.cli; print([m for m in {heavy!r} if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"


def test_the_public_names_exist() -> None:
    for name in hqc.__all__:
        assert getattr(hqc, name) is not None
    assert set(hqc.__all__) <= set(dir(hqc))
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = hqc.nothing_like_this  # type: ignore[attr-defined]
