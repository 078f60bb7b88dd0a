"""The command `leukotree`. It imports nothing slow until a verb runs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from hpc.options import BAD_INPUT, Parser
from hpc.verbs import (
    data,
    explain,
    export,
    importing,
    inference,
    machine,
    plan,
    results,
    search,
    training,
    weights,
    writing,
)
from leukotree import progress, signals
from leukotree.errors import InputError, Preempted, RunFailed, one_line

STOPPABLE = ("train", "folds", "grid", "refit", "pack", "explain", "predict", "evaluate")
"""Verbs that look at a request to stop and end by themselves. A sweep asks its own processes."""
SPEAKING = ("sweep",)
"""Verbs that also write into a log what they do, within two seconds: they work for long before they have an
answer."""
FAILED, PREEMPTED, INTERRUPTED = 1, os.EX_TEMPFAIL, 130
VERBS = (
    data.define_phantom,
    importing.define_import,
    data.define_pack,
    data.define_audit,
    data.define_stage,
    training.define_train,
    plan.define_plan,
    search.define_sweep,
    training.define_folds,
    training.define_grid,
    training.define_refit,
    results.define_status,
    results.define_cancel,
    results.define_report,
    export.define_export,
    writing.define_new_study,
    inference.define_predict,
    inference.define_evaluate,
    explain.define_explain,
    search.define_submit,
    weights.define_weights,
    machine.define_doctor,
    machine.define_bench,
    writing.define_schema,
    writing.define_completion,
)
"""In the order of `leukotree --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 (a check or a run failed), 2 (bad input), 75 (preempted: run
    it again), 130 (Ctrl-C)."""
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    title = f"leukotree {arguments.verb}"
    try:
        watched = signals.watched() if arguments.verb in STOPPABLE else contextlib.nullcontext()
        with watched, progress.command(title, arguments.verb in SPEAKING):
            return int(arguments.run(arguments) or 0)
    except InputError as error:
        return _refuse(f"{title}: {one_line(error)}", BAD_INPUT)  # names in it may have line breaks
    except RunFailed as error:
        notes = getattr(error, "__notes__", ())
        return _refuse("\n".join([f"{title}: {error}", *notes]), FAILED)
    except Preempted as error:
        saved = str(error).removesuffix("; run it again to continue")
        return _refuse(f"{title}: {saved}; run the same command again to continue", PREEMPTED)
    except KeyboardInterrupt:
        return _refuse(f"{title}: interrupted; run the same command again to continue", INTERRUPTED)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:  # no file or folder of the user's
            raise
        return _refuse(f"{title}: {error.filename}: {error.strerror}; fix that and run it again", BAD_INPUT)


def _parse(words: list[str]) -> argparse.Namespace:
    """The command's arguments. SystemExit for bad ones, with the exit code 2."""
    top = parser()
    end = words.index("--") if words[:1] == ["submit"] and "--" in words else len(words)
    arguments, rest = top.parse_known_args(words[:end])
    arguments.options, arguments.words, arguments.parser = words[end + 1 :], words, top
    if rest:  # key=value may also stand behind options, where argparse does not look for it
        changes = all("=" in word and not word.startswith("-") for word in rest)
        if not (changes and hasattr(arguments, "overrides")):
            top.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.overrides += rest
    return arguments


def _refuse(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


class Version(argparse.Action):
    """`--version`: the version, and the commit where it is a checkout."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from leukotree import __version__
        from leukotree.records import origin

        code = origin.here()
        commit = f" ({origin.name(code)})" if code["commit"] else ""
        print(f"leukotree {__version__}{commit}")
        parser.exit(0)


def parser() -> Parser:
    """The parser of all verbs."""
    top = Parser(
        prog="leukotree",
        description="Hierarchical leukemia classification on HPC clusters: data, training, search, "
        "folds, report.",
        epilog="The main job on one machine, on phantom images: make sweep. Its steps: phantom, pack, "
        "sweep, folds, report.",
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version and the commit, and stop")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for define in VERBS:
        define(verbs)
    return top


if __name__ == "__main__":
    sys.exit(main())
