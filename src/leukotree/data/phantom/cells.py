"""The kinds of white cell, the mixture of kinds for each leaf, and how one cell is sampled.

A trait is a range. Lengths are in micrometres, inks in units of optical density, and counts are rounded. The
ranges of similar kinds (lymphoblast and myeloblast, myeloblast and promyelocyte) overlap on purpose. Every
leaf has some cells that look like those of another leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]
Traits = dict[str, float]

TRAITS: dict[str, Range] = {
    "radius": (5.5, 6.5),  # of a disc with the cell's area, before red cells press on it
    "elongation": (0.0, 0.25),
    "outline": (0.1, 0.35),  # amplitude of the outline's waviness
    "moulding": (0.0, 0.4),  # how deep red cells may press into the cell: 0 touch, 1 deep scallops
    "nc": (0.5, 0.6),  # nucleus-to-cell area ratio
    "eccentricity": (0.1, 0.7),  # 1 = the nucleus touches the cell's edge
    "fold": (0.1, 0.3),  # amplitude of the nuclear outline's waviness
    "nuclear_ink": (0.9, 1.1),
    "chromatin_scale": (0.3, 0.4),
    "chromatin_contrast": (0.12, 0.2),
    "clumping": (0.0, 0.3),  # 0 smooth texture, 1 sharp blocks
    "nucleoli": (0, 0),
    "nucleolus_radius": (0.6, 0.9),
    "nucleolus_contrast": (0.25, 0.4),
    "blue": (0.25, 0.4),  # basophilia (RNA) of the cytoplasm
    "pink": (0.0, 0.05),
    "fringe": (0.0, 0.4),  # how much bluer the cytoplasm is at the cell's edge
    "hof": (0.0, 0.2),  # clearing beside the nucleus (Golgi zone)
    "granules": (0, 0),  # per square micrometre
    "granule_radius": (0.16, 0.22),
    "granule_ink": (0.4, 0.7),
    "over_nucleus": (0.0, 0.0),  # share of granules that may lie on the nucleus
    "rods": (0, 0),  # Auer rods
    "vacuoles": (0, 0),
    "fray": (0.0, 0.0),  # softness of a torn outline
}


@dataclass(frozen=True)
class Kind:
    """A kind of white cell: weights of `shapes.NUCLEI`, traits unlike TRAITS, and the dye of its granules."""

    nuclei: dict[str, float]
    traits: dict[str, Range]
    granule_dye: str = "azurophil"


_NEUTROPHIL: dict[str, Range] = {
    "radius": (5.8, 7.1),
    "nuclear_ink": (1.1, 1.4),
    "chromatin_scale": (0.5, 0.7),
    "chromatin_contrast": (0.2, 0.32),
    "clumping": (0.4, 0.8),
    "blue": (0.04, 0.12),
    "pink": (0.12, 0.25),
    "granules": (3, 6),
    "granule_radius": (0.1, 0.14),
    "granule_ink": (0.12, 0.3),
    "over_nucleus": (0.1, 0.2),
    "eccentricity": (0.0, 0.3),
    "fold": (0.1, 0.25),
}

KINDS: dict[str, Kind] = {
    "neutrophil": Kind(
        {"lobed": 1},
        _NEUTROPHIL | {"nc": (0.32, 0.44)},
    ),
    "band": Kind(
        {"band": 1},
        _NEUTROPHIL | {"nc": (0.34, 0.46), "nuclear_ink": (1.0, 1.3)},
    ),
    "metamyelocyte": Kind(
        {"kidney": 0.8, "indented": 0.2},
        _NEUTROPHIL
        | {
            "radius": (6.3, 7.8),
            "nc": (0.4, 0.54),
            "nuclear_ink": (0.95, 1.2),
            "blue": (0.08, 0.2),
            "eccentricity": (0.3, 0.9),
        },
    ),
    "myelocyte": Kind(
        {"round": 0.75, "indented": 0.25},
        _NEUTROPHIL
        | {
            "radius": (6.5, 8.2),
            "nc": (0.42, 0.58),
            "nuclear_ink": (0.85, 1.1),
            "clumping": (0.2, 0.6),
            "blue": (0.14, 0.32),
            "pink": (0.08, 0.2),
            "granule_ink": (0.2, 0.45),
            "eccentricity": (0.6, 1.0),
            "hof": (0.1, 0.4),
        },
    ),
    "promyelocyte": Kind(
        {"round": 0.5, "indented": 0.5},
        {
            "radius": (7.3, 9.2),
            "nc": (0.52, 0.68),
            "eccentricity": (0.5, 1.0),
            "nuclear_ink": (0.75, 1.0),
            "nucleoli": (1, 3),
            "blue": (0.3, 0.5),
            "hof": (0.3, 0.7),
            "granules": (1.5, 3.5),
            "granule_ink": (0.4, 0.8),
            "over_nucleus": (0.2, 0.5),
        },
    ),
    "eosinophil": Kind(
        {"bilobed": 0.8, "lobed": 0.2},
        _NEUTROPHIL
        | {
            "radius": (6.0, 7.3),
            "nc": (0.3, 0.42),
            "granules": (1.8, 3.2),
            "granule_radius": (0.26, 0.34),
            "granule_ink": (0.45, 0.75),
            "over_nucleus": (0.0, 0.06),
        },
        "eosinophil",
    ),
    "basophil": Kind(
        {"indented": 0.4, "bilobed": 0.4, "lobed": 0.2},
        _NEUTROPHIL
        | {
            "radius": (5.4, 6.6),
            "nc": (0.4, 0.5),
            "nuclear_ink": (0.55, 0.8),
            "granules": (0.6, 1.3),
            "granule_radius": (0.26, 0.38),
            "granule_ink": (0.6, 1.0),
            "over_nucleus": (0.5, 0.9),
        },
        "basophil",
    ),
    "monocyte": Kind(
        {"kidney": 0.6, "indented": 0.25, "band": 0.15},
        {
            "radius": (7.4, 9.4),
            "elongation": (0.0, 0.4),
            "outline": (0.3, 0.7),
            "moulding": (0.1, 0.6),
            "nc": (0.42, 0.56),
            "fold": (0.3, 0.6),
            "nuclear_ink": (0.7, 0.95),
            "chromatin_scale": (0.4, 0.6),
            "chromatin_contrast": (0.15, 0.28),
            "blue": (0.22, 0.36),
            "pink": (0.02, 0.08),
            "granules": (0.5, 2),
            "granule_radius": (0.1, 0.14),
            "granule_ink": (0.15, 0.3),
            "vacuoles": (0, 4),
        },
    ),
    "lymphocyte": Kind(
        {"round": 0.85, "indented": 0.15},
        {
            "radius": (4.1, 5.4),
            "outline": (0.05, 0.25),
            "nc": (0.68, 0.85),
            "nuclear_ink": (1.1, 1.45),
            "chromatin_scale": (0.5, 0.75),
            "chromatin_contrast": (0.16, 0.28),
            "clumping": (0.3, 0.8),
            "blue": (0.22, 0.42),
        },
    ),
    "large lymphocyte": Kind(
        {"round": 0.7, "indented": 0.3},
        {
            "radius": (5.5, 7.0),
            "outline": (0.1, 0.4),
            "moulding": (0.1, 0.6),
            "nc": (0.45, 0.62),
            "eccentricity": (0.4, 0.9),
            "nuclear_ink": (1.0, 1.3),
            "chromatin_scale": (0.45, 0.65),
            "clumping": (0.2, 0.6),
            "blue": (0.15, 0.32),
            "granules": (0, 0.15),
            "granule_ink": (0.5, 0.9),
        },
    ),
    "reactive lymphocyte": Kind(
        {"round": 0.25, "indented": 0.45, "kidney": 0.3},
        {
            "radius": (7.0, 9.4),
            "elongation": (0.1, 0.6),
            "outline": (0.35, 0.9),
            "moulding": (0.5, 1.0),
            "nc": (0.36, 0.58),
            "eccentricity": (0.2, 0.9),
            "fold": (0.3, 0.7),
            "nuclear_ink": (0.85, 1.2),
            "chromatin_scale": (0.4, 0.65),
            "chromatin_contrast": (0.16, 0.28),
            "clumping": (0.2, 0.6),
            "nucleoli": (0, 1.6),
            "blue": (0.35, 0.65),
            "fringe": (0.6, 1.4),
            "hof": (0.1, 0.5),
            "vacuoles": (0, 1.5),
        },
    ),
    "lymphoblast": Kind(
        {"round": 0.55, "indented": 0.45},
        {
            "radius": (5.2, 7.4),
            "outline": (0.1, 0.35),
            "nc": (0.78, 0.92),
            "eccentricity": (0.2, 1.0),
            "fold": (0.12, 0.5),
            "nuclear_ink": (0.8, 1.15),
            "chromatin_scale": (0.26, 0.45),
            "chromatin_contrast": (0.08, 0.2),
            "clumping": (0.0, 0.35),
            "nucleoli": (0, 2.2),
            "nucleolus_radius": (0.45, 0.8),
            "nucleolus_contrast": (0.1, 0.3),
            "blue": (0.35, 0.65),
            "fringe": (0.1, 0.8),
            "vacuoles": (0, 0.9),
        },
    ),
    "myeloblast": Kind(
        {"round": 0.5, "indented": 0.4, "kidney": 0.1},
        {
            "radius": (6.2, 8.8),
            "outline": (0.15, 0.5),
            "nc": (0.68, 0.88),
            "eccentricity": (0.3, 1.0),
            "fold": (0.12, 0.55),
            "nuclear_ink": (0.7, 1.0),
            "chromatin_scale": (0.24, 0.38),
            "chromatin_contrast": (0.08, 0.17),
            "clumping": (0.0, 0.2),
            "nucleoli": (0.9, 4.0),
            "nucleolus_radius": (0.65, 1.2),
            "nucleolus_contrast": (0.22, 0.5),
            "blue": (0.3, 0.62),
            "fringe": (0.1, 0.8),
            "granules": (0, 0.5),
            "granule_ink": (0.3, 0.7),
            "rods": (-2.5, 1.4),
            "hof": (0.0, 0.3),
        },
    ),
    "abnormal promyelocyte": Kind(
        {"bilobed": 0.5, "kidney": 0.35, "indented": 0.15},
        {
            "radius": (6.8, 9.2),
            "outline": (0.2, 0.6),
            "nc": (0.42, 0.66),
            "eccentricity": (0.2, 0.9),
            "fold": (0.2, 0.55),
            "nuclear_ink": (0.7, 1.05),
            "chromatin_scale": (0.28, 0.42),
            "chromatin_contrast": (0.1, 0.2),
            "nucleoli": (0, 1.6),
            "blue": (0.22, 0.45),
            "pink": (0.04, 0.16),
            "granules": (1.8, 5),
            "granule_radius": (0.15, 0.22),
            "granule_ink": (0.35, 0.75),
            "over_nucleus": (0.03, 0.2),
            "rods": (-3, 10),
        },
    ),
    "microgranular promyelocyte": Kind(
        {"bilobed": 0.75, "kidney": 0.25},
        {
            "radius": (6.6, 8.8),
            "outline": (0.2, 0.5),
            "nc": (0.62, 0.82),
            "fold": (0.2, 0.5),
            "nuclear_ink": (0.7, 1.0),
            "chromatin_scale": (0.26, 0.4),
            "nucleoli": (0, 2),
            "nucleolus_contrast": (0.15, 0.35),
            "blue": (0.26, 0.45),
            "granules": (0.3, 1.5),
            "granule_radius": (0.1, 0.14),
            "granule_ink": (0.2, 0.5),
            "over_nucleus": (0.05, 0.3),
            "rods": (-2, 1.5),
        },
    ),
    "mature lymphocyte": Kind(  # the CLL clone: "soccer-ball" chromatin, a mere rim of cytoplasm
        {"round": 0.9, "indented": 0.1},
        {
            "radius": (4.2, 5.5),
            "outline": (0.05, 0.2),
            "nc": (0.78, 0.92),
            "nuclear_ink": (1.05, 1.4),
            "chromatin_scale": (0.55, 0.8),
            "chromatin_contrast": (0.26, 0.42),
            "clumping": (0.6, 1.0),
            "fold": (0.05, 0.2),
            "blue": (0.18, 0.35),
        },
    ),
    "prolymphocyte": Kind(
        {"round": 0.9, "indented": 0.1},
        {
            "radius": (5.5, 6.8),
            "nc": (0.65, 0.8),
            "nuclear_ink": (0.95, 1.2),
            "chromatin_scale": (0.45, 0.7),
            "chromatin_contrast": (0.18, 0.3),
            "clumping": (0.3, 0.8),
            "nucleoli": (1, 1),
            "nucleolus_radius": (0.8, 1.1),
            "nucleolus_contrast": (0.35, 0.55),
        },
    ),
    "smudge": Kind(
        {"round": 1},
        {
            "radius": (6.0, 9.0),
            "elongation": (0.2, 0.9),
            "outline": (0.9, 1.8),
            "nc": (0.97, 0.99),
            "fold": (0.0, 0.1),
            "eccentricity": (0, 0),
            "nuclear_ink": (0.4, 0.65),
            "chromatin_scale": (0.5, 0.9),
            "chromatin_contrast": (0.22, 0.38),
            "blue": (0.0, 0.02),
            "fray": (0.5, 1.1),
        },
    ),
}

MIXTURES: dict[str, dict[str, float]] = {
    "normal": {
        "neutrophil": 50,
        "band": 7,
        "lymphocyte": 18,
        "large lymphocyte": 7,
        "monocyte": 11,
        "eosinophil": 5,
        "basophil": 2,
    },
    "reactive": {
        "reactive lymphocyte": 80,
        "large lymphocyte": 9,
        "lymphocyte": 4,
        "monocyte": 4,
        "lymphoblast": 3,
    },
    "ALL": {"lymphoblast": 88, "myeloblast": 6, "lymphocyte": 6},
    "AML": {
        "myeloblast": 80,
        "lymphoblast": 7,
        "promyelocyte": 5,
        "microgranular promyelocyte": 4,
        "neutrophil": 4,
    },
    "APML": {"abnormal promyelocyte": 76, "microgranular promyelocyte": 12, "myeloblast": 9, "neutrophil": 3},
    "CLL": {"mature lymphocyte": 74, "smudge": 15, "prolymphocyte": 5, "lymphocyte": 6},
    "CML": {
        "neutrophil": 27,
        "band": 20,
        "metamyelocyte": 17,
        "myelocyte": 18,
        "basophil": 7,
        "promyelocyte": 5,
        "eosinophil": 4,
        "myeloblast": 2,
    },
}
"""Leaf -> kind -> its relative frequency in the leaf's images."""

