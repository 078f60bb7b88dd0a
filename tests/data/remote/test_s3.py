"""Shards in an object store: written by `pack`, read and trained on as local files are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from leukotree.data.dataset import Dataset
from leukotree.data.remote import address, filesystems, transfer, upload
from leukotree.errors import InputError, RunFailed
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.run import run
from tests.helpers import s3, webserver
from tests.helpers.commandline import leukotree
from tests.helpers.specs import tiny_spec

pytestmark = pytest.mark.slow("installs and starts a server")
CPU = Runtime(device="cpu", workers=2, threads=1, quiet=True)
SET = f"s3://{s3.BUCKET}/sets/phantom"
WINDOW = {"data.order": "window", "data.window": 2, "optim.epochs": 2}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3]:
    with s3.S3(s3.require(), tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def server(running: s3.S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.S3]:
    """The server, empty."""
    transfer._source.cache_clear()
    for name, value in running.variables.items():
        monkeypatch.setenv(name, value)
    files = filesystems.s3(allow_bucket_creation=True, allow_bucket_deletion=True)
    files.create_dir(s3.BUCKET)
    yield running
    files.delete_dir(s3.BUCKET)
    transfer._source.cache_clear()


@pytest.fixture(scope="module")
def local(many_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of two epochs from local files."""
    root, spec = tmp_path_factory.mktemp("local"), tiny_spec(many_shards, WINDOW)
    run(spec, root, CPU)
    return losses(spec, root)


def losses(spec: RunSpec, root: Path) -> list[float]:
    rows = (RunFolder(root, spec).path / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, rows) if row["kind"] == "step"]


@pytest.mark.parametrize("share", [None, 1 / 3])
def test_a_bucket_is_written_read_and_trained_on_as_a_folder_is(
    server: s3.S3, many_shards: Path, local: list[float], place: Path, tmp_path: Path, share: float | None
) -> None:
    """Also with scratch for a third of the shards. With scratch for all, each is fetched once."""
    there = address.parse(f"{SET}-{share}")
    assert upload.upload(many_shards, there) == len(list(many_shards.iterdir()))
    assert upload.upload(many_shards, there) == 0  # nothing is written twice
    assert Dataset.open(there.text).fingerprint == Dataset.open(many_shards).fingerprint
    total = sum(path.stat().st_size for path in many_shards.glob("*.tar"))
    spec = tiny_spec(Path(), {**WINDOW, "data.shards": there.text})
    run(spec, tmp_path, replace(CPU, scratch_gb=share and share * total / 1e9))
    assert losses(spec, tmp_path) == local
    sent = server.fetched(f"phantom-{share}")
    assert set(sent) == {path.name for path in many_shards.glob("*.tar")}
    assert set(sent.values()) == {1} or share
    assert sum(path.stat().st_size for path in place.rglob("fold*.tar*")) <= total * (share or 1)


def test_two_ranks_and_a_server_that_is_killed_twice(
    server: s3.S3, many_shards: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of moto forgets its objects when it ends, so nginx stands before it, and is killed."""
    from hpc.launching.place import Place
    from hpc.launching.runs import run_spec

    webserver.require()
    upload.upload(many_shards, address.parse(SET))
    front = (
        f"location / {{ proxy_pass http://127.0.0.1:{server.port}; proxy_set_header Host $http_host; "
        "proxy_buffering off; limit_rate 100k; }"
    )
    near = tiny_spec(many_shards, WINDOW)
    far = near.override({"data.shards": SET})
    run_spec(near, tmp_path / "near", Place("inline", ranks=2), runtime=CPU)
    ended = threading.Event()
    with webserver.WebServer(tmp_path, tmp_path / "nginx", front) as nginx:

        def interrupt() -> None:
            for count in (3, 9):
                while not ended.is_set() and len(nginx.fetched()) < count:
                    time.sleep(0.01)
                nginx.kill()
                time.sleep(0.5)
                nginx.start()

        monkeypatch.setenv("AWS_ENDPOINT_URL", nginx.url)
        transfer._source.cache_clear()
        breaker = threading.Thread(target=interrupt)
        breaker.start()
        # In a new process: the ranks of this one may have been prepared with the variables of another test.
        (tmp_path / "far.yaml").write_text(yaml.safe_dump(far.model_dump(mode="json")))
        words = ["train", "far.yaml", "--ranks", "2", "--device", "cpu", "--threads", "1", "--study", "far"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "hpc.cli", *words],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            ended.set()
            breaker.join()
        assert done.returncode == 0, done.stderr
        # nginx notes what it has sent to its end; what a kill interrupted is not among that.
        assert nginx.fetched() == {path.name: 1 for path in many_shards.glob("*.tar")}
    assert losses(far, tmp_path / "results" / "runs" / "far") == losses(near, tmp_path / "near")


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


def test_shards_of_another_set_that_were_left_there_are_written_again(
    server: s3.S3, many_shards: Path, place: Path, tmp_path: Path
) -> None:
    """An upload was interrupted, and then another data set is uploaded, whose shards have the same sizes."""
    there, copy = address.parse(SET), Path(shutil.copytree(many_shards, tmp_path / "copy"))
    (copy / "dataset.json").unlink()
    (copy / "index.parquet").write_bytes(b"of another set")
    for shard in copy.glob("*.tar"):
        shard.write_bytes(bytes(shard.stat().st_size))
    origin = transfer.source(there)
    assert isinstance(origin, transfer.Bucket)
    for path in copy.iterdir():
        origin.write(path.name, path)
    upload.upload(many_shards, there)
    assert Dataset.open(SET).read(0) == Dataset.open(many_shards).read(0)


def test_pack_uploads_the_outer_test_too(
    server: s3.S3, phantom_manifest: Path, place: Path, tmp_path: Path
) -> None:
    text = phantom_manifest.read_text().replace("phantom,", "other,", 20)
    manifest = phantom_manifest.with_name("two.csv")
    manifest.write_text(text)
    words = ["pack", str(manifest), SET, "--test-source", "other", "--size", "32", "--folds", "2"]
    done = leukotree(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{SET}-test: \d files written now", done.stdout, re.MULTILINE)
    assert (Dataset.open(SET).folds, Dataset.open(f"{SET}-test").folds) == (2, 1)
    assert set(Dataset.open(f"{SET}-test").index["source"]) == {"other"}


def test_a_proxy_is_used_unless_no_proxy_names_the_store(
    server: s3.S3, many_shards: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has a name that only the proxy knows."""
    webserver.require()
    upload.upload(many_shards, address.parse(SET))
    front = f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"
    with webserver.WebServer(tmp_path, tmp_path / "nginx", front) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.invalid")
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("LEUKOTREE_PATIENCE", "0.1")
        transfer._source.cache_clear()
        assert Dataset.open(SET).read(0) == Dataset.open(many_shards).read(0)
        assert sum(proxy.fetched().values()) >= 1
        monkeypatch.setenv("no_proxy", "store.invalid")
        transfer._source.cache_clear()
        with pytest.raises(RunFailed, match=r"store\.invalid"):
            Dataset.open(f"{SET}-other")


def test_a_store_that_is_away_is_told_before_anything_is_packed(
    phantom_manifest: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = leukotree("pack", str(phantom_manifest), SET, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{SET}: cannot be written: " in done.stderr
    assert not list(place.rglob("*.tar"))


def test_what_cannot_be_written_is_refused() -> None:
    for text in ("https://a.org/set", "pipe:cat {}"):
        with pytest.raises(InputError, match="cannot be written; pack into a folder and upload it"):
            upload.check(text)
