"""Pictures for people: an image, a map for each decision on its path, and the path with its probabilities."""

from __future__ import annotations

import io

import numpy as np

from leukotree.explain.table import Explainer, Images
from leukotree.explain.targets import PATH
from leukotree.records.explanations import METHODS

INCH = 2.0
"""Width and height of a panel in inches."""
DPI = 100


def draw(explainer: Explainer, method: str, images: Images, leaf: str) -> bytes:
    """The PNG of one image.

    Args:
        images: one image, with its mask where it has one. The mask's outline is white.
        leaf: the true leaf; "" where unknown.
    """
    from matplotlib.figure import Figure

    decided = explainer.decided(images.pixels)
    found = explainer.maps(method, images.pixels, decided.pairs)
    pixels, mask = images.pixels[0].permute(1, 2, 0).numpy(), images.masks[0]
    figure = Figure(figsize=(INCH * (1 + len(found)), INCH * 1.3), dpi=DPI, layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, 1 + len(found)))
    for axis in axes:
        axis.set_axis_off()
        axis.imshow(pixels)
        if mask.any():
            axis.contour(mask, levels=[0.5], colors="white", linewidths=0.8)
    axes[0].set_title(f"true: {leaf or 'unknown'}\ndecided: {decided.leaves[0]}", fontsize=7)
    for axis, (image, target), values in zip(axes[1:], decided.pairs, found, strict=True):
        share = float(np.exp(decided.logp[image, list(target.edges)].sum()))
        name = "path" if target.decision == PATH else target.decision
        axis.set_title(f"{name}:\n{target.node} {share:.2f}", fontsize=7)
        axis.imshow(values, cmap="inferno", alpha=0.5, vmin=0, vmax=1)
    figure.suptitle(METHODS[method], fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
