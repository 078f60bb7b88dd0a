"""What is there: `status`, `cancel` and `report`."""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import options
from hpc.verbs import given
from leukotree.errors import InputError
from leukotree.progress import step

if TYPE_CHECKING:
    from leukotree.report.summary import StudySummary

ON_SCREEN, IN_LINES = 2.0, 30.0
"""Seconds between two looks of `status --watch`, on a terminal and in lines."""


def define_status(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "status",
        "list searches and runs: state, epoch, score, job, node, time left, and what a waiting job waits for",
        "leukotree status sweeps/phantom.yaml",
        run_status,
    )
    verb.add_argument("study", metavar="STUDY", nargs="?", help="a study's file or name (default: all)")
    options.overrides(verb)
    verb.add_argument("--json", action="store_true", help="print JSON, with every field of every run")
    verb.add_argument(
        "--watch",
        type=options.amount,
        nargs="?",
        const=0.0,
        metavar="S",
        help="show counts, epoch, images/s, best score, time left and the last failure again and again, "
        "until all has ended; q or Ctrl-C ends it. Without a terminal, and with --json, each look is a line",
    )
    verb.add_argument(
        "--every",
        type=options.amount,
        metavar="S",
        help=f"seconds between two looks of --watch (default: {ON_SCREEN:g}, without a terminal "
        f"{IN_LINES:g})",
    )


def run_status(arguments: Namespace) -> int:
    if arguments.watch is not None:
        with contextlib.suppress(KeyboardInterrupt):  # also while it imports
            _watch(arguments)
        return 0
    if arguments.every:
        raise InputError("--every: only --watch looks again; give both")
    from hpc import advised, status
    from hpc.launching import run_states, stale
    from hpc.studies import study
    from leukotree.log import logger

    root = given.study_folder(arguments) if arguments.study else study.RUNS
    if arguments.study and not root.is_dir() and not run_states.jobs(root):
        raise InputError(
            f"{root}: no runs yet; start with `{advised.first(arguments.study, arguments.overrides)}`"
        )
    look = stale.marked_all(root, run_states.look(root))
    if arguments.json and look.slurm_problem:
        logger.warning(f"jobs of SLURM are not known here: {look.slurm_problem}")
    print(status.as_json(root, look) if arguments.json else status.table(root, look), flush=True)
    return 0


def _watch(arguments: Namespace) -> None:
    """Show how far a study is, or all studies, again and again."""
    step("looking at the runs")
    from hpc import advised
    from hpc.launching import run_states
    from hpc.studies import study
    from hpc.watch import facts, loop

    every = arguments.every or arguments.watch or (ON_SCREEN if sys.stdout.isatty() else IN_LINES)
    if not arguments.study:
        loop.watch(study.RUNS, [], every, None, as_json=arguments.json)
        return
    root, plan = given.study_folder(arguments), None
    if Path(arguments.study).suffix in (".yaml", ".yml"):
        plan = study.load(arguments.study, arguments.overrides)
    elif not root.is_dir() and not run_states.jobs(root):
        raise InputError(f"{root}: no runs yet; start with `{advised.first(arguments.study, [])}`")
    expected = facts.announced(plan) if plan else None
    loop.watch(root, [root.name], every, expected, as_json=arguments.json)


def define_cancel(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "cancel",
        "end all jobs of a study, the waiting ones first; runs save first, and the same commands "
        "continue them",
        "leukotree cancel sweeps/phantom.yaml --dry-run",
        run_cancel,
    )
    verb.add_argument("study", metavar="STUDY", help="a study's file or name")
    options.overrides(verb)
    verb.add_argument("--yes", action="store_true", help="do not ask first")
    verb.add_argument("--dry-run", action="store_true", help="list the jobs, and stop")


def run_cancel(arguments: Namespace) -> int:
    from hpc.launching import cancel

    root = given.study_folder(arguments)
    if not root.is_dir():
        raise InputError(f"{root}: no such study has begun; `leukotree status` lists those that have")
    work = cancel.find_work(root)
    if arguments.dry_run:
        print(*(f"would end {line}" for line in work.lines()), sep="\n")
        return 0
    if work and not (arguments.yes or cancel.confirmed(root, work)):
        return 1
    refused = cancel.cancel(root)
    print(*(f"ended: {line}" for line in work.lines()), sep="\n", end="\n" if work else "")
    for line in refused:
        print(f"leukotree cancel: {line}", file=sys.stderr)
    if not refused:
        print(f"nothing of {root.name} is queued or at work; the same commands continue it")
    return 1 if refused else 0


def define_report(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "report",
        "write a study's report in Markdown and HTML, or compare several studies",
        "leukotree report sweeps/phantom.yaml",
        run_report,
    )
    verb.add_argument("study", metavar="STUDY", help="a study's YAML file; several are compared")
    options.overrides(verb)
    verb.add_argument("--out", metavar="DIR", help="folder to write (default: results/STUDY)")
    verb.add_argument(
        "--table",
        action="store_true",
        help="also print a table of the arms, what the verdicts mean, and what to do next",
    )
    verb.add_argument(
        "--images",
        action="store_true",
        help="show difficult images of the data set in the page; who gets the page gets these images "
        "(phantoms are always shown)",
    )


def run_report(arguments: Namespace) -> int:
    step("importing what draws and computes")
    from leukotree.records import commands
    from leukotree.report import page, side_by_side

    others = [word for word in arguments.overrides if "=" not in word]
    changes = [word for word in arguments.overrides if "=" in word]
    if twice := [file for file in others if others.count(file) > 1 or file == arguments.study]:
        raise InputError(f"{twice[0]}: named twice; name each study once")
    summaries = [_summary(file, changes) for file in (arguments.study, *others)]
    step("computing tables and figures")
    name = "+".join(summary.name for summary in summaries)
    folder = Path(arguments.out) if arguments.out else given.RESULTS / name
    if others:
        rendered = side_by_side.render(summaries, folder)
    else:
        command = commands.given("report", arguments.study, changes)
        rendered = page.render(summaries[0], folder, command, arguments.images)
    markdown, html = rendered.write(folder)
    print(*rendered.lines, sep="\n")
    if arguments.table and rendered.table:
        file = arguments.study
        print("", *rendered.table, "", sep="\n")
        print(
            f"Next: open {html}. Then: leukotree explain {file}; leukotree new-study MINE --shards data/mine"
        )
    print(markdown, html, sep="\n")
    return 0


def _summary(file: str, changes: Sequence[str]) -> StudySummary:
    """The content of a study's folder."""
    from hpc import collected
    from hpc.studies import study

    plan = study.load(file, changes)
    step(f"reading the runs of {plan.study}")
    return collected.summary(plan)
