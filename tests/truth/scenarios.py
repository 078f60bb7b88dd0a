"""What is true, by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

LEAVES = ("normal", "reactive", "ALL", "AML", "APML", "CLL", "CML")
PAPER = {"root": {"normal": None, "reactive": None, "leukemia": {"acute": ["ALL", "AML", "APML"], "chronic": ["CLL", "CML"]}}}


@dataclass(frozen=True)
class Scenario:
    """Phantom patients, a tree, and the variant that is compared with `flat`."""

    name: str
    truth: Literal["better", "worse", "equal"]
    """What the challenger is, against `flat`."""
    why: str
    challenger: str
    tree: dict[str, Any]
    images: dict[str, int]
    """Images of each patient, by leaf."""
    patients: int = 12
    """Of each leaf."""
    folds: int = 4
    size: int = 48
    optim: dict[str, Any] | None = None

    def study(self, seed: int) -> dict[str, Any]:
        """The study file of one draw."""
        return {
            "study": self.name,
            "base": {
                "data": {"shards": "shards"},
                "augment": {"jitter": 0.4},
                "backbone": {"name": "test_resnet"},
                "loss": {"gamma": 0.0, "tau": 0.0},
                "optim": {"lr": 3.0e-3, "batch_size": 32, "epochs": 12, "weight_decay": 0.05, **(self.optim or {})},
                "engine": {"precision": "fp32"},
            },
            "variants": ["flat", self.challenger],
            "folds": {"outer": self.folds},
            "seeds": [seed],
        }


def _all(number: int) -> dict[str, int]:
    return dict.fromkeys(LEAVES, number)


SCENARIOS = {
    found.name: found
    for found in (
        Scenario(
            "same", "equal",
            "a tree of one decision: `multilabel` has the model, the loss and the data of `flat`, only other random weights",
            "multilabel", {"root": list(LEAVES)}, _all(6),
        ),
        Scenario(
            "helps", "better",
            "leukemias are rare (3 images of a patient against 24 and 12): each decision has the mean loss of its own images, so what "
            "tells leukemias apart is learned as fast as what is common",
            "multilabel", PAPER, {**_all(3), "normal": 24, "reactive": 12},
        ),
        Scenario(
            "hurts", "worse",
            "a chain of six decisions against appearance, each a model of its own on what the others leave: fewer images, and errors "
            "add up on the way down",
            "base", {"root": {"CML": None, "a": {"ALL": None, "b": {"normal": None, "c": {"AML": None, "d": {"CLL": None,
            "e": ["reactive", "APML"]}}}}}}, _all(6),
        ),
    )
}  # fmt: skip
