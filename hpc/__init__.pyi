"""The name of the package for editors and mypy. At run time it is looked up when it is first used."""

from hpc.api import study as study
