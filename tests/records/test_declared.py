"""What was declared before the first run stays on record, and a report says what the study file says
otherwise since."""

from __future__ import annotations

from pathlib import Path

import pytest

from leukotree import yamlfile
from leukotree.errors import InputError
from leukotree.records import declared
from tests.helpers import study_results

STUDY = {**study_results.STUDY, "decision": "greedy", "rope": 0.01, "primary": [["multilabel", "flat"]]}


def test_the_first_declaration_stays(tmp_path: Path) -> None:
    declared.keep(tmp_path / "study", STUDY)
    declared.keep(tmp_path / "study", {**STUDY, "rope": 0.05})
    kept = yamlfile.load(tmp_path / "study" / declared.FILE)
    assert kept == {
        "decision": "greedy",
        "rope": 0.01,
        "primary": [["multilabel", "flat"]],
        "variants": ["flat", "base", "multilabel"],
        "seeds": [0, 1],
        "grid": None,
        "repeats": 1,
        "costs": None,
        "operating": {"specificity": 0.95, "coverage": 0.9},
    }
    assert declared.changes(tmp_path / "study", STUDY) == []


@pytest.mark.parametrize(
    ("key", "value", "change"),
    [
        ("rope", 0.05, "`rope` was 0.01 and is 0.05"),
        ("decision", "joint", "`decision` was greedy and is joint"),
        ("primary", None, "`primary` was [['multilabel', 'flat']] and is not given"),
        (
            "variants",
            ["flat", "base"],
            "`variants` was ['flat', 'base', 'multilabel'] and is ['flat', 'base']",
        ),
        ("seeds", [7], "`seeds` was [0, 1] and is [7]"),
        ("costs", {"APML": {"AML": 9.0}}, "`costs` was not given and is {'APML': {'AML': 9.0}}"),
        (
            "operating",
            {"specificity": 0.9, "coverage": 0.9},
            "`operating` was {'specificity': 0.95, 'coverage': 0.9} and is "
            "{'specificity': 0.9, 'coverage': 0.9}",
        ),
        (
            "grid",
            {"loss.tau": [0.125] * 40},
            f"`grid` was not given and is {str({'loss.tau': [0.125] * 40})[:77]}...",
        ),
    ],
)
def test_a_later_change_is_named(tmp_path: Path, key: str, value: object, change: str) -> None:
    declared.keep(tmp_path, STUDY)
    assert declared.changes(tmp_path, {**STUDY, key: value, "search": {}}) == [change]


def test_a_file_of_an_earlier_version_declared_what_held_then(tmp_path: Path) -> None:
    declared.keep(tmp_path, STUDY)
    kept = yamlfile.load(tmp_path / declared.FILE)
    old = {key: value for key, value in kept.items() if key not in declared.LATER}
    (tmp_path / declared.FILE).write_text(yamlfile.dump(old))
    now = {**STUDY, "costs": None, "operating": {"specificity": 0.95, "coverage": 0.9}}
    assert declared.changes(tmp_path, now) == []
    change = declared.changes(tmp_path, {**now, "costs": {"APML": {"AML": 9.0}}})
    assert change == ["`costs` was not given and is {'APML': {'AML': 9.0}}"]


def test_without_a_file_there_are_no_changes(tmp_path: Path) -> None:
    assert declared.changes(tmp_path, STUDY) == []


@pytest.mark.parametrize("content", ["rope: 0.01\n", "[]\n", "decision: [\n"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / declared.FILE).write_text(content)
    with pytest.raises(InputError, match=r"declared\.yaml"):
        declared.changes(tmp_path, STUDY)


@pytest.mark.slow("renders two reports")
def test_the_report_warns_at_its_top(copy: Path, tmp_path: Path) -> None:
    declared.keep(copy, STUDY)
    same = study_results.markdown_of(copy, tmp_path / "same", STUDY)
    changed = study_results.markdown_of(copy, tmp_path / "changed", {**STUDY, "rope": 0.2})
    assert "declaration in the study file was changed" not in same
    warning = "The declaration in the study file was changed after the first run: `rope` was 0.01 and is 0.2."
    assert warning in study_results.section(changed, "")


@pytest.mark.parametrize(
    ("decision", "rule"),
    [
        ("joint", "joint"),
        (None, "greedy"),
        ({}, "greedy"),
        ({"flat": "joint", "base": "joint"}, "joint"),
        ({"flat": "greedy"}, "greedy"),
        ({"flat": "joint", "base": "joint", "multilabel": "greedy"}, "joint"),
    ],
)
def test_one_rule_of_all_variants(decision: object, rule: str) -> None:
    assert declared.rule(decision, ["flat", "base"], "s.yaml: decision") == rule


@pytest.mark.parametrize(
    ("decision", "problem"),
    [
        (
            {"flat": "joint"},
            "variants cannot be compared under different rules (flat by joint, base by greedy)",
        ),
        ({"flat": "joint", "base": "marginal"}, "(flat by joint, base by marginal); give one rule for all"),
        ("viterbi", "no rule 'viterbi'"),
        ({"multilabel": "viterbi"}, "no rule 'viterbi'"),
    ],
)
def test_different_and_unknown_rules_are_refused(decision: object, problem: str) -> None:
    with pytest.raises(InputError) as error:
        declared.rule(decision, ["flat", "base"], "s.yaml: decision")
    assert str(error.value).startswith("s.yaml: decision: ")
    assert problem in str(error.value)
