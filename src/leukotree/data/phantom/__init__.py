"""Phantom smears: synthetic blood-smear images with exact masks of the white cell and a patient-level stain.

`cells` says what each kind of white cell looks like, `slide` what differs between patients, `shapes`,
`field`,
`white_cell` and `draw` draw, `dataset` writes the files.
"""

from leukotree.data.phantom.dataset import write

__all__ = ["write"]
