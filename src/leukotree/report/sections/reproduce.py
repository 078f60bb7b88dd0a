"""The section with the commands that made the results, from the raw images to the report, and the files they
need."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukotree import tree_choice, yamlfile
from leukotree.data import fingerprint
from leukotree.data.remote.place import place
from leukotree.records import commands, made, searchfolder
from leukotree.records.commands import Given
from leukotree.report.blocks import Block, Code, Section, Text, text
from leukotree.report.prose import runs as prose
from leukotree.report.sections import code
from leukotree.report.summary import StudySummary

STUDY = "study.yaml"
"""The name of the study file beside the report."""
PACK_OPTIONS = ("folds", "size", "seed")
"""The options of `leukotree pack` that dataset.json records. For a data set whose commands are not known."""


@dataclass(frozen=True)
class Reproduction:
    """The section, and the files beside the report."""

    section: Section
    files: dict[str, bytes]
    """File name -> content."""


def reproduction(summary: StudySummary, out: Path, report: Given | None) -> Reproduction:
    """The section, and the files beside the report.

    `report` is the command that writes this report into `out`. Without one, files beside the report have no
    folder.
    """
    beside = {STUDY: _study_file(summary, report)}
    if report is None:
        out, report = Path(), Given("report", STUDY, (), commands.digest(beside[STUDY]))
    root = _root(summary)
    lines = _data_commands(summary)
    for command in _run_commands(summary, report):
        lines.append(shlex_line(command.words(_file(command, root, out, beside))))
    lines.append(shlex_line(report.words(_file(report, root, out, beside))))
    if summary.runs:
        run = summary.runs[0]
        lines.append(
            f"leukotree train results/runs/{summary.name}/{run.name}/spec.yaml   # one run by itself"
        )
    blocks: list[Block] = [text(prose.REPRODUCE, file=STUDY), Code("\n".join(lines)), *code.texts(summary)]
    copies = _tree_files(summary)
    beside |= {name: content for name, content in copies.values()}
    blocks += [Text(f"The tree of `{path}` as it was used: `{name}`.") for path, (name, _) in copies.items()]
    fingerprints = {str(run.environment["dataset"]) for run in summary.runs if run.environment.get("dataset")}
    if fingerprints:
        listed = ", ".join(f"`{fingerprint}`" for fingerprint in sorted(fingerprints))
        blocks.append(Text(f"Fingerprints of the data set: {listed}."))
    blocks += [Text("The study, without default values:"), Code(yamlfile.dump(_fields(summary)).rstrip())]
    return Reproduction(Section("Reproduce", blocks), beside)


def shlex_line(words: list[str]) -> str:
    """A command in one line, quoted for a shell. A leading ~/ is not quoted, because a shell expands it only
    then."""
    return " ".join(f"~/{_quoted(word[2:])}" if word.startswith("~/") else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A word, quoted. Line breaks and other control characters are escaped: a line break would end the line
    and could end the block of code, and others change the state of a terminal."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(letter) for letter in word) + "'"


def _escaped(letter: str) -> str:
    """A letter between $' and ', as bash and zsh read it."""
    if letter.isprintable() and letter not in "\\'":
        return letter
    is_byte = "\udc80" <= letter <= "\udcff"  # a byte of a name that is not UTF-8, as Python stores it
    return "".join(
        f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape" if is_byte else "surrogatepass")
    )


def _study_file(summary: StudySummary, report: Given | None) -> bytes:
    """The content of the study file that the command named, or the study's fields where it cannot be read."""
    if report is not None:
        with suppress(OSError):
            return Path(report.file).expanduser().read_bytes()
    return yamlfile.dump(_fields(summary)).encode()


def _tree_files(summary: StudySummary) -> dict[str, tuple[str, bytes]]:
    """Path of a label tree's file -> the name and content of its copy beside the report, as the runs used
    it."""
    copies = {}
    for run in summary.runs:
        path = tree_choice.file(run.tree)
        if path is not None and path not in copies:
            taxonomy = run.own.taxonomy if run.own else run.taxonomy
            content = yamlfile.dump(taxonomy.nested()).encode()
            copies[path] = (f"tree-{Path(path).stem}-{commands.digest(content)}.yaml", content)
    return copies


def _root(summary: StudySummary) -> Path | None:
    """The folder of the study's runs. None without runs and searches."""
    if summary.runs:
        return summary.runs[0].folder.parent
    for folds in summary.searches.values():
        for search in folds.values():
            return searchfolder.study_of(search.folder)
    return None


def _run_commands(summary: StudySummary, report: Given) -> list[Given]:
    """The recorded commands that made the reported results.

    Older versions recorded no commands. For their results, a command with the report's study file is added.
    """
    root, names = _root(summary), {run.name for run in summary.runs}
    recorded = [
        command
        for command in (commands.kept(root) if root else [])
        if (command.verb == "sweep" and summary.searches) or names & set(command.runs)
    ]
    made = {name for command in recorded for name in command.runs}
    of_cells = {run.name for arm in summary.arms if arm.cell is not None for run in arm.runs}
    swept = any(command.verb == "sweep" for command in recorded)
    missing = {
        "sweep": bool(summary.searches) and not swept,
        "folds": bool(names - of_cells - made),
        "grid": bool(of_cells - made),
    }
    added = [Given(verb, report.file, report.overrides, report.digest) for verb in missing if missing[verb]]
    sweeps = [command for command in added if command.verb == "sweep"]
    return [*sweeps, *recorded, *(command for command in added if command.verb != "sweep")]


def _file(command: Given, root: Path | None, out: Path, beside: dict[str, bytes]) -> str:
    """The file to name in a command: the given one while its content is the same, else a copy beside the
    report. The copy is added to `beside`."""
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


def _data_commands(summary: StudySummary) -> list[str]:
    """The commands that made the data set, or a comment with what is known of it."""
    shards = summary.base.data.shards
    recorded = made.commands(place(shards))
    if recorded:
        return [
            shlex_line(["leukotree", *words]) + ("" if here else "   # given in another folder")
            for words, here in recorded
        ]
    options = _options(place(shards))
    known = f", packed with {options}" if options else ""
    return [f"# the data set {shards}{known}: the commands that made it are not known"]


def _options(shards: Path) -> str:
    """The options of `leukotree pack`, by dataset.json. Empty where it cannot be read."""
    with suppress(OSError, ValueError):
        description = json.loads((shards / fingerprint.DESCRIPTION).read_text())
        return " ".join(f"--{key} {description[key]}" for key in PACK_OPTIONS if key in description)
    return ""


def _fields(summary: StudySummary) -> dict[str, Any]:
    """The fields of the study file without default values."""
    study = {**summary.study, "base": summary.base.model_dump(mode="json", exclude_defaults=True)}
    filled = _filled(study)
    assert isinstance(filled, dict)
    return filled


def _filled(value: Any) -> Any:
    """Nested mappings without the keys whose value is None or empty."""
    if not isinstance(value, Mapping):
        return value
    inner = {key: _filled(below) for key, below in value.items()}
    return {key: below for key, below in inner.items() if below is not None and below != {}}
