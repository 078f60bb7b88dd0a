"""What is there: `status`, `cancel` and `report`."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path

from hpc import options
from hpc.verbs import given
from leukotree.errors import InputError
from leukotree.progress import step


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
        type=options.positive,
        nargs="?",
        const=30,
        metavar="S",
        help="print it again every S seconds (default %(const)s)",
    )


def run_status(arguments: Namespace) -> int:
    from hpc import advised, status
    from hpc.launching import run_states, stale
    from hpc.studies import study
    from leukotree.log import logger

    root = given.study_folder(arguments) if arguments.study else study.RUNS
    if arguments.study and not root.is_dir() and not run_states.jobs(root):
        raise InputError(
            f"{root}: no runs yet; start with `{advised.first(arguments.study, arguments.overrides)}`"
        )
    while True:
        look = stale.marked_all(root, run_states.look(root))
        if arguments.json and look.slurm_problem:
            logger.warning(f"jobs of SLURM are not known here: {look.slurm_problem}")
        print(status.as_json(root, look) if arguments.json else status.table(root, look), flush=True)
        if not arguments.watch:
            return 0
        time.sleep(arguments.watch)
        print()


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
        "write a study's report in Markdown and HTML",
        "leukotree report sweeps/phantom.yaml",
        run_report,
    )
    options.study(verb)
    verb.add_argument("--out", metavar="DIR", help="folder to write (default: results/STUDY)")


def run_report(arguments: Namespace) -> int:
    step("importing what draws and computes")
    from hpc import collected
    from hpc.studies import study
    from leukotree.records import commands
    from leukotree.report.page import write

    plan = study.load(arguments.study, arguments.overrides)
    step("reading the runs")
    summary = collected.summary(plan)
    command = commands.given("report", arguments.study, arguments.overrides)
    step("computing tables and figures")
    folder = Path(arguments.out) if arguments.out else given.RESULTS / plan.study
    markdown, html = write(summary, folder, command)
    print(markdown.read_text().split("\n## ")[0])
    print(f"{markdown}\n{html}")
    return 0
