"""The record of a search: after a kill, and where it does not fit its study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.search.record import Record
from hpc.search.trial_queue import TrialQueue
from hpc.studies.search_settings import Axis
from hpc.studies.study import SearchId, Study
from leukotree.errors import InputError

SEARCH_ID = SearchId("flat", 1)
VALUES = {"loss.gamma": 1.5, "optim.batch_size": 16}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    space = {"loss.gamma": {"uniform": [0, 5]}, "optim.batch_size": {"choice": [16, 32]}}
    return Study.model_validate(
        {"study": "s", "base": {"optim": {"epochs": 2}}, "search": {"trials": 3, "space": space}}
    )


def _written(study: Study) -> Path:
    """A record of two trials, of which the first has ended."""
    record = Record(study, SEARCH_ID)
    first, second = record.draw(VALUES), record.draw({**VALUES, "optim.batch_size": 32})
    record.report(first, 1, 0.25, 3.0)
    record.report(second, 1, 0.5, 4.0)
    record.report(first, 2, 0.75, 5.0)
    record.end(first, "completed", None, 4.5)
    return study.search_folder(SEARCH_ID)


def test_a_written_record_is_read_back(study: Study) -> None:
    _written(study)
    loaded = Record(study, SEARCH_ID)
    assert [(trial.chosen["optim.batch_size"], trial.state, trial.scores) for trial in loaded.trials] == [
        (16, "completed", {1: 0.25, 2: 0.75}),
        (32, None, {1: 0.5}),
    ]
    assert loaded.reported == [(0, 1, 0.25), (1, 1, 0.5), (0, 2, 0.75)]
    assert (loaded.seconds, loaded.trials[0].seconds) == (5.0, 4.5)
    loaded.report(loaded.trials[1], 1, 0.5, 9.0)  # replayed
    assert Record(study, SEARCH_ID).reported == loaded.reported


@pytest.mark.parametrize("cut", [2, 5, 20])
def test_a_line_that_a_kill_cut_short_is_ignored(study: Study, cut: int) -> None:
    drawn = _written(study) / "trials.jsonl"
    drawn.write_bytes(drawn.read_bytes()[:-cut])
    loaded = Record(study, SEARCH_ID)
    assert [trial.state for trial in loaded.trials] == [None, None]
    # Its two epochs are all: it has nothing left to do but to be noted.
    assert TrialQueue(study, [loaded]).open() == 2
    third = loaded.draw(VALUES)
    assert [trial.state for trial in Record(study, SEARCH_ID).trials] == ["completed", None, None]
    assert third.number == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            {"trial": 2, "chosen": {"loss.gamma": 1.0}},
            r"trial 2: has values of \['loss.gamma'\], but the study searches",
        ),
        ({"trial": 2, "chosen": {**VALUES, "loss.gamma": 7}}, r"trial 2: loss.gamma=7 is not in \[0, 5\]"),
        ({"trial": 2, "chosen": {**VALUES, "loss.gamma": True}}, "trial 2: loss.gamma=True is not in"),
        (
            {"trial": 2, "chosen": {**VALUES, "optim.batch_size": 64}},
            r"optim.batch_size=64 is none of \[16, 32\]",
        ),
        ({"trial": 2, "chosen": [1]}, r"has values of \[1\]"),
        ({"trial": 1, "chosen": VALUES}, "trial 1 was drawn twice"),
        ({"trial": 4, "chosen": VALUES}, "trial 4 does not follow the 2 before it"),
        ({"trial": -1, "state": "failed"}, "trial -1 does not follow"),
        ({"trial": 2, "state": "failed"}, "trial 2 ended as 'failed', which cannot be"),
        ({"trial": 1, "state": "won"}, "trial 1 ended as 'won', which cannot be"),
        ([1, 2], "trial None does not follow"),
    ],
)
def test_a_record_that_does_not_fit_its_study_is_refused(study: Study, line: object, says: str) -> None:
    drawn = _written(study) / "trials.jsonl"
    with open(drawn, "a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=f"trials.jsonl: .*{says}") as caught:
        Record(study, SEARCH_ID)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ["7,1,0.5,6.0", "1,3,0.5,6.0"])
def test_a_score_of_an_unknown_trial_is_refused(study: Study, row: str) -> None:
    with open(_written(study) / "history.csv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(
        InputError, match=r"history\.csv: has epoch . of trial ., which is not in trials\.jsonl"
    ):
        Record(study, SEARCH_ID)


def test_a_trial_that_completed_without_its_score_is_refused(study: Study) -> None:
    path = _written(study) / "history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:1]) + "\n")
    with pytest.raises(InputError, match=r"history\.csv: lacks the last score of trial ., which completed"):
        Record(study, SEARCH_ID)


@pytest.mark.parametrize("left", ["", "trial,epo"])
def test_a_first_score_cut_short_by_a_full_disk_is_written_again(study: Study, left: str) -> None:
    record = Record(study, SEARCH_ID)
    trial = record.draw(VALUES)
    history = study.search_folder(SEARCH_ID) / "history.csv"
    history.write_text(left)
    assert Record(study, SEARCH_ID).reported == []
    Record(study, SEARCH_ID).report(trial, 1, 0.5, 2.0)
    assert history.read_text() == "trial,epoch,macro_f1,seconds\n0,1,0.5,2.0\n"
    assert Record(study, SEARCH_ID).reported == [(0, 1, 0.5)]


def test_only_trials_that_are_not_continued_lose_their_checkpoints(study: Study) -> None:
    record = Record(study, SEARCH_ID)
    runs = study.search_folder(SEARCH_ID) / "runs"
    for number, state in enumerate(("stopped", None, "failed")):
        trial = record.draw(VALUES)
        if state:
            record.end(trial, state)
        (runs / f"{number:05d}" / "flat-0" / "checkpoints").mkdir(parents=True)
    record.drop_checkpoints()
    assert [path.parts[-3] for path in runs.glob("*/*/checkpoints")] == ["00001"]


def test_scores_of_a_removed_record_are_ignored(study: Study) -> None:
    folder = _written(study)
    (folder / "trials.jsonl").unlink()
    record = Record(study, SEARCH_ID)
    assert (record.trials, record.reported) == ([], [])
    assert (folder / "history.csv").exists()  # a dry run only looks
    record.draw(VALUES)
    assert not (folder / "history.csv").exists()
    assert Record(study, SEARCH_ID).reported == []


@pytest.fixture
def again(study: Study) -> Study:
    """The same study, with the two best trials run again on two seeds."""
    return study.model_copy(
        update={"search": study.search.model_copy(update={"rerun_top": 2, "rerun_seeds": 2})}
    )


def _searched(study: Study) -> Record:
    """Three trials of which the first scored 0.25, the second failed, the third scored 0.75."""
    record = Record(study, SEARCH_ID)
    for score in (0.25, None, 0.75):
        trial = record.draw(VALUES)
        assert record.reruns == []
        if score is None:
            record.end(trial, "failed", "the loss is nan")
        else:
            record.report(trial, 2, score, 3.0)
            record.end(trial, "completed")
    return record


def test_the_best_trials_are_run_again_once_all_have_ended(again: Study) -> None:
    record = _searched(again)
    seeds = again.fresh_seeds(SEARCH_ID.test_fold)
    assert [(rerun.number, rerun.seed) for rerun in record.reruns] == [
        (2, seeds[0]),
        (2, seeds[1]),
        (0, seeds[0]),
        (0, seeds[1]),
    ]
    queue = TrialQueue(again, [record])
    assert (queue.open(), queue.ended()) == (4, 3)
    assert queue.next() == (record, record.reruns[0])
    queue.started(record, record.reruns[0])
    assert queue.next() == (record, record.reruns[1])


@pytest.mark.parametrize("cut", [0, 3, 20])
def test_reruns_that_ended_are_not_run_again(again: Study, cut: int) -> None:
    record = _searched(again)
    for rerun, score in zip(record.reruns[:2], (0.5, 0.625), strict=True):
        record.report(rerun, 2, score, 9.0)
        record.end(rerun, "completed", None, 1.5)
    record.end(record.reruns[2], "failed", "the loss is nan")
    file = again.search_folder(SEARCH_ID) / "reruns.jsonl"
    file.write_bytes(file.read_bytes()[: -cut or None])
    loaded = Record(again, SEARCH_ID)
    assert [rerun.state for rerun in loaded.reruns] == [
        "completed",
        "completed",
        None if cut else "failed",
        None,
    ]
    assert [rerun.score for rerun in loaded.reruns] == [0.5, 0.625, None, None]
    assert loaded.reported == record.reported  # which the stopping of trials looks at: none of the re-runs'
    assert loaded.open() == (2 if cut else 1)


def test_a_search_whose_reruns_began_in_an_earlier_version_keeps_its_seeds(again: Study) -> None:
    """Those seeds were the same for all folds."""
    _searched(again)
    earlier = again.fresh_seeds(None)
    line = {"trial": 2, "seed": earlier[1], "state": "completed", "score": 0.5}
    (again.search_folder(SEARCH_ID) / "reruns.jsonl").write_text(json.dumps(line) + "\n")
    record = Record(again, SEARCH_ID)
    assert [(rerun.seed, rerun.score) for rerun in record.reruns] == [
        (earlier[0], None),
        (earlier[1], 0.5),
        (earlier[0], None),
        (earlier[1], None),
    ]
    assert record.fresh_seeds == earlier


@pytest.mark.parametrize(
    "line",
    [
        {"trial": 1, "state": "completed", "score": 0.5},
        {"trial": 2, "state": "stopped", "score": 0.5},
        {"trial": 2, "state": "completed", "score": None},
        {"trial": 0, "seed": 7, "state": "completed", "score": 0.5},
        [1],
    ],
)
def test_a_rerun_of_no_best_trial_is_refused(again: Study, line: object) -> None:
    _searched(again)
    whole = {"seed": again.fresh_seeds(SEARCH_ID.test_fold)[0], **line} if isinstance(line, dict) else line
    (again.search_folder(SEARCH_ID) / "reruns.jsonl").write_text(json.dumps(whole) + "\n")
    with pytest.raises(InputError, match=r"reruns\.jsonl: has .*, which is no re-run of the best trials"):
        Record(again, SEARCH_ID)


def test_there_are_no_more_reruns_than_trials_allow(again: Study) -> None:
    record = Record(again, SEARCH_ID)
    assert record.open() == 3 + 4
    for _ in range(3):
        record.end(record.draw(VALUES), "failed", "the loss is nan")
    assert (record.reruns, record.open()) == ([], 0)


def test_a_key_without_effect_in_the_variant_is_not_in_its_record(study: Study) -> None:
    space = {**study.search.space, "loss.isolation": Axis(choice=["shared", "detached"])}
    wider = study.model_copy(update={"search": study.search.model_copy(update={"space": space})})
    _written(wider)
    assert len(Record(wider, SEARCH_ID).trials) == 2
    other = SearchId("multilabel", 1)
    wider.search_folder(other).parent.mkdir()
    wider.search_folder(SEARCH_ID).rename(wider.search_folder(other))
    with pytest.raises(InputError, match=r"has values of .*, but the study searches .*loss\.isolation"):
        Record(wider, other)
