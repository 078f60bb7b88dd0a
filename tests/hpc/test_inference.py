"""A trained study is used: it predicts, is evaluated on another data set, and is trained again on all."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hpc.verbs.inference import summary_of
from leukotree.data import phantom
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec
from leukotree.distributed.engine import Engine
from leukotree.evaluation import decide
from leukotree.explain import panels
from leukotree.explain.table import Explainer, Images
from leukotree.inference.loaded import load
from leukotree.records import predictions
from leukotree.report import coverage
from leukotree.report.sections import calibration
from tests.helpers.commandline import assert_refused, leukotree

pytestmark = pytest.mark.slow("trains a study of 8 runs")

RUNS = Path("results/runs/used")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of `flat` on 2 outer folds and 2 seeds, with inner folds, and images of another set."""
    folder = tmp_path_factory.mktemp("use me")
    images = phantom.write(folder / "images", patients=28, per_patient=3, size=48, seed=0)
    phantom.write(folder / "other", patients=28, per_patient=2, size=40, seed=1)
    base = {
        "data": {"shards": "shards"},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 2, "batch_size": 10, "lr": 1e-3},
        "engine": {"precision": "fp32"},
    }
    study = {
        "study": "used",
        "base": base,
        "variants": ["flat"],
        "folds": {"outer": 2, "inner": 2},
        "seeds": [0, 1],
        "search": {"trials": 0},
        "decision": "joint",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    for command in (
        ["pack", images, "shards", "--size", "32", "--folds", "2"],
        ["folds", "study.yaml", "--inner", "--on", "inline"],
    ):
        done = leukotree(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def runs(work: Path, fold: int) -> list[Path]:
    """The folders of the runs of an outer fold, by seed."""
    found = {}
    for folder in (work / RUNS).glob("flat-*"):
        data = yaml.safe_load((folder / "spec.yaml").read_text())
        if data["data"]["inner"] is None and not data["data"]["all_folds"]:
            found[data["data"]["test_fold"], data["seed"]] = folder
    return [found[fold, seed] for seed in (0, 1)]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def predict(work: Path, *arguments: object, out: str = "out.parquet") -> pd.DataFrame:
    done = leukotree("predict", *arguments, "--out", out, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_parquet(work / out)


def logp(frame: pd.DataFrame) -> np.ndarray:
    return frame[[name for name in frame if name.startswith("logp:")]].to_numpy()


def leaf_p(folder: Path) -> tuple[list[str], np.ndarray]:
    frame, stored, tree = predictions.read(folder)
    return frame["key"].tolist(), np.exp(decide.leaf_logp(stored, tree))


def manifest_of_fold(work: Path, fold: int, name: str) -> Path:
    """The source files of a fold, in another order than that of the index."""
    rows = pd.read_csv(work / "images/manifest.csv", dtype=str)
    index = Dataset.open(work / "shards").index
    inside = rows["image"].isin(index.loc[index["fold"] == fold, "image"])
    rows = rows[inside].sample(frac=1, random_state=0)
    rows["image"], rows["root"] = "images/" + rows["image"], "images"
    rows.drop(columns="mask").to_csv(work / name, index=False)
    return work / name


@pytest.mark.parametrize("fold", [0, 1])
def test_the_packed_images_of_a_test_fold_are_predicted_bit_by_bit_as_they_were_scored(
    work: Path, fold: int
) -> None:
    run = runs(work, fold)[0]
    frame = predict(work, run.relative_to(work), "shards", "--fold", fold)
    stored, expected, _ = predictions.read(run)
    assert frame["image"].tolist() == stored["key"].tolist()
    assert logp(frame).dtype == np.float32
    assert np.array_equal(logp(frame), expected)


def test_so_are_their_source_files_in_any_order(work: Path) -> None:
    run = runs(work, 0)[0]
    path = manifest_of_fold(work, 0, "fold0.csv")
    frame = predict(work, run.relative_to(work), path.name)
    assert frame["image"].tolist() == pd.read_csv(path)["image"].tolist()
    index = Dataset.open(work / "shards").index.set_index("image")["key"]
    keys = index[frame["image"].str.removeprefix("images/")].tolist()
    stored, expected, _ = predictions.read(run)
    rows = pd.Index(stored["key"]).get_indexer(pd.Index(keys))
    assert np.array_equal(logp(frame), expected[rows])


def test_overlays_are_those_of_the_first_run_that_predicted_the_image(work: Path) -> None:
    plain = predict(work, "study.yaml", manifest_of_fold(work, 1, "fold1.csv").name)
    frame = predict(work, "study.yaml", "fold1.csv", "--overlay", "seen", out="again.parquet")
    assert frame.equals(plain)
    pictures = sorted((work / "seen").iterdir())
    assert [path.name[:5] for path in pictures] == [f"{row:05d}" for row in range(len(frame))]
    explainer = Explainer(load(runs(work, 1)[0], Engine(0, 1, torch.device("cpu"))))
    index = Dataset.open(work / "shards").index.set_index("image")
    name = frame["image"][3]
    data, row = Dataset.open(work / "shards"), index.index.get_loc(name.removeprefix("images/"))
    pixels = torch.from_numpy(codec.decode(data.read(int(row)))).permute(2, 0, 1)[None]
    images = Images(pixels, np.zeros((1, 32, 32), bool))
    expected = panels.draw(explainer, "gradcam", images, str(index["leaf"].iloc[row]))
    assert pictures[3].read_bytes() == expected


def test_images_of_the_study_get_the_runs_that_did_not_train_on_them_and_their_mean(work: Path) -> None:
    frame = predict(work, "study.yaml", "shards")
    assert (frame["runs"] == 2).all()
    assert not frame["trained"].any()
    for fold in (0, 1):
        (keys, one), (_, other) = map(leaf_p, runs(work, fold))
        tree = predictions.read(runs(work, fold)[0])[2]
        mine = np.exp(decide.leaf_logp(logp(frame.set_index("image").loc[keys]), tree))
        np.testing.assert_allclose(mine, (one + other) / 2, rtol=1e-6)
        decided = np.array(tree.leaves)[((one + other) / 2).argmax(axis=1)]  # the study's rule is `joint`
        assert frame.set_index("image").loc[keys, "predicted"].tolist() == decided.tolist()


def test_new_images_get_all_runs_and_the_mean_of_what_each_says(work: Path) -> None:
    together = predict(work, "study.yaml", "other/images")
    assert (together["runs"] == 4).all()
    tree = predictions.read(runs(work, 0)[0])[2]
    parts = [
        np.exp(decide.leaf_logp(logp(predict(work, run.relative_to(work), "other/images")), tree))
        for fold in (0, 1)
        for run in runs(work, fold)
    ]
    np.testing.assert_allclose(
        np.exp(decide.leaf_logp(logp(together), tree)), np.mean(parts, axis=0), rtol=1e-6
    )


def test_a_new_image_of_a_known_patient_gets_only_the_runs_that_do_not_know_the_patient(work: Path) -> None:
    index = Dataset.open(work / "shards").index
    known = index[index["fold"] == 1].iloc[0]
    images = files_of(work / "other/images")[:3]
    rows = [
        (path.relative_to(work), patient, "phantom")
        for path, patient in zip(images, (known["patient"], "new", ""), strict=True)
    ]
    pd.DataFrame(rows, columns=["image", "patient", "source"]).to_csv(work / "known.csv", index=False)
    assert predict(work, "study.yaml", "known.csv")["runs"].tolist() == [2, 4, 4]
    without_source = [(rows[0][0], known["patient"], "")]
    pd.DataFrame(without_source, columns=["image", "patient", "source"]).to_csv(
        work / "known.csv", index=False
    )
    assert predict(work, "study.yaml", "known.csv")["runs"].tolist() == [2]


def test_images_that_every_run_trained_on_are_refused_or_marked(work: Path) -> None:
    run = runs(work, 0)[0].relative_to(work)
    refused = leukotree("predict", run, "shards", cwd=work)
    assert_refused(refused, "this run trained on 42 of 84 images", "--trained")
    frame = predict(work, run, "shards", "--trained")
    index = Dataset.open(work / "shards").index
    assert frame["trained"].tolist() == (index["fold"] != 0).tolist()


def test_probabilities_are_calibrated_and_sets_are_those_of_the_report(work: Path) -> None:
    """Recomputed from the inner folds' predictions, for the images of one fold and seed."""
    with contextlib.chdir(work):
        summary = summary_of("study.yaml", ["seeds=[0]"])
        [arm] = summary.arms
        _, temperatures = calibration.judged(summary, arm)
        limits = coverage.limits(summary, arm)
    frame = predict(work, "study.yaml", "shards", "seeds=[0]").set_index("image")
    assert frame["calibrated"].all()
    for run in arm.runs:
        mine = frame.loc[run.images["key"]]
        scaled = np.exp(decide.leaf_logp(calibration.scaled(run, temperatures), run.taxonomy))
        columns = [f"p:{leaf}" for leaf in run.taxonomy.leaves]
        np.testing.assert_allclose(mine[columns].to_numpy(), scaled, rtol=1e-6, atol=1e-9)
        raw = 1 - np.exp(decide.leaf_logp(run.logp, run.taxonomy))
        inside = raw <= limits[run.test_fold].leaf
        sets = ["|".join(np.array(run.taxonomy.leaves)[row]) for row in inside]
        assert mine["set"].tolist() == sets


def test_a_run_by_itself_says_that_it_is_not_calibrated(work: Path) -> None:
    done = leukotree("predict", runs(work, 0)[0].relative_to(work), "other/images", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "note: probabilities are not calibrated" in done.stdout
    [written] = [line for line in done.stdout.splitlines() if line.endswith(".csv")]
    assert not pd.read_csv(work / written)["calibrated"].any()


def test_json_has_everything_in_one_file_and_patients_have_the_mean_of_their_images(work: Path) -> None:
    done = leukotree(
        "predict", "study.yaml", "other/manifest.csv", "--abstain", "0.3", "--out", "all.json", cwd=work
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads((work / "all.json").read_text())
    assert answer["about"]["measured"] is True
    assert answer["about"]["rule"] == "joint"
    images, patients = pd.DataFrame(answer["images"]), pd.DataFrame(answer["patients"])
    assert (len(images), len(patients)) == (56, 28)
    columns = [name for name in images if name.startswith("p:")]
    means = images.groupby(["source", "patient"])[columns].mean().reset_index()
    pd.testing.assert_frame_equal(
        patients[["source", "patient", *columns]].sort_values("patient", ignore_index=True),
        means.sort_values("patient", ignore_index=True),
        rtol=1e-6,
    )
    for row in answer["images"]:
        entered = row["stop"] == "root" or row[f"p:{row['stop']}"] >= 0.3
        assert entered
        assert row["path"].split(" > ")[-1].startswith(row["predicted"])


def test_broken_images_are_named_and_left_out_only_if_asked(work: Path) -> None:
    good = files_of(work / "other/images")[0]
    folder = work / "some ünicode"
    folder.mkdir(exist_ok=True)
    (folder / "good.jpg").write_bytes(good.read_bytes())
    (folder / "cut.jpg").write_bytes(good.read_bytes()[:100])
    (folder / "notes.txt").write_text("no image")
    refused = leukotree("predict", "study.yaml", folder.name, cwd=work)
    assert_refused(refused, "1 broken image", "cut.jpg", "--drop-broken")
    frame = predict(work, "study.yaml", folder.name, "--drop-broken")
    assert frame["image"].tolist() == ["some ünicode/good.jpg"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["study.yaml", "nothing.png"], ["nothing.png", "no such file"]),
        (["study.yaml", "shards", "other/images"], ["shards", "give it alone"]),
        (["study.yaml", "other/manifest.csv", "other/images"], ["manifest", "give it alone"]),
        (["study.yaml", "other/images", "--out", "x.xlsx"], ["x.xlsx", ".csv, .json, .parquet"]),
        (["study.yaml", "other/images", "--variant", "base"], ["no finished run of 'base'", "'flat'"]),
        (["study.yaml", "other/images", "--fold", "0"], ["only shards have folds"]),
        (["study.yaml", "shards", "--fold", "7"], ["has no fold 7"]),
        (["no-run", "other/images"], ["no-run", "no run folder"]),
        (["study.yaml", "seeds=[0]"], ["no images"]),
        (["study.yaml", "http://example.org/a.png"], ["not https"]),
    ],
)
def test_what_cannot_be_predicted_is_one_line(arguments: list[str], words: list[str], work: Path) -> None:
    assert_refused(leukotree("predict", *arguments, cwd=work), *words)


def test_a_run_predicts_where_its_shards_are_not_and_says_what_is_not_known(work: Path) -> None:
    run = runs(work, 0)[0].relative_to(work)
    (work / "shards").rename(work / "away")
    try:
        done = leukotree("predict", run, "other/images", "--out", "unsure.csv", cwd=work)
        frame = predict(work, run, "other/images", out="unsure.parquet")
    finally:
        (work / "away").rename(work / "shards")
    assert done.returncode == 0, done.stderr
    assert "not known which of these images" in done.stdout
    assert pd.read_csv(work / "unsure.csv")["trained"].isna().all(), "neither yes nor no"
    assert frame["trained"].isna().all()


@pytest.fixture(scope="module")
def evaluated(work: Path) -> Path:
    """The study evaluated on normal cells without patients, and on a second set of all leaves."""
    rows = pd.read_csv(work / "other/manifest.csv", dtype=str).drop(columns="mask")
    rows["image"], rows["root"], rows["source"] = "other/" + rows["image"], "other", "elsewhere"
    rows.to_csv(work / "all leaves.csv", index=False)
    normal = rows[rows["leaf"] == "normal"].assign(patient="")
    normal.to_csv(work / "normal.csv", index=False)
    for name in ("normal.csv", "all leaves.csv"):
        done = leukotree("evaluate", "study.yaml", name, cwd=work)
        assert done.returncode == 0, done.stderr
        assert "4 runs predicted, 0 were done" in done.stdout
    return work / RUNS / "external"


def test_evaluate_stores_what_each_run_predicts_and_does_nothing_twice(work: Path, evaluated: Path) -> None:
    before = {path: path.read_bytes() for path in evaluated.glob("*/*.parquet")}
    assert len(before) == 8
    done = leukotree("evaluate", "study.yaml", "normal.csv", cwd=work)
    assert "0 runs predicted, 4 were done" in done.stdout
    assert {path: path.read_bytes() for path in evaluated.glob("*/*.parquet")} == before
    run = runs(work, 1)[1]
    stored = pd.read_parquet(evaluated / "normal" / f"{run.name}.parquet")
    alone = predict(work, run.relative_to(work), "normal.csv")
    assert stored["key"].tolist() == alone["image"].tolist()
    np.testing.assert_array_equal(logp(stored), logp(alone))


def test_the_report_says_what_is_lost_outside(work: Path, evaluated: Path) -> None:
    done = leukotree("report", "study.yaml", cwd=work)
    assert done.returncode == 0, done.stderr
    text = (work / "results/used/report.md").read_text().split("## Other data sets")[1].split("\n## ")[0]
    tree = predictions.read(runs(work, 0)[0])[2]
    right = []
    for fold in (0, 1):
        for run in runs(work, fold):
            stored = pd.read_parquet(evaluated / "normal" / f"{run.name}.parquet")
            right.append(np.array(tree.leaves)[decide.joint(logp(stored), tree)] == "normal")
    assert f"`flat` is right for {100 * np.mean(right):.1f} % of them" in text
    assert "specificity of leukemia" in text
    assert "no patient id" in text
    assert "| sensitivity of normal |" in text


def test_images_of_the_study_are_left_out_of_an_evaluation_and_counted(work: Path) -> None:
    rows = pd.read_csv(manifest_of_fold(work, 1, "fold1.csv"), dtype=str)
    others = pd.read_csv(work / "other/manifest.csv", dtype=str).drop(columns="mask").head(4)
    others["image"], others["root"], others["source"] = "other/" + others["image"], "other", "elsewhere"
    pd.concat([rows, others]).to_csv(work / "mixed.csv", index=False)
    done = leukotree("evaluate", "study.yaml", "mixed.csv", "--name", "mixed", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "4 images; 4 runs predicted" in done.stdout
    assert "left out: 42 images of the study" in done.stdout
    assert_refused(leukotree("evaluate", "study.yaml", "shards", cwd=work), "nothing is left")


def test_an_evaluation_needs_leaves_of_the_study(work: Path) -> None:
    rows = pd.read_csv(work / "other/manifest.csv", dtype=str).drop(columns="mask").head(2)
    rows["image"], rows["root"] = "other/" + rows["image"], "other"
    rows.assign(leaf=["leukemia", "AML"]).to_csv(work / "odd.csv", index=False)
    refused = leukotree("evaluate", "study.yaml", "odd.csv", cwd=work)
    assert_refused(refused, "odd.csv", "'leukemia'", "is no leaf of the study, but an inner node")
    assert_refused(leukotree("evaluate", "study.yaml", "other/images", cwd=work), "says no leaves")


def test_a_refit_trains_on_all_is_never_scored_and_predicts(work: Path) -> None:
    done = leukotree("refit", "study.yaml", "--on", "inline", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "never scored" in done.stdout
    [folder] = [
        path.parent
        for path in (work / RUNS).glob("flat-*/spec.yaml")
        if yaml.safe_load(path.read_text())["data"]["all_folds"]
    ]
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "done"
    assert status["images"] == {"trained": 84, "tested": 0}
    assert "macro_f1" not in status
    assert len(pd.read_parquet(folder / "predictions.parquet")) == 0
    again = leukotree("refit", "study.yaml", "--on", "inline", cwd=work)
    assert again.returncode == 0, again.stderr
    assert len((folder / "attempts.jsonl").read_text().splitlines()) == 1
    used = leukotree("predict", folder.relative_to(work), "other/images", "--out", "new.csv", cwd=work)
    assert "nothing was measured for this model" in used.stdout
    assert not pd.read_csv(work / "new.csv")["measured"].any()
    assert_refused(leukotree("predict", folder.relative_to(work), "shards", cwd=work), "trained on 84 of 84")
    assert leukotree("report", "study.yaml", cwd=work).returncode == 0
    assert folder.name not in (work / "results/used/report.md").read_text()
