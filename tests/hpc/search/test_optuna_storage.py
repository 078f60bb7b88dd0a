"""The searches of a study in a storage of Optuna are what their records say."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from hpc.search import optuna_storage
from hpc.search.optuna_storage import Export
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree.config import parse

FLAT, BASE = SearchId("flat", 0), SearchId("base", 0)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """In the first search a trial completed, one was stopped, one failed and one has a score. The second has
    not begun."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "study": "s",
        "base": {"optim": {"epochs": 3}},
        "variants": ["flat", "base"],
        "folds": {"outer": 4, "inner": 2},
        "search": {"trials": 4, "nested": False, "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}}},
    }
    study = parse(Study, fields, "test")
    (study.root / "search").mkdir(parents=True)
    record = Record(study, FLAT)
    for number, scores in enumerate([(0.1, 0.2, 0.3), (0.2,), (), (0.4,)]):
        trial = record.draw({"optim.lr": 1e-3 * (number + 1)})
        for epoch, score in enumerate(scores, 1):
            record.report(trial, epoch, score, 10.0 * epoch)
    record.end(record.trials[0], "completed", seconds=30)
    record.end(record.trials[1], "stopped", seconds=10)
    record.end(record.trials[2], "failed", "the loss is nan")
    return [record, Record(study, BASE)]


def loaded(name: str = "s/flat") -> optuna.Study:
    """As a person loads it: with Optuna's own classes."""
    storage = JournalStorage(JournalFileBackend("results/runs/s/search/optuna.log"))
    return optuna.load_study(study_name=name, storage=storage)


def test_optuna_loads_trials_with_values_params_states_and_intermediate_values(records: list[Record]) -> None:
    Export(records).rebuild(at_work=True)
    study = loaded()
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.params["optim.lr"] for trial in study.trials] == [1e-3 * number for number in (1, 2, 3, 4)]
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert [trial.value for trial in study.trials] == [0.3, 0.2, None, None]
    assert study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    assert study.trials[0].distributions == {"optim.lr": FloatDistribution(1e-4, 1e-2, log=True)}
    assert study.trials[2].user_attrs["message"] == "the loss is nan"
    assert study.trials[0].duration is not None
    assert study.trials[0].duration.total_seconds() == pytest.approx(30)
    assert (study.best_trial.number, study.direction.name) == (0, "MAXIMIZE")
    assert study.user_attrs["metric"] == "macro_f1"
    assert loaded("s/base").trials == []


def test_a_sweep_at_work_adds_what_is_new(records: list[Record]) -> None:
    export = Export(records)
    export.rebuild(at_work=True)
    record, other = records
    record.report(record.trials[3], 2, 0.5, 20.0)
    export.sync()
    export.sync()
    assert loaded().trials[3].intermediate_values == {1: 0.4, 2: 0.5}
    record.report(record.trials[3], 3, 0.6, 30.0)
    record.end(record.trials[3], "completed")
    other.draw({"optim.lr": 5e-3})
    export.sync()
    assert (loaded().trials[3].state, loaded().best_value) == (TrialState.COMPLETE, 0.6)
    assert loaded("s/base").trials[0].state == TrialState.RUNNING
    export.rebuild(at_work=False)
    assert loaded("s/base").trials[0].state == TrialState.WAITING
    assert [trial.value for trial in loaded().trials] == [0.3, 0.2, None, 0.6]


@pytest.mark.parametrize("left", ['{"op_code": 4, "worker', "no journal\n", ""])
def test_what_a_killed_sweep_left_is_replaced(records: list[Record], left: str) -> None:
    path = Path("results/runs/s/search/optuna.log")
    Export(records).rebuild(at_work=True)
    with open(path, "a") as file:
        file.write(left)
    if not left:
        path.write_text("")
    records[0].end(records[0].trials[3], "failed", "killed")
    with optuna_storage.exported(records[0].study, records):
        pass
    assert [trial.state for trial in loaded().trials][3] == TrialState.FAIL
    assert [file.name for file in path.parent.iterdir() if "optuna" in file.name] == ["optuna.log"]


def test_an_error_is_one_warning_and_the_search_goes_on(
    records: list[Record], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    export = Export(records)
    monkeypatch.setattr(optuna_storage, "storage", full)
    for _ in range(3):
        export.rebuild(at_work=True)
        export.sync()
    assert capsys.readouterr().err.count("No space left on device") == 1
