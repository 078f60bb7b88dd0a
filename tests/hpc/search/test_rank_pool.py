"""The pool of a trial's ranks: they stay from trial to trial, and end with the process that owns them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc.search.rank_pool import RankDied, RankPool
from leukotree.errors import InputError, Preempted, RunFailed
from leukotree.records import runfolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training import run

pytestmark = pytest.mark.slow("starts ranks")

RUNTIME = Runtime(device="cpu", workers=0, threads=1, quiet=True)


def _specs(shards: Path, **changes: Any) -> list[RunSpec]:
    fields = {
        "variant": "flat",
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 2, "batch_size": 14, "lr": 1e-3},
        "engine": {"precision": "fp32"},
    }
    base = RunSpec.model_validate(fields).override(changes)
    return [base.override({"data.inner": {"folds": 2, "fold": fold}}) for fold in range(2)]


def _gone(pids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_pool_trains_one_trial_after_another_however_the_one_before_ended(
    shards: Path, tmp_path: Path
) -> None:
    with RankPool(2) as pool:
        rows = list(pool.lockstep(_specs(shards), tmp_path / "a", RUNTIME))
        assert [row["epoch"] for row in rows] == [1, 2]
        pids = pool.pids
        assert len(pids) == 2
        late = list(pool.lockstep(_specs(shards), tmp_path / "late", RUNTIME, each_epoch=False))
        assert [row.get("folds") for row in late] == [None, rows[1]["folds"]]

        with pytest.raises(RunFailed, match="loss"):
            list(pool.lockstep(_specs(shards, **{"optim.lr": 1e30}), tmp_path / "diverged", RUNTIME))
        with pytest.raises(InputError, match="15 images do not divide over 2 ranks"):
            list(pool.lockstep(_specs(shards, **{"optim.batch_size": 15}), tmp_path / "odd", RUNTIME))
        stopped = pool.lockstep(_specs(shards), tmp_path / "stopped", RUNTIME)
        next(stopped)
        stopped.close()
        assert {runfolder.read_status(run)["state"] for run in (tmp_path / "stopped").iterdir()} == {
            "stopped"
        }
        assert pool.pids == pids

        # A rank that is asked to leave takes the others with it, and all is saved; one that is killed ends
        # them.
        asked = pool.lockstep(_specs(shards), tmp_path / "b", RUNTIME)
        os.kill(pids[1], signal.SIGTERM)
        with pytest.raises(Preempted):
            next(asked)
        assert {runfolder.read_status(run)["state"] for run in (tmp_path / "b").iterdir()} == {"preempted"}
        os.kill(pool.pids[1], signal.SIGKILL)
        with pytest.raises(RankDied, match="-9"):
            list(pool.lockstep(_specs(shards), tmp_path / "b", RUNTIME))
        assert _gone(pids)

        again = list(pool.lockstep(_specs(shards), tmp_path / "b", RUNTIME))
        assert [row["folds"] for row in again] == [row["folds"] for row in rows]
        pids = pool.pids
    assert _gone(pids)
    # The same runs in one process: what ranks do to the rounding is all that differs.
    alone = list(run.lockstep(_specs(shards), tmp_path / "alone", RUNTIME))
    assert [row["macro_f1"] for row in alone] == pytest.approx([row["macro_f1"] for row in rows], abs=0.05)


OWNER = """
import sys
from pathlib import Path
from hpc.search.rank_pool import RankPool
from leukotree.spec import load
from leukotree.runtime import Runtime

pool = RankPool(2)
runtime = Runtime(device="cpu", workers=0, threads=1, quiet=True)
for row in pool.lockstep([load(sys.argv[1])], Path(sys.argv[2]), runtime):
    print(*pool.pids, flush=True)
"""


def test_ranks_end_with_the_process_that_owns_them(shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(_specs(shards, **{"optim.epochs": 1000})[0].dump())
    command = [sys.executable, "-c", OWNER, str(file), str(tmp_path / "runs")]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2
    owner.kill()  # in the middle of an epoch
    owner.wait()
    owner.stdout.close()
    assert _gone(pids)
