"""The command `leukotree`. Imports nothing heavy until a verb runs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from hpc import options
from leukotree import progress, signals
from leukotree.errors import InputError, Preempted, RunFailed, one_line

STOPPABLE = ("train", "folds", "grid", "pack")
"""Verbs that look at a request to stop and leave by themselves; a sweep asks its own processes."""
FAILED, BAD_INPUT, PREEMPTED, INTERRUPTED = 1, 2, os.EX_TEMPFAIL, 130


class Parser(argparse.ArgumentParser):
    """Errors in one line, like those of every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 (a check or a run failed), 2 (bad input), 75 (preempted: run it
    again)."""
    top = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if words[:1] == ["submit"] and "--" in words else len(words)
    arguments, rest = top.parse_known_args(words[:end])
    arguments.options, arguments.words = words[end + 1 :], words
    if rest:  # key=value may also stand behind options, where argparse does not look for it
        if not hasattr(arguments, "overrides") or any(
            word.startswith("-") or "=" not in word for word in rest
        ):
            top.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides += rest
    try:
        watched = signals.watched() if arguments.verb in STOPPABLE else contextlib.nullcontext()
        with watched, progress.told(f"leukotree {arguments.verb}"):
            return int(arguments.run(arguments) or 0)
    except InputError as error:
        print(
            f"leukotree {arguments.verb}: {one_line(error)}", file=sys.stderr
        )  # names in it may have line breaks
        return BAD_INPUT
    except RunFailed as error:
        print(
            f"leukotree {arguments.verb}: {error}",
            *getattr(error, "__notes__", ()),
            sep="\n",
            file=sys.stderr,
        )
        return FAILED
    except Preempted as error:
        said = str(error).removesuffix("; run it again to continue")
        print(f"leukotree {arguments.verb}: {said}; run the same command again to continue", file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print(
            f"leukotree {arguments.verb}: interrupted; run the same command again to continue",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:  # no file or folder of the user's
            raise
        print(
            f"leukotree {arguments.verb}: {error.filename}: {error.strerror}; mend that and run it again",
            file=sys.stderr,
        )
        return BAD_INPUT


def parser() -> argparse.ArgumentParser:
    """All verbs. What a verb does lives in hpc.verbs, imported when it runs."""
    top = Parser(
        prog="leukotree",
        description="Hierarchical leukemia classification on HPC clusters: data, training, search, folds, report.",
        epilog="The main job on one machine, on phantom images: make sweep. Its steps: phantom, pack, sweep, folds, report.",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for define in (
        _phantom,
        _import,
        _pack,
        _audit,
        _train,
        _sweep,
        _folds,
        _grid,
        _status,
        _cancel,
        _report,
        _submit,
        _doctor,
        _bench,
    ):
        define(verbs)
    return top


if TYPE_CHECKING:
    Verbs: TypeAlias = argparse._SubParsersAction[Parser]


def _verb(verbs: Verbs, name: str, what: str, example: str) -> Parser:
    """A subcommand that calls hpc.verbs.run_<name>."""

    def run(arguments: argparse.Namespace) -> int:
        from hpc import verbs as implementation

        verb: Callable[[argparse.Namespace], int] = getattr(implementation, f"run_{name}")
        return verb(arguments)

    sentence = what[0].upper() + what[1:] + "."
    added = verbs.add_parser(name, help=what, description=sentence, epilog=f"Example: {example}")
    added.set_defaults(run=run)
    return added


def _phantom(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "phantom",
        "draw a synthetic data set: images, masks, manifest.csv",
        "leukotree phantom data/phantom-images",
    )
    verb.add_argument("out", metavar="OUT", help="folder to write")
    verb.add_argument(
        "--patients",
        type=int,
        default=42,
        help="patients, dealt evenly to the seven leaves (default %(default)s)",
    )
    verb.add_argument(
        "--per-patient", type=int, default=24, help="images of each patient (default %(default)s)"
    )
    verb.add_argument(
        "--size", type=int, default=384, help="width and height in pixels (default %(default)s)"
    )
    verb.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default %(default)s)")


def _import(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "import",
        "write the manifest of a public data set in its own layout",
        "leukotree import deepapl downloads/deepapl deepapl.csv --cell-types",
    )
    verb.add_argument(
        "source",
        metavar="SOURCE",
        help="deepapl, cnmc, taleqani, pbc, krd, or folder (ROOT/<leaf>/<patient>/*)",
    )
    verb.add_argument("root", metavar="ROOT", help="where the data set lies")
    verb.add_argument("manifest", metavar="MANIFEST", help="the .csv or .parquet file to write")
    verb.add_argument(
        "--cell-types",
        action="store_true",
        help="also take cell types as proxies of leaves, where a source has them",
    )
    verb.add_argument(
        "--benign",
        metavar="LEAF",
        help="the leaf that taleqani's Benign images stand for (left out without it)",
    )
    verb.add_argument(
        "--leaf",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="take a label or a folder's name as a leaf, such as APL=APML; may be repeated",
    )
    verb.add_argument(
        "--skip",
        metavar="NAME",
        action="append",
        default=[],
        help="leave out a folder or file, by its path below ROOT; may be repeated",
    )
    verb.add_argument(
        "--follow-links", action="store_true", help="take also what links out of the data set lead to"
    )
    verb.add_argument("--taxonomy", metavar="YAML", help="another label tree than the paper's, as for pack")


def _pack(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "pack",
        "resize the images of a manifest once and write fold shards with an index",
        "leukotree pack deepapl.csv data/deepapl --folds 5 --size 96 --drop-broken",
    )
    verb.add_argument("manifest", metavar="MANIFEST")
    verb.add_argument("shards", metavar="SHARDS", help="folder to write")
    verb.add_argument(
        "--folds",
        type=int,
        default=5,
        help="outer folds; a patient lies in exactly one (default %(default)s)",
    )
    verb.add_argument(
        "--size", type=int, default=384, help="width and height in pixels (default %(default)s)"
    )
    verb.add_argument("--seed", type=int, default=0, help="deals patients to folds (default %(default)s)")
    verb.add_argument("--taxonomy", metavar="YAML", help="another label tree than the paper's")
    verb.add_argument(
        "--drop-broken", action="store_true", help="leave out images that do not decode, and record them"
    )
    verb.add_argument(
        "--similar-ids",
        choices=("join", "keep"),
        help="patients' ids that look alike, such as 001 and 1, are one patient (join) or several (keep; default: keep and warn)",
    )
    verb.add_argument(
        "--patients-across-sources",
        action="store_true",
        help="an id is the same patient in every source (default: in its own)",
    )
    verb.add_argument(
        "--group-duplicates",
        action="store_true",
        help="keep patients together in one fold who share an exact copy of an image; without it such copies are refused",
    )
    verb.add_argument(
        "--pseudonyms",
        metavar="TABLE.csv",
        help="write numbers instead of the names of patients, slides and images; TABLE.csv, which you keep, says which is which; "
        "it is written if absent, and used again if present",
    )
    verb.add_argument("--workers", type=options.positive, help="threads (default: all cores)")


def _audit(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "audit",
        "look for leakage, duplicates, confounding and shortcuts in packed shards",
        "leukotree audit data/phantom",
    )
    verb.add_argument("shards", metavar="SHARDS")
    verb.add_argument(
        "--json", action="store_true", help="as JSON, with every copy, near duplicate and leaking patient"
    )
    verb.add_argument(
        "--html", metavar="FILE", help="also write a page that shows pairs of copies and near duplicates"
    )


def _train(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "train",
        "train and score one run; again continues it",
        "leukotree train run.yaml optim.lr=1e-3 variant=flat --ranks 2",
    )
    verb.add_argument("spec", metavar="SPEC", help="a run's spec.yaml, or a YAML file with any of its keys")
    verb.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. optim.lr=1e-3")
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


def _sweep(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "sweep",
        "search each variant's hyperparameters beside every outer fold; again continues the search",
        "leukotree sweep sweeps/phantom.yaml --concurrency 2",
    )
    options.study(verb)
    verb.add_argument(
        "--ray-address", metavar="ADDR", help="a running Ray cluster (auto); without it one is started here"
    )
    verb.add_argument(
        "--ray-nodes",
        type=options.positive,
        default=1,
        metavar="N",
        help="wait until that cluster has N nodes (default %(default)s)",
    )
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
        help="cores of a trial (default: its GPU's share of the node's, or 1 without GPUs)",
    )
    verb.add_argument(
        "--ranks-per-trial",
        type=options.positive,
        default=1,
        metavar="N",
        help="processes of a trial, on one node; the two options above are then of each (default %(default)s)",
    )
    verb.add_argument(
        "--elastic",
        type=options.positive,
        metavar="N",
        help="trials run on up to N jobs at a time that come and go; for slurm/sweep.sh, see `leukotree submit --help`",
    )
    verb.add_argument("--workers-folder", metavar="DIR", help=argparse.SUPPRESS)  # slurm/sweep.sh says it
    verb.add_argument(
        "--site",
        metavar="NAME",
        help="slurm/site/NAME.yaml, or the path of such a file: what workers ask for",
    )
    verb.add_argument(
        "--concurrency", type=options.positive, metavar="N", help="trials at once (default: what fits)"
    )
    verb.add_argument("--dry-run", action="store_true", help="check, say what would run, and stop")
    options.runtime(verb)


def _folds(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "folds",
        "train every variant x outer fold x seed with the chosen values; only what is missing",
        "leukotree folds sweeps/phantom.yaml --on slurm --site a100",
    )
    options.study(verb)
    options.many(verb)


def _grid(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "grid",
        "train every cell of a study's grid on every outer fold and seed; only what is missing",
        "leukotree grid sweeps/ablation.yaml --dry-run",
    )
    options.study(verb)
    verb.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="show what differs between two cells (numbers) or runs (names), and stop",
    )
    options.many(verb)


def _status(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "status",
        "list runs: state, epoch, score, job, node, time left, and what the waiting ones wait for",
        "leukotree status sweeps/phantom.yaml",
    )
    verb.add_argument("study", metavar="STUDY", nargs="?", help="a study's file or name (default: all)")
    options.overrides(verb)
    verb.add_argument("--json", action="store_true", help="as JSON, every field of every run")
    verb.add_argument(
        "--watch",
        type=options.positive,
        nargs="?",
        const=30,
        metavar="S",
        help="again every S seconds (default %(const)s)",
    )


def _cancel(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "cancel",
        "end every job of a study, the waiting ones first; what runs saves, and the same commands continue it",
        "leukotree cancel sweeps/phantom.yaml --dry-run",
    )
    verb.add_argument("study", metavar="STUDY", help="a study's file or name")
    options.overrides(verb)
    verb.add_argument("--yes", action="store_true", help="do not ask")
    verb.add_argument("--dry-run", action="store_true", help="list them, and stop")


def _report(verbs: Verbs) -> None:
    verb = _verb(
        verbs, "report", "write a study's report in Markdown and HTML", "leukotree report sweeps/phantom.yaml"
    )
    options.study(verb)
    verb.add_argument("--out", metavar="DIR", help="folder to write (default: results/STUDY)")


def _submit(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "submit",
        "queue slurm/sweep.sh for a study with the options of a site: search, folds, report",
        "leukotree submit sweeps/deepapl.yaml --site a100 -- --gpus-per-trial 0.5",
    )
    options.study(verb)
    verb.add_argument(
        "--site",
        metavar="NAME",
        help="slurm/site/NAME.yaml, or the path of such a file (default: $SITE, or default)",
    )
    verb.add_argument(
        "--elastic",
        type=options.positive,
        metavar="N",
        help="search with up to N worker jobs at a time that come and go",
    )
    verb.add_argument("--dry-run", action="store_true", help="check, print the command, and stop")
    verb.epilog = f"{verb.epilog}. What follows `--` goes to `leukotree sweep`."


def _doctor(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "doctor",
        "look whether this cluster is ready for a study: SLURM, GPUs, disks, clocks, weights, versions",
        "leukotree doctor sweeps/deepapl.yaml --site a100",
    )
    verb.add_argument(
        "study", metavar="STUDY|SPEC", nargs="?", help="also its data, its weights and the room for its runs"
    )
    verb.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. base.data.shards=data/other")
    verb.add_argument(
        "--site",
        metavar="NAME",
        help="slurm/site/NAME.yaml, or the path of such a file; jobs are to run there",
    )
    verb.add_argument(
        "--queue",
        action="store_true",
        help="only what stands before each queue, in a second; what is refused there is exit code 2",
    )
    verb.add_argument(
        "--ranks",
        type=options.positive,
        help="processes that add tensors to try the links (default: GPUs, at least 2)",
    )
    verb.add_argument(
        "--node",
        action="store_true",
        help="only what a job looks at before a run begins: devices, room, clock, links; srun -N4 leukotree doctor --node",
    )
    verb.add_argument("--json", action="store_true", help="as JSON")


def _bench(verbs: Verbs) -> None:
    verb = _verb(
        verbs,
        "bench",
        "measure loader, step, all-reduce, checkpoint and trial beside their limits, and say what to change",
        "leukotree bench run.yaml optim.batch_size=256 --ranks 4",
    )
    verb.add_argument(
        "spec", metavar="SPEC", nargs="?", help="as for train (default: a small model on phantoms drawn now)"
    )
    verb.add_argument(
        "overrides", metavar="key=value", nargs="*", help="e.g. backbone.name=vit_small_patch16_384"
    )
    verb.add_argument(
        "--only",
        metavar="PART,...",
        help="some of: loader, step, all-reduce, checkpoint, trial (default: all)",
    )
    verb.add_argument(
        "--seconds",
        type=options.amount,
        default=3.0,
        metavar="S",
        help="of each measurement, about (default %(default)g)",
    )
    verb.add_argument(
        "--size", type=options.positive, default=96, help="pixels of the phantoms (default %(default)s)"
    )
    verb.add_argument(
        "--ranks", type=options.positive, default=1, help="processes, one per GPU (default %(default)s)"
    )
    verb.add_argument("--json", action="store_true", help="as JSON")
    options.runtime(verb)


if __name__ == "__main__":
    sys.exit(main())
