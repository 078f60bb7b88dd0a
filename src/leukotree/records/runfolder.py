"""The folder of a run: the names of its files, and how they are read and written.

Files are the truth. Only the main rank writes them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from leukotree import config, files, log, seeds, yamlfile
from leukotree.errors import RETRIED, Busy, InputError, Kind, RunFailed, kind, one_line
from leukotree.records import attempts, origin, upgrade
from leukotree.spec import VARIANTS, RunSpec
from leukotree.taxonomy import Taxonomy

PACKAGES = ("torch", "timm", "numpy", "ray", "optuna", "submitit")
SPEC = "spec.yaml"
TAXONOMY = "taxonomy.json"
ENVIRONMENT = "env.json"
"""Packages, hardware, the fingerprints of the data, of the pretrained weights with their `config.json` and of
a tree that is not that of the data, `STREAMS`, `IMAGES` and `BACKBONE`."""
STREAMS = "streams"
"""Key of env.json: how the run draws its random numbers, see `leukotree.seeds`. The first version did not
write it."""
IMAGES = "images"
"""Key of env.json: how `pack` prepared the images, `Dataset.preparation`. Older versions did not write it."""
BACKBONE = "backbone"
"""Key of env.json: the description of a backbone with pretrained weights, see `models.described`. Older
versions did not write it. Also a folder: the `config.json` of a backbone of the hub or of a folder, so that
the run can be loaded where that is not any more."""
STATUS = "status.json"
METRICS = "metrics.jsonl"
INTERFERENCE = "interference.jsonl"
"""How the gradients of the levels agree; see `training/interference.py`."""
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.parquet"
FAILURE = "failure.json"
"""Details of an error."""
LOG = "log.txt"
"""What happened to the run, a line each; see `leukotree.log`."""
LOCK = ".lock"
_FAILED = ".failed-"
"""Prefix of the files in which other ranks than the main one note their errors."""
HEARTBEAT = 15.0
"""Seconds between two writes of status.json while training."""


def is_run(name: str) -> bool:
    """Whether the name of a folder is that of a run: `<variant>-<hash>`."""
    variant, _, digest = name.rpartition("-")
    return variant in VARIANTS and len(digest) == 12


class RunFolder:
    """The folder `<root>/<variant>-<hash>`. Open it with `opened`. Only the main rank calls what writes."""

    def __init__(self, root: Path, spec: RunSpec, *, quiet: bool = False) -> None:
        self.spec = spec
        self.path = Path(root) / spec.run_name
        self.log = log.of_run(spec.run_name, self.path / LOG, quiet=quiet)
        self.checkpoints = self.path / CHECKPOINTS
        self.predictions = self.path / PREDICTIONS
        self._metrics = self.path / METRICS
        self._status: dict[str, Any] = {}
        self._beat = 0.0

    @contextlib.contextmanager
    def opened(
        self,
        taxonomy: Taxonomy,
        fingerprints: dict[str, str],
        ranks: int,
        images: Mapping[str, float] | None = None,
        backbone: Mapping[str, Any] | None = None,
        config: Path | None = None,
    ) -> Iterator[RunFolder]:
        """Lock the folder for this process, note the attempt, and note how it ends. Nothing is written to a
        run that is done.

        Args:
            images: how they were prepared, for the note `IMAGES`.
            backbone: the note `BACKBONE`.
            config: the file to copy into the folder of this name.

        Raises Busy if another process has the lock, InputError if the folder was made with another spec,
        other data, another tree or other weights, and RunFailed if it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.locked(self.path / LOCK, self._busy))
                self._compare(fingerprints)
                if not self.done:
                    self._claim(taxonomy, fingerprints, ranks, images, backbone, config)
            except OSError as error:
                raise self._unwritable(error) from error
            with self._ending():
                yield self

    def _unwritable(self, error: OSError) -> RunFailed:
        if files.is_full(error):
            return RunFailed(f"{self.path}: no room left on its disk; make room and run it again", "disk")
        return RunFailed(f"{self.path}: cannot be written: {one_line(error)}")

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Note in the status what ends the work on a run that is not done."""
        fields: dict[str, Any] = {"state": "stopped"}
        try:
            yield
        except GeneratorExit:  # the caller stopped the run between two epochs
            raise
        except BaseException as error:
            reason = {"kind": kind(error), "message": one_line(error)[:500]}
            if reason["kind"] == "node":  # a closed connection: the rank that failed has noted its reason
                reason = self._reason_of_other_rank() or reason
            fields = {"state": "preempted" if reason["kind"] in RETRIED else "failed", **reason}
            if isinstance(error, OSError) and files.is_full(error):
                fields["kind"] = "disk"
                raise self._unwritable(error) from error
            if isinstance(error, RunFailed) and error.details:
                self._try_to_write(FAILURE, error.details)
            raise
        finally:
            if not self.done:
                with contextlib.suppress(OSError):  # on a full disk the error itself is reported
                    self.status(**fields)
                self.log.info(": ".join(str(value) for value in ("ended", *fields.values())))

    def fail(self, rank: int, error: BaseException) -> None:
        """Note why a rank other than the main one fails, in a file that the main rank reads."""
        if (what := kind(error)) not in RETRIED or what == "server":
            self._try_to_write(f"{_FAILED}{rank}.json", {"kind": what, "message": one_line(error)[:500]})

    def _reason_of_other_rank(self) -> dict[str, str] | None:
        for file in sorted(self.path.glob(f"{_FAILED}*.json")):
            with contextlib.suppress(OSError, ValueError):
                reason: dict[str, str] = json.loads(file.read_text())
                return reason
        return None

    def _try_to_write(self, name: str, value: Any) -> None:
        with contextlib.suppress(OSError):
            files.write_atomic(self.path / name, json.dumps(value, indent=1))

    def check(self, fingerprints: dict[str, str]) -> None:
        """Raises InputError as `opened`, if the folder was made with another spec, other data, another tree
        or other weights. Nothing is written."""
        self._compare(fingerprints)

    def require_free(self) -> None:
        """Raises Busy if another process works on this run now."""
        if files.held(self.path / LOCK):
            raise Busy(self._busy + files.holder(self.path / LOCK))

    @property
    def _busy(self) -> str:
        return f"{self.path}: another process works on this run; wait for it, or end it"

    def _compare(self, fingerprints: dict[str, str]) -> None:
        """Raises InputError if the folder was made with another spec, data, tree or weights."""
        spec_file, environment = self.path / SPEC, self.path / ENVIRONMENT
        if spec_file.exists() and (_stored(spec_file) != self.spec or outdated(self.path)):
            raise InputError(
                f"{spec_file}: made by another version of the defaults; move the folder away to run it again"
            )
        if environment.exists():
            before = json.loads(environment.read_text())
            if (streams := streams_of(before)) not in seeds.VERSIONS:
                fix = "continue it with that version, or move the folder away to run it again"
                raise InputError(
                    f"{environment}: {STREAMS} {streams} is of a newer version of LeukoTree; {fix}"
                )
            # Older versions did not note these.
            unknown = {"config.json", *(["weights"] if self.spec.backbone.weights == "hub" else [])}
            for what, fingerprint in fingerprints.items():
                if before.get(what) != fingerprint and not (what in unknown and what not in before):
                    fix = "move the folder away to run it again"
                    raise InputError(f"{self.path}: its {what} changed since it was begun; {fix}")

    def _claim(
        self,
        taxonomy: Taxonomy,
        fingerprints: dict[str, str],
        ranks: int,
        images: Mapping[str, float] | None,
        backbone: Mapping[str, Any] | None,
        config: Path | None,
    ) -> None:
        environment = self.path / ENVIRONMENT
        files.write_atomic(self.path / SPEC, self.spec.dump())
        files.write_atomic(self.path / TAXONOMY, json.dumps(taxonomy.nested()))
        if not environment.exists():
            made_from = fingerprints | _environment() | attempts.slurm_job() | {STREAMS: seeds.NEWEST}
            made_from |= {IMAGES: dict(images)} if images else {}
            made_from |= {BACKBONE: dict(backbone)} if backbone else {}
            if config is not None:
                (self.path / BACKBONE).mkdir(exist_ok=True)
                files.write_atomic(self.path / BACKBONE / config.name, config.read_bytes())
            files.write_atomic(environment, json.dumps(made_from, indent=1))
        attempts.note(
            self.path, reached(self.path), ranks=ranks, **attempts.slurm_job(), after=self._last_end()
        )
        for stale in (self.path / FAILURE, *self.path.glob(f"{_FAILED}*.json")):
            stale.unlink(missing_ok=True)
        self.log.info(f"started with {origin.name(origin.here())}, {ranks} rank(s)")
        codes = code_of(self.path)
        # A new status: how an earlier attempt ended does not count any more.
        self._status = {"codes": codes} if len(codes) > 1 else {}

    def _last_end(self) -> str | None:
        """The kind of the end of the attempt before: "node" if it noted none, None if there was no
        attempt."""
        last = read_status(self.path)
        return last.get("kind") or {"running": "node", None: None}.get(last.get("state"), last.get("state"))

    @property
    def done(self) -> bool:
        """Whether the run has ended, and its predictions are written."""
        return read_status(self.path).get("state") == "done" and self.predictions.exists()

    @property
    def streams(self) -> int:
        """How this run draws its random numbers, from its first start to its end."""
        return streams_of(read_environment(self.path))

    def status(self, **fields: Any) -> None:
        """Write status.json: the fields of before, and these, which replace them."""
        self._beat = time.time()
        self._status = {**self._status, **fields, "heartbeat": self._beat}
        files.write_atomic(self.path / STATUS, json.dumps(self._status))

    def beat_due(self) -> bool:
        """Whether HEARTBEAT seconds have passed since the last `status`. If so, the caller writes one, and
        the time starts again."""
        now = time.time()
        due = now - self._beat > HEARTBEAT
        if due:
            self._beat = now
        return due

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, as `read_metrics`."""
        return read_metrics(self.path)

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        files.append_lines(self._metrics, (json.dumps(row) for row in rows))

    def truncate_metrics(self, epochs: int) -> None:
        """Remove the rows of later epochs than the first `epochs`. Epochs after the last checkpoint are
        trained again."""
        if not self._metrics.exists():
            return
        rows = [row for row in self.metrics() if row["epoch"] < epochs]
        files.write_atomic(self._metrics, "".join(json.dumps(row) + "\n" for row in rows))

    def drop_checkpoints(self) -> None:
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def _stored(spec_file: Path) -> RunSpec | None:
    """The stored spec of a run, as `read_spec`. None for a spec that this version refuses."""
    tree = upgrade.upgraded(_spec_tree(spec_file))
    try:
        return config.parse(RunSpec, tree, str(spec_file))
    except InputError:
        return None


