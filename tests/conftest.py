"""Shared fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["support.cli_fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write what the golden tests must give anew"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Folder of public models used for experiments; tests skip where it is absent."""
    folder = SHARED / "models"
    if not folder.is_dir():
        pytest.skip("the folder of public models is not present beside the repository")
    return folder
