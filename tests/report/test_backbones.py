"""The report says where pretrained weights are from, their licence, and what to cite."""

import json
import shutil

import pytest

from leukotree.report import checklists, page
from leukotree.report.blocks import Table, Text
from leukotree.report.collect import collect
from leukotree.report.sections import backbones
from tests.helpers.study_results import STUDY, expected_runs

NOTED = {
    "architecture": "test_vit",
    "weights": "me/tiny of the hub, commit 111111111111, model.safetensors",
    "images": 48,
    "own_size": 160,
    "resampled": True,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "licence": "mit",
    "citation": ["the model card of me/tiny"],
}


@pytest.fixture
def noted(whole, tmp_path):
    """A study whose runs noted their weights, but for one with random ones."""
    root = shutil.copytree(whole, tmp_path / whole.name)
    runs = sorted(root.glob("*/env.json"))
    for file in runs[1:]:
        environment = json.loads(file.read_text()) | {"backbone": NOTED, "weights": "ab" * 32}
        file.write_text(json.dumps(environment))
    return collect(root, STUDY, expected_runs())


def test_a_row_for_each_kind_of_weights(noted):
    section = backbones.section(noted)
    assert section in page._sections(noted, None, images=False)
    table, text = section.blocks
    assert isinstance(table, Table)
    assert [list(row) for row in table.rows] == [
        [NOTED["weights"], "test_vit", "ab" * 32, "160 px", "48 px", "0.5 0.5 0.5; 0.25 0.25 0.25", "mit",
         "the model card of me/tiny"]
    ]  # fmt: skip
    assert isinstance(text, Text)
    assert "resampled" in text.text
    assert "160 to 48 px" in text.text
    assert NOTED["weights"] in checklists._initial(noted)


def test_runs_without_a_note_have_no_section(whole):
    assert backbones.section(collect(whole, STUDY, expected_runs())) is None
