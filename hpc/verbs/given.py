"""What the options of a command mean: where to run, how to compute, which study's folder."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from leukotree.errors import InputError

if TYPE_CHECKING:
    from hpc.launching.place import Place
    from hpc.studies.study import Study
    from leukotree.runtime import Runtime

RESULTS = Path("results")
"""The folder of the reports. A study's report is in RESULTS/STUDY, its runs in RESULTS/runs/STUDY."""


def place(arguments: Namespace) -> Place:
    """Where runs happen. Raises InputError where the options do not fit each other or the site."""
    from hpc.launching.place import Place
    from hpc.slurm.site import load as load_site

    place = Place(arguments.on, arguments.ranks, arguments.nodes, load_site(arguments.site))
    place.check()
    return place


def runtime(arguments: Namespace, plan: Study | None = None, follow: bool = True) -> Runtime:
    """How runs compute. `plan`: their study. `follow`: whether the trackers of the site or the study follow
    them. Raises InputError for a tracker that is not installed."""
    from hpc.deepspeed import settings
    from hpc.slurm.site import load as load_site
    from hpc.studies import study
    from leukotree.data import featurefile as features
    from leukotree.data.remote import scratch
    from leukotree.runtime import CACHE_GB, Runtime
    from leukotree.trackers import choice

    trackers: tuple[choice.Tracker, ...] = ()
    mlflow_uri = None
    if follow:
        site = load_site(arguments.site)
        trackers = site.trackers if plan is None or plan.trackers is None else plan.trackers
        mlflow_uri = (plan.mlflow_uri if plan else None) or site.mlflow_uri
        choice.check(trackers, mlflow_uri)

    # The variable's name, not its value: it may have another value on the node that trains.
    cache = arguments.cache or ("$LEUKOTREE_CACHE" if os.environ.get("LEUKOTREE_CACHE") else None)
    folder = Path(cache) if cache else None
    scratch.use(folder, arguments.cache_gb)
    return Runtime(
        device=arguments.device,
        workers=arguments.workers,
        threads=arguments.threads,
        cache=folder,
        cache_gb=arguments.cache_gb or CACHE_GB,
        scratch=folder,
        scratch_gb=arguments.cache_gb,
        features=study.RUNS / features.FOLDER,
        save_s=60 * arguments.save_minutes,
        deepspeed=settings.settings(arguments.deepspeed),
        trackers=tuple(dict.fromkeys(trackers)),
        mlflow_uri=mlflow_uri if "mlflow" in trackers else None,
        probe=vars(arguments).get("probe", 0),
    )


def study_folder(arguments: Namespace) -> Path:
    """The folder of a study that is given by its file or by its name. Raises InputError for changes to a
    name."""
    from hpc.studies import study

    named, overrides = Path(arguments.study), arguments.overrides
    if named.suffix in (".yaml", ".yml"):
        return study.load(named, overrides).root
    if overrides:
        raise InputError(
            f"{' '.join(overrides)}: changes a study's file, and {named} is a name; give the file, or the "
            "name alone"
        )
    return study.RUNS / named
