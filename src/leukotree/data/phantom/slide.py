"""A patient's slide and microscope: stain, illumination, white balance, focus, noise, look of the red cells.

These are drawn once per patient and independently of the leaf. So they identify the patient, but do not
depend on the diagnosis. This is how leakage looks in real data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leukotree.data.phantom.cells import TRAITS

DYES: dict[str, tuple[float, float, float]] = {
    # Optical density (natural logarithm) of one unit of ink in R, G, B, as a Romanowsky stain gives them.
    "haemoglobin": (0.4, 0.66, 0.5),
    "nuclear": (0.84, 1.34, 0.46),
    "basophilic": (0.84, 0.64, 0.16),
    "azurophil": (0.6, 1.5, 0.55),
    "eosinophil": (0.15, 0.75, 0.8),
    "basophil": (1.1, 1.5, 0.55),
}
DYE = {name: index for index, name in enumerate(DYES)}


@dataclass(frozen=True)
class Slide:
    """One patient's slide and microscope. Lengths are in micrometres, angles in radians."""

    field: float  # side of the square field of view
    dyes: np.ndarray  # (number of DYES, 3) optical density per unit of ink
    white: np.ndarray  # (3,) colour of the empty background, white balance included
    gamma: float
    shade: float  # relative fall of the light from one side of the field to the other
    shade_angle: float
    vignette: float
    blur: float  # sigma of the defocus
    noise: float  # sigma of the sensor noise, in units of full scale
    wash: float  # ink of the plasma film behind the cells
    red_count: float  # expected red cells in 1000 square micrometres
    red_radius: float
    red_spread: float  # anisocytosis: relative sigma of the radius
    red_pallor: float  # 0 solid disc, 1 empty centre
    red_overlap: float  # share of a diameter by which red cells may overlap
    red_crenation: float
    platelets: float  # expected number in a field
    clone: np.ndarray  # (number of TRAITS,) tendency of the patient's cells, see `cells.sample`

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Slide:
        """Draw a random slide."""
        strength = np.exp(rng.normal(0, 0.15, (len(DYES), 1)) + rng.normal(0, 0.14))
        hue = np.exp(rng.normal(0, 0.08, (len(DYES), 3)) + rng.normal(0, 0.1, 3))
        return cls(
            field=rng.uniform(30, 36),
            dyes=np.array(list(DYES.values())) * strength * hue,
            white=rng.uniform(0.9, 1.0)
            * np.array([rng.uniform(0.91, 1.0), rng.uniform(0.88, 0.96), rng.uniform(0.74, 0.97)]),
            gamma=rng.uniform(0.85, 1.2),
            shade=rng.uniform(0.0, 0.22),
            shade_angle=rng.uniform(0, 2 * np.pi),
            vignette=rng.uniform(0.0, 0.14),
            blur=rng.uniform(0.05, 0.16),
            noise=rng.uniform(0.004, 0.016),
            wash=rng.uniform(0.0, 0.12),
            red_count=rng.uniform(7, 21),
            red_radius=rng.uniform(3.2, 4.0),
            red_spread=rng.uniform(0.03, 0.1),
            red_pallor=rng.uniform(0.1, 0.75),
            red_overlap=rng.uniform(0.02, 0.4),
            red_crenation=rng.choice([0.0, 0.01, 0.04], p=[0.4, 0.45, 0.15]),
            platelets=rng.uniform(0, 3.5),
            clone=rng.random(len(TRAITS)),
        )

    def develop(self, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the photograph (H, W, 3) uint8 of the ink (number of DYES, H, W).

        A pixel depends only on the ink in its place.
        """
        size = ink.shape[1]
        y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2, indexing="ij")
        along = (x * np.cos(self.shade_angle) + y * np.sin(self.shade_angle)) / np.sqrt(2)
        log_light = np.log(
            (1 - self.shade * (0.5 + 0.5 * along)) * (1 - self.vignette * (x * x + y * y) / 2)
        ).astype(np.float32)
        photo = np.empty((size, size, 3), np.uint8)
        for channel in range(3):
            # Plain sums, since a BLAS product may round differently with another number of threads.
            density = np.zeros_like(log_light)
            for layer, strength in zip(ink, self.dyes[:, channel], strict=True):
                density += np.float32(strength) * layer
            # The film's curve, (white * light * exp(-density)) ** gamma, in one exponential.
            plane = np.exp(
                np.float32(self.gamma) * (np.float32(np.log(self.white[channel])) + log_light - density)
            )
            plane += np.float32(self.noise) * rng.standard_normal(plane.shape, dtype=np.float32)
            photo[..., channel] = np.rint(plane.clip(0, 1) * 255)
        return photo