def read_spec(path: Path) -> RunSpec:
    """The spec of a run folder. A key that it lacks has the value that means the behaviour before the key:
    its default, or see `upgrade`. Raises InputError naming the file."""
    return config.parse(RunSpec, upgrade.upgraded(_spec_tree(path / SPEC)), str(path / SPEC))


def _spec_tree(path: Path) -> Any:
    """As `yamlfile.load`. The runs of a study have most top-level keys with their values in common, and a
    report reads ten thousand specs: each part is parsed once."""
    text = yamlfile.read(path)
    parts = _PART.split(text)
    if all(_KEY.match(part) for part in parts) and not _LINKED.search(text):
        try:
            trees = [_part(part) for part in parts]
        except InputError:  # the whole file says where
            trees = []
        if trees and len({*itertools.chain(*trees)}) == len(trees):
            return {key: value for tree in trees for key, value in tree.items()}
    return yamlfile.parse(text, str(path))


_PART = re.compile(r"^(?=\S)(?<!\A)", re.MULTILINE)
"""The begin of a line with a top-level key, but for that of the text."""
_KEY = re.compile(r"[a-z_]+:[ \n]")
_LINKED = re.compile(r"[&*]")
"""What an anchor or an alias begins with: its part cannot be read alone."""


@functools.lru_cache(maxsize=4096)
def _part(text: str) -> dict[str, Any]:
    tree = yamlfile.parse(text)
    if not isinstance(tree, dict):
        raise InputError(f"{SPEC}: expected a mapping of keys")
    return tree


