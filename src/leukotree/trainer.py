"""One run in training: its models, its folder, and the exact evaluation of its fold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from leukotree import checkpoint, predictions, throughput
from leukotree.data import folds
from leukotree.data.stream import Batch, Loader
from leukotree.engine import Engine, Runtime
from leukotree.model import edge_log_probabilities, stages
from leukotree.predictions import Predictions
from leukotree.runfolder import RunFolder
from leukotree.spec import RunSpec
from leukotree.stage import StageTrainer, Trained
from leukotree.writer import Writer


class Trainer:
    """One run in training: its stages (one model each), its folder, and the exact evaluation.

    A context: what an epoch leaves behind is written by a thread, which is waited for at the end.
    """

    def __init__(self, spec: RunSpec, folder: RunFolder, loader: Loader, engine: Engine, runtime: Runtime) -> None:
        self.spec, self.folder, self.loader, self.engine, self.runtime = spec, folder, loader, engine, runtime
        self.dataset = loader.dataset
        train_rows, self.eval_rows = folds.split(self.dataset.index, spec.data)
        parts = stages(spec.variant, self.dataset.taxonomy)
        self.stages = [StageTrainer(spec, part, train_rows, engine, loader) for part in parts]
        self._scored: tuple[Predictions, dict[str, float]] | None = None
        self._hours = {"gpu_hours": 0.0, "core_hours": 0.0}
        self._snapshot: dict[str, Any] = {}
        self._bar: tqdm[Any] | None = None
        self._writer = Writer()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._writer.__exit__(*exception)

    def resume(self) -> int:
        """Load the newest valid checkpoint, and have the images of what is left decoded; how many epochs it holds."""
        found = checkpoint.load_latest(self.folder.checkpoints)
        epochs = found[0] if found else 0
        if len(set(self.engine.gather(epochs))) > 1:
            raise RuntimeError(f"{self.folder.checkpoints}: ranks see different checkpoints; is the folder shared by all nodes?")
        for stage in self.stages:
            if found:
                stage.load(found[1][stage.stage.name])
            stage.begin(epochs)
        if self.engine.is_main:
            self.folder.truncate_metrics(epochs)
            for row in self.folder.metrics()[-1:]:
                self._hours = {kind: row.get(kind, 0.0) for kind in self._hours}
            self.folder.status(state="running", epoch=epochs, epochs=self.spec.optim.epochs)
        return epochs

    @contextlib.contextmanager
    def progress(self, begin: int) -> Iterator[None]:
        """A bar over the steps of all stages, on the main rank's terminal."""
        total = sum(stage.total_steps for stage in self.stages)
        done = sum(stage.order.steps_before(begin) for stage in self.stages)
        quiet = True if self.runtime.quiet or not self.engine.is_main else None
        with tqdm(total=total, initial=done, desc=self.spec.run_name, unit="step", disable=quiet) as self._bar:
            yield

    def epoch(self, epoch: int, evaluate: bool) -> float | None:
        """Train every stage for one epoch, score if asked, and save; the last one is saved by `finish`. The macro-F1, or None."""
        began = time.perf_counter()
        throughput.reset_peak_memory(self.engine.device)
        to_score = self._to_score() if evaluate else None  # its first images are decoded while this epoch trains
        trained = [stage.train_epoch(epoch, partial(self._on_step, epoch)) for stage in self.stages]
        rows, ranks = self._gathered(epoch, trained)
        row = {"kind": "epoch", "epoch": epoch, **self._speed(trained, time.perf_counter() - began, ranks)}
        if to_score is not None:
            row["macro_f1"] = self.score(to_score)["macro_f1"]
        spent = throughput.hours(time.perf_counter() - began, self.engine.world, self.engine.device)
        self._hours = {kind: hours + spent[kind] for kind, hours in self._hours.items()}
        if self.engine.is_main:
            self._save(epoch, [*rows, {**row, **self._hours}])
        return row.get("macro_f1")  # type: ignore[return-value]

    def score(self, batches: Iterator[Batch] | None = None) -> dict[str, float]:
        """Evaluate, keep the predictions for `finish`, and give their accuracy and macro-F1."""
        found = self.evaluate(self._to_score() if batches is None else batches)
        scores = predictions.scores(self.dataset.leaf_ids[found.rows], found.logp, self.dataset.taxonomy)
        self._scored = found, scores
        return scores

    @torch.inference_mode()
    def evaluate(self, batches: Iterator[Batch]) -> Predictions:
        """Predictions of the evaluation rows, joined over the ranks."""
        for stage in self.stages:
            self.engine.share_buffers(stage.model)
            stage.model.eval()
        rows = [np.zeros(0, dtype=np.int64)]
        logits = [[torch.zeros(0, sum(stage.widths), device=self.engine.device)] for stage in self.stages]
        for batch in batches:
            inputs = self.stages[0].inputs(batch)  # the same for all: they have the same backbone
            for stage, parts in zip(self.stages, logits, strict=True):
                parts.append(stage.logits(inputs))
            rows.append(batch.rows)
            self._beat()
        whole = [torch.cat(parts) for parts in logits]
        logp = edge_log_probabilities(self.spec.variant, self.dataset.taxonomy, whole).cpu().numpy()  # waits for the device
        return Predictions.join(self.engine.gather((np.concatenate(rows), logp)), self.eval_rows)

    def finish(self) -> None:
        """Write the predictions; keep the weights of an outer fold (for explaining and predicting) and drop the rest."""
        if self.engine.is_main:
            assert self._scored is not None
            scored, scores = self._scored
            self._writer.wait()
            # "done" is said when nothing is left to lose: a kill before it trains or scores again what is not on the disk.
            predictions.write(self.folder.predictions, scored, self.dataset)
            if self.spec.data.inner is None:
                weights = {stage.stage.name: stage.state(optimizer=False) for stage in self.stages}
                checkpoint.save(self.folder.checkpoints, self.spec.optim.epochs, weights, keep=1)
            self.folder.status(state="done", epoch=self.spec.optim.epochs, **scores)
            if self.spec.data.inner is not None:
                self.folder.drop_checkpoints()
        self.engine.barrier()

    def _save(self, epoch: int, rows: list[dict[str, Any]]) -> None:
        """Have an epoch's metrics written, then its checkpoint, then the status that speaks of it."""
        self._writer.wait()  # for the snapshot before, whose memory is used again
        self._writer.submit(partial(self.folder.append_metrics, rows))
        if epoch + 1 < self.spec.optim.epochs:
            state = {stage.stage.name: stage.state() for stage in self.stages}
            self._snapshot = checkpoint.snapshot(state, self._snapshot)
            self._writer.submit(partial(checkpoint.save, self.folder.checkpoints, epoch + 1, self._snapshot))
            self._writer.submit(partial(self.folder.status, epoch=epoch + 1))

    def _gathered(self, epoch: int, trained: list[Trained]) -> tuple[list[dict[str, Any]], list[throughput.Share]]:
        """Rows of the epoch's steps, and what each rank used. The one place where the losses of an epoch leave the device and
        meet those of the other ranks."""
        mine = [part.losses.double().cpu().numpy() for part in trained]
        used = throughput.Share(sum(part.stall_s for part in trained), throughput.peak_memory_gb(self.engine.device))
        losses, ranks = zip(*self.engine.gather((mine, used)), strict=True)
        rows: list[dict[str, Any]] = []
        for stage, part, *shares in zip(self.stages, trained, *losses, strict=True):
            rows += stage.metrics(epoch, part, np.sum(shares, axis=0))
        return rows, list(ranks)

    def _speed(self, trained: list[Trained], seconds: float, ranks: list[throughput.Share]) -> dict[str, float | None]:
        images = [len(part.steps) * self.spec.optim.batch_size for part in trained]
        fields = throughput.epoch_fields(sum(len(part.steps) for part in trained), sum(images), seconds, ranks)
        peak = throughput.peak_flops(self.engine.device, self.spec.engine.precision)
        forward = [stage.forward_flops for stage in self.stages] if peak else [None]
        if peak is None or None in forward:
            return {**fields, "mfu": None}
        work = sum(throughput.STEP * n * (flops or 0) for n, flops in zip(images, forward, strict=True))
        return {**fields, "mfu": work / (seconds * len(ranks) * peak)}

    def _to_score(self) -> Iterator[Batch]:
        """This rank's evaluation batches, decoded from now on."""
        share = self.spec.engine.micro_batch or max(1, self.spec.optim.batch_size // self.engine.world)
        return self.loader.evaluate(self.eval_rows, share, rank=self.engine.rank, world=self.engine.world)

    def _on_step(self, epoch: int, step: int) -> None:
        if self._bar is not None:
            self._bar.update()
        self._beat(epoch=epoch, step=step)

    def _beat(self, **fields: Any) -> None:
        """Say now and then that the run is alive; learn at once that the writer has failed."""
        self._writer.check()
        if self.engine.is_main and self.folder.beat_due():
            self._writer.submit(partial(self.folder.status, **fields))
