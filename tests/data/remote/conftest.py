"""A packed data set of many small shards, behind a real web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leukotree.data.remote import scratch
from tests.helpers import webserver


@pytest.fixture(scope="session")
def many_shards(phantom_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom set packed at 48x48 in 4 folds, 8 images in a shard."""
    from leukotree.data.pack import pack

    out = tmp_path_factory.mktemp("remote") / "set"
    pack(phantom_manifest, out, folds=4, size=48, samples_per_shard=8)
    return out


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The scratch folder of the test."""
    monkeypatch.setenv("LEUKOTREE_CACHE", str(tmp_path / "node"))
    yield tmp_path / "node"
    scratch.use(None, None)


@pytest.fixture
def server(many_shards: Path, tmp_path: Path) -> Iterator[webserver.WebServer]:
    """A web server whose folder `set` is the packed data set."""
    webserver.require()
    with webserver.WebServer(many_shards.parent, tmp_path / "nginx") as running:
        yield running
