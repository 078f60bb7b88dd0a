"""One complete study for all tests that only read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import synthetic


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study; tests that damage it take a copy."""
    return synthetic.make_study(tmp_path_factory.mktemp("whole") / "synthetic")


@pytest.fixture(scope="session")
def pages(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Markdown and HTML of the complete study, and the folder that they lie in."""
    out = tmp_path_factory.mktemp("report")
    return (*synthetic.report(whole, out), out)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "synthetic"))
