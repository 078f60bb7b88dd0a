"""LeukoTree: hierarchical leukemia classification, from image to log p(child | parent) and what follows from
it."""

__version__ = "0.1.0"
