"""What no one machine shows: a model of training on 10 million images, of 512 GPUs, and of 10,000 runs.

    python -m tests.scale.model [--images N] [--gpus N] [--runs N] ...

Prints the tables of docs/scale.md. Every formula is a function below. What was measured is in
results/scale/points.csv; `checks` sets these points beside the formulas. Other numbers are computed.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from hpc.launching import arrays
from hpc.launching.runs import POLL
from leukotree.records.runfolder import HEARTBEAT
from leukotree.runtime import Runtime
from leukotree.training.footprint import KEPT, STATES, WORD

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
POINTS = ROOT / "results" / "scale" / "points.csv"
OPEN_SHARDS = 256
"""Shards that a process keeps open (`data.dataset._shard`)."""
INODES, TASK_INODES = 13, 3
"""Files and folders of a finished run, and of each task of a job in `jobs/`; a job has one more."""


@dataclass(frozen=True)
class Setting:
    """A cluster and what runs on it. The values are assumed, not measured."""

    images: int = 10**7
    image_bytes: int = 40_000
    """Of a JPEG of about 224 x 224 pixels."""
    per_shard: int = 1000
    """Images of a shard, the default of `pack`."""
    gpus: int = 512
    gpus_per_node: int = 8
    gpu_images_s: float = 1000.0
    """Training images per second of one GPU."""
    batch: int = 4096
    """Images of a step of the one training on all GPUs."""
    window: int = 8
    """`data.window`, in shards."""
    epochs: int = 20
    node_link: float = 1.25e9
    """Bytes per second of one node, from a file system or an object store."""
    store: float = 10e9
    """Bytes per second that the file system or the store sends to all nodes together."""
    runs: int = 10_000
    array: int = 1000
    """Jobs of one SLURM array: MaxArraySize 1,001."""
    run_hours: float = 2.0
    parameters: float = 22e6
    """Of a run's models: ViT-S/16."""

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.gpus_per_node)

    @property
    def shards(self) -> int:
        return -(-self.images // self.per_shard)

    @property
    def total_bytes(self) -> float:
        return float(self.images * self.image_bytes)

    @property
    def shard_bytes(self) -> float:
        return float(self.per_shard * self.image_bytes)


def reads_per_second(setting: Setting) -> float:
    """Reads of a shared file system while all GPUs train: one `pread` for each image."""
    return setting.gpus * setting.gpu_images_s


def opens_per_read(shards: int, kept: int = OPEN_SHARDS) -> float:
    """Opens of a shard for each image in the default order: a process keeps `kept` shards open, and an image
    is in each shard with the same probability."""
    return max(0.0, 1 - kept / shards)


def distinct(shards: float, images: float) -> float:
    """The expected number of shards that hold so many images drawn at random."""
    return shards * -math.expm1(images * math.log1p(-1 / shards)) if shards > 1 else 1.0


def network_bytes(setting: Setting, nodes: int) -> float:
    """Bytes from a store, where the scratch of a node holds all shards: each shard once for a node."""
    return nodes * setting.total_bytes


def later_epochs(setting: Setting, room: float) -> float:
    """Bytes of a node in each later epoch, where its scratch holds the share `room` of the shards. Belady's
    rule keeps what is needed next, so at least the rest is fetched again."""
    return (1 - room) * setting.total_bytes


def rate_of_node(setting: Setting, nodes: int) -> float:
    """Bytes per second of a node, where so many fetch at once."""
    return min(setting.node_link, setting.store / nodes)


def first_fetch(setting: Setting, nodes: int, batch: float, windowed: bool) -> float:
    """Seconds until the shards of a node's part of the first step are there."""
    among = min(setting.window, setting.shards) if windowed else setting.shards
    return distinct(among, batch / nodes) * setting.shard_bytes / rate_of_node(setting, nodes)


def batches_of_arrays(runs: int, array: int) -> int:
    """SLURM's commands to queue runs: an `sbatch` for each array. One more asks for MaxArraySize."""
    return -(-runs // array) + 1


def looks(hours: float) -> int:
    """`squeue` calls of a command that waits so long."""
    return round(3600 * hours / POLL["slurm"])


def inodes(runs: int, ranks: int = 1) -> tuple[int, int]:
    """Files and folders of the runs, and of their jobs."""
    return INODES * runs, (1 + TASK_INODES * ranks) * runs


def checkpoint_bytes(parameters: float) -> float:
    return STATES * WORD * parameters


def opens_of_status(runs: int, done: int) -> int:
    """Files that `leukotree status` opens: status.json of each run, and of a finished one spec.yaml, env.json
    and taxonomy.json."""
    return runs + 3 * done


def points() -> list[dict[str, str]]:
    """The measured points."""
    with open(POINTS, encoding="utf-8") as file:
        return list(csv.DictReader(file))


FORMULAS: dict[str, Callable[[float], float]] = {
    "calls of SLURM to queue runs": lambda runs: batches_of_arrays(int(runs), arrays.ARRAY),
    "files and folders of finished runs": lambda runs: inodes(int(runs))[0],
    "files that status opens of finished runs": lambda runs: opens_of_status(int(runs), int(runs)),
    "shards of a batch, of 60 shards": lambda images: distinct(60, images),
    "shards of a batch, window of 8": lambda images: distinct(8, images),
}
"""Measured quantity -> its formula."""


def measured(quantity: str, at: float) -> float:
    """A measured value. Raises StopIteration where there is none."""
    of_quantity = (row for row in points() if row["quantity"] == quantity)
    return next(float(row["value"]) for row in of_quantity if float(row["at"]) == at)


def table(head: list[str], rows: list[list[str]]) -> str:
    right = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, right, *rows])


