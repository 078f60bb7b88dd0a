"""The search, here and as a job: `sweep` and `submit`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import options
from hpc.verbs import given
from leukotree.errors import InputError
from leukotree.progress import step

if TYPE_CHECKING:
    from hpc.search.elastic import Elastic
    from hpc.search.trial_place import TrialPlace
    from hpc.studies.study import Study
    from leukotree.runtime import Runtime


def define_sweep(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "sweep",
        "search the hyperparameters of each variant for each outer fold; the same command continues the "
        "search",
        "leukotree sweep sweeps/phantom.yaml --concurrency 2",
        run_sweep,
    )
    options.study(verb)
    verb.add_argument(
        "--ray-address",
        metavar="ADDR",
        help="use a Ray cluster that runs already (auto); without it one is started here",
    )
    verb.add_argument(
        "--ray-nodes",
        type=options.positive,
        default=1,
        metavar="N",
        help="wait until that cluster has N machines (default %(default)s)",
    )
    _trial_options(verb)
    verb.add_argument(
        "--elastic",
        type=options.positive,
        metavar="N",
        help="run the trials on up to N worker jobs, which begin and end at any time; for slurm/sweep.sh; "
        "see `leukotree submit --help`",
    )
    verb.add_argument("--workers-folder", metavar="DIR", help=argparse.SUPPRESS)  # slurm/sweep.sh gives it
    verb.add_argument(
        "--site", metavar="NAME", help=f"{options.SITE}: its trackers, and what worker jobs ask for"
    )
    verb.add_argument(
        "--concurrency",
        type=options.positive,
        metavar="N",
        help="trials at the same time (default: as many as fit)",
    )
    verb.add_argument(
        "--optuna-storage",
        action="store_true",
        help="also keep the searches as studies of Optuna, for its dashboard, in "
        "results/runs/STUDY/search/optuna.log",
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="check, say what would run and what it costs, and stop"
    )
    verb.add_argument("--json", action="store_true", help="print the answer as JSON")
    options.runtime(verb)


def _trial_options(verb: options.Parser) -> None:
    verb.add_argument(
        "--gpus-per-trial",
        type=options.share,
        metavar="X",
        help="GPUs of a trial: 0.25 lets four small trials share one (default: 1, or 0 without GPUs)",
    )
    verb.add_argument(
        "--cpus-per-trial",
        type=options.positive,
        metavar="N",
        help="cores of a trial (default: its GPU's share of the node's cores, or 1 without GPUs)",
    )
    verb.add_argument(
        "--ranks-per-trial",
        type=options.positive,
        default=1,
        metavar="N",
        help="processes of a trial, on one node; the two options above then count for each process "
        "(default %(default)s)",
    )


def run_sweep(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck
    from hpc.search import sweep
    from hpc.search.trial_place import TrialPlace
    from hpc.studies import study
    from leukotree.records import commands

    plan = study.load(arguments.study, arguments.overrides)
    plan.require_search()
    step("importing torch and timm, and looking at the data")
    precheck.check_search(plan, arguments.ranks_per_trial)
    place = TrialPlace(
        address=arguments.ray_address,
        nodes=arguments.ray_nodes,
        ranks=arguments.ranks_per_trial,
        cpus=arguments.cpus_per_trial,
        gpus=arguments.gpus_per_trial,
        concurrency=arguments.concurrency,
        elastic=_elastic(arguments),
    )
    arguments.site = arguments.site or os.environ.get("SITE") or None  # as slurm/sweep.sh and `submit`
    runtime = given.runtime(arguments, plan)
    sweep.prepare(plan, place, runtime)
    if arguments.dry_run:
        sweep.require_free(plan)
        print(_planned(plan, place, runtime, arguments.json))
        return 0
    command = commands.given("sweep", arguments.study, arguments.overrides)
    choices = sweep.sweep(plan, place, runtime, command, arguments.optuna_storage)
    if arguments.json:
        print(json.dumps(list(choices.values())))
        return 0
    for search_id, best in choices.items():
        chosen = "  ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in best["chosen"].items()
        )
        name = search_id if plan.search.nested else search_id.variant
        print(f"{name}: {best['metric']} {best['value']:.4f}  {chosen}")
    return 0


def _planned(plan: Study, place: TrialPlace, runtime: Runtime, as_json: bool) -> str:
    """What a dry run says."""
    from hpc.doctor import forecast, upfront
    from hpc.search import sweep

    cost = forecast.of_search(plan, sweep.open_records(plan), sweep.devices(place, runtime))
    if as_json:
        return json.dumps({**sweep.counts(plan), "forecast": cost.as_dict()})
    search = plan.search
    most = "" if search.scheduler == "none" else "at most "  # some trials are stopped early
    total = upfront.line(sweep.counts(plan), [plan.epochs(one) for one in plan.variants], ended="over")
    one = f"all outer folds, beside fold {plan.search_ids[0].test_fold}"
    repeats = f" in each of {plan.folds.repeats} repeats" if plan.folds.repeats > 1 else ""
    folds = f"each of {plan.folds.outer} outer folds{repeats}" if search.nested else one
    top = search.rerun_count(search.trials)
    again = f", then the best {top} again on {search.rerun_seeds} seeds" if top else ""
    trials = f"{search.trials} trials each of {plan.folds.inner} inner folds"
    variants = ", ".join(plan.variants)
    fold = plan.base.data.test_fold
    outer = [plan.spec(variant, {}, fold, plan.seeds[0]) for variant in plan.variants]
    lines = [
        *upfront.compute_lines(outer),
        most + total,
        *cost.lines(),
        f"would search {variants} for {folds}: {trials}{again}",
    ]
    return "\n".join(lines)


def _elastic(arguments: Namespace) -> Elastic | None:
    """The workers of an elastic search. Raises InputError outside of the job of slurm/sweep.sh."""
    from hpc.search.elastic import Elastic
    from hpc.slurm.site import load as load_site

    if not arguments.elastic:
        return None
    if not (arguments.ray_address and arguments.workers_folder):
        elastic = f"--elastic {arguments.elastic}"
        typed = shlex.join([arguments.study, *arguments.overrides])
        raise InputError(
            f"{elastic}: the job of slurm/sweep.sh takes it; use `leukotree submit {typed} {elastic}`"
        )
    return Elastic(arguments.elastic, Path(arguments.workers_folder), load_site(arguments.site))


def define_submit(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "submit",
        "queue slurm/sweep.sh for a study with the options of a site: search, folds, report",
        "leukotree submit sweeps/deepapl.yaml --site a100 -- --gpus-per-trial 0.5",
        run_submit,
    )
    options.study(verb)
    verb.add_argument("--site", metavar="NAME", help=f"{options.SITE} (default: $SITE, or default)")
    verb.add_argument(
        "--elastic",
        type=options.positive,
        metavar="N",
        help="search with up to N worker jobs at a time, which may begin and end at any time",
    )
    verb.add_argument("--dry-run", action="store_true", help="check, print the command, and stop")
    verb.epilog = f"{verb.epilog}. What follows `--` goes to `leukotree sweep`."


def run_submit(arguments: Namespace) -> int:
    step("looking at the study, its data and the site")
    from hpc import submit

    words = [*arguments.overrides, *arguments.options]
    sweep = _sweep_arguments(arguments.study, words)
    command = submit.command(
        arguments.study,
        words,
        overrides=sweep.overrides,
        ranks=sweep.ranks_per_trial,
        site_name=arguments.site,
        elastic=arguments.elastic,
    )
    print(command.shell())
    if not arguments.dry_run:
        print(f"job {command.run()}; `leukotree status {command.study}` says how far it is")
    return 0


def _sweep_arguments(study: str, words: list[str]) -> Namespace:
    """What `leukotree sweep` will be given by the job. SystemExit for a bad option."""
    top = options.Parser(prog="leukotree")
    define_sweep(top.add_subparsers(parser_class=options.Parser))
    return top.parse_args(["sweep", study, *words])
