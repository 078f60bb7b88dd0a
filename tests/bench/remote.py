"""Shards from a web server that sends 30 MB/s in all, on loopback: the first epoch, the first step, and the
bytes of three epochs with room for a third of the shards.

    python tests/bench/remote.py [FOLDER]

Server, link and reader share the cores of this machine with whatever else runs on it, so the same code gave
0.24 to 0.96 of the nominal rate. Each measurement of an epoch is therefore one of a pair: in the same minute,
before and after it, threads that only receive (STREAMS connections, nothing decoded) fetch the same shards,
and the epoch is compared with what the link gave them. PAIRS pairs are measured, and the median is the
result. The processor time of each epoch is printed: where the seconds are much more than the link's, and more
than that, the machine was busy with other work.

It prints numbers and asserts none. The images are noise, so that a JPEG has about 20 kB; both sides decode
them with the same library, in as many threads or processes. WebDataset reads its shards through its own
cache, which fetches with curl. MosaicML's streaming reads no web server, and its packages cannot be installed
beside the versions that this project pins, so it is not compared.
"""

from __future__ import annotations

import contextlib
import http.server
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import simplejpeg
import torch

from leukotree.data.dataset import Dataset
from leukotree.data.order import TrainOrder, Windows
from leukotree.data.pack import pack
from leukotree.data.remote import fetcher, scratch
from leukotree.data.remote.stage import stage
from leukotree.data.stream import Loader
from leukotree.spec import AugmentSpec

RATE = 30e6
"""Bytes per second of the server, over all connections."""
IMAGES, SIZE, PER_SHARD, WINDOW = 7200, 128, 120, 4
BATCH, WORKERS, EPOCHS = 32, 2, 3
PAIRS = 3


class Server:
    """A web server in a process of its own, with one limit for all that it sends, and a count of it."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._asked, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(folder, there), daemon=True)
        self._process.start()
        self.url = f"http://127.0.0.1:{self._asked.recv()}"

    def sent(self) -> Counter[str]:
        """Name -> bytes of each file that were sent since the last call."""
        self._asked.send(None)
        answer: Counter[str] = self._asked.recv()
        return answer


class Limited(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self._lock, self._next = threading.Lock(), 0.0
        self.sent: Counter[str] = Counter()

    def take(self, name: str, count: int) -> None:
        """Wait until `count` more bytes may be sent."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - 0.05) + count / RATE
            pause = self._next - now
            self.sent[name] += count
        if pause > 0:
            time.sleep(pause)


def _serve(folder: Path, asked: Connection) -> None:
    server = Limited(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked.send(server.server_port)
    with contextlib.suppress(EOFError):  # the other process has ended
        while True:
            asked.recv()
            counted, server.sent = server.sent, Counter()
            asked.send(counted)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Limited

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.server.folder / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(size - start))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        with open(path, "rb") as file:
            file.seek(start)
            while body and (part := file.read(2**17)):
                self.server.take(path.name, len(part))
                self.wfile.write(part)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def made(folder: Path) -> Path:
    """The packed noise; made once."""
    out = folder / "set"
    if not out.exists():
        from PIL import Image

        random = np.random.default_rng(0)
        raw = folder / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        rows = ["image,leaf,patient,source"]
        for number in range(IMAGES):
            pixels = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(raw / f"{number}.png", compress_level=0)
            leaf = ("normal", "AML", "ALL")[number % 3]
            rows.append(f"{number}.png,{leaf},p{number // 3 % 300}-{leaf},noise")
        (raw / "m.csv").write_text("\n".join(rows))
        pack(raw / "m.csv", out, folds=2, size=SIZE, samples_per_shard=PER_SHARD, quality=90)
        shutil.rmtree(raw)
    return out


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.tar")}


def received(server: Server, names: list[str]) -> float:
    """Seconds in which threads receive all shards and do nothing with them: what the link gives now."""

    def receive(name: str) -> None:
        with urllib.request.urlopen(f"{server.url}/{name}") as answer:
            while answer.read(2**17):
                pass

    began = time.perf_counter()
    with ThreadPoolExecutor(fetcher.STREAMS) as pool:
        list(pool.map(receive, names))
    return time.perf_counter() - began


@dataclass(frozen=True)
class Pair:
    """An epoch, beside what the link gave just before and after it."""

    first: float
    """Seconds to the first batch."""
    seconds: float
    link: float
    """Seconds of the link alone: the mean of before and after."""
    cpu: float
    """Processor seconds of this process in the epoch."""

    @property
    def share(self) -> float:
        return self.link / self.seconds


def pairs(server: Server, names: list[str], place: Path, width: int | None) -> list[Pair]:
    """PAIRS epochs with room for all shards."""
    measured = []
    before = received(server, names)
    for _ in range(PAIRS):
        cpu = time.process_time()
        first, _, took = ours(server, place, width, None, 1)
        cpu = time.process_time() - cpu
        after = received(server, names)
        measured.append(Pair(first, took, (before + after) / 2, cpu))
        before = after
    return measured


def told(title: str, measured: list[Pair], total: float) -> float:
    """Print the pairs; the median seconds to the first batch."""
    share = statistics.median(pair.share for pair in measured)
    first = statistics.median(pair.first for pair in measured)
    print(f"{title}: first batch {first:.2f} s, an epoch {share:.3f} of what the link gives")
    for pair in measured:
        link = total / pair.link / RATE
        print(
            f"  {pair.share:.3f}: {pair.seconds:.2f} s with {pair.cpu:.1f} processor seconds; the link alone "
            f"{pair.link:.2f} s, {link:.2f} of its nominal rate"
        )
    return first


