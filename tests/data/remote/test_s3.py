"""Shards in an object store: written by `pack`, read and trained on as local files are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.remote import address, scratch, transfer, upload
from leukotree.errors import InputError
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.training.run import run
from tests.helpers import s3
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("installs and starts a server")
CPU = Runtime(device="cpu", workers=2, threads=1, quiet=True)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.S3]:
    program = s3.require()
    transfer._source.cache_clear()
    with s3.S3(program, tmp_path) as running:
        for name, value in running.variables.items():
            monkeypatch.setenv(name, value)
        transfer.s3(allow_bucket_creation=True).create_dir(s3.BUCKET)
        yield running
    transfer._source.cache_clear()


def test_a_bucket_is_written_read_and_trained_on_as_a_folder_is(
    server: s3.S3, many_shards: Path, place: Path, tmp_path: Path
) -> None:
    there = address.parse(f"s3://{s3.BUCKET}/sets/phantom")
    assert upload.upload(many_shards, there) == len(list(many_shards.iterdir()))
    assert upload.upload(many_shards, there) == 0  # nothing is written twice
    far, near = Dataset.open(there.text), Dataset.open(many_shards)
    assert far.fingerprint == near.fingerprint
    near_spec = tiny_spec(many_shards, {"data.order": "window", "data.window": 2})
    far_spec = near_spec.override({"data.shards": there.text})
    for spec in (near_spec, far_spec):
        run(spec, tmp_path / "runs", CPU)
    assert losses(far_spec, tmp_path) == losses(near_spec, tmp_path)
    assert server.fetched() == {path.name: 1 for path in many_shards.glob("*.tar")}


def losses(spec, folder: Path) -> list[float]:
    rows = (RunFolder(folder / "runs", spec).path / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, rows) if row["kind"] == "step"]


def test_room_for_a_third_of_a_bucket(server: s3.S3, many_shards: Path, place: Path) -> None:
    there = address.parse(f"s3://{s3.BUCKET}/set")
    upload.upload(many_shards, there)
    total = sum(path.stat().st_size for path in many_shards.glob("*.tar"))
    scratch.use(None, total / 3 / 1e9)
    far, near = Dataset.open(there.text), Dataset.open(many_shards)
    for row in np.random.default_rng(0).permutation(len(far))[:40].tolist():
        assert far.read(row) == near.read(row)
        assert sum(path.stat().st_size for path in place.rglob("fold*.tar*")) <= total / 3


def test_a_bucket_that_holds_other_bytes_or_nothing_is_refused(
    server: s3.S3, many_shards: Path, place: Path, tmp_path: Path
) -> None:
    for name in ("", "/x"):
        with pytest.raises(InputError, match=rf"^s3://{s3.BUCKET}{name}: no packed data set there"):
            Dataset.open(f"s3://{s3.BUCKET}{name}")
    copy = Path(shutil.copytree(many_shards, tmp_path / "copy"))
    shard = sorted(copy.glob("*.tar"))[0]
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    there = address.parse(f"s3://{s3.BUCKET}/set")
    upload.upload(copy, there)
    with pytest.raises(InputError, match=r"its sha256 is another one; the server has other bytes") as refused:
        Dataset.open(there.text).read(0)
    assert "\n" not in str(refused.value)
    (copy / "dataset.json").write_text((copy / "dataset.json").read_text() + " ")
    with pytest.raises(InputError, match="holds another data set; remove it or choose another address"):
        upload.upload(copy, there)


def test_what_cannot_be_written_is_refused() -> None:
    for text in ("https://a.org/set", "pipe:cat {}"):
        with pytest.raises(InputError, match="cannot be written; pack into a folder and upload it"):
            upload.check(text)
