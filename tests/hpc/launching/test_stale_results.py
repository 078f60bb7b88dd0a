"""Finished results and data, trees or weights that changed since: every command names them, and none uses
their numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml

from hpc.launching import missing_list, stale
from hpc.search import choice
from hpc.studies import study as studies
from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.records import predictions
from leukotree.spec import RunSpec
from tests.helpers.commandline import assert_refused, leukotree

pytestmark = pytest.mark.slow("trains a study")

HERE = ("--on", "inline", "--device", "cpu", "--threads", "1")
RUNS = 4
"""Of two variants on two folds."""
USERS: dict[str, tuple[str, ...]] = {"folds": HERE, "grid": HERE, "report": ()}
"""Commands that use the numbers of finished runs."""
SEARCH = {"trials": 1, "space": {"loss.gamma": {"uniform": [0, 5]}}}


def _pack(
    project: Path, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame, out: str = "data/my"
) -> None:
    """Pack the project's manifest with a change at `data/my`."""
    frame = pd.read_csv(project / "images/manifest.csv", dtype=str, keep_default_na=False)
    change(frame).to_csv(project / "images/changed.csv", index=False)
    shutil.rmtree(project / out, ignore_errors=True)
    done = leukotree("pack", "images/changed.csv", out, "--folds", 2, "--size", 32, cwd=project)
    assert done.returncode == 0, done.stderr


def _swapped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(leaf=frame["leaf"].replace({"AML": "APML", "APML": "AML"}))


