"""What a team looks for beside the code: it parses, and says what `make` does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hqc import cli

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_ci_calls_make_and_nothing_else() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == [f"make {target}" for target in ("install", "lint", "test", "docs", "demo")]
    assert {command.removeprefix("make ") for command in commands} <= TARGETS


def test_ci_begins_at_the_oldest_python() -> None:
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"


def test_hooks_are_local_and_check_what_lint_does() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        for tool in re.findall(r"\.venv/bin/([\w-]+(?: check| format --check)?)", hook["entry"]):
            if tool not in ("lint-imports", "python"):
                assert f"$(BIN)/{tool}" in MAKEFILE, tool


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_ask_something(path: Path) -> None:
    template = read(path)
    if path.stem == "config":
        assert template == {"blank_issues_enabled": True}
        return
    assert template["name"]
    assert template["description"]
    asked = [field for field in template["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked)
    assert any(field.get("validations", {}).get("required") for field in asked)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_pages_name_what_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    for target in re.findall(r"(?:`|\$ )make (\w+)", text):
        assert target in TARGETS, target
    for script in re.findall(r"`python (tools/\w+\.py)", text):
        assert (ROOT / script).exists(), script


def test_commands_in_the_pages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    known = capsys.readouterr().out
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        for command in re.findall(r"`hqc (\w+)", (ROOT / name).read_text(encoding="utf-8")):
            assert re.search(rf"^\s+{command}\b", known, re.M), command
