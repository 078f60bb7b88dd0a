"""Scenarios whose truth is known by construction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

from leukotree.data.trees import decided_sets, permuted
from leukotree.taxonomy import Taxonomy

LEAVES = ("normal", "reactive", "ALL", "AML", "APML", "CLL", "CML")
STAR = {"root": list(LEAVES)}
NESTED = {
    "root": {"normal": None, "abnormal": {"reactive": None, "leukemia": ["ALL", "AML", "APML", "CLL", "CML"]}}
}
CHAIN = {
    "root": {
        "CML": None,
        "a": {
            "ALL": None,
            "b": {"normal": None, "c": {"AML": None, "d": {"CLL": None, "e": ["reactive", "APML"]}}},
        },
    }
}


@dataclass(frozen=True)
class Scenario:
    """Phantom patients, a tree, and the variant that is compared with `flat`."""

    truth: Literal["better", "worse", "equal"]
    """What the challenger is, against `flat`."""
    why: str
    tree: dict[str, Any]
    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEAVES, 4))
    """Images of each patient, by leaf."""
    loss: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    """Changes to the optimiser of the study."""
    jitter: float = 0.4
    epochs: int = 6
    batch_size: int = 32
    patients: int = 36
    """Of each leaf."""
    folds: int = 8
    size: int = 32
    challenger: str = "multilabel"
    backbone: str = "test_resnet"
    permuted: int = 0
    """Permuted trees that are arms beside the tree and flat."""
    dealt: bool = False
    """Whether each draw deals the leaves of the tree at random. The tree is then no better than a permuted
    one."""

    def taxonomy(self, draw: int) -> Taxonomy:
        """The tree of the data set of one draw."""
        tree = Taxonomy.from_nested(self.tree)
        return permuted(tree, draw) if self.dealt else tree

    def _seeds(self, draw: int) -> list[int]:
        """The first seeds of permuted trees that are all different."""
        tree, found = self.taxonomy(draw), dict[frozenset[frozenset[str]], int]()
        for seed in itertools.count(1):
            if len(found) == self.permuted:
                break
            found.setdefault(decided_sets(permuted(tree, seed)), seed)
        return list(found.values())

    def study(self, seed: int) -> dict[str, Any]:
        """The study file of one draw."""
        trees = ["data", *(f"permuted:{number}" for number in self._seeds(seed))]
        of_trees = {
            "grid": {"tree": trees},
            "primary": [[f"{self.challenger} tree=data", "flat"]],
        }
        optim = {"lr": 3.0e-3, "batch_size": self.batch_size, "epochs": self.epochs, "weight_decay": 0.05}
        optim |= self.optim
        return {
            "study": "truth",
            "base": {
                "data": {"shards": "shards"},
                "augment": {"jitter": self.jitter},
                "backbone": {"name": self.backbone},
                "loss": {"gamma": 0.0, "tau": 0.0, **self.loss},
                "optim": optim,
                "engine": {"precision": "fp32"},
            },
            "variants": ["flat", self.challenger],
            "folds": {"outer": self.folds},
            "seeds": [seed],
            **(of_trees if self.permuted else {}),
        }


BINARY = {
    "root": {
        "a": {"b": ["normal", "reactive"], "c": ["ALL", "AML"]},
        "d": {"APML": None, "e": ["CLL", "CML"]},
    }
}

SCENARIOS = {
    "same": Scenario(
        "equal",
        "The tree has one decision, so `multilabel` is `flat`: the same model, loss and images, in the same "
        "order, from the same backbone. Only the head starts from other random weights, so the two end as "
        "different models with equal chances.",
        STAR,
    ),
    "helps": Scenario(
        "better",
        "Normal cells are common (30 images of a patient), reactive ones less so (8), each leukemia is rare "
        "(2). Classes are fully weighted (`tau: 1`), so that all classes of a softmax count the same. For "
        "`flat`, abnormal cells are six classes of seven; for the tree's first decision, one class of two. "
        "So `flat` predicts leukemia for far too many normal cells.",
        NESTED,
        {**dict.fromkeys(LEAVES, 2), "normal": 30, "reactive": 8},
        loss={"tau": 1.0},
        epochs=8,
        batch_size=64,
        permuted=5,
    ),
    "hurts": Scenario(
        "worse",
        "The decisions form a chain, and only the first one trains the backbone (`isolation: detached`). The "
        "backbone learns only CML against the rest.",
        CHAIN,
        loss={"isolation": "detached", "leader": 1},
    ),
    "any tree": Scenario(
        "better",
        "The backbone has one feature: a projection of the colours, the only part that is trained. For "
        "`flat` all seven leaves have to lie in an order on this line. `base` has a line of its own for each "
        "decision, and each decision is between two. Each draw deals the leaves of the tree at random, so "
        "the tree is as good as a permuted one.",
        BINARY,
        challenger="base",
        permuted=3,
        dealt=True,
        backbone="one_feature",
        optim={"lr": 3.0e-2, "head_lr_multiplier": 10},
        jitter=0.0,
        epochs=15,
    ),
}
