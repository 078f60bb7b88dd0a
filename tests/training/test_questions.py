"""Answers about models are the same from a user's file as from the models, and refusals are never kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.spec import BackboneSpec
from leukotree.training import costs, plan, questions
from leukotree.training.footprint import footprint
from leukotree.training.questions import DIRECT, Kept, Questions
from tests.helpers import repositories
from tests.helpers.specs import tiny_spec

KINDS = (
    {"variant": "flat"},
    {"variant": "base", "backbone.name": "test_resnet"},
    {"loss.isolation": "branched", "loss.branch_blocks": 2},
    {"loss.weighting": "uncertainty", "optim.steps": 7},
    {"backbone.train": "last", "backbone.last": 2, "optim.layer_decay": 0.9},
    {"backbone.train": "head"},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models.json"


def test_a_second_process_builds_no_model_and_knows_the_same(
    shards: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.open(shards)
    specs = [tiny_spec(shards, changes) for changes in KINDS]

    def answers(ask: Questions) -> list[object]:
        for spec in specs:
            plan.check(spec, ask=ask)
        return [(costs.compute(spec, dataset, ask), footprint(spec, dataset, ask)) for spec in specs]

    direct = answers(DIRECT)
    assert answers(Kept(file)) == direct
    for name in ("check_backbone", "check_trained", "blocks", "parameters", "work"):
        monkeypatch.setattr(Questions, name, lambda *_, name=name: pytest.fail(f"{name} is asked again"))
    assert answers(Kept(file)) == direct


def test_a_refusal_is_found_again_and_not_kept(shards: Path, file: Path) -> None:
    dataset = Dataset.open(shards)
    for _ in range(2):
        with pytest.raises(InputError, match="timm has no model 'test_vjt'; near: test_vi"):
            Kept(file).check_backbone(BackboneSpec(name="test_vjt"))
        with pytest.raises(InputError, match="at 48x48"):
            footprint(tiny_spec(shards, {"backbone.name": "twins_pcpvt_small"}), dataset, Kept(file))
    assert not file.exists()


def test_a_file_of_weights_is_looked_at_each_time(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        Kept(file).check_backbone(BackboneSpec(name="test_vit", weights=str(tmp_path / "none.pt")))


@pytest.mark.parametrize("content", ["", "[]", '{"[\\"blocks\\"', "\x00"])
def test_a_damaged_file_is_replaced(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    assert Kept(file).blocks("test_vit") == 6
    assert '"[\\"blocks\\", \\"test_vit\\"]": 6' in file.read_text()


def test_a_home_that_cannot_be_written_changes_no_answer(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    assert Kept(tmp_path / "cache" / "models.json").blocks("test_resnet") == 1


def test_other_versions_have_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = questions._versions()
    monkeypatch.setattr(
        questions.metadata, "version", {"torch": "9.9", "timm": "1.0", "peft": "0"}.__getitem__
    )
    assert questions._versions() != before
    monkeypatch.setattr(questions, "CODE", tmp_path)  # other code of the models
    other = questions._versions()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "own.py").write_text("# a backbone of my own\n")
    assert questions._versions() != other


def test_whether_weights_fit_is_remembered_for_the_same_bytes_alone(
    shards: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = repositories.folder(tmp_path / "folder", "test_convnext")
    dataset = Dataset.open(shards)
    spec = tiny_spec(shards, {"backbone.name": f"local-dir:{place}", "backbone.weights": "hub"})
    plan.check_model(spec, dataset, Kept(file))
    with monkeypatch.context() as known:
        for name in ("check_backbone", "fits", "note", "parameters"):
            known.setattr(Questions, name, lambda *_, name=name: pytest.fail(f"{name} is asked again"))
        plan.check_model(spec, dataset, Kept(file))
    state = load_file(place / "model.safetensors")
    state.pop("stem.0.weight")
    save_file(state, place / "model.safetensors")
    with pytest.raises(InputError, match="lacks 1 of the"):
        plan.check_model(spec, dataset, Kept(file))
