"""The layout of a search's folder, and that no other module spells the names of its files and of a run's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from leukotree.errors import InputError
from leukotree.records import attempts, origin, runfolder, searchfolder

ROOT = Path(__file__).parents[2]
OWNERS = {
    "src/leukotree/records/searchfolder.py",
    "src/leukotree/records/runfolder.py",
    "src/leukotree/records/attempts.py",
    "src/leukotree/data/patients/pseudonyms.py",  # below records; it looks for a run's spec
}
NAMES = {
    *(searchfolder.SETTINGS, searchfolder.DRAWS, searchfolder.HISTORY, searchfolder.RERUNS),
    *(searchfolder.TRIALS, searchfolder.BEST, searchfolder.ENDS, attempts.FILE),
    *(runfolder.SPEC, runfolder.TAXONOMY, runfolder.ENVIRONMENT, runfolder.STATUS, runfolder.METRICS),
    *(runfolder.PREDICTIONS, runfolder.FAILURE),
}


def spelled(file: Path) -> set[str]:
    """The names in NAMES that a file has as a text, or as the end of one."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {text.rpartition("/")[2] for text in texts} & NAMES


def test_the_names_of_the_files_are_spelled_in_one_place() -> None:
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "hpc").rglob("*.py")]
    names = {file.relative_to(ROOT).as_posix(): spelled(file) for file in files}
    assert {file for file, of_file in names.items() if of_file} <= OWNERS


@pytest.mark.parametrize(
    ("fold", "repeat", "name"),
    [(None, 0, ""), (2, 0, "fold2"), (11, 0, "fold11"), (2, 1, "repeat1-fold2"), (0, 12, "repeat12-fold0")],
)
def test_a_search_is_found_where_it_lies(tmp_path: Path, fold: int | None, repeat: int, name: str) -> None:
    study = tmp_path / "study"
    folder = searchfolder.search_folder(study, "flat", fold, repeat)
    assert folder == study / "search/flat" / name
    assert searchfolder.find(tmp_path) == {}
    folder.mkdir(parents=True)
    (folder / searchfolder.SETTINGS).touch()
    assert searchfolder.find(tmp_path) == searchfolder.find(study) == {study / "search": [folder]}
    assert searchfolder.study_of(folder) == study
    assert searchfolder.variant_of(folder) == "flat"
    assert searchfolder.of_variant(study, "flat") == ({} if fold is None else {(repeat, fold): folder})


def test_folds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for place in ((10, 0), (9, 0), (1, 1), (0, 0)):
        searchfolder.search_folder(tmp_path, "flat", *place).mkdir(parents=True)
    (tmp_path / "search/flat/fold-x").mkdir()
    assert list(searchfolder.of_variant(tmp_path, "flat")) == [(0, 0), (0, 9), (0, 10), (1, 1)]


def test_the_runs_of_trials_and_re_runs(tmp_path: Path) -> None:
    first, again = searchfolder.trial_folder(tmp_path, 3), searchfolder.trial_folder(tmp_path, 3, rerun=True)
    assert (first, again) == (tmp_path / "runs/00003", tmp_path / "reruns/00003")
    for run in (first / "b", first / "a", again / "c"):
        (run / runfolder.CHECKPOINTS).mkdir(parents=True)
    for run in (first / "a", again / "c"):
        (run / runfolder.SPEC).touch()
    assert searchfolder.runs_of_trial(tmp_path, "3") == [first / "a", first / "b"]
    assert searchfolder.rerun_runs(tmp_path) == [again / "c"]
    assert list(searchfolder.begun_runs(tmp_path)) == [first / "a", again / "c"]
    searchfolder.drop_checkpoints(first)
    assert [path.parent for path in tmp_path.rglob(runfolder.CHECKPOINTS)] == [again / "c"]


@pytest.mark.parametrize("rest", ["", "2,1,0.", "2,1,0.5\n", "x,y,z,w\n"])
def test_a_history_has_no_line_that_is_cut_short(tmp_path: Path, rest: str) -> None:
    assert searchfolder.read_history(tmp_path) == []
    header = ",".join(searchfolder.HISTORY_COLUMNS)
    (tmp_path / searchfolder.HISTORY).write_text(f"{header}\n0,1,0.25,2\n{rest}")
    assert searchfolder.read_history(tmp_path) == [{"trial": 0, "epoch": 1, "macro_f1": 0.25, "seconds": 2.0}]


@pytest.mark.parametrize("text", ["", "[1]", "chosen: 3", "trial: 0"])
def test_a_choice_without_values_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / searchfolder.BEST).write_text(text)
    with pytest.raises(InputError, match=r"best\.yaml: has no `chosen` values; remove it"):
        searchfolder.read_best(tmp_path, "remove it")


def test_attempts_have_the_code_and_how_far_the_work_was(tmp_path: Path) -> None:
    folder = searchfolder.sweep_folder(tmp_path)
    runs = searchfolder.trial_folder(searchfolder.search_folder(tmp_path, "flat"), 0)
    (runs / "run").mkdir(parents=True)
    (runs / "run" / runfolder.METRICS).write_text("12345")
    searchfolder.note_attempt(tmp_path)
    with (folder / attempts.FILE).open("a") as file:
        file.write('[1]\n{"commit": 5, "at": 9}\n{"at')
    first, second = attempts.read(folder)
    assert first.items() >= {"at": 5, **origin.here()}.items()
    assert second == {"at": 9}
    assert searchfolder.code_of(tmp_path) == [origin.name(origin.here())]


def test_an_attempt_belongs_to_its_job() -> None:
    attempt = {"slurm_job_id": "14", "slurm_array_job_id": "12", "slurm_array_task_id": "3"}
    assert [attempts.is_of_job(attempt, job) for job in ("12_3", "14", "12", "3")] == [
        True,
        True,
        False,
        False,
    ]
    assert not attempts.is_of_job({}, "14")
