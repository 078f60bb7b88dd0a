"""Help to write files and commands: `new-study`, `schema` and `completion`."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any

from hpc import options

LIKE = ("compare", "flat", "grid", "matched", "paper")
"""The kinds of `hpc.studies.new`."""
SCHEMAS = ("run", "study", "site")
SHELLS = ("bash", "zsh", "fish")
FILES = ("STUDY", "STUDY|RUN", "SPEC", "MANIFEST", "YAML", "FILE", "TABLE", "CSV", "PILOT")
FOLDERS = ("ROOT", "SHARDS", "OUT", "DIR")
"""Names of arguments that are completed by files, or by folders."""
INSTALL = {
    "bash": "leukotree completion bash > ~/.local/share/bash-completion/completions/leukotree",
    "zsh": "leukotree completion zsh > ~/.zfunc/_leukotree    (a folder of $fpath)",
    "fish": "leukotree completion fish > ~/.config/fish/completions/leukotree.fish",
}


def define_new_study(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "new-study",
        "write a commented study file for a packed data set, with its costs and the next command",
        "leukotree new-study mine --shards data/mine --like flat",
        run_new_study,
    )
    verb.add_argument("name", metavar="NAME", type=options.name, help="the name of the study")
    verb.add_argument("--shards", metavar="DIR", required=True, help="the folder of packed images")
    verb.add_argument(
        "--like",
        choices=LIKE,
        default=LIKE[0],
        help="compare: variants, searched; flat: one variant, no search; grid: an ablation; matched: base "
        "beside an ensemble; paper: the paper's setting (default %(default)s)",
    )
    verb.add_argument(
        "--file", metavar="YAML", help="the file to write (default: sweeps/NAME.yaml, or NAME.yaml)"
    )


def run_new_study(arguments: Namespace) -> int:
    from hpc.studies import new

    path = Path(arguments.file) if arguments.file else None
    written = new.write(arguments.name, arguments.shards, arguments.like, path)
    print(f"{written.path}: {written.costs}")
    print(f"next: {written.command} --dry-run")
    return 0


def define_schema(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "schema",
        "print the JSON schema of a run's spec, a study or a site, for editors",
        "leukotree schema study > study.json",
        run_schema,
    )
    verb.add_argument("kind", choices=SCHEMAS, help="the kind of file")


def run_schema(arguments: Namespace) -> int:
    from hpc.studies import schemas

    print(schemas.text(arguments.kind), end="")
    return 0


def define_completion(verbs: options.Verbs) -> None:
    verb = options.verb(
        verbs,
        "completion",
        "print the script with which a shell completes verbs, options and files",
        INSTALL["bash"],
        run_completion,
    )
    verb.add_argument("shell", choices=SHELLS, help="the shell")


def run_completion(arguments: Namespace) -> int:
    import shtab

    top: argparse.ArgumentParser = arguments.parser
    _mark(top, {**dict.fromkeys(FILES, shtab.FILE), **dict.fromkeys(FOLDERS, shtab.DIRECTORY)})
    print(shtab.complete(top, shell=arguments.shell))
    return 0


def _mark(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Note on each argument of a parser, and of its verbs, how a shell completes it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _mark(verb, kinds)
        elif str(action.metavar) in kinds:
            action.complete = kinds[str(action.metavar)]  # type: ignore[attr-defined]
