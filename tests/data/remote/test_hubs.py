"""Shards in Google's store and on the Hugging Face hub, from stand-ins of them on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.remote import address, mirror, transfer, upload
from leukotree.errors import InputError
from tests.helpers import gcs, hub


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    transfer._source.cache_clear()
    yield
    transfer._source.cache_clear()


def same(far: Dataset, near: Dataset) -> bool:
    return [far.read(row) for row in range(0, len(far), 5)] == [
        near.read(row) for row in range(0, len(near), 5)
    ]


@pytest.mark.slow("installs and starts a server")
def test_a_bucket_of_google_is_written_and_read(
    many_shards: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gcs.GCS(tmp_path) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        there = address.parse(f"gs://{gcs.BUCKET}/sets/phantom")
        with pytest.raises(InputError, match=rf"^{there.text}: no packed data set there, dataset.json: "):
            Dataset.open(there.text)
        assert upload.upload(many_shards, there) == len(list(many_shards.iterdir()))
        assert upload.upload(many_shards, there) == 0
        far, near = Dataset.open(there.text), Dataset.open(many_shards)
        assert same(far, near)
        assert set(server.fetched().values()) == {1}


def test_a_data_set_of_the_hub_is_read(
    many_shards: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with hub.Hub(many_shards.parent) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        far, near = Dataset.open("hf://datasets/me/set@main/set"), Dataset.open(many_shards)
        assert same(far, near)
        assert server.fetched() == dict.fromkeys(near.index["shard"].unique(), 1)
        for text in ("hf://datasets/me/set/none", "hf://datasets/me/other/set"):
            with pytest.raises(InputError, match=rf"^{text}: no packed data set there, dataset.json: "):
                Dataset.open(text)


def test_the_hub_is_asked_again_after_a_while(
    many_shards: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its file system would answer from its own memory."""
    (tmp_path / "set").mkdir()
    for name in ("dataset.json", "index.parquet"):
        (tmp_path / "set" / name).write_bytes((many_shards / name).read_bytes())
    monkeypatch.setattr(mirror, "FRESH", 0.0)
    with hub.Hub(tmp_path) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        before = Dataset.open("hf://datasets/me/set/set")
        with open(tmp_path / "set" / "dataset.json", "a") as file:
            file.write(" ")
        assert Dataset.open("hf://datasets/me/set/set").fingerprint != before.fingerprint


def test_a_missing_login_of_google_is_said_in_a_line() -> None:
    with (
        pytest.raises(transfer.Lost, match="log in with gcloud auth application-default login"),
        transfer._translated(),
    ):
        raise OSError("google::cloud::Status(UNAVAILABLE: Could not create a OAuth2 access token to ...)")
