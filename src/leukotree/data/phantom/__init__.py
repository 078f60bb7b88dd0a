"""Phantom smears: synthetic blood-smear images with exact masks of the white cell and a stain per patient.

`cells` defines the kinds of white cell, and `slide` the differences between patients. `shapes`, `field`,
`white_cell` and `draw` draw the images. `dataset` writes the files.
"""

from leukotree.data.phantom.dataset import write

__all__ = ["write"]
