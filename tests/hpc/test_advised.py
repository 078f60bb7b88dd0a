"""Commands that messages advise are commands: they parse as they stand and, where that is cheap, they are
run."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.helpers.commandline import assert_refused, leukotree, parses

ROOT = Path(__file__).parents[2]
ADVISED = re.compile(r"`(leukotree [^`]*)`")
NAMED = {
    ("src/leukotree/data/pack_folder.py", "leukotree pack"),
    ("src/leukotree/data/dataset.py", "leukotree pack"),
    ("src/leukotree/data/fingerprint.py", "leukotree pack"),
    ("src/leukotree/data/patients/pseudonyms.py", "leukotree pack"),
    ("src/leukotree/data/audit/audit.py", "leukotree pack"),
    ("src/leukotree/data/audit/contact_sheet.py", "leukotree pack --group-near-duplicates"),
    ("src/leukotree/report/prose/data.py", "leukotree pack --folds-by\nsource"),
    ("src/leukotree/report/prose/data.py", "leukotree import"),
    ("hpc/launching/cancelled.py", "leukotree cancel"),
    ("hpc/status.py", "leukotree sweep"),
    ("hpc/verbs/search.py", "leukotree sweep"),
}
"""(file, command) that is spoken of, not advised: somebody has given it, or a folder comes from it."""


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of each text in the code that is no docstring; what a text fills in reads `x`, a number
    where one belongs."""
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "hpc").rglob("*.py")]):
        tree = ast.parse(path.read_text())
        inside = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield str(path.relative_to(ROOT)), "".join(_filled(part) for part in node.values)
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in inside | docstrings
            ):
                yield str(path.relative_to(ROOT)), node.value


def _filled(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    source = ast.unparse(part)
    if "{repeat + 1}" in source:
        return "3"
    return "--elastic 3" if "{elastic}" in source else "x.yaml"


@pytest.mark.slow("runs whole commands")
def test_every_advised_command_parses_as_it_stands() -> None:
    found = [(file, command) for file, text in texts() for command in ADVISED.findall(text)]
    assert len(found) > 10
    for file, command in found:
        if (file, command) in NAMED or command.split()[
            1
        ] == "x.yaml":  # of the latter the verb is filled in, too
            continue
        words = shlex.split(command)[1:]
        if "--help" not in words:
            assert parses(words), f"{file}: `{command}` does not parse"


@pytest.fixture
def work(shards: Path, tmp_path: Path) -> Path:
    base = {"data": {"shards": str(shards)}, "backbone": {"name": "test_vit"}, "optim": {"epochs": 1}}
    search = {"trials": 1, "space": {"optim.lr": {"uniform": [0.1, 0.2]}}}
    study = {"base": base, "folds": {"outer": 4, "inner": 2}, "variants": ["flat"]}
    (tmp_path / "sweeps").mkdir()
    for name, more in (
        ("my", {"search": search}),
        ("cells", {"search": {"trials": 0}, "grid": {"loss.gamma": [0, 1]}}),
    ):
        (tmp_path / "sweeps" / f"{name}.yaml").write_text(yaml.safe_dump({"study": name, **study, **more}))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "advised"),
    [
        ("status my", "leukotree sweep sweeps/my.yaml"),
        ("status cells", "leukotree grid sweeps/cells.yaml"),
        ("status sweeps/my.yaml search.trials=2", "leukotree sweep sweeps/my.yaml search.trials=2"),
        ("folds sweeps/my.yaml search.trials=2", "leukotree sweep sweeps/my.yaml search.trials=2"),
        ("report sweeps/my.yaml", "leukotree sweep sweeps/my.yaml"),
        ("report sweeps/cells.yaml", "leukotree grid sweeps/cells.yaml"),
        ("train sweeps/my.yaml", "leukotree sweep sweeps/my.yaml"),
    ],
)
def test_what_is_advised_works_as_it_is_typed(given: str, advised: str, work: Path) -> None:
    done = leukotree(*given.split(), cwd=work)
    assert_refused(done, advised)
    first, *_ = ADVISED.findall(done.stderr)
    assert first == advised
    tried = leukotree(*shlex.split(first)[1:], "--dry-run", cwd=work)
    assert tried.returncode == 0, tried.stderr


def test_a_study_whose_file_nobody_knows_has_a_placeholder(work: Path) -> None:
    assert_refused(
        leukotree("status", "unknown", cwd=work), "no runs yet; start with `leukotree sweep STUDY.yaml`"
    )
