"""The section Reproduce: the commands and the code that made the results. tests/hpc runs the commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from leukotree.records import attempts, commands, made
from leukotree.records.commands import Given
from leukotree.report.sections.reproduce import shlex_line
from tests.helpers.study_results import expected_runs, report, section

pytestmark = pytest.mark.slow("renders many reports")

RUN = expected_runs()[0]["run_name"]


def reproduced(root: Path, out: Path) -> str:
    return section(report(root, out)[0], "Reproduce")


def attempt(letter: str, at: int) -> dict[str, Any]:
    return {"ranks": 1, "at": at, "commit": letter * 40, "dirty": letter == "b", "code": letter * 12}


def write_attempts(path: Path, *attempts: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in attempts))


def test_runs_of_one_code_have_no_warning(copy: Path, tmp_path: Path) -> None:
    """Runs of an older version have their commit in env.json alone."""
    write_attempts(copy / RUN / "attempts.jsonl", attempt("b", 0), attempt("b", 5))
    text = reproduced(copy, tmp_path / "out")
    changed = "`commit bbbbbbbbbbbb with changes (code bbbbbbbbbbbb)` (1 run)"
    assert f"Code: {changed}; `commit cccccccccccc` (17 runs)." in text
    assert "continued on other code" not in text


def test_a_run_and_a_search_that_were_continued_on_other_code_are_named(copy: Path, tmp_path: Path) -> None:
    write_attempts(copy / RUN / "attempts.jsonl", attempt("a", 0), attempt("b", 5))
    write_attempts(copy / "search" / "attempts.jsonl", attempt("c", 0), attempt("a", 9))
    text = reproduced(copy, tmp_path / "out")
    then = "`commit aaaaaaaaaaaa`, then `commit bbbbbbbbbbbb with changes (code bbbbbbbbbbbb)`"
    assert f"Run `{RUN}` was continued on other code: {then}." in text
    assert (
        "The search was continued on other code: `commit cccccccccccc`, then `commit aaaaaaaaaaaa`." in text
    )
    assert text.count("continued on other code") == 2


def test_results_from_before_commands_were_recorded(whole: Path, tmp_path: Path) -> None:
    text = reproduced(whole, tmp_path)
    lines = text.split("```")[1].strip().splitlines()
    assert lines[:4] == [
        "# the data set absent: the commands that made it are not known",
        "leukotree sweep study.yaml",
        "leukotree folds study.yaml",
        "leukotree report study.yaml",
    ]
    assert (tmp_path / "study.yaml").is_file()


def test_a_command_that_made_none_of_the_runs_is_left_out(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("study: synthetic\n")
    names = [row["run_name"] for row in expected_runs()]
    for overrides, runs in (
        (["seeds=[0]"], names[:4]),
        (["base.optim.epochs=1"], ["flat-ffffffffffff"]),
        ([], names),
    ):
        commands.keep(copy, commands.given("folds", str(file), overrides, runs))
    lines = reproduced(copy, tmp_path / "out").split("```")[1].splitlines()
    folds = [line for line in lines if line.startswith("leukotree folds")]
    assert folds == [f"leukotree folds {file} 'seeds=[0]'", f"leukotree folds {file}"]


def test_a_damaged_line_of_commands_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("study: a\n")
    command = commands.given("sweep", str(file), ["search.trials=2"])
    commands.keep(tmp_path, command)
    with (tmp_path / commands.FILE).open("a") as log:
        log.write('{"verb": "sweep", "file": 3}\n[1]\n{"verb"')
    assert commands.kept(tmp_path) == [command]
    commands.keep(tmp_path, Given("folds", str(file), (), command.digest))
    assert [one.verb for one in commands.kept(tmp_path)] == ["sweep", "folds"]
    assert commands.content(tmp_path, command) == file.read_bytes()


@pytest.mark.parametrize("line", ["", "{", "[]", "null"])
def test_lines_that_are_no_attempts(tmp_path: Path, line: str) -> None:
    (tmp_path / "attempts.jsonl").write_text(f"{line}\n")
    assert attempts.read(tmp_path) == []


@pytest.mark.parametrize("line", ["[1]", "{}", '{"commit": 5, "code": [1], "ranks": "x", "at": "y"}'])
def test_attempts_of_another_form_are_left_out(copy: Path, tmp_path: Path, line: str) -> None:
    (copy / RUN / "attempts.jsonl").write_text(f"{line}\n")
    assert "continued on other code" not in reproduced(copy, tmp_path / "out")


@pytest.mark.parametrize("name", ["digest", "file"])
def test_a_command_whose_names_leave_the_folder_is_left_out(tmp_path: Path, name: str) -> None:
    row = {"verb": "folds", "file": "study.yaml", "overrides": [], "digest": "0" * 12, "runs": []}
    lines = [
        json.dumps(one) for one in (row, row | {name: {"digest": "../" * 4 + "x", "file": "a\0b"}[name]})
    ]
    (tmp_path / "commands.jsonl").write_text("\n".join(lines))
    assert commands.kept(tmp_path) == [Given("folds", "study.yaml", (), "0" * 12)]


@pytest.mark.parametrize(
    "word",
    [
        "two\nlines",
        "x\n```\n# Title",
        "it's \t \\ tab",
        "\x1b[31mred",
        "\u202eover",
        "\udcff.csv",
        "plain {a} 'b' `c`",
        "Müller",
        "",
    ],
)
def test_a_word_of_a_command_is_printed_in_one_line_that_a_shell_reads_back(word: str) -> None:
    line = shlex_line(["printf", "%s", word])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "{", '{"commands": 3}', '{"commands": [{"words": "ab", "folder": "."}]}', "[" * 100_000, ""],
)
def test_a_damaged_note_of_the_data_is_left_out(tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("image,leaf,patient\n")
    for note in (tmp_path / "made.json", tmp_path / ".m.csv.made.json"):
        note.write_text(text)
    assert made.commands(tmp_path) == []
    (tmp_path / "shards").mkdir()
    made.note_shards(tmp_path / "shards", [manifest], ["pack", "m.csv", "shards"])
    assert [words for words, _ in made.commands(tmp_path / "shards")] == [["pack", "m.csv", "shards"]]


def test_a_pipe_instead_of_a_note_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "made.json")
    assert made.commands(tmp_path) == []
