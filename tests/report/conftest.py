"""The report of one complete study, for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import study_results


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "pages" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.slow("makes a report"))


@pytest.fixture(scope="session")
def pages(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, Path]:
    """Markdown and HTML of the complete study, and the folder that they lie in."""
    out = tmp_path_factory.mktemp("report")
    return (*study_results.report(whole, out), out)