def checks() -> str:
    """The measured points beside what the formulas say."""
    rows = []
    for row in points():
        if formula := FORMULAS.get(row["quantity"]):
            at, value = float(row["at"]), float(row["value"])
            computed = formula(at)
            ratio = f"{computed / value:.2f}" if value else "-"
            rows.append([row["quantity"], f"{at:,.0f}", f"{value:,.4g}", f"{computed:,.4g}", ratio])
    return table(["quantity", "at", "measured", "formula", "formula / measured"], rows)


def bytes_text(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def seconds_text(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def of_training(setting: Setting) -> str:
    """One training on all GPUs, beside one of a single node."""
    rows = []
    for what, of_gpus in _TRAINING:
        one = replace(setting, gpus=setting.gpus_per_node)
        rows.append([what, of_gpus(one), of_gpus(setting)])
    heads = [f"{setting.gpus_per_node} GPUs, 1 node", f"{setting.gpus} GPUs, {setting.nodes} nodes"]
    return table(["one training", *heads], rows)


def _start(setting: Setting, windowed: bool) -> str:
    """The time to the first step of shards in a store."""
    begin = measured("seconds from the command to the first step, two ranks", 2)
    fetch = first_fetch(setting, setting.nodes, setting.batch, windowed)
    return seconds_text(begin + fetch)


_TRAINING: tuple[tuple[str, Callable[[Setting], str]], ...] = (
    ("images per second", lambda s: f"{reads_per_second(s):,.0f}"),
    ("shared file system: reads per second", lambda s: f"{reads_per_second(s):,.0f}"),
    (
        "shared file system: opens per second, `order: all`",
        lambda s: f"{reads_per_second(s) * opens_per_read(s.shards):,.0f}",
    ),
    (
        "shared file system: images per second that it can send",
        lambda s: f"{rate_of_node(s, s.nodes) * s.nodes / s.image_bytes:,.0f}",
    ),
    ("shared file system: bytes per second", lambda s: bytes_text(reads_per_second(s) * s.image_bytes)),
    ("store: requests, all epochs", lambda s: f"{s.nodes * s.shards:,}"),
    ("store: bytes, all epochs", lambda s: bytes_text(network_bytes(s, s.nodes))),
    (
        "store: bytes of each later epoch, scratch for a third",
        lambda s: bytes_text(s.nodes * later_epochs(s, 1 / 3)),
    ),
    (
        "store: until all shards are on the nodes",
        lambda s: seconds_text(s.total_bytes / rate_of_node(s, s.nodes)),
    ),
    ("store: first step, `order: all`", lambda s: _start(s, False)),
    ("store: first step, `order: window`", lambda s: _start(s, True)),
    (
        "seconds of training in an epoch",
        lambda s: seconds_text(s.images / reads_per_second(s)),
    ),
)


def of_runs(setting: Setting) -> str:
    """Many runs, each on one GPU."""
    at_once = setting.gpus
    hours = setting.run_hours * -(-setting.runs // at_once)
    of_runs_inodes, of_jobs = inodes(setting.runs)
    save = Runtime().save_s
    rows = [
        ["`sbatch` and `scontrol` to queue them", f"{batches_of_arrays(setting.runs, setting.array):,}"],
        [f"hours, {at_once} at once, {setting.run_hours:g} h each", f"{hours:,.0f}"],
        ["`squeue` of a command that waits for all", f"{looks(hours):,}"],
        ["files and folders of the runs", f"{of_runs_inodes:,}"],
        ["files and folders of their jobs", f"{of_jobs:,}"],
        ["heartbeats per second", f"{at_once / HEARTBEAT:.0f}"],
        [
            "bytes per second of checkpoints",
            bytes_text(at_once * checkpoint_bytes(setting.parameters) / save),
        ],
        [
            "bytes of checkpoints at work",
            bytes_text(at_once * (KEPT + 1) * checkpoint_bytes(setting.parameters)),
        ],
        ["files that `status` opens, all done", f"{opens_of_status(setting.runs, setting.runs):,}"],
        [
            "`status` on a file server, 0.3 ms per open",
            seconds_text(3e-4 * opens_of_status(setting.runs, setting.runs)),
        ],
    ]
    return table([f"{setting.runs:,} runs", "computed"], rows)


def of_commands() -> str:
    """What whole commands took."""
    rows = []
    for row in points():
        kind, _, what = row["quantity"].partition("command: ")
        if what and not kind:
            words, _, state = what.partition("; ")
            took = [f"{float(row[key]):.3g} s" for key in ("value", "core_s")]
            rows.append([f"`leukotree {words}`: {state}", f"{float(row['at']):,.0f}", *took])
    return table(["command", "runs", "took", "of a core"], rows)


def tables(setting: Setting) -> str:
    """All tables, as in docs/scale.md."""
    return "\n\n".join((of_commands(), checks(), of_training(setting), of_runs(setting)))


def page(text: str) -> str:
    """The text of docs/scale.md with the tables of today in the places of its own."""
    new = iter(tables(Setting()).split("\n\n"))
    return re.sub(r"^\|.*(?:\n\|.*)*", lambda _: next(new), text, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Setting):
        default = getattr(Setting(), field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    given = vars(parser.parse_args())
    if given.pop("write"):
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(tables(Setting(**given)))


if __name__ == "__main__":
    main()
