"""The cost of a trial beyond its training, from the files of a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc.bench import trial_cost
from hpc.studies.study import Study
from leukotree.config import parse


def test_the_cost_is_the_time_between_two_ends_without_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1 ends 3 s after trial 0, and trial 2 ends 4 s after trial 1. The two runs of each train for 1 s
    and 0.5 s."""
    monkeypatch.chdir(tmp_path)
    study = parse(Study, {"study": "made-up"}, "test")
    folder = study.search_folder(study.search_ids[0])
    folder.mkdir(parents=True)
    rows = ["0,1,0.5,2.0", "0,2,0.5,5.0", "1,1,0.5,7.0", "1,2,0.5,8.0", "2,2,0.5,12.0"]
    (folder / "history.csv").write_text("\n".join(["trial,epoch,macro_f1,seconds", *rows]) + "\n")
    for trial in range(3):
        for run, seconds in (("one", 0.5), ("other", 0.25)):
            path = folder / "runs" / f"{trial:05d}" / run
            path.mkdir(parents=True)
            lines: list[dict[str, Any]] = [
                {"kind": "epoch", "epoch": 0, "seconds": seconds},
                {"kind": "step", "epoch": 0, "loss": 1.0},
            ]
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in 2 * lines))
    assert trial_cost.overheads(study, study.search_ids[0]) == pytest.approx([3 - 1.5, 4 - 1.5])
