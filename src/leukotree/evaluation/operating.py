"""The operating points that a study declares: at which specificity sensitivities are reported, and how many
patients a prediction set shall cover."""

from __future__ import annotations

from pydantic import Field

from leukotree.config import Strict


class Operating(Strict):
    """Operating points. They change no run and no search."""

    specificity: float = Field(0.95, gt=0, lt=1)
    """Sensitivity is reported at this specificity. Its threshold comes from inner validation."""
    coverage: float = Field(0.9, gt=0, lt=1)
    """The share of patients' images whose true leaf shall be in the prediction set: 1 - alpha."""
