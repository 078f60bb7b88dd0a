"""The random numbers of a run's models: initial weights, order of the images, augmentation, dropout.

Arms of a fold are paired: what they share is drawn from the seed and the fold, never from the name of a
variant or a stage. So a difference between two arms is not one between two initial backbones or two orders.

* All backbones of a fold start from the same weights, also the four of `base` and the branches of `branched`.
* A head has its own numbers, by its name. So `flat` and `multilabel` differ by their heads alone where the
  tree has one decision, and a decision of `base` starts from the head that it has in `multilabel`.
* There is one order of all training images for each epoch. A stage that sees a part of them takes them in
  that order. An image has the same crop and colours in epoch e of every stage.
* Dropout draws the same numbers in the same step.

The members of an ensemble have to differ. The first one is `flat`. The others have numbers of their own.
Folds have numbers of their own too: statistical tests treat them as independent but for the images that they
share. The same start in all folds would add the same luck to each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from leukotree import seeds
from leukotree.models.stages import Stage
from leukotree.seeds import BY_STAGE, NEWEST
from leukotree.spec import DataSpec, RunSpec


@dataclass(frozen=True)
class Streams:
    """The seeds of one stage of a run."""

    spec: RunSpec
    stage: Stage
    version: int = NEWEST

    @property
    def paired(self) -> bool:
        return self.version != BY_STAGE

    @property
    def backbone(self) -> int:
        """The seed of the backbone's weights. BY_STAGE: also of the heads, which follow."""
        return self._of_fold("backbone" if self.paired else f"weights/{self.stage.name}")

    @property
    def adapters(self) -> int:
        """The seed of the weights of low-rank adapters."""
        return self._of_fold("adapters")

    def head(self, name: str) -> int:
        """The seed of a head's weights."""
        return self._of_fold(f"head/{name}")

    @property
    def order(self) -> int:
        """The seed of the order and of the augmentation."""
        if self.paired:
            return self._of_fold("order")
        return seeds.integer(self.spec.seed, f"stage/{self.stage.name}")

    def step(self, step: int, rank: int) -> int:
        """The seed of dropout in a step on a rank. It makes a step a function of the spec: a resume needs no
        saved generator."""
        if self.paired:
            return self._of_fold("dropout", step, rank)
        return seeds.integer(self.spec.seed, f"torch/{self.stage.name}", step, rank)

    def _of_fold(self, stream: str, *place: int) -> int:
        member = f"{stream}/member {self.stage.member}" if self.stage.member > 1 else stream
        return seeds.integer(self.spec.seed, member, *fold(self.spec.data), *place)


def fold(data: DataSpec) -> tuple[int, ...]:
    """The outer fold, and 1 + the inner fold or 0 for none. A repeat above 0 follows them."""
    place = data.test_fold, 1 + data.inner.fold if data.inner else 0
    return (*place, data.repeat) if data.repeat else place
