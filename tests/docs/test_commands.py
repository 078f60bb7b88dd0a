"""Commands that a document tells a reader to type are commands. Those of the first ten minutes are run."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpc.cli import parser
from hpc.studies.search_settings import SearchSettings
from leukotree.data import phantom
from leukotree.data.pack import pack
from tests.helpers import documents
from tests.helpers.commandline import leukotree, parses

ROOT = documents.ROOT
PAGES = documents.pages()
ALSO = {"sweeps/my.yaml", "slurm/site/mine.yaml", "mine", "mysite"}
"""What the reader writes, by the text of the page."""
OPTIONAL = re.compile(r"\[[^]]*\]")


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def typed(path: Path) -> list[list[str]]:
    text = path.read_text()
    return [
        words for block in documents.blocks(text, *documents.TYPED) for words in documents.commands(block)
    ]


def problem(words: list[str]) -> str | None:
    """What is wrong with a command; None if it is a command of this repository, or another program's."""
    program, *rest = words
    if program == "leukotree":
        wrong = None if parses(rest) else "does not parse"
        return wrong or _absent(rest)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return next((f"no target {word}" for word in rest if "=" not in word and word not in targets), None)
    if program == "bash":
        return _absent(rest[:1]) or (problem(rest[2:]) if rest[2:3] == ["leukotree"] else None)
    if rest[:1] == ["-m"]:
        return None if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    return None


def _absent(words: list[str]) -> str | None:
    """A study, script or site that is named and not there."""
    for word, before in zip(words, ["", *words], strict=False):
        file = f"slurm/site/{word}.yaml" if before == "--site" else word
        ours = re.fullmatch(r"(?:sweeps|slurm)/[\w/-]+\.(?:yaml|sh)", file)
        if ours and not {word, file} & ALSO and not (ROOT / file).is_file():
            return f"no file {file}"
    return None


@pytest.mark.parametrize("path", [path for path in PAGES if typed(path)], ids=documents.name)
def test_what_it_tells_to_type_parses(path: Path) -> None:
    """The example of CONTRIBUTING.md adds the source that it imports from: tests/test_contributing.py runs
    it."""
    added = {"leukotree import filenames my-images my.csv"}
    wrong = [
        (shlex.join(words), found)
        for words in typed(path)
        if shlex.join(words) not in added and (found := problem(words))
    ]
    assert not wrong


def test_a_wrong_command_is_seen() -> None:
    block = "leukotree report sweeps/none.yaml   # a comment\nmake \\\n  none && leukotree repot x.yaml\n"
    lines = list(documents.commands(block))
    assert [words[-1] for words in lines] == ["sweeps/none.yaml", "none", "x.yaml"]
    assert all(problem(words) for words in lines)
    assert problem(["leukotree", "report", "sweeps/phantom.yaml"]) is None


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "sweeps").glob("*.yaml"))], ids=documents.name)
def test_verbs_and_options_in_its_sentences_exist(path: Path) -> None:
    """`leukotree pack --folds` names a verb and an option; SPEC, STUDY and the like stand for arguments."""
    text, known = path.read_text(), verbs()
    named = re.findall(r"`leukotree ([^`]*)`", documents.prose(text))
    if path.suffix == ".yaml":
        named = re.findall(r"leukotree (\w+(?: [^\s,;()`]+)*)", text.partition("\nstudy:")[0])
    for command in named:
        verb, *rest = OPTIONAL.sub(" ", command).split()
        if verb in ("VERB", "--version", "--help"):
            continue
        verb = verb.rstrip(":")
        assert verb in known, command
        options = [word.partition("=")[0] for word in rest if word.startswith("--") and word != "--"]
        unknown = [option for option in options if option not in known[verb]._option_string_actions]
        assert not unknown, f"{command}: {unknown}"


def test_the_readme_lists_every_verb() -> None:
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `leukotree (?!-)(\w[\w-]*)", text, re.MULTILINE)
    assert sorted(set(listed)) == sorted(verbs())


def test_the_readme_is_the_short_form_of_start() -> None:
    start = typed(ROOT / "docs/start.md")
    assert [words for words in typed(ROOT / "README.md") if words not in start] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's studies, and small phantom shards under the names that they have."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("sweeps", "slurm"):
        (folder / name).symlink_to(ROOT / name)
    manifest = phantom.write(folder / "images", patients=28, per_patient=1, size=32, seed=0)
    for name, folds in (("phantom", 4), ("smoke", 2)):
        pack(manifest, folder / "data" / name, folds=folds, size=32)
    return folder


def sections(page: str) -> dict[str, str]:
    text = (ROOT / page).read_text()
    return dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def follow(block: str, folder: Path, *more: str) -> list[str]:
    """Run the commands of a block, each with the options `more` that it has. Returns what they print."""
    printed = []
    for _, *words in documents.commands(block):
        extra = [word for word in more if word.partition("=")[0] in verbs()[words[0]]._option_string_actions]
        done = leukotree(*words, *extra, cwd=folder)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
        printed.append(done.stdout)
    return printed


def first_blocks() -> list[str]:
    start = sections("docs/start.md")
    return [documents.blocks(start[title], "bash")[0] for title in ("Make data", "Train and compare")]


@pytest.mark.slow("runs the commands of a page")
def test_the_data_of_the_first_study_are_made_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    data, train = first_blocks()
    drawn, packed, audited = follow(data, tmp_path)
    text = sections("docs/start.md")["Make data"]
    assert "168 cells of 28 invented patients" in text
    assert "168 images" in drawn + packed
    assert "colour" in audited
    (planned,) = follow(train.splitlines()[0], tmp_path, "--dry-run")
    assert "9 runs" in planned


@pytest.mark.slow("trains nine runs")
def test_the_first_ten_minutes_end_with_the_report(tmp_path: Path) -> None:
    (tmp_path / "sweeps").symlink_to(ROOT / "sweeps")
    data, train = first_blocks()
    follow(data, tmp_path)
    follow(train, tmp_path, "--on=inline", "--device=cpu", "--threads=1")
    page = (tmp_path / "results/first/report.html").read_text()
    assert re.search("inconclusive|not estimable", page)


@pytest.mark.slow("runs the commands of a page")
def test_the_commands_of_studies_run(place: Path) -> None:
    block = documents.blocks((ROOT / "docs/studies.md").read_text(), "bash")[0]
    dry = "\n".join(line for line in block.splitlines() if "data/leukemia" not in line and "plan" not in line)
    searched, cells, differs = follow(dry, place)
    assert "flat" in searched
    assert "96 runs" in cells
    assert "loss.gamma" in differs


def test_the_example_of_a_study_is_one(tmp_path: Path) -> None:
    from hpc.studies import study as studies

    example, longer_search = documents.blocks((ROOT / "docs/studies.md").read_text(), "yaml")
    (tmp_path / "my.yaml").write_text(example)
    plan = studies.load(tmp_path / "my.yaml")
    assert plan.search.trials == 20
    assert plan.primary == (("multilabel", "flat"),)
    search = {**plan.search.model_dump(exclude_unset=True), **yaml.safe_load(longer_search)["search"]}
    assert SearchSettings.model_validate(search).rerun_count(40) == 3


def test_the_sum_of_the_paper_prints_what_is_written() -> None:
    block = documents.blocks(sections("docs/paper.md")["The accuracy"], "bash")[0]
    (words,) = (words for words in documents.commands(block) if words[0] == "python")
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
    assert f"# {done.stdout.strip()}" in block.splitlines()
