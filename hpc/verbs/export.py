"""`export`: a finished run as files that other programs run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import options
from leukotree.errors import InputError
from leukotree.progress import step

if TYPE_CHECKING:
    from hpc.studies.study import Study
    from leukotree.report.summary import StudySummary


def define_export(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "export",
        "write a finished run for other programs: ONNX, torch.export, timm's weights, a model card, a script",
        "leukotree export sweeps/phantom.yaml exported --variant flat --fold 0",
        run_export,
    )
    verb.add_argument("study", metavar="STUDY|RUN", help="a study's YAML file, or the folder of a run")
    verb.add_argument("out", metavar="OUT", help="the new folder")
    options.overrides(verb)
    verb.add_argument(
        "--variant",
        metavar="NAME",
        help="of the study's runs, one of this variant: that of the verb refit, or with --fold one of an "
        "outer fold",
    )
    verb.add_argument("--fold", type=options.count, metavar="K", help="... without outer fold K")
    verb.add_argument("--repeat", type=options.count, metavar="R", help="... of this repeat")
    verb.add_argument("--seed", type=options.count, metavar="S", help="... of this seed")
    verb.add_argument(
        "--images",
        metavar="DIR",
        help="compare the export with the run on the images of this folder (default: its test fold)",
    )


def run_export(arguments: Namespace) -> int:
    step("importing torch and timm")
    from leukotree.inference import loaded
    from leukotree.inference.export.export import export

    out = Path(arguments.out)
    folder, summary = _chosen(arguments)
    step("loading the run")
    run = loaded.load(folder)
    images = Path(arguments.images) if arguments.images else None
    done = export(run, out, summary, images)
    for name, difference in done.differences.items():
        print(f"{name}: differs from the run by {difference:.1e} at most, on {done.checked}")
    print(f"{out}/README.md")
    return 0


def _chosen(arguments: Namespace) -> tuple[Path, StudySummary | None]:
    """The folder of the run, and its study where that was named. Raises InputError unless it is one run."""
    from hpc import collected
    from hpc.studies import study as studies
    from leukotree.inference.export.choice import KEYS, choose

    given = Path(arguments.study)
    wanted = {key: getattr(arguments, key) for key in KEYS if key in vars(arguments)}
    if given.is_dir():
        named = [f"--{key}" for key, value in wanted.items() if value is not None] + arguments.overrides
        if named:
            raise InputError(f"{given}: is one run; leave out {' '.join(named)}, or name a study's file")
        return given, None
    plan = studies.load(given, arguments.overrides)
    summary = collected.summary(plan)
    if all(wanted[key] is None for key in ("fold", "repeat", "seed")):
        refitted = _refitted(plan, wanted["variant"])
        if len(refitted) == 1:
            return refitted[0], summary
    return choose(summary, wanted).folder, summary


def _refitted(plan: Study, variant: str | None) -> list[Path]:
    """The finished runs of `leukotree refit`. Raises InputError for one that has other data than today."""
    from hpc.launching import run_states, stale
    from hpc.search import choice
    from hpc.studies import refit

    chosen = choice.chosen(plan, partial=True)
    wanted = [name for name in plan.variants if chosen.get(name) and variant in (None, name)]
    specs = [one.spec for one in refit.refits(plan, chosen, wanted)]
    done = [spec for spec in specs if run_states.read(plan.root / spec.run_name).state == "done"]
    stale.check_runs(plan.root, done)
    return [plan.root / spec.run_name for spec in done]
