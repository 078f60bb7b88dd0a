"""Fixtures of all tests, and the order of the files."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.scheduler.loadscope import LoadScopeScheduling

from leukotree import signals

# Ranks, trials and jobs share two cores. With one thread each they are faster together, and bits are equal.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background command ignores SIGINT, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that takes long on a busy machine is no failure.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

LONG = ("cluster", "chaos")
"""Folders of tests/ whose files run first, in this order."""

ONE_WORKER = ("tests/cluster/",)
"""Folders whose files one worker takes."""

REAL_DATA = Path(__file__).parents[1] / "../shared/data"
"""Real images beside the checkout, where they are."""


@pytest.hookimpl(trylast=True)  # after the conftest.py of folders, which mark tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check that a test marked slow or long says why, and put the files with slow tests first.

    A worker takes a file at a time. One that began with a long file at the end would work alone.
    """
    slow = set()
    for item in items:
        if item.get_closest_marker("slow"):
            slow.add(item.path)
        for name in ("slow", "long"):
            marker = item.get_closest_marker(name)
            if marker and not (marker.args and isinstance(marker.args[0], str)):
                raise pytest.UsageError(
                    f"{item.nodeid}: pytest.mark.{name} needs a reason, as in {name}('trains')"
                )
    here = Path(__file__).parent
    rank = {folder: number for number, folder in enumerate(LONG)}
    items.sort(
        key=lambda item: (rank.get(item.path.relative_to(here).parts[0], len(rank)), item.path not in slow)
    )  # stable: the tests of a file stay together, in their order


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """A worker takes a file at a time, and the files of one folder of ONE_WORKER together: two SLURMs beside
    each other have no time left for either."""

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in ONE_WORKER if file.startswith(folder)), file)

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def no_signal_of_an_earlier_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's flag stays up after `signals.watched`. It would stop what the next test packs or trains."""
    monkeypatch.setattr(signals, "_received", None)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without the data set of `make sweep`, which specs name by default."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip("no ../shared/data beside this checkout: the tests on real images are left out")
    return REAL_DATA


@pytest.fixture(scope="session")
def phantom_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 patients over the seven leaves, 6 images of 64x64 each."""
    from leukotree.data import phantom

    return phantom.write(
        tmp_path_factory.mktemp("phantom") / "images", patients=28, per_patient=6, size=64, seed=0
    )


@pytest.fixture(scope="session")
def shards(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom set packed at 48x48 in 4 folds."""
    from leukotree.data.pack import pack

    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(phantom_manifest, out, folds=4, size=48)
    return out


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a complete study. Tests only read it."""
    from tests.helpers import study_results

    return study_results.make_study(tmp_path_factory.mktemp("whole") / "synthetic")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the complete study that the test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "synthetic"))
