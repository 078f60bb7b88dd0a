"""What is true, by construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

LEAVES = ("normal", "reactive", "ALL", "AML", "APML", "CLL", "CML")
PAPER = {"root": {"normal": None, "reactive": None, "leukemia": {"acute": ["ALL", "AML", "APML"], "chronic": ["CLL", "CML"]}}}
STAR = {"root": list(LEAVES)}
CHAIN = {"root": {"CML": None, "a": {"ALL": None, "b": {"normal": None, "c": {"AML": None, "d": {"CLL": None,
         "e": ["reactive", "APML"]}}}}}}  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Phantom patients, a tree, and the variant that is compared with `flat`."""

    truth: Literal["better", "worse", "equal"]
    """What the challenger is, against `flat`."""
    why: str
    tree: dict[str, Any]
    images: dict[str, int]
    """Images of each patient, by leaf."""
    negatives: tuple[str, ...] = ()
    """Leaves whose images are negatives: nobody mistakes them for the others."""
    loss: dict[str, Any] = field(default_factory=dict)
    epochs: int = 12
    patients: int = 36
    """Of each leaf."""
    folds: int = 5
    size: int = 48
    challenger: str = "multilabel"

    def study(self, seed: int) -> dict[str, Any]:
        """The study file of one draw."""
        return {
            "study": "truth",
            "base": {
                "data": {"shards": "shards"},
                "augment": {"jitter": 0.4},
                "backbone": {"name": "test_resnet"},
                "loss": {"gamma": 0.0, "tau": 0.0, **self.loss},
                "optim": {"lr": 3.0e-3, "batch_size": 32, "epochs": self.epochs, "weight_decay": 0.05},
                "engine": {"precision": "fp32"},
            },
            "variants": ["flat", self.challenger],
            "folds": {"outer": self.folds},
            "seeds": [seed],
        }


SCENARIOS = {
    "same": Scenario(
        "equal",
        "The tree has one decision, so `multilabel` is `flat`: the same model, loss and images, only other random weights.",
        STAR, dict.fromkeys(LEAVES, 4),
    ),
    "helps": Scenario(
        "better",
        "Leukemias are rare (2 images of a patient, of the others 20) and photographed as negatives, so that the root's decision "
        "is easy. Each decision counts the mean of its own images: what tells leukemias apart is learned in time, while `flat` "
        "learns the rest.",
        PAPER, {**dict.fromkeys(LEAVES, 2), "normal": 20, "reactive": 20}, negatives=LEAVES[2:], epochs=6,
    ),
    "hurts": Scenario(
        "worse",
        "The decisions form a chain, and only the first one trains the backbone (`isolation: detached`): it learns nothing but "
        "CML against the rest.",
        CHAIN, dict.fromkeys(LEAVES, 4), loss={"isolation": "detached", "leader": 1},
    ),
}  # fmt: skip