def outdated(path: Path) -> bool:
    """Whether the run of a folder was another one than its name means today (see `upgrade.outdated`)."""
    return upgrade.outdated(path / SPEC)


def read_environment(path: Path) -> dict[str, Any]:
    """The content of a run's env.json, {} where there is none. Raises InputError for a damaged one."""
    name, fix = f"{path}/{ENVIRONMENT}", "move the folder away to run it again"
    try:
        with open(name, encoding="utf-8") as file:
            environment = json.loads(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read as JSON: {one_line(error)[:200]}; {fix}") from error
    if not isinstance(environment, dict):
        raise InputError(f"{name}: expected a JSON object; {fix}")
    return environment


def streams_of(environment: Mapping[str, Any]) -> int:
    """How a run with this env.json draws its random numbers: one of `seeds.VERSIONS`. Another number is of
    a newer version."""
    streams: int = environment.get(STREAMS, seeds.BY_STAGE)
    return streams


def mark_failed(path: Path, kind: Kind, message: str) -> None:
    """Note in the status of a run that it failed, for a run that could not do so itself. Nothing is written
    to a run that has ended, or has no status."""
    status = read_status(path)
    if status and status.get("state") not in ("done", "failed"):
        end = {"state": "failed", "kind": kind, "message": message, "heartbeat": time.time()}
        files.write_atomic(path / STATUS, json.dumps(status | end))


def read_status(path: Path) -> dict[str, Any]:
    """The status of a run folder; {} if there is none, or it is damaged."""
    try:
        with open(f"{path}/{STATUS}", "rb") as file:  # without a Path, since `status` reads thousands of them
            status = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def code_of(path: Path) -> list[str]:
    """The code of a run: one name, or several in their order if it was continued on other code. [] for an old
    run that did not note it."""
    starts = attempts.read(path)
    if starts and "commit" not in starts[0]:  # an older version noted it in env.json only
        with contextlib.suppress(OSError, ValueError):
            starts[0] = {"commit": json.loads((path / ENVIRONMENT).read_text()).get("commit")} | starts[0]
    return origin.sequence(starts)


def reached(path: Path) -> int:
    """The number of a run's newest checkpoint, which grows with every step and epoch; 0 without one."""
    names = [checkpoint.name for checkpoint in (path / CHECKPOINTS).glob("[0-9]*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, up to the first line that is cut short, or has no epoch."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError), open(path / METRICS) as file:
        for line in file:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
                break
            rows.append(row)
    return rows


def read_new_metrics(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The rows of a run's metrics.jsonl from a byte on, and the byte after them. A line that is still being
    written is left for the next call. A file that has become shorter is read from its begin on."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError), open(path / METRICS, "rb") as file:
        if file.seek(0, os.SEEK_END) < offset:
            offset = 0
        file.seek(offset)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("epoch"), int):
                    rows.append(row)
        offset += len(whole)
    return rows, offset


@functools.cache
def _environment() -> dict[str, Any]:
    """Packages and hardware of this process, for env.json. Determined once: trials of a slot share a
    process."""
    import torch

    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "commit": origin.here()["commit"],
        "python": platform.python_version(),
        "packages": versions,
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
    }
