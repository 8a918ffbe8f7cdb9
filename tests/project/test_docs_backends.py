"""docs/backends.md says what is so: its commands and its Python run, in order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin_site import environment

from hqc.backends import layers
from hqc.pipeline.backend import Backend

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
#: `pip install -e` of a reader, for a test: without network, and into a folder.
PIP = "--quiet --no-deps --no-build-isolation --disable-pip-version-check --target $SITE"


@pytest.mark.emulation
def test_the_commands_and_the_code_run(tmp_path: Path) -> None:
    site = tmp_path / "site"
    settings = {"SITE": str(site), "HQC": str(tmp_path / "source"), "HQC_CACHE_DIR": str(tmp_path)}
    (tmp_path / "source" / "tests").mkdir(parents=True)
    copy(ROOT / "tests" / "plugins", tmp_path / "source" / "tests" / "plugins")
    python, commands = [], ["set -e"]
    for language, text in BLOCKS:
        if language == "console":
            lines = [line.removeprefix("$ ") for line in text.splitlines()]
            commands += [line.replace("pip install -e", f"pip install {PIP}") for line in lines]
        elif language == "python":
            python.append(text)
    (tmp_path / "page.py").write_text("\n".join(python))
    run(["sh", "-c", "\n".join(commands)], tmp_path, environment(site) | settings)
    printed = run([sys.executable, "page.py"], tmp_path, environment(site) | settings)
    assert "Dense" in printed


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("build", "*.egg-info"))


def run(command: list[str], folder: Path, settings: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=settings, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_layer_is_in_the_reference() -> None:
    streams = {"Fork"}  # only in streams of hls4ml, which read_network does not make
    kinds = {
        name
        for name, kind in vars(layers).items()
        if isinstance(kind, type) and issubclass(kind, layers.Layer) and kind is not layers.Layer
    }
    for name in kinds - streams:
        assert f"| `{name}` |" in PAGE, f"docs/backends.md does not say what {name} does"


def test_every_member_of_the_protocol_is_on_the_page() -> None:
    members = [name for name in vars(Backend) if not name.startswith("_")]
    for name in members:
        assert re.search(rf"`{name}[(`]", PAGE), name
    assert os.sep not in "".join(members)
