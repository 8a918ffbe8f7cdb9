"""The documentation site builds without a warning, and holds what it says it holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.api_snapshot import public_names

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")


def build(target: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / ".typeroot" / "hqc").is_dir():
        pytest.skip("tools/link.py has not run: `make lint` and `make docs` run it")
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        inside = page.relative_to(ROOT / "docs").with_suffix("")
        folder = inside.parent if inside.name == "index" else inside
        text = (site / folder / "index.html").read_text()
        title = page.read_text().splitlines()[0].removeprefix("# ")
        assert re.search(rf"<h1[^>]*>(<code>)?{re.escape(title)}", text), page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    pages = "".join(page.read_text() for page in (site / "api").rglob("index.html"))
    missing = [name for name in public_names() if f'id="{name}"' not in pages]
    assert not missing


def test_the_start_page_has_the_beginning_of_the_readme(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert "Quick start" in text
    assert "--8&lt;--" not in text
    assert "--8<--" not in text


def test_the_site_asks_no_other_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        found = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text()
        )
        assert not found, page


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[gone](absent.md#there)\n")
    strict = (ROOT / "mkdocs.yml").read_text().partition("validation:")[2]
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"site_name: x\nplugins: []\nvalidation:{strict}")
    done = build(tmp_path / "site", "--config-file", str(config))
    assert done.returncode != 0
    assert "absent.md" in done.stderr + done.stdout
