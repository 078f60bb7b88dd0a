"""The habits of the repository: hooks of a commit, versions, and the documents that a newcomer reads."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TERMS = [
    "arm",
    "cell",
    "stage",
    "level",
    "decision",
    "unit",
    "run",
    "trial",
    "slot",
    "fold",
    "study",
    "site",
    "shard",
    "manifest",
]


def test_the_hooks_of_a_commit_have_the_tested_versions_and_name_no_host() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    hooks = [hook for repository in yaml.safe_load(text)["repos"] for hook in repository["hooks"]]
    needed = [name.split("==") for hook in hooks for name in hook.get("additional_dependencies", [])]
    assert {name for name, _ in needed} == {"ruff", "codespell"}
    assert all(version == pinned.get(name, version) for name, version in needed)
    assert {"ruff", "ruff-format", "codespell", "mypy"} == {hook["id"] for hook in hooks}
    assert "://" not in text


def test_the_glossary_has_every_term() -> None:
    text = (ROOT / "docs/glossary.md").read_text()
    assert [term for term in TERMS if f"**{term}**: " not in text] == []


def test_the_folders_that_are_drawn_are_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    tree = re.search(r"## Folders\n.*?```text\n(.*?)```", text, re.DOTALL)
    assert tree
    drawn, above = [], ""
    for line in tree[1].splitlines():
        name = line.split("#")[0].strip()
        if name and not line.startswith(" "):
            above = name if name.endswith("/") else ""
        drawn += [part if not line.startswith(" ") else above + part for part in name.split()]
    assert len(drawn) > 20
    ignored = {"results/runs/"}  # not tracked
    assert [path for path in drawn if path not in ignored and not (ROOT / path).exists()] == []


def test_the_readme_names_the_licence() -> None:
    assert "licence" in (ROOT / "README.md").read_text().lower()
