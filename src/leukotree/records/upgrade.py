"""Specs that an earlier version stored, with the settings that their runs really had.

A key that a stored spec lacks has its default. That is right where the default is what a run did before there
was the key. It is wrong where a key began to have an effect. Before `loss.normalisation` was a key:

* Only `focal` had class weights and a mean over the images of each decision. The other kinds had no class
  weights, whatever `tau` said, and a mean over all images.
* The log variances of `uncertainty` had the learning rate of the heads.
* `hxe` had a weight for each child instead of each decision. No key says that: see `outdated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leukotree import yamlfile
from leukotree.spec import LossSpec

_SINCE = "normalisation"
"""The key of `loss` that specs have since then. A run stores all keys."""


def upgraded(tree: Any) -> Any:
    """The tree of a stored spec with the values that its run had. What is no stored spec is returned as it
    is."""
    loss = tree.get("loss") if isinstance(tree, Mapping) else None
    if not isinstance(loss, Mapping) or _SINCE in loss:
        return tree
    changes: dict[str, Any] = {}
    if loss.get("kind", "focal") != "focal":
        changes["tau"] = 0.0
        if tree.get("variant") != "base":  # where both normalisations are the same
            changes[_SINCE] = "all"
    if loss.get("weighting") == "uncertainty":
        optim = tree.get("optim") or {}
        changes["variance_lr"] = optim.get("lr", 1e-4) * optim.get("head_lr_multiplier", 1.0)
    return {**tree, "loss": {**loss, **changes}}


def outdated(path: Path) -> bool:
    """Whether a file with a stored spec, read with today's defaults, means another run than the one that
    stored it. Raises InputError for a file that is not YAML."""
    return outdated_text(path.read_text(encoding="utf-8") if path.is_file() else "", path)


def outdated_text(text: str, path: Path) -> bool:
    """As `outdated`, of the text of the file. Fast: `status` asks for thousands of them."""
    if f"\n  {_SINCE}:" in text or not text:
        return False
    if "\n  kind: focal\n" in text and "\n  weighting: fixed\n" in text:
        return False
    tree = yamlfile.parse(text, str(path))
    loss = tree.get("loss") if isinstance(tree, Mapping) else None
    if not isinstance(loss, Mapping):
        return False
    defaults = {name: field.default for name, field in LossSpec.model_fields.items()}
    return {**defaults, **upgraded(tree)["loss"]} != {**defaults, **loss} or _weighs_children(tree, loss)


def _weighs_children(tree: Mapping[str, Any], loss: Mapping[str, Any]) -> bool:
    """Whether a run had a weight for each child of a decision. The children of the one head of `flat` are
    leaves, of equal weight."""
    leaves = tree.get("variant") == "flat" and loss.get("kind", "focal") == "focal"
    return loss.get("weighting") == "hxe" and bool(loss.get("hxe_alpha")) and not leaves
