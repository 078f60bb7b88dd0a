"""`leukotree stage` fetches all shards before a job; the job then needs no server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.remote import mirror, scratch
from leukotree.data.remote.stage import stage
from leukotree.errors import InputError
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.webserver import WebServer


def test_a_staged_set_needs_no_server(
    server: WebServer, many_shards: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/set"
    done = stage(Dataset.open(url))
    count = len(list(many_shards.glob("*.tar")))
    assert (done.shards, done.fetched) == (count, count)
    assert done.line().endswith(f"{count} shards, 1.0 MB, {count} fetched now")
    assert stage(Dataset.open(url)).fetched == 0
    server.kill()
    monkeypatch.setattr(mirror, "FRESH", 0.0)
    monkeypatch.setenv("LEUKOTREE_PATIENCE", "0.2")
    far, near = Dataset.open(url), Dataset.open(many_shards)
    assert [far.read(row) for row in range(len(far))] == [near.read(row) for row in range(len(near))]


def test_what_has_no_room_is_refused_before_anything_is_fetched(
    server: WebServer, many_shards: Path, place: Path
) -> None:
    data = Dataset.open(f"{server.url}/set")
    scratch.use(None, 1e-4)
    with pytest.raises(
        InputError, match=r"its shards have 0.000\S+ GB, and all shards may have 0.0001 GB in"
    ):
        stage(data)
    assert not server.fetched()
    with pytest.raises(InputError, match="is a folder, which is read where it is"):
        stage(Dataset.open(many_shards))


@pytest.mark.slow("starts the command")
def test_the_command(server: WebServer, tmp_path: Path) -> None:
    done = leukotree("stage", f"{server.url}/set", "--cache", str(tmp_path / "node"), cwd=tmp_path)
    assert f"node/leukotree-{os.getuid()}/shards/" in done.stdout
    done = leukotree("stage", f"{server.url}/other", "--cache", str(tmp_path / "node"), cwd=tmp_path)
    assert_refused(done, "stage", "no packed data set there, dataset.json: the server answers 404 Not Found")
