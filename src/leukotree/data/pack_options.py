"""The options of a pack."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from leukotree.data.boxes import MAX_MARGIN, Crop
from leukotree.data.consensus import METHODS
from leukotree.data.dataset import MAX_SIDE, QUALITY
from leukotree.data.patients.identities import SIMILAR
from leukotree.errors import InputError

BY_SOURCE, MATCH_LEAF = "source", "leaf"
"""Values of `Options.folds_by` and `Options.match`."""
_LATER = (
    "similar_ids",
    "patients_across_sources",
    "group_duplicates",
    "pseudonyms",
    "label_from",
    "box_margin",
    "box_square",
    "folds_by",
    "match",
    "test_sources",
    "outer_test",
    "group_near_duplicates",
)
"""Options that the first version of `pack` did not have."""


@dataclass(frozen=True)
class Options:
    """The options that decide the bytes of a packed folder, together with the manifest."""

    folds: int = 5
    size: int = 384
    """Width and height in pixels."""
    seed: int = 0
    """Seed of the folds, and of the order within a shard."""
    drop_broken: bool = False
    """Leave out images that do not decode, instead of refusing the manifest."""
    samples_per_shard: int = 1000
    """Largest number of samples in a shard."""
    quality: int = QUALITY
    """Quality of the JPEGs, from 1 to 100."""
    similar_ids: str | None = None
    """What ids that look alike mean, one of `identities.SIMILAR`; None: several patients, with a warning."""
    patients_across_sources: bool = False
    """Whether an id means the same patient in every source."""
    group_duplicates: bool = False
    """Join groups that share a picture, instead of refusing them."""
    group_near_duplicates: bool = False
    """Join the groups of images without a patient that look the same, or are exact copies."""
    pseudonyms: bool = False
    """Write numbers instead of the names of patients, slides and images."""
    label_from: str | None = None
    """The consensus of readers that replaces the column leaf, one of `consensus.METHODS`; None: no change."""
    box_margin: float = 0.0
    """What is added on each side of a box, as a share of its width or height."""
    box_square: bool = False
    """Make a box as wide as high, so that a cell keeps its shape."""
    folds_by: str | None = None
    """"source": each source is a fold; None: the groups are dealt at random, stratified by leaf."""
    match: str | None = None
    """"leaf": every source gives the same number of images of each leaf; None: all images."""
    test_sources: tuple[str, ...] = ()
    """Sources in no fold, whose images are packed into the folder of the outer test."""
    outer_test: bool = False
    """Whether this folder is that of the outer test: one fold, which nothing trains on."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("size", 8, MAX_SIDE),
            ("samples_per_shard", 1, 10**6),
            ("quality", 1, 100),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} {getattr(self, name)}: must be from {low} to {high}")
        if not 0 <= self.box_margin <= MAX_MARGIN:
            raise InputError(f"box_margin {self.box_margin}: must be from 0 to {MAX_MARGIN:g}")
        if self.similar_ids not in (None, *SIMILAR):
            raise InputError(f"similar_ids {self.similar_ids!r}: must be one of {', '.join(SIMILAR)}")
        if self.label_from not in (None, *METHODS):
            raise InputError(f"label_from {self.label_from!r}: must be one of {', '.join(METHODS)}")
        if self.folds_by not in (None, BY_SOURCE):
            raise InputError(f"folds_by {self.folds_by!r}: must be {BY_SOURCE}")
        if self.match not in (None, MATCH_LEAF):
            raise InputError(f"match {self.match!r}: must be {MATCH_LEAF}")

    @property
    def crop(self) -> Crop:
        """How a box becomes an image."""
        return Crop(self.box_margin, self.box_square)

    def identity(self) -> dict[str, Any]:
        """Return the options for dataset.json; of those that older packs lack only the ones that are on."""
        named = {name: value for name, value in asdict(self).items() if name not in _LATER or value}
        # As JSON gives it back.
        return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}
