"""Plug-ins as users install them: packages in a folder that Python looks into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"


def install(packages: list[Path], site: Path) -> None:
    """`pip install` without network, of copies: building writes into the tree."""
    copies = [shutil.copytree(p, site.parent / f"{site.name}-{p.name}") for p in packages]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site)]
    done = subprocess.run(
        [*command, *map(str, copies)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def environment(site: Path) -> dict[str, str]:
    """Of a process that has the plug-ins of a folder and hqc's command."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PYTHONPATH": str(site), "PATH": path}


@pytest.fixture(scope="session", name="site")
def installed_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all packages of tests/plugins that have a pyproject.toml."""
    site = tmp_path_factory.mktemp("plugins") / "site"
    install(sorted(p.parent for p in PLUGINS.glob("*/pyproject.toml")), site)
    return site


@pytest.fixture(scope="module", name="plugins")
def importable_plugins(site: Path) -> Iterator[Path]:
    """The same folder, in this process too."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield site
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("hqc_c99", "acme_hqc"):
            del sys.modules[name]
