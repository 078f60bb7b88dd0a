"""Options that several verbs of `leukotree` share, and the kinds of values that argparse checks for them."""

from __future__ import annotations

import argparse
import re


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


def amount(text: str) -> float:
    """A number above 0 (for argparse)."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
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
    """A study and changes to it."""
    verb.add_argument("study", metavar="STUDY", help="a study's YAML file")
    overrides(verb)


def overrides(verb: argparse.ArgumentParser) -> None:
    """Changes to a study's file."""
    verb.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help="e.g. search.trials=4; the same for sweep, folds and report",
    )


def many(verb: argparse.ArgumentParser) -> None:
    """Many runs: what to do of them, and where."""
    verb.add_argument("--no-wait", action="store_true", help="return when the jobs are submitted")
    verb.add_argument(
        "--parallel",
        type=positive,
        metavar="N",
        help="jobs at once (default: what the machine or the site allows)",
    )
    verb.add_argument(
        "--retry-failed",
        action="store_true",
        help="also those that failed by themselves (out of memory, NaN, an error); without it they are only reported",
    )
    verb.add_argument("--dry-run", action="store_true", help="check, say what would run, and stop")
    verb.add_argument("--json", action="store_true", help="the answer as JSON on the standard output")
    where(verb, default="local")
    runtime(verb)
    probe(verb)


def where(verb: argparse.ArgumentParser, default: str) -> None:
    """Where a run happens, and on how many processes."""
    verb.add_argument(
        "--on",
        choices=["inline", "local", "slurm"],
        default=default,
        help="in this process, in processes of this machine, or as SLURM jobs (default %(default)s)",
    )
    verb.add_argument(
        "--ranks", type=positive, default=1, help="processes of a run, one per GPU (default %(default)s)"
    )
    verb.add_argument(
        "--nodes",
        type=positive,
        metavar="N",
        help="nodes of a run on SLURM (default: as few as the site's GPUs allow)",
    )
    verb.add_argument("--site", metavar="NAME", help="slurm/site/NAME.yaml, or the path of such a file")


def runtime(verb: argparse.ArgumentParser) -> None:
    """How a run computes; none of it is in its spec."""
    verb.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default %(default)s)"
    )
    verb.add_argument(
        "--workers",
        type=count,
        help="decoding threads per rank; never changes the bits (default: the cores that do not train, at most 8)",
    )
    verb.add_argument(
        "--cache",
        metavar="DIR",
        help="keep decoded images in DIR, a node's own disk or memory, for all epochs, ranks and "
        "trials; '$NAME' is looked up on the node; never changes the bits (default: $LEUKOTREE_CACHE; else a sweep makes one for "
        "itself, the others decode each time)",
    )
    verb.add_argument(
        "--cache-gb",
        type=amount,
        default=8.0,
        metavar="GB",
        help="most that a new one takes (default %(default)g)",
    )
    verb.add_argument(
        "--save-minutes",
        type=amount,
        default=10.0,
        metavar="MIN",
        help="save at least so often, also within an epoch (default %(default)g)",
    )
    verb.add_argument(
        "--threads", type=positive, help="torch threads per rank on the CPU (default: its share of the cores)"
    )
    verb.add_argument(
        "--deepspeed",
        metavar="YAML",
        help="settings that only decide the speed of ZeRO (default: hpc/deepspeed/STRATEGY.yaml)",
    )


def probe(verb: argparse.ArgumentParser) -> None:
    """What is measured while a run trains."""
    verb.add_argument(
        "--probe",
        type=count,
        default=0,
        metavar="N",
        help="every N epochs measure how the gradients of the levels agree, in `multilabel` with ddp, for interference.jsonl; "
        "never changes the bits (default: never)",
    )