CLONE_WEIGHT = 0.5
"""How similar the cells of one patient are: 0 for independent draws, 1 for equal traits."""


@dataclass(frozen=True)
class Cell:
    """One white cell: its kind, nuclear shape, granule dye and the value of every trait."""

    kind: str
    nucleus: str
    granule_dye: str
    traits: Traits


def sample(leaf: str, clone: np.ndarray, rng: np.random.Generator) -> Cell:
    """Draw a cell of a leaf.

    Args:
        clone: (number of TRAITS,) in [0, 1], the typical position of the patient's cells in each range.
    """
    kind_name = _choose(MIXTURES[leaf], rng)
    kind = KINDS[kind_name]
    position = CLONE_WEIGHT * clone + (1 - CLONE_WEIGHT) * rng.random(len(TRAITS))
    ranges = TRAITS | kind.traits
    traits = {
        name: low + (high - low) * float(at)
        for (name, (low, high)), at in zip(ranges.items(), position, strict=True)
    }
    return Cell(kind_name, _choose(kind.nuclei, rng), kind.granule_dye, traits)


def _choose(weights: dict[str, float], rng: np.random.Generator) -> str:
    shares = np.array(list(weights.values()), dtype=float)
    return list(weights)[rng.choice(len(weights), p=shares / shares.sum())]
