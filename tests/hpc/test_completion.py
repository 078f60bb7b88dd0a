"""A shell completes verbs, options, choices and files, with the script of `leukotree completion`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hpc.verbs import writing
from tests.helpers.commandline import assert_refused, leukotree


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    done = leukotree("completion", "bash", cwd=folder)
    assert done.returncode == 0, done.stderr
    file = folder / "leukotree.bash"
    file.write_text(done.stdout)
    return file


def completed(script: Path, cwd: Path, *words: str) -> set[str]:
    """What bash offers for the last one of the words of a command."""
    code = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function_name=$(complete -p leukotree | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
        $function_name leukotree "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", str(script), "leukotree", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_verbs(script: Path, tmp_path: Path) -> None:
    assert completed(script, tmp_path, "re") == {"refit", "report"}
    assert {"train", "sweep", "new-study", "completion"} <= completed(script, tmp_path, "")


def test_bash_completes_options_and_choices(script: Path, tmp_path: Path) -> None:
    assert completed(script, tmp_path, "folds", "--ran") == {"--ranks"}
    assert completed(script, tmp_path, "train", "x.yaml", "--on", "s") == {"slurm"}
    assert completed(script, tmp_path, "new-study", "mine", "--like", "") == set(writing.LIKE)
    assert completed(script, tmp_path, "schema", "") == set(writing.SCHEMAS)
    assert "--version" in completed(script, tmp_path, "--v")


def test_bash_completes_files_and_folders(script: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "minor").mkdir()
    assert {"mine.yaml", "minor"} <= {word.rstrip("/") for word in completed(script, tmp_path, "sweep", "mi")}
    assert {word.rstrip("/") for word in completed(script, tmp_path, "audit", "mi")} == {"minor"}


@pytest.mark.parametrize("shell", writing.SHELLS)
def test_each_shell_reads_its_script(shell: str, tmp_path: Path) -> None:
    done = leukotree("completion", shell, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("report", "folds", "new-study"))
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here: its script is written, and not read by it")
    (tmp_path / "script").write_text(done.stdout)
    read = subprocess.run([shell, "-n", "script"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


def test_another_shell_is_refused(tmp_path: Path) -> None:
    assert_refused(leukotree("completion", "dosh", cwd=tmp_path), "dosh")
