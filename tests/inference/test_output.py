"""The file of a prediction replaces nothing that a person needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukotree.errors import InputError
from leukotree.inference import output


def test_no_file_in_the_folder_of_a_run_is_written(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").touch()
    with pytest.raises(InputError, match="would lie in the folder of a run"):
        output.check(tmp_path / "predictions.parquet")


@pytest.mark.parametrize("given", ["new.csv", "new-patients.csv", "./folder/../new.csv"])
def test_what_is_predicted_is_not_replaced(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="would replace the images that are given"):
        output.check(Path("new.csv"), [given])
    output.check(Path("other.csv"), [given, "https://example.org/other.csv"])
