"""A study at work, as files in the current folder: a search with trials, and runs of outer folds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hpc.search import choice
from hpc.search.record import Record
from hpc.studies.study import SearchId, Study
from leukotree.config import parse
from leukotree.records import searchfolder

FLAT = SearchId("flat", 0)
FILE = {
    "study": "s",
    "base": {"optim": {"epochs": 3}},
    "variants": ["flat", "base"],
    "folds": {"outer": 4, "inner": 2},
    "search": {"trials": 4, "nested": False, "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}}},
}


def study_at_work() -> tuple[Study, Record]:
    """Two searches of four trials. In the first, two trials completed, one was stopped, one runs its second
    epoch of three on two inner folds, with 120.5 images/s each. The second has not begun. Of the runs two are
    done, one runs and one failed."""
    study = parse(Study, FILE, "test")
    choice.write_settings(study, study.search_ids, "0" * 64)
    record = Record(study, FLAT)
    for number, scores in enumerate([(0.1, 0.2, 0.3), (0.2, 0.8, 0.4), (0.9,)]):
        trial = record.draw({"optim.lr": 1e-3})
        for epoch, score in enumerate(scores, 1):
            record.report(trial, epoch, score, 10.0 * (3 * number + epoch))
        record.end(trial, "completed" if len(scores) == 3 else "stopped")
    trial = record.draw({"optim.lr": 1e-3})
    for spec in study.trial_specs("flat", trial.chosen, 0):
        folder = searchfolder.trial_folder(record.folder, trial.number) / spec.run_name
        run(folder, "running", 1)
        row = {"kind": "epoch", "epoch": 0, "seconds": 3.0, "images_per_s": 120.5}
        (folder / "metrics.jsonl").write_text(
            json.dumps({"kind": "step", "epoch": 0}) + "\n" + json.dumps(row)
        )
    for number, (state, epoch) in enumerate([("done", 3), ("done", 3), ("running", 1)]):
        run(study.root / f"flat-{number:012x}", state, epoch)
    run(study.root / f"flat-{3:012x}", "failed", 1, kind="oom", message="CUDA out of memory")
    return study, record


def run(folder: Path, state: str, epoch: int, seconds: float = 20.0, **status: Any) -> None:
    """A run folder that began `seconds` ago and wrote its status just now."""
    folder.mkdir(parents=True)
    fields = {"state": state, "epoch": epoch, "epochs": 3, "heartbeat": time.time(), **status}
    (folder / "status.json").write_text(json.dumps(fields))
    (folder / "attempts.jsonl").write_text(json.dumps({"started": time.time() - seconds}) + "\n")
