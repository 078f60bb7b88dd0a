"""What each verb of `leukotree` does: unpack arguments, call the one function, print. Returns the exit
code."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leukotree.errors import InputError, RunFailed
from leukotree.progress import step
from leukotree.runtime import Runtime

if TYPE_CHECKING:
    from hpc.launching.sender import Place
    from hpc.search.sweep import Elastic
    from hpc.studies.cells import Cell
    from hpc.studies.study import Study
    from leukotree.spec import RunSpec

RESULTS = Path("results")
FEW = 40
"""Runs that a dry run lists by name."""


def run_phantom(arguments: Namespace) -> int:
    from leukotree.data import phantom
    from leukotree.records import made

    manifest = phantom.write(
        Path(arguments.out),
        patients=arguments.patients,
        per_patient=arguments.per_patient,
        size=arguments.size,
        seed=arguments.seed,
    )
    made.note_manifest(manifest, arguments.words)
    print(f"{manifest}: {arguments.patients} patients, {arguments.patients * arguments.per_patient} images")
    return 0


def run_import(arguments: Namespace) -> int:
    step(f"reading {arguments.root}")
    from leukotree.data.sources import import_source
    from leukotree.data.sources.leaves import renames
    from leukotree.records import made
    from leukotree.taxonomy import Taxonomy

    summary = import_source(
        arguments.source,
        Path(arguments.root),
        Path(arguments.manifest),
        cell_types=arguments.cell_types,
        benign=arguments.benign,
        taxonomy=Taxonomy.load(arguments.taxonomy) if arguments.taxonomy else None,
        new_names=renames(arguments.leaf),
        skip=arguments.skip,
        follow_links=arguments.follow_links,
    )
    made.note_manifest(Path(arguments.manifest), arguments.words)
    print(*summary.lines(), sep="\n")
    return 0


def run_pack(arguments: Namespace) -> int:
    step("reading the manifest")
    from leukotree.data.pack import pack
    from leukotree.records import made
    from leukotree.taxonomy import Taxonomy

    taxonomy = Taxonomy.load(arguments.taxonomy) if arguments.taxonomy else None
    summary = pack(
        Path(arguments.manifest),
        Path(arguments.shards),
        folds=arguments.folds,
        size=arguments.size,
        seed=arguments.seed,
        drop_broken=arguments.drop_broken,
        taxonomy=taxonomy,
        workers=arguments.workers,
        similar_ids=arguments.similar_ids,
        patients_across_sources=arguments.patients_across_sources,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
        group_duplicates=arguments.group_duplicates,
        pseudonyms=_outside_results(arguments.pseudonyms),
    )
    # The words of an import may name patients, as in --skip.
    made.note_shards(
        Path(arguments.shards), [] if arguments.pseudonyms else [Path(arguments.manifest)], arguments.words
    )
    print(*summary.lines(), sep="\n")
    return 0


def _outside_results(table: str | None) -> Path | None:
    """The table of pseudonyms. Raises InputError where it would lie among runs and reports, which others are
    given."""
    if table and RESULTS.resolve() in Path(table).resolve().parents:
        raise InputError(
            f"{table}: lies in {RESULTS}, which others are given; keep the table of pseudonyms elsewhere"
        )
    return Path(table) if table else None


def run_audit(arguments: Namespace) -> int:
    step("reading the index")
    from leukotree.data.audit import contact_sheet
    from leukotree.data.audit.audit import audit

    found = audit(Path(arguments.shards))
    if arguments.html:
        contact_sheet.write(found, Path(arguments.html))
    print(json.dumps(found.as_dict()) if arguments.json else "\n".join(found.lines()))
    return 0 if found.ok else 1


def run_train(arguments: Namespace) -> int:
    step("reading the spec")
    from hpc.doctor import upfront
    from hpc.launching import runs, stale
    from hpc.studies.study import RUNS
    from leukotree import spec

    wanted = spec.load(arguments.spec, arguments.overrides)
    place = _place(arguments)
    step("importing torch and timm, and looking at the data")
    if arguments.on == "inline" and not arguments.dry_run:
        runs.prepare_ranks(arguments.ranks)  # imports as long as we do
    from leukotree.records import commands
    from leukotree.training import run

    run.check(wanted, arguments.ranks)
    root = RUNS / arguments.study
    runtime = _runtime(arguments)
    stale.check_runs(root, [wanted])
    if arguments.dry_run:
        upfront.one(wanted, root, place, runtime)
        print(upfront.line(upfront.counts([wanted], root), [wanted.optim.epochs]))
        if refused := upfront.refused([wanted], root):
            raise RunFailed(refused[wanted.run_name])
        print(f"would train {root / wanted.run_name} on {arguments.ranks} rank(s), {arguments.on}")
        return 0
    words = [*arguments.overrides, *_study_option(arguments)]
    result = runs.run_spec(
        wanted,
        root,
        on=place.on,
        ranks=place.ranks,
        nodes=place.nodes,
        site=place.site,
        runtime=runtime,
        command=commands.given("train", arguments.spec, words, [wanted.run_name]),
    )
    print(f"{result.folder}: " + "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
    return 0


def _study_option(arguments: Namespace) -> list[str]:
    return [] if arguments.study == "single" else ["--study", arguments.study]


def run_sweep(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck, upfront
    from hpc.search import sweep
    from hpc.studies import study
    from leukotree.records import commands

    plan = study.load(arguments.study, arguments.overrides)
    search = plan.require_search()
    step("importing torch and timm, and looking at the data")
    precheck.check_search(plan, arguments.ranks_per_trial)
    options: dict[str, Any] = {
        "address": arguments.ray_address,
        "cpus_per_trial": arguments.cpus_per_trial,
        "gpus_per_trial": arguments.gpus_per_trial,
        "concurrency": arguments.concurrency,
        "ranks": arguments.ranks_per_trial,
        "elastically": _elastic(arguments),
        "runtime": _runtime(arguments),
    }
    sweep.prepare(plan, **options)
    if arguments.dry_run:
        sweep.require_free(plan)
        most = "at most " if search.scheduler == "asha" else ""  # some trials are stopped early
        print(most + upfront.line(sweep.counts(plan), [plan.base.optim.epochs], ended="over"))
        one = f"all outer folds, beside fold {plan.search_ids[0].test_fold}"
        place = f"each of {plan.folds.outer} outer folds" if search.nested else one
        again = (
            f", then the best {search.rerun_top} again on {search.rerun_seeds} seeds"
            if search.rerun_top
            else ""
        )
        print(
            f"would search {', '.join(plan.variants)} for {place}: {search.trials} trials each of {plan.folds.inner} inner "
            f"folds{again}"
        )
        return 0
    command = commands.given("sweep", arguments.study, arguments.overrides)
    found = sweep.sweep(plan, nodes=arguments.ray_nodes, command=command, **options)
    for search_id, best in found.items():
        chosen = "  ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in best["chosen"].items()
        )
        print(
            f"{search_id if search.nested else search_id.variant}: {best['metric']} {best['value']:.4f}  {chosen}"
        )
    return 0


def _typed(arguments: Namespace) -> str:
    """The study and the changes to it, as they were typed."""
    return shlex.join([arguments.study, *arguments.overrides])


def _elastic(arguments: Namespace) -> Elastic | None:
    """The workers of an elastic search. Raises InputError where no head of one is."""
    from hpc.search.sweep import Elastic
    from hpc.slurm.site import load as load_site

    if not arguments.elastic:
        return None
    if not (arguments.ray_address and arguments.workers_folder):
        elastic = f"--elastic {arguments.elastic}"
        raise InputError(
            f"{elastic}: the job of slurm/sweep.sh takes it; use `leukotree submit {_typed(arguments)} {elastic}`"
        )
    return Elastic(arguments.elastic, Path(arguments.workers_folder), load_site(arguments.site))


def run_folds(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck
    from hpc.launching import stale
    from hpc.search import leakage, sweep
    from hpc.studies import study

    plan = study.load(arguments.study, arguments.overrides)
    step("importing torch and timm, and looking at the data and the search")
    precheck.check_data(plan)
    leakage.check(plan)
    specs = plan.fold_specs(sweep.chosen(plan))
    precheck.check_runs(specs, arguments.ranks)
    stale.check_runs(plan.root, specs)
    return _launch(plan, specs, _place(arguments), arguments)


def run_grid(arguments: Namespace) -> int:
    step("reading the study")
    from hpc.doctor import precheck
    from hpc.launching import stale
    from hpc.studies import cells, study
    from leukotree.report.collect import check_primary

    plan = study.load(arguments.study, arguments.overrides)
    found = cells.expand(plan)
    if arguments.diff:
        print(*cells.difference(plan.root, found, *arguments.diff), sep="\n")
        return 0
    check_primary(plan.model_dump(mode="json"), cells.rows(found))
    step("importing torch and timm, and looking at the data")
    precheck.check_data(plan)
    precheck.check_runs([cell.spec for cell in found], arguments.ranks)
    stale.check_runs(plan.root, [cell.spec for cell in found])
    return _launch(plan, [cell.spec for cell in found], _place(arguments), arguments, found)


def _launch(
    plan: Study, specs: list[RunSpec], place: Place, arguments: Namespace, grid: Sequence[Cell] = ()
) -> int:
    """Do what is missing of a study's runs, and say what came of it; with --dry-run, only count it. `grid`:
    their cells."""
    from hpc.doctor import upfront
    from hpc.launching import runs, stale
    from hpc.studies import cells
    from leukotree.records import commands

    root, runtime = plan.root, _runtime(arguments)
    if line := stale.at_another_path(root, specs):
        print(f"leukotree {arguments.verb}: {line}", file=sys.stderr)
    todo = upfront.planned(specs, root, place, runtime=runtime, retry_failed=arguments.retry_failed)
    if arguments.dry_run:
        counts, missing, refused = (
            upfront.counts(specs, root),
            [spec.run_name for spec in todo],
            upfront.refused(todo, root),
        )
        if arguments.json:
            told = {"cells": cells.rows(grid)} if grid else {}
            print(json.dumps({"runs": len(specs), "missing": missing, "failed": refused, **counts, **told}))
            return 1 if refused else 0
        more = [f"... and {len(missing) - FEW} more"] if len(missing) > FEW else []
        named = [f"would train {root / name}" for name in missing[:FEW]]
        total = upfront.line(counts, [spec.optim.epochs for spec in specs])
        print(*(cells.table(grid) if grid else []), *named, *more, total, sep="\n")
        print(
            *(f"failed: {name}: {reason}" for name, reason in refused.items()),
            sep="\n",
            end="\n" if refused else "",
        )
        print(f"{len(missing)} of {len(specs)} runs are missing")
        return 1 if refused else 0
    if grid:
        cells.write(root, grid)
    names = [spec.run_name for spec in specs]
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
        command=commands.given(arguments.verb, arguments.study, arguments.overrides, names),
    )
    print(json.dumps(result.as_dict()) if arguments.json else "\n".join(result.lines()))
    return 1 if result.failed else 0


def run_status(arguments: Namespace) -> int:
    from hpc import advised, status
    from hpc.launching import run_states, stale
    from hpc.studies import study

    root = _root_of(arguments) if arguments.study else study.RUNS
    if arguments.study and not root.is_dir() and not run_states.jobs(root):
        raise InputError(
            f"{root}: no runs yet; start with `{advised.first(arguments.study, arguments.overrides)}`"
        )
    while True:
        look = stale.marked_all(root, run_states.look(root))
        if arguments.json and look.silent:
            print(f"leukotree status: jobs of SLURM are not known here: {look.silent}", file=sys.stderr)
        print(status.as_json(root, look) if arguments.json else status.table(root, look), flush=True)
        if not arguments.watch:
            return 0
        time.sleep(arguments.watch)
        print()


def _root_of(arguments: Namespace) -> Path:
    """The folder of a study that is given by its file or by its name. Raises InputError for changes to a
    name."""
    from hpc.studies import study

    named, overrides = Path(arguments.study), arguments.overrides
    if named.suffix in (".yaml", ".yml"):
        return study.load(named, overrides).root
    if overrides:
        raise InputError(
            f"{' '.join(overrides)}: changes a study's file, and {named} is a name; give the file, or the name alone"
        )
    return study.RUNS / named


def run_cancel(arguments: Namespace) -> int:
    from hpc.launching import cancel

    root = _root_of(arguments)
    if not root.is_dir():
        raise InputError(f"{root}: no such study has begun; `leukotree status` lists those that have")
    found = cancel.living(root)
    if arguments.dry_run:
        print(*(f"would end {line}" for line in found.lines()), sep="\n")
        return 0
    if found and not (arguments.yes or cancel.confirmed(root, found)):
        return 1
    refused = cancel.cancel(root)
    print(*(f"ended: {line}" for line in found.lines()), sep="\n", end="\n" if found else "")
    for line in refused:
        print(f"leukotree cancel: {line}", file=sys.stderr)
    if not refused:
        print(f"nothing of {root.name} is queued or at work; the same commands continue it")
    return 1 if refused else 0


def run_report(arguments: Namespace) -> int:
    step("importing what draws and computes")
    from hpc.search import leakage
    from hpc.studies import study
    from leukotree.records import commands
    from leukotree.report import collect, write

    plan = study.load(arguments.study, arguments.overrides)
    step("reading the runs")
    leakage.check(plan)
    expected, cells = _reported(plan)
    summary = collect(plan.root, plan.model_dump(mode="json"), expected, cells, typed=plan.typed)
    command = commands.given("report", arguments.study, arguments.overrides)
    step("computing tables and figures")
    markdown, html = write(summary, Path(arguments.out) if arguments.out else RESULTS / plan.study, command)
    print(markdown.read_text().split("\n## ")[0])
    print(f"{markdown}\n{html}")
    return 0


def _reported(plan: Study) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs that a report expects: those with chosen values, and those of the grid once it was begun. A
    grid without a search has no others, unless somebody ran them."""
    from hpc.launching import stale
    from hpc.search import sweep
    from hpc.studies import cells
    from leukotree.report.collect import check_primary

    chosen = sweep.chosen(plan, partial=True)
    expected, found = plan.expected(chosen), cells.expand(plan) if plan.grid else []
    if line := stale.at_another_path(plan.root, [*plan.fold_specs(chosen), *(cell.spec for cell in found)]):
        raise InputError(line)
    if plan.grid is None:
        return expected, []
    rows = cells.rows(found)
    check_primary(plan.model_dump(mode="json"), rows)  # also where the grid has not begun
    if not plan.search.trials:
        of_grid = {row["run_name"] for row in rows}
        if not any(
            (plan.root / row["run_name"]).exists() for row in expected if row["run_name"] not in of_grid
        ):
            return [], rows
    return expected, rows if (plan.root / cells.FILE).exists() else []


