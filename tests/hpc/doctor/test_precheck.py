"""A study whose shards' server is away is refused before anything is queued."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpc.doctor import precheck
from hpc.search import sweep
from hpc.search.trial_queue import TrialQueue
from hpc.studies import study
from leukotree.errors import Preempted
from tests.helpers.commandline import leukotree

AWAY = "http://127.0.0.1:9/set"


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a study whose server does not answer."""
    monkeypatch.setenv("LEUKOTREE_PATIENCE", "0.1")
    monkeypatch.setenv("LEUKOTREE_CACHE", str(tmp_path / "node"))
    base = {"data": {"shards": AWAY}, "backbone": {"name": "test_vit"}, "optim": {"epochs": 1}}
    search = {"trials": 1, "space": {"optim.lr": {"uniform": [0.1, 0.2]}}}
    fields = {"study": "away", "base": base, "variants": ["flat"], "folds": {"outer": 4}, "search": search}
    (tmp_path / "away.yaml").write_text(yaml.safe_dump(fields))
    return tmp_path / "away.yaml"


@pytest.mark.parametrize("words", [["sweep"], ["folds"], ["folds", "--on", "slurm", "--no-wait"]])
def test_it_is_one_line_with_exit_code_2(words: list[str], away: Path) -> None:
    done = leukotree(words[0], away, *words[1:], cwd=away.parent)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert len(said) == 1
    assert f"{AWAY}/dataset.json: Connection refused; no new byte in 0 s; nothing was begun" in said[0]
    assert not (away.parent / "results").exists()


def test_in_a_job_it_is_tried_again_later(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    with pytest.raises(Preempted, match="Connection refused") as ended:
        precheck.check_data(study.load(away))
    assert ended.value.kind == "server"


def test_a_search_whose_server_goes_away_is_queued_again(away: Path) -> None:
    queue = TrialQueue(study.load(away), [])
    queue.stop("server", f"{AWAY}: Connection refused")
    with pytest.raises(Preempted, match="Connection refused") as ended:
        sweep._raise_end(queue)
    assert ended.value.kind == "server"
