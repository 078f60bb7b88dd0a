"""The image of slurm/container/image for Charliecloud. mmdebstrap makes its base, without a registry."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.helpers.cluster.debian import SYSTEM_PATH, install
from tests.helpers.cluster.processes import ClusterError, command

REPOSITORY = Path(__file__).parents[3]
RECIPE = REPOSITORY / "slurm" / "container" / "image"
PACKAGES = {"ch-image": "charliecloud", "ch-run": "charliecloud", "mmdebstrap": "mmdebstrap"}
BASE = "debian:12"
SUITE = "bookworm"
LARGEST = 8 * 2**20
"""The largest file of a build in KiB: an error must not fill the disk."""


def built() -> Path:
    """The folder of the image, from an earlier call with the same recipe and packages or built now. Raises
    ClusterError."""
    if os.geteuid() != 0:
        raise ClusterError("mmdebstrap needs root")
    store = _store()
    image = store / "img" / "leukotree"
    with open(f"{store}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (store / "complete").exists():
            shutil.rmtree(store, ignore_errors=True)
            install(PACKAGES)
            _build(store)
            (store / "complete").touch()
    return image


def clean() -> None:
    """Remove the image of this recipe and these packages."""
    shutil.rmtree(_store(), ignore_errors=True)


def _store() -> Path:
    return Path(tempfile.gettempdir()) / f"leukotree-image-{os.geteuid()}-{_key()}"


def _key() -> str:
    """A hash of all that the image is made from."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    files = [*sorted(RECIPE.iterdir()), REPOSITORY / "constraints.txt"]
    return hashlib.sha256(repr(project).encode() + b"".join(file.read_bytes() for file in files)).hexdigest()[
        :12
    ]


def _build(store: Path) -> None:
    with tempfile.TemporaryDirectory(dir=store.parent) as name:
        work = Path(name)
        base = work / "base"
        # With its mounts to itself, so that none is left where somebody removes files. Unsafe, as Debian's
        # own image is made.
        _run(
            "unshare",
            "--mount",
            "mmdebstrap",
            "--variant=minbase",
            "--dpkgopt=force-unsafe-io",
            SUITE,
            str(base),
        )
        for device in (base / "dev").iterdir():  # ch-image copies what it reads from a device
            shutil.rmtree(device) if device.is_dir() and not device.is_symlink() else device.unlink()
        charliecloud = ["ch-image", "--storage", str(store), "--no-cache"]
        _run(*charliecloud, "import", str(base), BASE)
        binds = _context(work / "context")
        recipe = work / "context" / "slurm" / "container" / "image" / "Dockerfile"
        _run(
            *charliecloud, "build", *binds, "--tag", "leukotree", "--file", str(recipe), str(work / "context")
        )


def _context(folder: Path) -> list[str]:
    """Write what the build reads: the recipe, and a pip.conf with this machine's settings of pip. Returns
    options of ch-image that show it the same folders of packages."""
    recipe = folder / "slurm" / "container" / "image"
    shutil.copytree(RECIPE, recipe)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    lines, binds = [], set()
    settings = command(sys.executable, "-m", "pip", "config", "list").stdout
    for name, value in (line.split("=", 1) for line in settings.splitlines()):
        key, words = name.rpartition(".")[2], value.strip("'").split()
        if key == "constraint":  # the recipe has its own
            continue
        for index, word in enumerate(words):
            path = Path(word.removeprefix("file://"))
            if path.is_dir():  # the pages of an index lie beside its files
                binds.add(str(path if word.startswith("/") else path.parent))
            elif path.is_file():
                shutil.copy(path, recipe / path.name)
                words[index] = f"/opt/build/{path.name}"
        lines.append(f"{key} = {' '.join(words)}")
    (recipe / "pip.conf").write_text("\n".join(["[global]", *dict.fromkeys(lines), ""]))
    return [f"--bind={folder}" for folder in sorted(binds)]


def _run(*words: str) -> None:
    """Run a command with the system's programs only, as on a host without our packages."""
    hidden = ("PIP_", "PYTHON", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    limited = ["bash", "-c", f'ulimit -f {LARGEST}; exec "$@"', "limited", *words]
    done = subprocess.run(
        limited,
        env=clean | {"PATH": SYSTEM_PATH, "USER": "root"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-6:]
        raise ClusterError(f"{' '.join(words[:2])}: {'; '.join(last)}")


if __name__ == "__main__":
    if sys.argv[1:] != ["clean"]:
        sys.exit("usage: python -m tests.helpers.cluster.image clean")
    clean()
