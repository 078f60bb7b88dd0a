"""A copy of the code, for tests that change it."""

from __future__ import annotations

from pathlib import Path

from leukotree.records import origin

REPOSITORY = Path(__file__).parents[2]


def make_checkout(folder: Path) -> Path:
    """The code of this repository as a checkout without git, in a folder that may have other things."""
    for name in ("hpc", "slurm", "src/leukotree"):
        for path in origin.code_files(REPOSITORY / name):
            target = folder / name / path.relative_to(REPOSITORY / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
    return folder


def python_path(checkout: Path, *more: Path) -> str:
    """PYTHONPATH for the code of a checkout."""
    return ":".join(map(str, (checkout, checkout / "src", *more)))
