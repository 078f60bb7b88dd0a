"""declared.yaml: what a study declares before its first run. The rule of decision, the region of equivalence,
the comparisons, the costs of mistakes and the operating points.

A study file can be edited after the runs. A report compares it with this file, and names the changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leukotree import files, yamlfile
from leukotree.errors import InputError
from leukotree.evaluation.decide import RULES, Rule
from leukotree.evaluation.operating import Operating

FILE = "declared.yaml"
LATER: dict[str, Any] = {"costs": None, "operating": Operating().model_dump()}
"""Keys that older files lack, with the value that held then."""
KEYS = ("decision", "rope", "primary", "variants", "seeds", "grid", *LATER)
"""Keys of a study that are declared. `variants` and `grid` give the comparisons if there is no `primary`.
`seeds` change every score, `costs` and `operating` the clinical ones."""
DEFAULT_RULE: Rule = "greedy"
"""The decision rule of a variant for which a study gives none."""
REPEATS = "repeats"
"""Also declared: how often the outer cross-validation is repeated. Who repeats it after a look at the results
chooses when to stop. Older files lack it; their studies had one."""
MOST = 80
"""Most characters of a value that are shown."""


def keep(root: Path, study: Mapping[str, Any]) -> None:
    """Write what `study` declares into its folder, unless the file is there."""
    if not (root / FILE).exists():
        files.write_atomic(root / FILE, yamlfile.dump(_declared(study)))


def kept(root: Path) -> dict[str, Any]:
    """What the file in a study's folder declares; {} without one, or for one that cannot be read."""
    try:
        before = yamlfile.load(root / FILE) if (root / FILE).exists() else {}
    except InputError:
        return {}
    return before if isinstance(before, dict) else {}


def changes(root: Path, study: Mapping[str, Any]) -> list[str]:
    """What `study` declares differently than the file: a text for each changed key; [] without a file. Raises
    InputError for a damaged file."""
    if not (root / FILE).exists():
        return []
    before, now = yamlfile.load(root / FILE), _declared(study)
    before = {**LATER, REPEATS: 1, **before} if isinstance(before, dict) else before
    if not isinstance(before, dict) or before.keys() != now.keys():
        fix = "restore it, or remove it to declare again"
        raise InputError(f"{root / FILE}: does not have the keys {', '.join(KEYS)}; {fix}")
    return [
        f"`{key}` was {_shown(before[key])} and is {_shown(now[key])}"
        for key in now
        if before[key] != now[key]
    ]


def _declared(study: Mapping[str, Any]) -> dict[str, Any]:
    repeats = (study.get("folds") or {}).get("repeats") or 1
    return {key: study.get(key, LATER.get(key)) for key in KEYS} | {REPEATS: repeats}


def _shown(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."


def rule(decision: object, variants: Sequence[str], where: str) -> Rule:
    """The one decision rule of a study's variants.

    Args:
        decision: a rule for all variants, a mapping of variants to rules, or None. Rules of other variants do
            not count.
        where: the file and key, for an error.

    Raises InputError for an unknown rule, and for variants with different rules: a difference of two arms
    would mix the models with the rules.
    """
    given = decision or DEFAULT_RULE
    rules = {
        variant: given.get(variant, DEFAULT_RULE) if isinstance(given, Mapping) else given
        for variant in variants
    }
    for name in [*rules.values(), *(given.values() if isinstance(given, Mapping) else ())]:
        if name not in RULES:
            raise InputError(f"{where}: no rule {name!r}; there are {', '.join(RULES)}")
    if len(set(rules.values())) > 1:
        listed = ", ".join(f"{variant} by {name}" for variant, name in rules.items())
        raise InputError(
            f"{where}: variants cannot be compared under different rules ({listed}); give one rule for all"
        )
    return str(next(iter(rules.values())))
