"""An exported run gives the same answers without LeukoTree, and its card has the numbers of the report."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from leukotree.data.dataset import Dataset
from leukotree.errors import Busy, InputError, RunFailed
from leukotree.evaluation import decide
from leukotree.inference.export import agreement, card, export, pieces, program
from leukotree.inference.loaded import LoadedRun, load
from leukotree.models.probabilities import conditionals
from leukotree.spec import RunSpec
from leukotree.training.run import run
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("trains and exports models")
CLOSE = 1e-4
HIDDEN = """
import importlib.abc, runpy, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
sys.path.append({packages!r})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A program that runs a script where some packages are not installed."""


def alone(script: Path, images: list[Path], *hidden: str) -> list[dict[str, Any]]:
    """What a script of an export prints, without `leukotree`, `hpc` and the hidden packages."""
    packages = str(Path(np.__file__).parents[1])
    code = HIDDEN.format(hidden={"leukotree", "hpc", *hidden}, packages=packages)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(script), *map(str, images)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def packed(shards: Path, folder: Path, rows: list[int]) -> list[Path]:
    """Files with some packed images, and their pixels unchanged."""
    dataset = Dataset.open(shards)
    for row in rows:
        (folder / f"{row}.jpg").write_bytes(dataset.read(row))
    return [folder / f"{row}.jpg" for row in rows]


def answers(loaded: LoadedRun, shards: Path, rows: list[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Log p of the edges, p of the leaves and the decided leaves, by the run itself."""
    dataset, tree = Dataset.open(shards), loaded.taxonomy
    images = np.stack([dataset.image(row) for row in rows]).transpose(0, 3, 1, 2)
    logp = loaded.predict(images)
    decided = [tree.leaves[leaf] for leaf in decide.greedy(logp, tree)]
    return logp, np.exp(decide.leaf_logp(logp, tree)), decided


