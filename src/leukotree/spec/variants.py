"""The variants of a run, and what they have in common."""

from __future__ import annotations

from typing import Literal

Variant = Literal["flat", "base", "multilabel", "ensemble", "logistic", "neighbours"]
TRAINED: tuple[Variant, ...] = ("flat", "base", "multilabel", "ensemble")
"""Variants that are trained in steps."""
PLAIN: tuple[Variant, ...] = ("logistic", "neighbours")
"""Variants that are fitted at once to the stored features of a frozen backbone."""
VARIANTS: tuple[Variant, ...] = (*TRAINED, *PLAIN)
COMPARED: tuple[Variant, ...] = ("flat", "base", "multilabel")
"""The variants of a study that does not name its own."""
OF_LEAVES: tuple[Variant, ...] = ("flat", "ensemble", *PLAIN)
"""Variants whose models have one softmax over the leaves, and no decision of the tree."""
MODEL_PER_DECISION: tuple[Variant, ...] = ("base", "ensemble")
"""Variants with as many models as the tree has decisions."""