def _fewer(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the last patient: today's data set then has grown by it."""
    return frame[frame["patient"] != frame["patient"].iloc[-1]]


def _study(project: Path, **fields: Any) -> None:
    base = {
        "data": {"shards": "data/my"},
        "backbone": {"name": "test_vit"},
        "engine": {"precision": "fp32"},
        "optim": {"epochs": 1, "batch_size": 16},
    }
    study = {
        "study": "mine",
        "base": base,
        "variants": ["flat", "multilabel"],
        "folds": {"outer": 2, "inner": 2},
    }
    (project / "study.yaml").write_text(yaml.safe_dump(study | {"grid": {"loss.tau": [0.5]}} | fields))


@pytest.fixture(scope="module")
def finished(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose grid is done: the same runs that `folds` expects, since its only value is the
    default."""
    project = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(phantom_manifest.parent, project / "images")
    _pack(project)
    _study(project)
    done = leukotree("grid", "study.yaml", *HERE, cwd=project)
    assert f"{RUNS} runs done, 0 failed" in done.stdout, done.stdout + done.stderr
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy at another path: the same data."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def _runs(project: Path) -> list[Path]:
    return sorted(path for path in (project / "results/runs/mine").iterdir() if (path / "spec.yaml").exists())


def _all_refuse(project: Path, *says: str, name: str = "results/runs/mine/") -> None:
    for verb, options in USERS.items():
        assert_refused(leukotree(verb, "study.yaml", *options, cwd=project), name, *says)
    for verb in ("folds", "grid"):
        assert_refused(leukotree(verb, "study.yaml", *HERE, "--dry-run", cwd=project), name, *says)
    assert not (project / "results/mine").exists()


def _states(project: Path) -> dict[str, dict[str, Any]]:
    done = leukotree("status", "mine", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    return {run["run_name"]: run for run in json.loads(done.stdout)}


def test_the_same_data_at_another_path_are_the_same(project: Path) -> None:
    for verb, options in USERS.items():
        done = leukotree(verb, "study.yaml", *options, cwd=project)
        assert done.returncode == 0, done.stderr
        assert verb == "report" or f"{RUNS} runs done, 0 failed" in done.stdout
    assert "not compared" not in (project / "results/mine/report.md").read_text()
    assert {run["state"] for run in _states(project).values()} == {"done"}
    (project / "data/my").rename(project / "elsewhere")
    (project / "data/my").symlink_to(project / "elsewhere")
    assert f"{RUNS} runs done, 0 failed" in leukotree("grid", "study.yaml", *HERE, cwd=project).stdout


def test_runs_of_the_same_data_under_another_path_are_pointed_to(project: Path) -> None:
    (project / "data/my").rename(project / "moved")
    words = ("study.yaml", "base.data.shards=moved")
    says = f"{RUNS} of these runs are done on the same data, as data/my"
    for verb in ("folds", "grid"):
        done = leukotree(verb, *words, *HERE, "--dry-run", cwd=project)
        assert (done.returncode, says in done.stderr) == (0, True)
        assert f"{RUNS} of {RUNS} runs are missing" in done.stdout
    assert_refused(leukotree("report", *words, cwd=project), "leukotree report: results/runs/mine: ", says)
    (project / "data/my").symlink_to(project / "moved")
    assert leukotree("report", "study.yaml", cwd=project).returncode == 0
    shutil.rmtree(project / "moved")
    _pack(project, _swapped, "moved")
    assert says not in leukotree("grid", *words, *HERE, "--dry-run", cwd=project).stderr


def test_swapped_labels_are_named_by_every_command(project: Path) -> None:
    _pack(project, _swapped)
    first = _runs(project)[0].relative_to(project)
    reason = "made from other data than data/my has now"
    _all_refuse(
        project,
        reason,
        "with another label",
        f"and {RUNS - 1} more",
        "move the folder away",
        "pack the old data again",
    )
    states = _states(project)
    assert {run["state"] for run in states.values()} == {"stale"}
    assert all(reason in run["message"] and run["macro_f1"] is None for run in states.values())
    for words in (("status", "mine"), ("status",)):
        shown = leukotree(*words, cwd=project)
        assert shown.returncode == 0
        assert all(run.name in shown.stdout for run in _runs(project))
        assert reason in shown.stdout
    trained = leukotree("train", first / "spec.yaml", "--study", "mine", "--dry-run", cwd=project)
    assert_refused(trained, str(first), reason)
    _pack(project)  # the old data again
    assert leukotree("report", "study.yaml", cwd=project).returncode == 0


@pytest.mark.parametrize(
    "change", [_fewer, lambda frame: frame.iloc[::-1]], ids=["other patients", "another order"]
)
def test_other_images_are_named(project: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    _pack(project, change)
    _all_refuse(project, "made from other data than data/my has now")


def test_a_run_that_was_only_begun_is_refused_before_another_is_queued(project: Path) -> None:
    for run in _runs(project)[1:]:
        shutil.rmtree(run)
    begun = _runs(project)[0]
    (begun / "status.json").write_text(
        json.dumps({"state": "preempted", "epoch": 0, "epochs": 1, "heartbeat": 1.0})
    )
    _pack(project, _swapped)
    for verb in ("folds", "grid"):
        assert_refused(leukotree(verb, "study.yaml", *HERE, cwd=project), begun.name, "made from other data")
    assert _runs(project) == [begun]


def test_a_run_on_another_tree_is_named(project: Path) -> None:
    tree = _runs(project)[2] / "taxonomy.json"
    nested = json.loads(tree.read_text())
    [root] = nested
    tree.write_text(json.dumps({root: dict(reversed(nested[root].items()))}))
    _all_refuse(
        project,
        "its taxonomy.json is not the label tree of data/my",
        name=str(tree.parent.relative_to(project)),
    )
    assert [run["state"] for run in _states(project).values()].count("stale") == 1


def test_a_run_that_does_not_say_what_it_was_made_from_is_named(project: Path) -> None:
    environment = _runs(project)[1] / "env.json"
    environment.unlink()
    _all_refuse(
        project, "its env.json does not have its dataset", name=str(environment.parent.relative_to(project))
    )
    environment.write_text("{")
    _all_refuse(
        project, "env.json: cannot be read as JSON", name=str(environment.parent.relative_to(project))
    )
    assert _states(project)[environment.parent.name]["state"] == "stale"


def test_a_run_of_an_earlier_version_whose_loss_did_something_else_is_named(project: Path) -> None:
    """Its name is that of a run of today: `conditional` had no class weights, whatever `tau` was."""
    for run in _runs(project):
        spec = RunSpec.model_validate(yaml.safe_load((run / "spec.yaml").read_text()))
        fields = spec.override({"loss.kind": "conditional"}).model_dump(mode="json")
        for later in ("normalisation", "variance_lr"):
            del fields["loss"][later]
        (run / "spec.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
        run.rename(run.parent / spec.override({"loss.kind": "conditional"}).run_name)
    study = yaml.safe_load((project / "study.yaml").read_text())
    study["base"]["loss"] = {"kind": "conditional"}
    (project / "study.yaml").write_text(yaml.safe_dump(study))
    reason = "trained by an earlier version, in which the loss of this name had other weights"
    _all_refuse(project, reason, f"and {RUNS - 1} more", "move the folder away to run it again")
    states = _states(project)
    assert {run["state"] for run in states.values()} == {"stale"}
    assert all(reason in run["message"] for run in states.values())


def test_without_the_shards_the_report_goes_on_and_says_so(project: Path) -> None:
    shutil.rmtree(project / "data")
    done = leukotree("report", "study.yaml", cwd=project)
    assert done.returncode == 0, done.stderr
    says = "not compared with the data (data/my is not here)"
    assert "1 warning in the report" in done.stdout
    for page in ("report.md", "report.html"):
        assert says in (project / "results/mine" / page).read_text()
    assert {run["state"] for run in _states(project).values()} == {"done"}
    assert_refused(leukotree("grid", "study.yaml", *HERE, cwd=project), "data/my: no such folder")


def _ratio(project: Path) -> str:
    assert leukotree("report", "study.yaml", cwd=project).returncode == 0
    return (project / "results/mine/report.md").read_text().partition("n_test/n_train = ")[2][:5]


@pytest.mark.parametrize("change", [_fewer, lambda frame: frame], ids=["another data set", "none"])
def test_the_ratio_of_the_report_is_that_of_the_runs(
    project: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    """One fold of two: its own images over the rest, with the data set here, or gone."""
    for run in _runs(project):
        if RunSpec.model_validate(yaml.safe_load((run / "spec.yaml").read_text())).data.test_fold == 1:
            shutil.rmtree(run)
    images = Dataset.open(project / "data/my").index["fold"].value_counts()
    assert json.loads((_runs(project)[0] / "status.json").read_text())["images"] == {
        "trained": images[1],
        "tested": images[0],
    }
    wanted = f"{images[0] / images[1]:.3f}"
    assert _ratio(project) == wanted
    _pack(project, change, "data/other")
    shutil.rmtree(project / "data/my")
    assert _ratio(project) == wanted


def test_the_job_that_looks_after_the_others_counts_no_stale_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    names = [run.name for run in _runs(project)]
    assert missing_list.find(Path("results/runs/mine"), names)["done"] == RUNS
    _pack(project, _swapped)
    found = missing_list.find(Path("results/runs/mine"), names)
    assert (found["done"], set(found["missing"])) == (0, set(names))
    assert "stale made from other data" in missing_list.lines(found | {"submitted": []})[-1]


def _weights(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(timm.create_model("test_vit", img_size=32, num_classes=0).state_dict(), path)


def test_other_weights_are_named(project: Path) -> None:
    shutil.rmtree(project / "results")
    _weights(project / "w.pt", 0)
    small = ['variants=["flat"]', "base.backbone.weights=w.pt", "seeds=[3]"]
    words = ("study.yaml", *small)
    done = leukotree("grid", *words, *HERE, cwd=project)
    assert "2 runs done, 0 failed" in done.stdout, done.stdout + done.stderr
    _weights(project / "w.pt", 1)
    for verb, options in USERS.items():
        done = leukotree(verb, *words, *options, cwd=project)
        assert_refused(
            done,
            "results/runs/mine/flat-",
            "made from other weights than w.pt has now",
            "put the old weights back",
        )
    assert {run["state"] for run in _states(project).values()} == {"stale"}
    (project / "w.pt").unlink()
    done = leukotree("report", *words, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "1 warning in the report" in done.stdout
    page = (project / "results/mine/report.md").read_text()
    assert "not compared with the weights (w.pt is not here)" in page


@pytest.fixture
def searched(project: Path, monkeypatch: pytest.MonkeyPatch) -> studies.Study:
    """A study whose searches have ended."""
    monkeypatch.chdir(project)
    _study(project, search=SEARCH, grid=None)
    plan = studies.load("study.yaml")
    choice.write_settings(plan, plan.search_ids, choice.fingerprint(plan))
    for search_id in plan.search_ids:
        folder, chosen = plan.search_folder(search_id), {"loss.gamma": 1.0}
        best = {
            "variant": search_id.variant,
            "test_fold": search_id.test_fold,
            "trial": 0,
            "value": 0.5,
            "metric": "macro_f1",
        }
        (folder / "best.yaml").write_text(yaml.safe_dump({**best, "chosen": chosen}))
        header = "trial,state,epochs,macro_f1,best_macro_f1,seconds,loss.gamma\n"
        (folder / "trials.csv").write_text(f"{header}0,completed,1,.5,.5,1,1\n")
        (folder / "history.csv").write_text("trial,epoch,macro_f1,seconds\n0,1,0.5,1.0\n")
    return plan


def _searches_refuse(project: Path, *says: str) -> None:
    words = (("sweep", "--dry-run"), ("sweep",), ("folds", *HERE), ("folds", *HERE, "--dry-run"), ("report",))
    for verb, *options in words:
        assert_refused(
            leukotree(verb, "study.yaml", *options, cwd=project), "results/runs/mine/search/flat/fold0", *says
        )
    shown = leukotree("status", "mine", cwd=project)
    assert (shown.returncode, shown.stdout.count(" stale")) == (0, RUNS)
    assert all(word in shown.stdout for word in says)


def test_a_search_of_other_data_is_named(project: Path, searched: studies.Study) -> None:
    assert set(choice.chosen(searched)) == {"flat", "multilabel"}
    for run in _runs(project):
        shutil.rmtree(run)
    _pack(project, _swapped)
    _searches_refuse(project, "searched on other data than data/my has now", "move the folder away")


def test_a_search_from_other_weights_is_named(project: Path, searched: studies.Study) -> None:
    _weights(project / "w.pt", 0)
    for search_id in searched.search_ids:
        for spec in searched.trial_specs(
            search_id.variant, {"backbone.weights": "w.pt"}, search_id.test_fold
        ):
            run = searched.search_folder(search_id) / "runs/00000" / spec.run_name
            run.mkdir(parents=True)
            (run / "spec.yaml").write_text(spec.dump())
            (run / "env.json").write_text(
                json.dumps({"dataset": choice.fingerprint(searched), "weights": "0" * 64})
            )
    for run in _runs(project):
        shutil.rmtree(run)
    _searches_refuse(project, "was made from other weights than w.pt has now")


def test_a_search_that_ended_counts_where_the_same_shards_lie_elsewhere(
    project: Path, searched: studies.Study
) -> None:
    (project / "data/my").rename(project / "data/elsewhere")
    moved = studies.load("study.yaml", ["base.data.shards=data/elsewhere"])
    assert choice.chosen(moved)["flat"] == {0: {"loss.gamma": 1.0}, 1: {"loss.gamma": 1.0}}
    (project / searched.search_folder(searched.search_ids[0]) / "best.yaml").unlink()
    with pytest.raises(InputError, match=r"base\.data\.shards was 'data/my' and is 'data/elsewhere'"):
        choice.chosen(moved)


def test_a_run_that_has_not_begun_is_in_order(tmp_path: Path) -> None:
    stale.check_runs(tmp_path, [RunSpec()])


def _cut(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[5:]


def _relabelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(leaf=frame["leaf"].where(frame.index >= 3, frame["leaf"].iloc[-1]))


def _renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(key=frame["key"].where(frame.index >= 2, "x" + frame["key"]))


def _of_nobody(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(patient=frame["patient"].where(frame.index >= 2, "somebody"))


def _more(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.head(2).assign(key=["more-0", "more-1"])])


DAMAGE: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "five rows cut": (_cut, "5 missing"),
    "labels": (_relabelled, "with another label"),
    "keys": (_renamed, "2 missing, 2 not among them"),
    "patients": (_of_nobody, "2 with another patient or source"),
    "rows": (_more, "2 not among them"),
    "twice": (lambda frame: pd.concat([frame, frame.head(3)]), "occurs twice"),
    "other fold": (lambda frame: frame.assign(fold=1 - frame["fold"]), "not to the test fold"),
    "no key": (lambda frame: frame.assign(key=frame["key"].where(frame.index > 0, None)), "a row has no key"),
    "no leaf": (lambda frame: frame.assign(leaf=frame["leaf"].where(frame.index > 0, None)), "unknown leaf"),
}


@pytest.mark.parametrize("number", [0, RUNS - 1], ids=["the first run", "the last run"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_predictions_that_do_not_fit_the_data_are_blamed_on_their_run(
    project: Path, kind: str, number: int
) -> None:
    change, says = DAMAGE[kind]
    path = _runs(project)[number] / "predictions.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    assert_refused(leukotree("report", "study.yaml", cwd=project), f"{path.relative_to(project)}: ", says)


@pytest.mark.parametrize("number", [0, RUNS - 1], ids=["the first run", "the last run"])
@pytest.mark.parametrize("noted", [True, False], ids=["noted", "of an older run"])
@pytest.mark.parametrize("kind", ["five rows cut", "labels"])
def test_without_the_data_a_run_is_blamed_that_deviates_from_what_it_noted(
    project: Path, kind: str, noted: bool, number: int
) -> None:
    """Two runs of a fold have no majority; its own scores, and how many images it was tested on, speak
    against a run."""
    shutil.rmtree(project / "data")
    for run in _runs(project) if not noted else ():
        status = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(
            json.dumps({key: value for key, value in status.items() if key != "images"})
        )
    path = _runs(project)[number] / "predictions.parquet"
    DAMAGE[kind][0](pd.read_parquet(path)).to_parquet(path, index=False)
    done = leukotree("report", "study.yaml", cwd=project)
    if (noted and kind == "five rows cut") or not _scores_as_noted(path.parent):
        assert_refused(done, f"leukotree report: {path.relative_to(project)}: ")
    else:
        assert_refused(done, "it is not known which of the two is damaged", str(path.relative_to(project)))


def _scores_as_noted(run: Path) -> bool:
    frame, logp, taxonomy = predictions.read(run)
    true = np.array([taxonomy.leaves.index(leaf) for leaf in frame["leaf"]])
    status = json.loads((run / "status.json").read_text())
    return all(
        status[name] == pytest.approx(score)
        for name, score in predictions.scores(true, logp, taxonomy).items()
    )


def test_truncated_predictions_name_their_run(project: Path) -> None:
    path = _runs(project)[0] / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(leukotree("report", "study.yaml", cwd=project), path.parent.name, "cannot be read")
