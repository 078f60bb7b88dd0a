"""What the verbs of `leukotree` share: the parser, common options, and the kinds of values that argparse
checks."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from leukotree.errors import one_line

BAD_INPUT = 2
"""Exit code."""
SITE = "slurm/site/NAME.yaml, or the path of such a file"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like those of every other bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


if TYPE_CHECKING:
    Verbs: TypeAlias = argparse._SubParsersAction[Parser]


def verb(
    verbs: Verbs, name: str, what: str, example: str, run: Callable[[argparse.Namespace], int]
) -> Parser:
    """Add a subcommand. `run` does it and returns the exit code."""
    sentence = what[0].upper() + what[1:] + "."
    added = verbs.add_parser(name, help=what, description=sentence, epilog=f"Example: {example}")
    added.set_defaults(run=run)
    return added


def count(text: str) -> int:
    """0, 1, 2, ... (for argparse)."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """1, 2, ... (for argparse)."""
    if count(text) == 0:
        raise argparse.ArgumentTypeError("expected a whole number above 0")
    return int(text)


def number(text: str) -> float:
    """The number that a text names; NaN if it names none, which is in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def amount(text: str) -> float:
    """A number above 0 (for argparse)."""
    value = number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return value


def share(text: str) -> float:
    """A number above 0, at most 1 (for argparse)."""
    if amount(text) > 1:
        raise argparse.ArgumentTypeError(f"expected a share of one GPU, at most 1, not {text!r}")
    return float(text)


def name(text: str) -> str:
    """A folder's name, not a path (for argparse)."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(
            f"expected a name of letters, digits, '.', '_' and '-', not {text!r}"
        )
    return text


def study(verb: argparse.ArgumentParser) -> None:
    """Add the study and the changes to it."""
    verb.add_argument("study", metavar="STUDY", help="a study's YAML file")
    overrides(verb)


def overrides(verb: argparse.ArgumentParser) -> None:
    """Add the changes to a study's file."""
    help = (
        "change a field of the file, as in search.trials=4; give the same changes to sweep, folds and report"
    )
    verb.add_argument("overrides", metavar="key=value", nargs="*", help=help)


def many(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verbs that do many runs."""
    verb.add_argument("--no-wait", action="store_true", help="return when the jobs are submitted")
    verb.add_argument(
        "--parallel",
        type=positive,
        metavar="N",
        help="jobs at the same time (default: what the machine or the site allows)",
    )
    verb.add_argument(
        "--retry-failed",
        action="store_true",
        help="also try runs again that failed (out of memory, NaN, an error); without it they are only "
        "reported",
    )
    verb.add_argument("--dry-run", action="store_true", help="check, say what would run, and stop")
    verb.add_argument("--json", action="store_true", help="print the answer as JSON")
    where(verb, default="local")
    runtime(verb)
    probe(verb)


def where(verb: argparse.ArgumentParser, default: str) -> None:
    """Add where a run happens, and on how many processes."""
    verb.add_argument(
        "--on",
        choices=["inline", "local", "slurm"],
        default=default,
        help="in this process, in other processes of this machine, or as SLURM jobs (default %(default)s)",
    )
    verb.add_argument(
        "--ranks", type=positive, default=1, help="processes of a run, one per GPU (default %(default)s)"
    )
    verb.add_argument(
        "--nodes",
        type=positive,
        metavar="N",
        help="machines of a run on SLURM (default: as few as the site's GPUs allow)",
    )
    verb.add_argument("--site", metavar="NAME", help=SITE)


def runtime(verb: argparse.ArgumentParser) -> None:
    """Add how a run computes. None of it is in its spec."""
    verb.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)"
    )
    verb.add_argument(
        "--workers",
        type=count,
        help="decoding threads per rank; does not change the result (default: the cores that do not "
        "train, at most 8)",
    )
    verb.add_argument(
        "--cache",
        metavar="DIR",
        help="keep decoded images in DIR, on the node's own disk or in its memory, for all epochs, ranks "
        "and trials, and shards that lie at an address; "
        "'$NAME' is a variable of the node; does not change the result "
        "(default: $LEUKOTREE_CACHE; else a sweep makes a cache and the other commands have none)",
    )
    verb.add_argument(
        "--cache-gb",
        type=amount,
        metavar="GB",
        help="largest size of a new cache of decoded images, and of all shards from an address (default: 8 "
        "for the images, half of the disk for the shards)",
    )
    verb.add_argument(
        "--save-minutes",
        type=amount,
        default=10.0,
        metavar="MIN",
        help="minutes between two checkpoints within an epoch, at most (default %(default)g)",
    )
    verb.add_argument(
        "--threads", type=positive, help="torch threads per rank on the CPU (default: its share of the cores)"
    )
    verb.add_argument(
        "--deepspeed",
        metavar="YAML",
        help="settings that change only the speed of ZeRO (default: hpc/deepspeed/STRATEGY.yaml)",
    )


def computing(verb: argparse.ArgumentParser) -> None:
    """Add how predictions are computed in this process. None of it changes what is predicted by more than
    rounding."""
    verb.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)"
    )
    verb.add_argument("--workers", type=count, help="threads that read images (default: one per core)")
    verb.add_argument("--threads", type=positive, help="torch threads on the CPU (default: torch's choice)")


def probe(verb: argparse.ArgumentParser) -> None:
    """Add what is measured while a run trains."""
    verb.add_argument(
        "--probe",
        type=count,
        default=0,
        metavar="N",
        help="every N epochs measure how the gradients of the levels agree, for interference.jsonl; only for "
        "`multilabel` with ddp; does not change the result (default: never)",
    )
