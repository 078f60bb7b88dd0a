"""One run in training: its models, its folder, and the exact evaluation of its fold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from leukotree import checkpoint, predictions
from leukotree.data import folds
from leukotree.data.dataset import Dataset
from leukotree.data.stream import eval_batches
from leukotree.engine import Engine, Runtime
from leukotree.model import edge_log_probabilities, stages
from leukotree.predictions import Predictions
from leukotree.runfolder import RunFolder
from leukotree.spec import RunSpec
from leukotree.stage import StageTrainer


class Trainer:
    """One run in training: its stages (one model each), its folder, and the exact evaluation."""

    def __init__(self, spec: RunSpec, folder: RunFolder, dataset: Dataset, engine: Engine, runtime: Runtime) -> None:
        self.spec, self.folder, self.dataset, self.engine, self.runtime = spec, folder, dataset, engine, runtime
        train_rows, self.eval_rows = folds.split(dataset.index, spec.data)
        self.stages = [
            StageTrainer(spec, stage, dataset, train_rows, engine, runtime) for stage in stages(spec.variant, dataset.taxonomy)
        ]
        self.scored: Predictions | None = None
        self._bar: tqdm[Any] | None = None

    def resume(self) -> int:
        """Load the newest valid checkpoint; how many epochs it holds."""
        found = checkpoint.load_latest(self.folder.checkpoints)
        epochs = found[0] if found else 0
        if len(set(self.engine.gather(epochs))) > 1:
            raise RuntimeError(f"{self.folder.checkpoints}: ranks see different checkpoints; is the folder shared by all nodes?")
        if found:
            for stage in self.stages:
                stage.load(found[1][stage.stage.name])
        if self.engine.is_main:
            self.folder.truncate_metrics(epochs)
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
        """Train every stage for one epoch, score if asked, and save. The macro-F1, or None."""
        began = time.perf_counter()
        rows: list[dict[str, Any]] = []
        for stage in self.stages:
            rows += stage.train_epoch(epoch, lambda step: self._on_step(epoch, step))
        seconds = time.perf_counter() - began
        images = len(rows) * self.spec.optim.batch_size
        row = {"kind": "epoch", "epoch": epoch, "seconds": seconds, "images_per_s": images / seconds}
        if evaluate:
            row["macro_f1"] = self.score()["macro_f1"]
        if self.engine.is_main:
            self.folder.append_metrics([*rows, row])
            checkpoint.save(self.folder.checkpoints, epoch + 1, {stage.stage.name: stage.state() for stage in self.stages})
            self.folder.status(epoch=epoch + 1)
        return row.get("macro_f1")  # type: ignore[return-value]

    def score(self) -> dict[str, float]:
        """Evaluate, keep the predictions for `finish`, and give their accuracy and macro-F1."""
        self.scored = self.evaluate()
        return self._scores(self.scored)

    @torch.inference_mode()
    def evaluate(self) -> Predictions:
        """Predictions of the evaluation rows, joined over the ranks."""
        for stage in self.stages:
            self.engine.share_buffers(stage.model)
            stage.model.eval()
        share = self.spec.engine.micro_batch or max(1, self.spec.optim.batch_size // self.engine.world)
        rows, logp = [np.zeros(0, dtype=np.int64)], [np.zeros((0, len(self.dataset.taxonomy.edges)), dtype=np.float32)]
        for batch in eval_batches(
            self.dataset, self.eval_rows, share, rank=self.engine.rank, world=self.engine.world,
            workers=self.runtime.workers, pin=self.engine.pin,
        ):  # fmt: skip
            images = self.engine.put(batch.images).float().div_(255)
            logits = [stage.logits(images) for stage in self.stages]
            logp.append(edge_log_probabilities(self.spec.variant, self.dataset.taxonomy, logits).cpu().numpy())
            rows.append(batch.rows)
            if self.engine.is_main:
                self.folder.heartbeat()
        return Predictions.join(self.engine.gather((np.concatenate(rows), np.concatenate(logp))), self.eval_rows)

    def finish(self) -> None:
        """Write the predictions; keep the weights of an outer fold (for explaining and predicting) and drop the rest."""
        if self.engine.is_main:
            assert self.scored is not None
            # "done" is said when nothing is left to lose: a kill before it evaluates the last checkpoint again.
            predictions.write(self.folder.predictions, self.scored, self.dataset)
            if self.spec.data.inner is None:
                weights = {stage.stage.name: stage.state(optimizer=False) for stage in self.stages}
                checkpoint.save(self.folder.checkpoints, self.spec.optim.epochs, weights, keep=1)
            self.folder.status(state="done", **self._scores(self.scored))
            if self.spec.data.inner is not None:
                self.folder.drop_checkpoints()
        self.engine.barrier()

    def _scores(self, scored: Predictions) -> dict[str, float]:
        return predictions.scores(self.dataset.leaf_ids[scored.rows], scored.logp, self.dataset.taxonomy)

    def _on_step(self, epoch: int, step: int) -> None:
        if self._bar is not None:
            self._bar.update()
        if self.engine.is_main:
            self.folder.heartbeat(epoch=epoch, step=step)
