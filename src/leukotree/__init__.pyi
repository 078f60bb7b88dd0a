"""The names of the package for editors and mypy. At run time they are looked up when they are first used."""

from leukotree.api import load as load
from leukotree.api import open as open
from leukotree.api import results as results
from leukotree.api import study as study

__version__: str
NAMES: tuple[str, ...]