KINDS: list[Any] = [
    {"variant": "flat", "backbone.name": "test_vit"},
    {"variant": "base", "backbone.name": "test_convnext"},
    {"variant": "multilabel", "backbone.name": "test_convnext", "loss.isolation": "chained"},
    pytest.param(
        {"variant": "multilabel", "backbone.name": "test_vit", "loss.isolation": "branched"},
        marks=pytest.mark.long("the tests below export a branched model"),
    ),
    pytest.param(
        {"variant": "ensemble", "backbone.name": "test_vit"},
        marks=pytest.mark.long("exports four models, as `base` does"),
    ),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_it_runs_without_this_package(kind: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    loaded = load(run(tiny_spec(shards, kind), tmp_path).folder)
    done = export.export(loaded, tmp_path / "out")
    assert max(done.differences.values()) <= CLOSE
    assert {"model.onnx", "model.pt2"} <= done.differences.keys()
    rows = [0, 1, 60, 100, 140]
    images = packed(shards, tmp_path, rows)
    logp, leaves, decided = answers(loaded, shards, rows)
    moved = shutil.move(tmp_path / "out", tmp_path / "ein anderer Ort ä")
    for script, hidden in (("run.py", ("torch", "timm")), ("run_torch.py", ())):
        got = alone(Path(moved) / script, images, *hidden)
        assert [list(one["p_edges"]) for one in got] == [list(loaded.taxonomy.edges)] * len(rows)
        of_leaves = np.array([[one["p_leaves"][leaf] for leaf in loaded.taxonomy.leaves] for one in got])
        of_edges = np.array([list(one["p_edges"].values()) for one in got])
        assert np.abs(of_leaves - leaves).max() <= CLOSE
        assert np.abs(np.log(of_edges) - logp).max() <= CLOSE
        if script == "run.py":
            assert [one["leaf"] for one in got] == decided


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = tiny_spec(shards, {"loss.isolation": "branched", "backbone.name": "test_convnext"})
    return run(spec, tmp_path_factory.mktemp("runs") / "mine").folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export(load(trained), tmp_path_factory.mktemp("export") / "out").folder


def test_timm_loads_the_parts_and_they_give_the_answers_of_the_run(
    trained: Path, exported: Path, shards: Path
) -> None:
    """A second implementation of the heads, from what model.json says."""
    loaded, facts = load(trained), json.loads((exported / "model.json").read_text())
    pixels = torch.from_numpy(Dataset.open(shards).image(5).transpose(2, 0, 1).copy())[None]
    mean, std = (torch.tensor(facts[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    inputs = (pixels.float() / 255 - mean) / std
    [model] = facts["models"]
    assert len(model["backbones"]) == 3
    weights = load_file(exported / "timm" / model["heads_file"])
    logits = []
    with torch.inference_mode():
        for head in model["heads"]:
            backbone = timm.create_model(f"local-dir:{exported}/timm/{head['backbone']}", pretrained=True)
            features = backbone.eval()(inputs)
            logits.append(features @ weights[head["weight"]].T + weights[head["bias"]])
    widths = [len(head["classes"]) for head in model["heads"]]
    logp = conditionals(torch.cat(logits, dim=1), widths).numpy()
    order = [edge for head in model["heads"] for edge in head["classes"]]
    wanted = loaded.predict(pixels)[:, [loaded.taxonomy.edges.index(edge) for edge in order]]
    assert np.abs(logp - wanted).max() <= CLOSE


def test_the_digests_are_those_of_the_files(exported: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=exported,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = {line.split("  ", 1)[1] for line in (exported / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert there - named == {"SHA256SUMS"}
    text = (exported / "README.md").read_text()
    assert all(name in text for name in named - {"README.md"})


def test_the_scripts_are_short_and_name_no_package_of_this_repository(exported: Path) -> None:
    for script in ("run.py", "run_torch.py"):
        text = (exported / script).read_text()
        code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
        assert len(code) <= 25
        assert "leukotree" not in text


def test_the_card_says_what_the_model_is(exported: Path, trained: Path, shards: Path) -> None:
    text = (exported / "README.md").read_text()
    for title in (
        "Intended use",
        "Data and split",
        "Scores",
        "Limits",
        "Tree",
        "Weights and licences",
        "Files",
    ):
        assert f"\n## {title}\n" in text
    assert "no medical device" in text
    assert (
        "The leaves are decided greedily top-down over log p(child given parent), here and by `run.py`."
        in text
    )
    assert "uint8, (batch, 3, 48, 48)" in text
    assert "outer fold that this model never saw: 0" in text
    assert "none; training began from random weights" in text
    assert "28, in 4 folds; what a fold keeps together: patient" in text
    assert Dataset.open(shards).fingerprint in text
    assert "leukemia\n    acute\n      ALL" in text


def test_a_card_says_where_its_scores_are_of_another_rule_than_its_scripts() -> None:
    assert "`run.py` decides greedily top-down over it, so its leaves can differ" in card._rule("joint")


@pytest.mark.parametrize(
    ("weights", "says"),
    [("hub", "licence: apache-2.0"), ("model.pth", "sha256 abc"), (None, "random weights")],
)
def test_the_licence_of_the_weights_is_known_or_unknown(
    weights: str | None, says: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from leukotree.inference.export import card

    loaded = load(trained)
    monkeypatch.setattr("leukotree.records.runfolder.read_environment", lambda _: {"weights": "abc"})
    changes = {"backbone.weights": weights, "backbone.name": "vit_small_patch16_384"}
    spec = RunSpec().override({**changes, "data.shards": loaded.spec.data.shards})
    known = card.weights(replace(loaded, spec=spec))
    text = f"{known['weights']}; licence: {known['licence']}; {known['citation']}"
    assert says in text
    assert ("unknown" in text) == (weights == "model.pth")


class Spoiled(program.Program):
    """A program with a small error."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        edges, leaves = super().forward(images)
        return edges + 2e-4, leaves


def test_what_differs_from_the_run_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "Program", Spoiled)
    with pytest.raises(RunFailed, match=r"model.onnx differs from the run by 0.0002 \(at most 0.0001\)"):
        export.export(load(trained), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_for_timm_that_differ_are_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "features", lambda folder, inputs: torch.full((len(inputs), 1), torch.nan))
    loaded = load(trained)
    monkeypatch.setattr(program, "write", lambda *_: None)
    wanted = agreement.expected(loaded, np.zeros((2, 3, 48, 48), np.uint8))
    monkeypatch.setattr(
        agreement, "_onnx", lambda _: lambda images: tuple(one[: len(images)] for one in wanted)
    )
    monkeypatch.setattr(
        agreement, "_torch", lambda _: lambda images: tuple(one[: len(images)] for one in wanted)
    )
    monkeypatch.setattr(export, "_images", lambda *_: (np.zeros((2, 3, 48, 48), np.uint8), "2 images"))
    with pytest.raises(RunFailed, match="timm/1-tree/level1 differs from the run by nan"):
        export.export(loaded, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InputError, match="out: is there already"):
        export.export(load(trained), tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_two_exports_do_not_write_one_folder(tmp_path: Path) -> None:
    with export._beside(tmp_path / "out") as first:
        (first / "file").write_text("first")
        with pytest.raises(Busy, match="another export"), export._beside(tmp_path / "out"):
            pass
        assert (first / "file").read_text() == "first"
    assert (tmp_path / "out/file").read_text() == "first"


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    (left / "timm").mkdir(parents=True)
    (left / "model.onnx").write_text("half")
    with export._beside(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), export._beside(tmp_path / "other") as folder:
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_without_its_shards_a_run_is_compared_on_other_images(
    trained: Path, shards: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "elsewhere" / trained.name))
    spec = load(folder).spec.override({"data.shards": "gone"})
    (folder / "spec.yaml").write_text(spec.dump())
    assert_refused(leukotree("export", folder, "out", cwd=tmp_path), "gone", "--images")
    (tmp_path / "images").mkdir()
    assert_refused(leukotree("export", folder, "out", "--images", "images", cwd=tmp_path), "holds no images")
    (tmp_path / "images" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    assert_refused(leukotree("export", folder, "out", "--images", "images", cwd=tmp_path), "torn.jpg")
    (tmp_path / "images" / "torn.jpg").unlink()
    packed(shards, tmp_path / "images", [3, 4, 5])
    done = leukotree("export", folder, "out", "--images", "images", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 3 images of images" in done.stdout
    card = (tmp_path / "out/README.md").read_text()
    assert "3 images of images" in card
    assert "not here when this card was written" in card


def test_a_run_in_bf16_is_exported_in_fp32_and_the_card_says_so(shards: Path, tmp_path: Path) -> None:
    spec = tiny_spec(shards, {"engine.precision": "bf16", "variant": "flat"})
    loaded = load(run(spec, tmp_path).folder)
    done = export.export(loaded, tmp_path / "out")
    assert max(done.differences.values()) <= CLOSE
    [shown] = re.findall(
        r"differ from those of this export by at most (\S+)\.\n", (done.folder / "README.md").read_text()
    )
    assert 0 < float(shown) < 0.1


@pytest.mark.parametrize("spoil", ["not done", "no run", "a file"])
def test_what_is_no_finished_run_is_refused(spoil: str, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / trained.name))
    if spoil == "not done":
        (folder / "status.json").write_text(json.dumps({"state": "running"}))
    if spoil == "no run":
        (folder / "spec.yaml").unlink()
    if spoil == "a file":
        (tmp_path / "out").write_text("")
    assert_refused(
        leukotree("export", folder, "out", cwd=tmp_path), "out" if spoil == "a file" else folder.name
    )
    assert not (tmp_path / "out").is_dir()


def test_a_run_folder_takes_no_choice(trained: Path, tmp_path: Path) -> None:
    refused = leukotree("export", trained, "out", "--fold", 1, cwd=tmp_path)
    assert_refused(refused, "is one run; leave out --fold")
