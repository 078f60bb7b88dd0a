"""The test SLURM as a fixture, and a checkout to submit from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.cluster.slurm import ClusterError, Slurm, process_start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.slow("boots a SLURM, and waits for it"))


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """The SLURM with two hosts. It is booted if it is not up. Then it is also stopped, and leaves nothing."""
    cluster = Slurm()
    try:
        booted = cluster.up()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no test SLURM here: {error}")
    yield cluster
    if booted:
        started = cluster.started()
        cluster.down()
        assert not [pid for pid, start in started if process_start(pid) == start]
        assert not cluster.folder.exists()
        assert not Path("/sys/class/net", cluster.bridge).exists()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout to submit from: a folder with the repository's code, and an empty `sweeps`."""
    repository = Path(__file__).parents[2]
    for name in ("hpc", "slurm"):
        (tmp_path / name).symlink_to(repository / name)
    (tmp_path / "sweeps").mkdir()
    return tmp_path


@pytest.fixture
def venv(home: Path) -> Path:
    """The venv that runs these tests, as the `.venv` of that checkout."""
    (home / ".venv").symlink_to(sys.prefix)
    return home / ".venv"
