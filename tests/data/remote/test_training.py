"""Training on shards behind a web server: the bits are those of local files, whatever the network does."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from leukotree.training.run import run
from tests.helpers.specs import tiny_spec
from tests.helpers.webserver import WebServer

CPU = Runtime(device="cpu", workers=2, threads=1, quiet=True)


def losses(spec: RunSpec, root: Path) -> list[float]:
    rows = (RunFolder(root, spec).path / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, rows) if row["kind"] == "step"]


@pytest.fixture(scope="session")
def local(many_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Order -> the losses of two epochs from local files."""
    root = tmp_path_factory.mktemp("local")
    found = {}
    for order in ("all", "window"):
        spec = changed(many_shards, order)
        run(spec, root, CPU)
        found[order] = losses(spec, root)
    assert found["all"] != found["window"]
    return found


def changed(shards: Path | str, order: str) -> RunSpec:
    window = {"data.order": "window", "data.window": 2} if order == "window" else {}
    return tiny_spec(Path(), {"optim.epochs": 2, **window, "data.shards": str(shards)})


@pytest.mark.slow("trains")
@pytest.mark.parametrize("order", ["all", "window"])
@pytest.mark.parametrize("share", [None, 1 / 3])
def test_the_losses_are_those_of_local_files(
    server: WebServer,
    many_shards: Path,
    local: dict[str, list[float]],
    place: Path,
    tmp_path: Path,
    order: str,
    share: float | None,
) -> None:
    """Also with scratch for a third of the shards. With scratch for all, each is fetched once."""
    total = sum(path.stat().st_size for path in many_shards.glob("*.tar"))
    gigabytes = None if share is None else share * total / 1e9
    spec = changed(f"{server.url}/set", order)
    run(spec, tmp_path / "runs", replace(CPU, scratch_gb=gigabytes))
    assert losses(spec, tmp_path / "runs") == local[order]
    sent = server.fetched()
    assert set(sent) == {path.name for path in many_shards.glob("*.tar")}
    if share is None:
        assert set(sent.values()) == {1}
    here = sum(path.stat().st_size for path in place.rglob("fold*.tar*"))
    assert here <= total * (share or 1)


@pytest.mark.slow("trains, with two ranks")
def test_two_ranks_of_a_machine_fetch_each_shard_once(
    server: WebServer, many_shards: Path, local: dict[str, list[float]], place: Path, tmp_path: Path
) -> None:
    """Two ranks give what two ranks give from local files, and the server is killed twice meanwhile."""
    spec, near = changed(f"{server.url}/set", "window"), changed(many_shards, "window")
    run_ranks(near, tmp_path / "near")
    rank_losses = losses(near, tmp_path / "near")
    assert rank_losses == pytest.approx(local["window"], rel=1e-3)
    server.kill()
    server.configure(many_shards.parent, "location ~ tar$ { limit_rate 100k; }")
    server.start()
    ended = threading.Event()

    def interrupt() -> None:
        for count in (3, 9):
            while not ended.is_set() and len(server.requests()) < count:
                time.sleep(0.01)
            server.kill()
            time.sleep(0.5)
            server.start()

    breaker = threading.Thread(target=interrupt)
    breaker.start()
    try:
        run_ranks(spec, tmp_path / "far")
    finally:
        ended.set()
        breaker.join()
    assert losses(spec, tmp_path / "far") == rank_losses
    # nginx notes what it has sent; what a kill interrupted went on with its rest.
    assert server.fetched() == {path.name: 1 for path in many_shards.glob("*.tar")}


def run_ranks(spec: RunSpec, root: Path) -> None:
    from hpc.launching.place import Place
    from hpc.launching.runs import run_spec

    run_spec(spec, root, Place("inline", ranks=2), runtime=CPU)


@pytest.mark.slow("trains twice")
def test_a_run_whose_server_stays_away_ends_as_server_and_goes_on_exactly(
    server: WebServer,
    local: dict[str, list[float]],
    many_shards: Path,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from leukotree.errors import RunFailed
    from leukotree.records import runfolder

    monkeypatch.setenv("LEUKOTREE_PATIENCE", "1")
    server.kill()
    server.configure(many_shards.parent, "location ~ fold2 { return 503; }")
    server.start()
    spec = changed(f"{server.url}/set", "window")
    with pytest.raises(RunFailed, match="503") as raised:
        run(spec, tmp_path, CPU)
    assert raised.value.kind == "server"
    assert runfolder.read_status(tmp_path / spec.run_name)["kind"] == "server"
    server.kill()
    server.configure(many_shards.parent)
    server.start()
    run(spec, tmp_path, CPU)
    assert losses(spec, tmp_path) == local["window"]
