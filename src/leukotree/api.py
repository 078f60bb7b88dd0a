"""LeukoTree in Python: `leukotree.open`, `load`, `results` and `study`.

`import leukotree` imports none of this module. A name of NAMES is looked up when it is first used, and each
function imports what it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from leukotree.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from leukotree.data.dataset import Dataset
    from leukotree.inference.predictor import Predictor
    from leukotree.report.summary import StudySummary

STUDIES = "leukotree.studies"
"""The entry points of a launcher: a function from a study's file or fields to a `Collected`. The science does
not know the launcher, which registers itself when the package is installed."""


@runtime_checkable
class Collected(Protocol):
    """A study that can collect its finished runs, such as `hpc.api.OpenStudy`."""

    def summary(self) -> StudySummary:
        """What the study's report is made from."""


def open(shards: str | Path, repeat: int = 0) -> Dataset:
    """A packed data set, checked: of a folder, or of an address. `repeat`: the deal of the patients to folds.

    Raises InputError naming the file and what is wrong with it, and RunFailed where the server of an address
    does not answer.
    """
    from leukotree.data.dataset import Dataset
    from leukotree.data.remote import address

    address.trust(shards)
    return Dataset.open(shards, repeat=repeat)


def load(run: str | Path, device: str = "cpu") -> Predictor:
    """A finished run with its weights, to predict images: `load(run).predict(["a.png", "b.png"])`.

    Args:
        run: its folder, `results/runs/STUDY/VARIANT-HASH`.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.

    Raises InputError as `leukotree.inference.loaded.load`, and for a device that is not here.
    """
    from leukotree.inference import loaded
    from leukotree.inference.predictor import Predictor

    return Predictor(loaded.load(Path(run), _engine(device)))


def _engine(device: str) -> Any:
    import torch

    from leukotree.distributed.engine import Engine, require_device, settle

    if device not in ("cpu", "cuda", "auto"):
        raise InputError(f"device {device!r}: use cpu, cuda or auto")
    require_device(device)
    wanted = "cuda" if device == "auto" and torch.cuda.is_available() else device
    chosen = torch.device("cpu" if wanted == "auto" else wanted)
    settle(chosen)
    return Engine(0, 1, chosen)


def study(file: str | Path | None = None, /, *overrides: str, **fields: Any) -> Any:
    """A study from its file or its fields, checked: `study("sweeps/phantom.yaml", "search.trials=4")`, or
    `study(study="mine", variants=["flat", "base"])`. See `hpc.api.study`.

    Raises InputError naming the file or the key, and where no launcher is installed.
    """
    from importlib.metadata import entry_points

    for launcher in entry_points(group=STUDIES):
        return launcher.load()(file, *overrides, **fields)
    raise InputError(
        "study: no launcher is registered under the entry point leukotree.studies; install the package again "
        "(make install), or write `from hpc import study`"
    )


def results(study: Collected | StudySummary | str | Path) -> pd.DataFrame:
    """The stored predictions of a study's finished runs: a row for each run and image.

    The columns are those of `leukotree.report.tidy.predictions`: run, arm, variant, repeat, fold, seed, key,
    patient, source, leaf, decided, and a probability "p:<leaf>" for each leaf. The runs are those of the
    study's report: expected by the study, with the chosen values, and made from today's data.

    Args: study: what `study` returns, or the file or the name of a study.

    Raises InputError as `leukotree report`, such as for stale runs and before the first run.
    """
    from leukotree.report import tidy
    from leukotree.report.summary import StudySummary

    opened: Any = _opened(study) if isinstance(study, str | Path) else study
    if isinstance(opened, Collected):
        opened = opened.summary()
    if not isinstance(opened, StudySummary):
        raise InputError(f"results: expected a study or its file, got {type(study).__name__}")
    return tidy.predictions(opened)


_opened = study
"""`study`, where a parameter has its name."""
