"""How to make the same results again: the commands as they were given, from the raw images to the report, and
their files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukotree import yamlfile
from leukotree.records import commands, made
from leukotree.records.commands import Given
from leukotree.report import prose
from leukotree.report.blocks import Block, Code, Section, Text, text
from leukotree.report.sections import code
from leukotree.report.summary import StudySummary

STUDY = "study.yaml"
"""Beside the report: the study's file."""
PACK_OPTIONS = ("folds", "size", "seed")
"""Of dataset.json, for a folder whose command is not known."""


@dataclass(frozen=True)
class Reproduction:
    """The section, and the files that belong beside the report."""

    section: Section
    files: dict[str, bytes]


def reproduction(summary: StudySummary, out: Path, report: Given | None) -> Reproduction:
    """`report`: the command that writes this report into `out`; None where no command does. Then files beside
    the report have no folder."""
    beside = {STUDY: _study_file(summary, report)}
    if report is None:
        out, report = Path(), Given("report", STUDY, (), commands.digest(beside[STUDY]))
    root = _root(summary)
    lines = _data(summary)
    for command in _of_runs(summary, report):
        lines.append(shlex_line(command.words(_file(command, root, out, beside))))
    lines.append(shlex_line(report.words(_file(report, root, out, beside))))
    if summary.runs:
        run = summary.runs[0]
        lines.append(
            f"leukotree train results/runs/{summary.name}/{run.name}/spec.yaml   # one run by itself"
        )
    blocks: list[Block] = [text(prose.REPRODUCE, file=STUDY), Code("\n".join(lines)), *code.texts(summary)]
    if values := sorted(
        {str(run.environment["dataset"]) for run in summary.runs if run.environment.get("dataset")}
    ):
        blocks.append(Text(f"Fingerprints of the data set: {', '.join(f'`{value}`' for value in values)}."))
    blocks += [Text("The study, defaults left out:"), Code(yamlfile.dump(_fields(summary)).rstrip())]
    return Reproduction(Section("Reproduce", blocks), beside)


def shlex_line(words: list[str]) -> str:
    """A command in one line, as a shell reads it; a shell knows ~ only where it is not quoted."""
    return " ".join(f"~/{_quoted(word[2:])}" if word.startswith("~/") else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A line break would end the line, and with it perhaps the block of code; other control characters speak
    to a terminal."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(letter) for letter in word) + "'"


def _escaped(letter: str) -> str:
    """A letter between $' and ', as bash and zsh read it."""
    if letter.isprintable() and letter not in "\\'":
        return letter
    is_byte = "\udc80" <= letter <= "\udcff"  # of a name that is not UTF-8, as Python has it
    return "".join(
        f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape" if is_byte else "surrogatepass")
    )


def _study_file(summary: StudySummary, report: Given | None) -> bytes:
    if report is not None:
        with suppress(OSError):
            return Path(report.file).expanduser().read_bytes()
    return yamlfile.dump(_fields(summary)).encode()


def _root(summary: StudySummary) -> Path | None:
    """The study's folder of runs."""
    if summary.runs:
        return summary.runs[0].folder.parent
    for folds in summary.searches.values():
        for search in folds.values():
            return search.folder.parents[2 if summary.nested else 1]
    return None


def _of_runs(summary: StudySummary, report: Given) -> list[Given]:
    """The commands that made what is reported. What was made before commands were kept is said to be made by
    the study's file as it is given now."""
    root, names = _root(summary), {run.name for run in summary.runs}
    everything = commands.kept(root) if root else []
    found = [one for one in everything if (one.verb == "sweep" and summary.searches) or names & set(one.runs)]
    needed = {
        "sweep": bool(summary.searches),
        "folds": any(arm.cell is None and arm.runs for arm in summary.arms),
        "grid": any(arm.cell is not None and arm.runs for arm in summary.arms),
    }
    kept = {name for one in found for name in one.runs}
    of_cells = {run.name for arm in summary.arms if arm.cell is not None for run in arm.runs}
    unknown = {
        "sweep": not any(one.verb == "sweep" for one in found),
        "folds": bool(names - of_cells - kept),
        "grid": bool(of_cells - kept),
    }
    added = [
        Given(verb, report.file, report.overrides, report.digest)
        for verb in needed
        if needed[verb] and unknown[verb]
    ]
    return [
        *(one for one in added if one.verb == "sweep"),
        *found,
        *(one for one in added if one.verb != "sweep"),
    ]


def _file(command: Given, root: Path | None, out: Path, beside: dict[str, bytes]) -> str:
    """What to name as the file of a command: that which was typed while it is the same; else its copy, which
    comes beside the report."""
    with suppress(OSError):
        if commands.digest(Path(command.file).expanduser().read_bytes()) == command.digest:
            return command.file
    for name, known in beside.items():
        if commands.digest(known) == command.digest:
            return str(out / name)
    if root is None or (content := commands.content(root, command)) is None:
        return command.file
    name = f"{Path(command.file).stem}-{command.digest}.yaml"
    beside[name] = content
    return str(out / name)


def _data(summary: StudySummary) -> list[str]:
    """The commands that made the data set, or what is known of it."""
    shards = summary.base.data.shards
    found = made.commands(Path(shards))
    if found:
        return [
            shlex_line(["leukotree", *words]) + ("" if here else "   # given in another folder")
            for words, here in found
        ]
    options = _options(Path(shards))
    known = f", packed with {options}" if options else ""
    return [f"# the data set {shards}{known}: the commands that made it are not known"]


def _options(shards: Path) -> str:
    with suppress(OSError, ValueError):
        description = json.loads((shards / "dataset.json").read_text())
        return " ".join(f"--{key} {description[key]}" for key in PACK_OPTIONS if key in description)
    return ""


def _fields(summary: StudySummary) -> dict[str, Any]:
    study = {**summary.study, "base": summary.base.model_dump(mode="json", exclude_defaults=True)}
    filled = _filled(study)
    assert isinstance(filled, dict)
    return filled


def _filled(value: Any) -> Any:
    """Nested mappings without the keys that hold nothing."""
    if not isinstance(value, Mapping):
        return value
    inner = {key: _filled(below) for key, below in value.items()}
    return {key: below for key, below in inner.items() if below is not None and below != {}}
