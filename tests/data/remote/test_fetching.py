"""Shards behind a web server are read as those of a folder are, and each crosses the network once."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leukotree.data import fingerprint
from leukotree.data.dataset import Dataset
from leukotree.data.pack import pack
from leukotree.data.remote import address, mirror, scratch
from leukotree.data.remote.place import note_path, read_note
from leukotree.errors import InputError, RunFailed
from tests.helpers import webserver
from tests.helpers.webserver import WebServer


def test_the_bytes_are_those_of_the_folder(server: WebServer, many_shards: Path, place: Path) -> None:
    far, near = Dataset.open(f"{server.url}/set/"), Dataset.open(many_shards)
    assert (far.fingerprint, far.folds, len(far)) == (near.fingerprint, near.folds, len(near))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(far.read, range(len(far)))) == [near.read(row) for row in range(len(near))]
    assert server.fetched() == dict.fromkeys(near.index["shard"].unique(), 1)
    assert str(far).startswith(f"Dataset {server.url}/set: 168 images")
    assert not list(place.rglob("*.part"))


def _read_all(url: str) -> list[int]:
    data = Dataset.open(url)
    return [len(data.read(row)) for row in range(len(data))]


def test_processes_of_a_machine_share_what_one_of_them_fetched(
    server: WebServer, many_shards: Path, place: Path
) -> None:
    near = Dataset.open(many_shards)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        answers = pool.map(_read_all, [f"{server.url}/set"] * 3)
    assert answers == [[len(near.read(row)) for row in range(len(near))]] * 3
    assert set(server.fetched().values()) == {1}


def test_a_process_that_dies_while_it_fetches_leaves_the_shard_to_others(
    many_shards: Path, tmp_path: Path, place: Path
) -> None:
    webserver.require()
    slow = "location ~ tar$ { limit_rate 20k; }"  # a shard takes a second
    with webserver.WebServer(many_shards.parent, tmp_path / "nginx", slow) as server:
        url = f"{server.url}/set"
        data = Dataset.open(url)
        first = multiprocessing.get_context("fork").Process(target=_read_all, args=(url,))
        first.start()
        while not list(place.rglob("*.part")):
            time.sleep(0.01)
        first.kill()
        first.join()
        server.configure(many_shards.parent)
        server.kill()
        server.start()
        assert data.read(0) == Dataset.open(many_shards).read(0)


def test_an_interrupted_connection_goes_on_where_it_was(
    many_shards: Path, tmp_path: Path, place: Path
) -> None:
    webserver.require()
    slow = "location ~ tar$ { limit_rate 20k; }"
    with webserver.WebServer(many_shards.parent, tmp_path / "nginx", slow) as server:
        data, near = Dataset.open(f"{server.url}/set"), Dataset.open(many_shards)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(data.read, 0)
            for _ in range(2):
                time.sleep(0.4)
                server.kill()
                time.sleep(0.3)
                server.start()
            assert reading.result() == near.read(0)
        assert 206 in {status for _, _, status, _ in server.requests()}


def test_a_server_that_stays_away_ends_the_run_as_server(
    server: WebServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset.open(f"{server.url}/set")
    server.kill()
    monkeypatch.setenv("LEUKOTREE_PATIENCE", "1")
    with pytest.raises(
        RunFailed, match=rf"^{server.url}/set/fold0-000000.tar: .*; no new byte in \d s$"
    ) as raised:
        data.read(0)
    assert raised.value.kind == "server"
    assert Dataset.open(f"{server.url}/set") is data  # a moment later nobody asks the server again
    with pytest.raises(RunFailed, match="no new byte in"):
        Dataset.open(f"{server.url}/other")


def test_a_server_with_other_bytes_is_refused(many_shards: Path, tmp_path: Path, place: Path) -> None:
    webserver.require()
    shutil.copytree(many_shards, tmp_path / "www" / "set")
    near = Dataset.open(many_shards)
    shard, offset = near.index["shard"].iloc[0], int(near.index["offset"].iloc[0])
    with open(tmp_path / "www" / "set" / shard, "r+b") as file:
        file.seek(offset + 100)
        byte = file.read(1)
        file.seek(offset + 100)
        file.write(bytes([byte[0] ^ 1]))
    with webserver.WebServer(tmp_path / "www", tmp_path / "nginx") as server:
        data = Dataset.open(f"{server.url}/set")
        with pytest.raises(
            InputError, match=rf"{shard}: sample \S+: its sha256 is another one; .* upload"
        ) as e:
            data.read(0)
        assert "\n" not in str(e.value)
        assert server.fetched() == {shard: 2}  # once more, in case it was damaged on the way
        assert not list(place.rglob("*.tar*"))
        last = len(data) - 1
        assert data.read(last) == near.read(last)
        (tmp_path / "www" / "set" / str(near.index["shard"].iloc[last])).unlink()
        other = near.index["shard"].unique()[3]
        (tmp_path / "www" / "set" / other).unlink()
        with pytest.raises(InputError, match=rf"{other}: the server answers 404 Not Found; the index names"):
            data.read(int((near.index["shard"] == other).argmax()))


def test_a_copy_that_is_damaged_here_is_fetched_again(
    server: WebServer, many_shards: Path, place: Path
) -> None:
    data, near = Dataset.open(f"{server.url}/set"), Dataset.open(many_shards)
    data.read(0)
    shard = next(iter(place.rglob("fold0-000000.tar")))
    for content in (b"", bytes(shard.stat().st_size)):
        shard.write_bytes(content)
        assert data.read(1 if not content else 2) == near.read(1 if not content else 2)
    assert server.fetched() == {"fold0-000000.tar": 3}


def test_shards_that_are_needed_last_make_room(server: WebServer, many_shards: Path, place: Path) -> None:
    near = Dataset.open(many_shards)
    sizes = {path.name: path.stat().st_size for path in many_shards.glob("*.tar")}
    scratch.use(None, sum(sizes.values()) / 3 / 1e9)
    data = Dataset.open(f"{server.url}/set")
    for row in range(len(data)):
        assert data.read(row) == near.read(row)
        assert sum(path.stat().st_size for path in place.rglob("*.tar*")) <= sum(sizes.values()) / 3
    assert set(server.fetched().values()) == {1}
    scratch.use(None, 1e-6)
    with pytest.raises(InputError, match=r"a shard has 0.0 MB, and all shards may have 0.0 MB .*--cache-gb"):
        data.read(0)


def test_what_lies_at_an_address_is_known_without_the_server(
    server: WebServer, many_shards: Path, place: Path
) -> None:
    url = f"{server.url}/set"
    assert fingerprint.packed(url) is None
    Dataset.open(url)
    server.kill()
    assert fingerprint.packed(url) == fingerprint.packed(many_shards)


def test_a_set_that_is_packed_again_is_another_one(
    many_shards: Path, phantom_manifest: Path, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    webserver.require()
    www = tmp_path / "www"
    shutil.copytree(many_shards, www / "set")
    with webserver.WebServer(www, tmp_path / "nginx") as server:
        old = Dataset.open(f"{server.url}/set")
        shutil.rmtree(www / "set")
        pack(phantom_manifest, www / "set", folds=3, size=48, samples_per_shard=8)
        monkeypatch.setattr(mirror, "FRESH", 0.0)
        new = Dataset.open(f"{server.url}/set")
        assert new.folds == 3
        assert new.absolute != old.absolute
        assert new.read(0) == Dataset.open(www / "set").read(0)
        with pytest.raises(InputError, match="the server has other bytes than the index says"):
            old.read(0)


def test_a_note_that_names_a_folder_elsewhere_counts_as_none(place: Path) -> None:
    there = address.parse("https://a.org/set")
    scratch.made()
    for folder in ("..", "../x", ".", "", 5):
        note_path(there).write_text(json.dumps({"folder": folder, "checked": 1.0}))
        assert read_note(there) is None


def test_scratch_without_locks_is_refused_in_one_line(
    server: WebServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(
        InputError, match=r"cannot be locked \(No locks available\); use a file system with flock"
    ):
        Dataset.open(f"{server.url}/set")
