"""The notebook runs from its first cell to its last, and is stored without outputs."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs/notebook.ipynb"


def outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """The text of each code cell's outputs."""
    return [
        "\n".join(
            str(output.get("text") or output.get("data", {}).get("text/plain")) for output in cell["outputs"]
        )
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_it_is_valid_and_has_no_outputs() -> None:
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow("trains in a kernel of its own")
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'src'}")
    notebook = nbformat.read(FILE, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = outputs(notebook)
    assert shown[0].strip().startswith("Dataset shards: 112 images of 48 x 48 pixels, 28 patients, 2 folds")
    assert "Study notebook: flat, multilabel" in shown[2]
    assert "multilabel" in shown[4]
    assert "Predictor flat-" in shown[5]
    assert "3 predictions" in shown[6]