def run_submit(arguments: Namespace) -> int:
    step("looking at the study, its data and the site")
    from hpc import submit

    command = submit.command(
        arguments.study, arguments.overrides, arguments.options, arguments.site, arguments.elastic
    )
    print(command.shell())
    if not arguments.dry_run:
        print(f"job {command.run()}; `leukotree status {command.study}` says how far it is")
    return 0


def run_doctor(arguments: Namespace) -> int:
    step("looking at this machine and SLURM")
    from hpc.doctor import doctor
    from hpc.slurm.site import load as load_site

    if arguments.queue:
        doctor.before_queue(
            arguments.study, arguments.overrides, site=load_site(arguments.site), ranks=arguments.ranks or 1
        )
        print("ready: sbatch takes the jobs")
        return 0
    if arguments.node:
        found = doctor.examine_node(arguments.ranks, Runtime())
    else:
        found = doctor.examine(
            arguments.study,
            arguments.overrides,
            site=load_site(arguments.site),
            on_slurm=arguments.site is not None,
            ranks=arguments.ranks,
            runtime=Runtime(),
        )
    print(json.dumps(found.as_dict()) if arguments.json else "\n".join(found.lines()))
    return 0 if found.ready else 1


def run_bench(arguments: Namespace) -> int:
    from hpc.bench import bench
    from hpc.launching import ranks

    only = bench.parts(arguments.only)
    ranks.prepare_ranks(arguments.ranks)
    spec, overrides = arguments.spec, arguments.overrides
    if spec and "=" in spec and not Path(spec).exists():  # the first of the overrides, where no spec is named
        spec, overrides = None, [spec, *overrides]
    found = bench.bench(
        spec,
        overrides,
        only=only,
        ranks=arguments.ranks,
        runtime=_runtime(arguments),
        seconds=arguments.seconds,
        size=arguments.size,
    )
    print(json.dumps(found.as_dict()) if arguments.json else "\n".join(found.lines()))
    return 0


def _place(arguments: Namespace) -> Place:
    from hpc.launching.sender import Place
    from hpc.slurm.site import load as load_site

    place = Place(arguments.on, arguments.ranks, arguments.nodes, load_site(arguments.site))
    place.check()
    return place


def _runtime(arguments: Namespace) -> Runtime:
    from hpc.deepspeed import settings

    # By its name: a variable may have another value on the node that trains.
    cache = arguments.cache or ("$LEUKOTREE_CACHE" if os.environ.get("LEUKOTREE_CACHE") else None)
    return Runtime(
        device=arguments.device,
        workers=arguments.workers,
        threads=arguments.threads,
        cache=Path(cache) if cache else None,
        cache_gb=arguments.cache_gb,
        save_s=60 * arguments.save_minutes,
        deepspeed=settings.settings(arguments.deepspeed),
        probe=vars(arguments).get("probe", 0),
    )