def order(dataset: Dataset, width: int | None) -> TrainOrder:
    rows = np.arange(len(dataset))
    windows = None if width is None else Windows(dataset.shard_ids, width)
    return TrainOrder(rows, BATCH, 0, AugmentSpec(jitter=0), SIZE, windows=windows)


def ours(
    server: Server, place: Path, width: int | None, gigabytes: float | None, epochs: int, most: float = 1e9
) -> tuple[float, float, float]:
    """(seconds to the first batch, images per second from the start on, seconds) of some epochs."""
    shutil.rmtree(place, ignore_errors=True)
    fetcher._fetchers.clear()
    scratch.use(place, gigabytes)
    server.sent()
    began = time.perf_counter()
    dataset = Dataset.open(f"{server.url}/set")
    steps = order(dataset, width)
    first, images = 0.0, 0
    with Loader(dataset, workers=WORKERS) as loader:
        batches = loader.train(steps, range(steps.steps_before(epochs)))
        for rows, _ in batches:
            first = first or time.perf_counter() - began
            images += len(rows)
            if time.perf_counter() - began > most:
                break
        took = time.perf_counter() - began
        del batches
    return first, images / took, took


def belady(dataset: Dataset, sizes: dict[str, int], width: int, room: float, epochs: int) -> int:
    """The fewest bytes that any choice of what to remove fetches: Belady's, for the shards in their order."""
    steps = order(dataset, width)
    names = list(dict.fromkeys(dataset.index["shard"].tolist()))
    uses = np.concatenate([dataset.shard_ids[steps.rows_of(epoch)] for epoch in range(epochs)]).tolist()
    later: dict[int, list[int]] = {}
    for position in range(len(uses) - 1, -1, -1):
        later.setdefault(uses[position], []).append(position)
    here: set[int] = set()
    fetched, used = 0, 0
    for position, shard in enumerate(uses):
        while later[shard] and later[shard][-1] <= position:
            later[shard].pop()
        if shard in here:
            continue
        size = sizes[names[shard]]
        while used + size > room:
            for other in here:
                while later[other] and later[other][-1] <= position:
                    later[other].pop()
            last = max(here, key=lambda other: later[other][-1] if later[other] else len(uses))
            here.discard(last)
            used -= sizes[names[last]]
        here.add(shard)
        used, fetched = used + size, fetched + size
    return fetched


def webdatasets_cache(server: Server, names: list[str], place: Path) -> tuple[float, float]:
    """(seconds to the first batch, images per second) of an epoch of WebDataset with its own cache."""
    import webdataset as wds

    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    began = time.perf_counter()
    pipeline = (
        wds.WebDataset(
            [f"{server.url}/{name}" for name in names], cache_dir=str(place), shardshuffle=len(names)
        )
        .shuffle(WINDOW * PER_SHARD)
        .map(lambda sample: (torch.from_numpy(simplejpeg.decode_jpeg(sample["jpg"], "RGB")),))
        .batched(BATCH)
    )
    first, images = 0.0, 0
    for (pixels,) in wds.WebLoader(pipeline, num_workers=WORKERS, batch_size=None):
        first = first or time.perf_counter() - began
        images += len(pixels)
    return first, images / (time.perf_counter() - began)


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(tempfile.mkdtemp(prefix="leukotree-remote-"))
    packed = made(folder)
    here, dataset = sizes(packed), Dataset.open(packed)
    server, place, total = Server(packed), folder / "node", sum(here.values())
    limit = len(dataset) / (total / RATE)

    def sent() -> int:
        counted = server.sent()
        return sum(counted[name] for name in here)

    print(
        f"{len(dataset)} images, {len(here)} shards, {total / 1e6:.0f} MB: {limit:.0f} images/s by the link"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began")
    names = sorted(here)
    first = told(f"window {WINDOW}", pairs(server, names, place, WINDOW), total)
    sent()
    ours(server, place, WINDOW, None, 1)
    print(f"  sent {sent() / total:.3f} of the shards' bytes")
    told("default order", pairs(server, names, place, None), total)
    shutil.rmtree(place)
    fetcher._fetchers.clear()
    began = time.perf_counter()
    stage(Dataset.open(f"{server.url}/set"))
    before = time.perf_counter() - began
    print(f"all shards first: {before:.2f} s; the first batch with window comes {before / first:.1f}x sooner")
    room = total / 3
    _, rate, took = ours(server, place, WINDOW, room / 1e9, EPOCHS)
    fetched, best = sent(), belady(dataset, here, WINDOW, room, EPOCHS)
    print(f"room for a third, window, {EPOCHS} epochs: {fetched / 1e6:.0f} MB in {took:.1f} s")
    print(f"  = {fetched / best:.3f} of Belady's, {fetched / took / RATE:.3f} of the link")
    _, rate, took = ours(server, place, None, room / 1e9, 1, most=30)
    print(f"room for a third, default order: {rate:.0f} images/s, {sent() / 1e6:.0f} MB in {took:.0f} s")
    before = received(server, names)
    sent()
    first, rate = webdatasets_cache(server, names, folder / "wds")
    counted = sent()
    gave = len(dataset) / ((before + received(server, names)) / 2)
    print(f"WebDataset with its cache: first batch {first:.2f} s, {rate / gave:.3f} of what the link gives")
    print(f"  sent {counted / total:.3f} of the shards' bytes")
    os._exit(0)


if __name__ == "__main__":
    main()
