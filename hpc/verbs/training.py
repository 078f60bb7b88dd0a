"""Runs: `train`, `folds`, `grid` and `refit`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpc import options
from hpc.verbs import given
from leukotree.errors import RunFailed
from leukotree.progress import step

if TYPE_CHECKING:
    from hpc.launching.place import Place
    from hpc.studies.cells import Cell
    from hpc.studies.study import Study
    from leukotree.spec import RunSpec

FEW = 40
"""Runs that a dry run lists by name."""


def define_train(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "train",
        "train and score one run; the same command continues it",
        "leukotree train run.yaml optim.lr=1e-3 variant=flat --ranks 2",
        run_train,
    )
    verb.add_argument(
        "spec", metavar="SPEC", help="the spec.yaml of a run, or a YAML file with some of its keys"
    )
    verb.add_argument("overrides", metavar="key=value", nargs="*", help="change a field, as in optim.lr=1e-3")
    verb.add_argument(
        "--study",
        type=options.name,
        default="single",
        help="the run's folder is results/runs/STUDY/... (default %(default)s)",
    )
    verb.add_argument("--dry-run", action="store_true", help="check, say what would run, and stop")
    options.where(verb, default="inline")
    options.runtime(verb)
    options.probe(verb)


def run_train(arguments: Namespace) -> int:
    step("reading the spec")
    from hpc.doctor import precheck, upfront
    from hpc.launching import runs, stale
    from hpc.studies.study import RUNS
    from leukotree import spec
    from leukotree.data.remote import address

    wanted = spec.load(arguments.spec, arguments.overrides)
    address.trust(wanted.data.shards)
    place = given.place(arguments)
    step("looking at the models and the data")
    if arguments.on == "inline" and not arguments.dry_run:
        runs.prepare_ranks(arguments.ranks)  # it imports while this process imports and checks
    from leukotree.records import commands
    from leukotree.training import plan

    with precheck.answering():
        plan.check(wanted, arguments.ranks)
    root = RUNS / arguments.study
    runtime = given.runtime(arguments)
    stale.check_runs(root, [wanted])
    todo = upfront.one(wanted, root, place, runtime)
    if arguments.dry_run:
        print(upfront.line(upfront.counts([wanted], root), [wanted.epochs]))
        print(*upfront.compute_lines([wanted]), sep="\n")
        if refused := upfront.refused([wanted], root):
            raise RunFailed(refused[wanted.run_name])
        print(f"would train {root / wanted.run_name} on {arguments.ranks} rank(s), {arguments.on}")
        return 0
    words = [*arguments.overrides, *_study_option(arguments)]
    result = runs.run_spec(
        wanted,
        root,
        place,
        runtime=runtime,
        todo=todo,
        command=commands.given("train", arguments.spec, words, [wanted.run_name]),
    )
    print(f"{result.folder}: " + "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
    return 0


def define_folds(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "folds",
        "train each variant on each outer fold and seed with the chosen values; does only what is missing",
        "leukotree folds sweeps/phantom.yaml --on slurm --site a100",
        run_folds,
    )
    options.study(verb)
    verb.add_argument(
        "--inner",
        action="store_true",
        help="also train the inner folds with the chosen values, on the first seed; the report's thresholds, "
        "temperatures and prediction sets need them where no search left its trials' run folders",
    )
    options.many(verb)


def run_folds(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck
    from hpc.search import choice
    from hpc.studies import study

    plan = study.load(arguments.study, arguments.overrides)
    step("looking at the models, the data and the search")
    precheck.check_data(plan)
    chosen = choice.chosen(plan)
    specs = plan.fold_specs(chosen) + (plan.inner_specs(chosen) if arguments.inner else [])
    _check_runs(plan, specs, arguments.ranks)
    return _launch(plan, specs, given.place(arguments), arguments)


def define_refit(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "refit",
        "train each variant once more on the images of all folds, with the chosen values: a model for use, "
        "which is never scored. What is known of its quality is the study's cross-validated score",
        "leukotree refit sweeps/phantom.yaml --variant flat",
        run_refit,
    )
    options.study(verb)
    verb.add_argument("--variant", metavar="NAME", help="only this variant (default: all)")
    options.many(verb)


def run_refit(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck
    from hpc.search import choice
    from hpc.studies import refit, study

    plan = study.load(arguments.study, arguments.overrides)
    step("looking at the models, the data and the search")
    precheck.check_data(plan)
    variants = [arguments.variant] if arguments.variant else plan.variants
    refits = refit.refits(plan, choice.chosen(plan), variants)
    refit.require_cells(plan, refits)
    specs = [one.spec for one in refits]
    _check_runs(plan, specs, arguments.ranks)
    if not arguments.json:
        print(*(f"{one.line(plan)}; {plan.root / one.spec.run_name}" for one in refits), sep="\n")
    code = _launch(plan, specs, given.place(arguments), arguments)
    if not arguments.json:
        print(
            "never scored: nothing was measured for these models; the report has the scores of their method"
        )
    return code


def define_grid(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "grid",
        "train each cell of a study's grid on each outer fold and seed; does only what is missing",
        "leukotree grid sweeps/ablation.yaml --dry-run",
        run_grid,
    )
    options.study(verb)
    verb.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="show what differs between two cells (numbers) or runs (names), and stop",
    )
    options.many(verb)


def run_grid(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck
    from hpc.studies import cells, study

    plan = study.load(arguments.study, arguments.overrides)
    grid = cells.expand(plan)
    if arguments.diff:
        print(*cells.difference(plan.root, grid, *arguments.diff), sep="\n")
        return 0
    step("looking at the models and the data")
    specs = [cell.spec for cell in grid]
    precheck.check_data(plan, grid)
    _check_runs(plan, specs, arguments.ranks)
    return _launch(plan, specs, given.place(arguments), arguments, grid)


def _study_option(arguments: Namespace) -> list[str]:
    return [] if arguments.study == "single" else ["--study", arguments.study]


def _check_runs(plan: Study, specs: list[RunSpec], ranks: int) -> None:
    """Refuse runs that cannot begin here, and finished ones that were made from other data or weights."""
    from hpc.doctor import precheck
    from hpc.launching import stale

    precheck.check_runs(specs, ranks)
    stale.check_runs(plan.root, specs)


def _launch(
    plan: Study, specs: list[RunSpec], place: Place, arguments: Namespace, grid: Sequence[Cell] = ()
) -> int:
    """Do what is missing of a study's runs, and print the result; with --dry-run only count what is missing.
    `grid`: the cells, where the runs are those of a grid."""
    from hpc.doctor import upfront
    from hpc.launching import runs, stale
    from hpc.studies import cells
    from leukotree.log import logger
    from leukotree.records import commands

    root, runtime = plan.root, given.runtime(arguments, plan)
    if line := stale.at_another_path(root, specs):
        logger.warning(line)
    todo = upfront.planned(specs, root, place, runtime=runtime, retry_failed=arguments.retry_failed)
    if arguments.dry_run:
        return _dry_run(plan, specs, todo, place, arguments, grid)
    if grid:
        cells.write(root, grid)
    names = [spec.run_name for spec in specs]
    words = [*arguments.overrides, *(["--inner"] if getattr(arguments, "inner", False) else [])]
    words += ["--variant", arguments.variant] if getattr(arguments, "variant", None) else []
    result = runs.run_many(
        specs,
        root,
        place,
        wait=not arguments.no_wait,
        parallel=arguments.parallel,
        retry_failed=arguments.retry_failed,
        runtime=runtime,
        title=arguments.verb,
        study=plan.model_dump(mode="json"),
        todo=todo,
        command=commands.given(arguments.verb, arguments.study, words, names),
    )
    print(json.dumps(result.as_dict()) if arguments.json else "\n".join(result.lines()))
    return 1 if result.failed else 0


def _dry_run(
    plan: Study,
    specs: list[RunSpec],
    todo: list[RunSpec],
    place: Place,
    arguments: Namespace,
    grid: Sequence[Cell],
) -> int:
    """Print which runs are missing, how much there is to train and what it costs, and which runs will fail.
    Returns the exit code."""
    from hpc.doctor import forecast, upfront
    from hpc.studies import cells

    root = plan.root
    at_once = forecast.devices(place, arguments.parallel, given.runtime(arguments, plan))
    cost = forecast.of_runs(plan, todo, at_once)
    counts, refused = upfront.counts(specs, root), upfront.refused(todo, root)
    missing = [spec.run_name for spec in todo]
    if arguments.json:
        more = {"cells": cells.rows(grid)} if grid else {}
        answer = {"runs": len(specs), "missing": missing, "failed": refused, **counts, **more}
        print(json.dumps({**answer, "compute": upfront.compute(specs), "forecast": cost.as_dict()}))
        return 1 if refused else 0
    lines = cells.table(grid) if grid else []
    lines += [f"would train {root / name}" for name in missing[:FEW]]
    lines += [f"... and {len(missing) - FEW} more"] if len(missing) > FEW else []
    lines += upfront.compute_lines(specs)
    lines += [upfront.line(counts, [spec.epochs for spec in specs])]
    lines += cost.lines() if todo else []
    lines += [f"failed: {name}: {reason}" for name, reason in refused.items()]
    print(*lines, f"{len(missing)} of {len(specs)} runs are missing", sep="\n")
    return 1 if refused else 0
