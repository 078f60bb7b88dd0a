"""The record of a search: what a kill can leave, and what does not fit its study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpc.record import Progress, Record
from hpc.study import Study
from leukotree.errors import InputError

VALUES = {"loss.gamma": 1.5, "optim.batch_size": 16}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    space = {"loss.gamma": {"uniform": [0, 5]}, "optim.batch_size": {"choice": [16, 32]}}
    return Study.model_validate({"study": "s", "base": {"optim": {"epochs": 2}}, "search": {"trials": 3, "space": space}})


def _written(study: Study) -> Path:
    """A record of two trials, of which the first has ended."""
    record = Record(study, "flat")
    first, second = record.draw(VALUES), record.draw({**VALUES, "optim.batch_size": 32})
    record.report(first, 1, 0.25, 3.0)
    record.report(second, 1, 0.5, 4.0)
    record.report(first, 2, 0.75, 5.0)
    record.end(first, "completed", None, 4.5)
    return study.search_folder("flat")


def test_what_was_written_is_read(study: Study) -> None:
    _written(study)
    found = Record(study, "flat")
    assert [(trial.chosen["optim.batch_size"], trial.state, trial.scores) for trial in found.trials] == [
        (16, "completed", {1: 0.25, 2: 0.75}),
        (32, None, {1: 0.5}),
    ]
    assert found.reported == [(0, 1, 0.25), (1, 1, 0.5), (0, 2, 0.75)]
    assert (found.seconds, found.trials[0].seconds) == (5.0, 4.5)
    found.report(found.trials[1], 1, 0.5, 9.0)  # replayed
    assert Record(study, "flat").reported == found.reported


@pytest.mark.parametrize("cut", [2, 5, 20])
def test_a_line_that_a_kill_cut_short_did_not_happen(study: Study, cut: int) -> None:
    drawn = _written(study) / "trials.jsonl"
    drawn.write_bytes(drawn.read_bytes()[:-cut])
    found = Record(study, "flat")
    assert [trial.state for trial in found.trials] == [None, None]
    # Its two epochs are all: it has nothing left to do but to be noted.
    assert Progress(study, {"flat": found}).open() == 2
    third = found.draw(VALUES)
    assert [trial.state for trial in Record(study, "flat").trials] == ["completed", None, None]
    assert third.number == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"trial": 2, "chosen": {"loss.gamma": 1.0}}, r"trial 2: has values of \['loss.gamma'\], but the study searches"),
        ({"trial": 2, "chosen": {**VALUES, "loss.gamma": 7}}, r"trial 2: loss.gamma=7 is not in \[0, 5\]"),
        ({"trial": 2, "chosen": {**VALUES, "loss.gamma": True}}, "trial 2: loss.gamma=True is not in"),
        ({"trial": 2, "chosen": {**VALUES, "optim.batch_size": 64}}, r"optim.batch_size=64 is none of \[16, 32\]"),
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
        Record(study, "flat")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ["7,1,0.5,6.0", "1,3,0.5,6.0"])
def test_a_score_of_no_known_trial_is_refused(study: Study, row: str) -> None:
    with open(_written(study) / "history.csv", "a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match=r"history\.csv: has epoch . of trial ., which trials\.jsonl does not know"):
        Record(study, "flat")


def test_scores_of_a_removed_record_do_not_count(study: Study) -> None:
    folder = _written(study)
    (folder / "trials.jsonl").unlink()
    assert Record(study, "flat").trials == []
    assert not (folder / "history.csv").exists()
