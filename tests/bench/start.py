"""Start of a run on two ranks: from the command to the end of its first step, against the bare imports that a
rank needs.

Ours is `leukotree train SPEC --ranks 2`: checks, launcher, processes, process group, models, the first batch
and one optimiser step. The run's own record says when the step ended: the moment at which it began to train
(status.json) and the seconds of its first epoch, which has one step (metrics.jsonl). The other is one fresh
process that imports every module of other packages that a rank has imported, and ends.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from pairs import arguments, compare, save

from hpc.launching.ranks import IMPORTS
from leukotree.data import phantom
from leukotree.data.pack import pack
from leukotree.records.runfolder import read_metrics

IMAGES = 84
"""In each of the two folds: one is trained on, all of it in one step."""
SPEC = {
    "variant": "flat",
    "data": {"shards": "shards", "test_fold": 0},
    "backbone": {"name": "test_vit"},
    "optim": {"epochs": 1, "batch_size": IMAGES},
    "engine": {"precision": "fp32"},
}
LIST = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for name, module in list(sys.modules.items()):
    if "site-packages" in (getattr(module, "__file__", None) or "") and not name.startswith("_"):
        print(name)
"""
IMPORT = """
import contextlib, importlib, sys
for name in sys.stdin.read().split():
    with contextlib.suppress(ImportError):  # some are names that a package gives to parts of itself
        importlib.import_module(name)
"""


def start(folder: Path) -> float:
    """Seconds from the command to the end of the first step."""
    runs = folder / "results" / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    command = [sys.executable, "-m", "hpc.cli", "train", "spec.yaml", "--ranks", "2", "--device", "cpu"]
    began, training = time.time(), None
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for file in runs.glob("*/*/status.json"):
                status = json.loads(file.read_text())
                if status["state"] == "running" and training is None:
                    training = status["heartbeat"]
            time.sleep(0.01)
    [metrics] = runs.glob("*/*/metrics.jsonl")
    rows = read_metrics(metrics.parent)
    assert process.returncode == 0
    assert training is not None
    assert [row["kind"] for row in rows] == ["step", "epoch"]
    return training + rows[1]["seconds"] - began


def imports(modules: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORT], input=modules, text=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    options = arguments(__doc__ or "")
    modules = subprocess.run(
        [sys.executable, "-c", LIST, *IMPORTS], capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        pack(
            phantom.write(folder / "images", patients=28, per_patient=6, size=64),
            folder / "shards",
            folds=2,
            size=48,
        )
        (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
        comparison = compare(
            "Start of a run on two ranks",
            ("command to first step", lambda: start(folder)),
            ("bare imports", lambda: imports(modules)),
            unit="s",
            goals={"ratio": "< 2"},
            pairs=options.pairs,
        )
    if not options.no_save:
        save("start", [comparison])


if __name__ == "__main__":
    main()
