"""The training of one run: its models, its checkpoints, and the exact evaluation of its fold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from leukotree import progress, signals
from leukotree.data.feature_stream import FeatureLoader
from leukotree.data.stream import Batch, Loader
from leukotree.distributed.agreement import Request
from leukotree.distributed.engine import Engine
from leukotree.errors import PeerFailed, Preempted
from leukotree.models import trained_part
from leukotree.models.probabilities import edge_log_probabilities
from leukotree.records import compute, predictions
from leukotree.records.predictions import Predictions
from leukotree.records.runfolder import RunFolder
from leukotree.runtime import Runtime
from leukotree.spec import PLAIN, RunSpec
from leukotree.training import checkpoint, costs, crowding, features, interference, throughput
from leukotree.training.part import Part
from leukotree.training.plan import Plan, StagePlan
from leukotree.training.stage_trainer import StageTrainer
from leukotree.training.together import Together
from leukotree.training.writer import Writer

if TYPE_CHECKING:
    from leukotree.trackers.follow import Followers


class Trainer:
    """Trains the stages of a run (one model each), saves them, and scores its evaluation images exactly.

    A context manager: a thread writes the files of an epoch, and the end of the block waits for it.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        loader: Loader | FeatureLoader,
        engine: Engine,
        runtime: Runtime,
        together: Together | None = None,
    ) -> None:
        """together: the runs that train beside this one; None for none."""
        # Only the main rank may rely on what it has written a moment ago.
        streams: int = engine.gather(folder.streams if engine.is_main else None)[0]
        self.plan, self.spec, self.dataset = plan, plan.spec, loader.dataset
        self.folder, self.loader, self.engine, self.runtime = folder, loader, engine, runtime
        self.stages = [_part(plan.spec, part, engine, loader, streams) for part in plan.stages]
        self._scored: tuple[Predictions, dict[str, float]] | None = None
        self._epoch = 0
        self._losses = self._no_losses()
        self._hours = {compute.GPU_HOURS: 0.0, compute.CORE_HOURS: 0.0}
        self._counted = time.perf_counter()
        self._snapshot: dict[str, Any] = {}
        self._saved_at = time.monotonic()
        self._bar: progress.Bar | None = None
        self._crowding: crowding.Watch | None = None
        self._writer = Writer()
        self._followers: Followers | None = None
        first = self.stages[0]
        self._together = together or Together()
        self._together.join(self)
        self._probe = interference.Probe(first, runtime.probe) if isinstance(first, StageTrainer) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self._writer.__exit__(*exception)
        finally:
            if self._followers is not None:
                self._followers.close()
            for stage in self.stages:
                stage.close()

    def resume(self) -> int:
        """Load the newest valid checkpoint and start decoding; the number of epochs done."""
        latest = checkpoint.load_latest(self.folder.checkpoints)
        if len(set(self.engine.gather(latest[0] if latest else None))) > 1:
            raise RuntimeError(
                f"{self.folder.checkpoints}: ranks see different checkpoints; "
                "is the folder shared by all nodes?"
            )
        if latest:
            state = latest[1]
            self._epoch, self._hours = state["epoch"], state["hours"]
            self._losses = {name: losses.numpy() for name, losses in state["losses"].items()}
            for stage in self.stages:
                stage.load(state["stages"][stage.stage.name])
        for stage in self.stages:
            stage.begin()
        if self.engine.is_main:
            self.folder.truncate_metrics(self._epoch)
            self.folder.status(state="running", epoch=self._epoch, epochs=self.spec.epochs, **self._compute())
            start = f"continues from checkpoint {latest[0]}" if latest else "begins"
            self.folder.log.info(f"{start}: {self._epoch} of {self.spec.epochs} epochs are done")
            if trained_part.is_random(self.spec.backbone):
                self.folder.log.warning(
                    f"backbone.train {self.spec.backbone.train} without backbone.weights: the frozen part of "
                    "the backbone is random"
                )
            if self.runtime.trackers:
                from leukotree.trackers.follow import Followers

                self._followers = Followers(self.folder.path, self.runtime, self.folder.log)
        return self._epoch

    def _compute(self) -> dict[str, Any]:
        """The field of the status for the report: of a run of an outer fold, which a report compares."""
        if self.spec.data.inner is not None:
            return {}
        return {compute.KEY: costs.of_stages(self.spec, self.plan.stages, self.dataset.size).as_dict()}

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """The context of a progress bar over the steps of all stages, on the main rank's terminal."""
        total = sum(stage.total_steps for stage in self.stages)
        done = sum(stage.step for stage in self.stages)
        quiet = self.runtime.quiet or not self.engine.is_main
        if not quiet and self.engine.device.type == "cpu":
            self._crowding = crowding.Watch(torch.get_num_threads())
        with progress.Bar(self.spec.run_name, total, "step", done=done, quiet=quiet) as self._bar:
            yield

    def epoch(self, evaluate: bool) -> float | None:
        """Train every stage to the end of the epoch, score if asked, and save; the macro-F1, or None.

        The last epoch is saved by `finish`. Raises Preempted at any step, after saving.
        """
        began = time.perf_counter()
        throughput.reset_peak_memory(self.engine.device)
        # Decoding of its first images begins now, while the epoch trains.
        to_score = self._to_score() if evaluate else None
        for stage in self.stages:
            stage.stall_s = 0.0
        began = self._counted = began - self._together.train(self)
        for stage, end, on_step in self.to_train():
            stage.train_until(end, on_step)
        self._collect()
        seconds = time.perf_counter() - began
        steps = [stage.take_steps() for stage in self.stages]
        row = {"kind": "epoch", "epoch": self._epoch, **self._speed(steps, seconds)}
        if to_score is not None:
            row |= {name: score for name, score in self.score(to_score).items() if name == "macro_f1"}
        if self._probe is not None and (measured := self._probe.after(self._epoch)):
            self._writer.submit(partial(interference.write, self.folder.path, self._epoch, measured))
        self._count_hours()
        rows = [
            row for stage in self.stages for row in stage.metrics(self._epoch, self._losses[stage.stage.name])
        ]
        self._epoch, self._losses = self._epoch + 1, self._no_losses()
        self._save([*rows, {**row, **self._hours}])
        if self.engine.is_main:
            loss = np.mean([step["loss"] for step in rows]) if rows else None
            self._writer.submit(partial(self._log_epoch, row, loss))
        return row.get("macro_f1")  # type: ignore[return-value]

    @property
    def epochs_done(self) -> int:
        return self._epoch

    def to_train(self) -> Iterator[tuple[Part, int, Callable[[], None]]]:
        """Each stage, the step at which this epoch ends, and what to call after each of its steps."""
        for stage in self.stages:
            end = min(stage.steps_before(self._epoch + 1), stage.total_steps)
            yield stage, end, partial(self._on_step, stage)

    def _log_epoch(self, row: dict[str, Any], loss: float | None) -> None:
        """A line for an epoch that has ended."""
        measured = {"loss": loss, **{key: row.get(key) for key in ("macro_f1", "images_per_s", "seconds")}}
        values = ", ".join(f"{key} {value:.4g}" for key, value in measured.items() if value is not None)
        self.folder.log.info(f"epoch {row['epoch'] + 1} of {self.spec.epochs}: {values}")

    def score(self, batches: Iterator[Batch] | None = None) -> dict[str, float]:
        """Evaluate and keep the predictions for `finish`; their accuracy and macro-F1, {} without images."""
        predicted = self.evaluate(self._to_score() if batches is None else batches)
        leaves = self.dataset.leaf_ids[predicted.rows]
        scores = predictions.scores(leaves, predicted.logp, self.dataset.taxonomy)
        self._scored = predicted, scores
        return scores

    def evaluate(self, batches: Iterator[Batch]) -> Predictions:
        """Predictions of the evaluation rows, joined over the ranks."""
        rows = [np.zeros(0, dtype=np.int64)]
        logits = [[torch.zeros(0, sum(stage.widths), device=self.engine.device)] for stage in self.stages]
        with contextlib.ExitStack() as stack:
            for stage in self.stages:
                stack.enter_context(stage.evaluating())
            self._score_all(batches, rows, logits)
        whole = [torch.cat(parts) for parts in logits]
        # This waits for the device.
        logp = edge_log_probabilities(self.spec.variant, self.dataset.taxonomy, whole).cpu().numpy()
        return Predictions.join(self.engine.gather((np.concatenate(rows), logp)), self.plan.eval_rows)

    def _score_all(
        self, batches: Iterator[Batch], rows: list[np.ndarray], logits: list[list[torch.Tensor]]
    ) -> None:
        """Append the rows of this rank's batches, and the logits of each stage."""
        # Every rank takes part equally often, also one that has no batch left.
        for _ in range(-(-len(self.plan.eval_rows) // (self._share * self.engine.world))):
            if (batch := next(batches, None)) is not None:
                with torch.inference_mode():
                    inputs = self.stages[0].inputs(batch)  # the same for all stages: one kind of backbone
                    for stage, parts in zip(self.stages, logits, strict=True):
                        parts.append(stage.logits(inputs))
                rows.append(batch.rows)
            self._between_steps()

    def finish(self) -> None:
        """Write the predictions, keep the weights of an outer fold, and remove other checkpoints.

        The weights serve to explain and to predict.
        """
        state = self._state(optimizer=False)
        problem: Exception | None = None
        if self.engine.is_main:
            try:
                self._write_result(state)
            except Exception as error:
                problem = error
        if self.engine.gather(problem is not None)[0]:
            raise problem or PeerFailed("the main rank could not write the result")

    def _write_result(self, state: dict[str, Any]) -> None:
        assert self._scored is not None
        scored, scores = self._scored
        self._writer.wait()
        self._writer.check()
        # "done" is written last: after an earlier kill, the next attempt does again what the disk lacks.
        predictions.write(self.folder.predictions, scored, self.dataset)
        if self.spec.data.inner is None:
            if isinstance(self.loader, FeatureLoader):
                state = {**state, "backbone": features.backbone_digest(self.plan)}
            checkpoint.save(self.folder.checkpoints, self._number, state, keep=1)
        # A report takes its ratio of training to test images from these.
        images = {"trained": len(self.plan.train_rows), "tested": len(self.plan.eval_rows)}
        self.folder.status(state="done", epoch=self.spec.epochs, images=images, **scores)
        if self._followers is not None:
            self._followers.wake()
        shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.folder.log.info(f"ended: done, {shown or 'never scored'}")
        if self.spec.data.inner is not None:
            self.folder.drop_checkpoints()

    @property
    def _number(self) -> int:
        """Number of the next checkpoint. Each step and each end of an epoch raises it."""
        return sum(stage.step for stage in self.stages) + self._epoch

    def _state(self, optimizer: bool = True) -> dict[str, Any]:
        """The state that a resume needs. Every rank calls it; only the main rank's is whole."""
        return {
            "stages": {stage.stage.name: stage.state(optimizer) for stage in self.stages},
            "epoch": self._epoch,
            "losses": {name: torch.from_numpy(losses) for name, losses in self._losses.items()},
            "hours": self._hours,
        }

    def _save(self, rows: Sequence[dict[str, Any]] = ()) -> None:
        """Write the metrics of an epoch that has ended, then a checkpoint, then the status that names it."""
        self._saved_at = time.monotonic()
        more = self._epoch < self.spec.epochs
        state = self._state() if more else None
        if not self.engine.is_main:
            return
        self._writer.wait()  # the memory of the snapshot before is reused
        if rows:
            self._writer.submit(partial(self.folder.append_metrics, list(rows)))
            if self._followers is not None:
                self._writer.submit(self._followers.wake)
        if state is not None:
            self._snapshot = checkpoint.snapshot(state, self._snapshot)
            self._writer.submit(
                partial(checkpoint.save, self.folder.checkpoints, self._number, self._snapshot)
            )
            self._writer.submit(partial(self.folder.log.info, f"checkpoint {self._number} is saved"))
            self._writer.submit(partial(self.folder.status, epoch=self._epoch))

    def _collect(self) -> None:
        """Add the losses of the steps since the last call, summed over the ranks.

        Losses leave the device only here.
        """
        shares = self.engine.gather([stage.collect() for stage in self.stages])
        for stage, *parts in zip(self.stages, *shares, strict=True):
            losses = np.sum(parts, axis=0)
            stage.check(losses)
            self._losses[stage.stage.name] = np.concatenate([self._losses[stage.stage.name], losses])

    def _count_hours(self) -> None:
        """Add the cost of this run since the last call."""
        now = time.perf_counter()
        spent = throughput.hours(now - self._counted, self.engine.world, self.engine.device)
        self._hours = {kind: hours + spent[kind] for kind, hours in self._hours.items()}
        self._counted = now

    def _no_losses(self) -> dict[str, np.ndarray]:
        """stage -> (k, G) losses of the steps of this epoch so far, summed over the ranks."""
        return {stage.stage.name: stage.no_losses for stage in self.stages}

    def _speed(self, steps: list[int], seconds: float) -> dict[str, float | None]:
        """Fields of an epoch's row, from the number of steps of each stage that this attempt trained."""
        used = throughput.Share(
            sum(stage.stall_s for stage in self.stages), throughput.peak_memory_gb(self.engine.device)
        )
        ranks = self.engine.gather(used)
        images = [count * self.spec.optim.batch_size for count in steps]
        fields = throughput.epoch_fields(sum(steps), sum(images), seconds, ranks)
        peak = throughput.peak_flops(self.engine.device, self.spec.engine.precision)
        forward = [stage.forward_flops for stage in self.stages] if peak else [None]
        if peak is None or None in forward or not sum(steps):
            return {**fields, "mfu": None}
        cost = costs.STEP[self.spec.backbone.train]
        work = sum(cost * n * (flops or 0) for n, flops in zip(images, forward, strict=True))
        return {**fields, "mfu": work / (seconds * len(ranks) * peak)}

    @property
    def _share(self) -> int:
        """Images of a rank's evaluation batch."""
        return self.spec.engine.micro_batch or max(1, self.spec.optim.batch_size // self.engine.world)

    def _to_score(self) -> Iterator[Batch]:
        """This rank's evaluation batches. Their decoding begins now."""
        return self.loader.evaluate(
            self.plan.eval_rows, self._share, rank=self.engine.rank, world=self.engine.world
        )

    def _on_step(self, stage: Part) -> None:
        if self._bar is not None:
            self._bar.at(self._bar.done + 1, f"epoch {self._epoch + 1} of {self.spec.epochs}")
        if self._crowding is not None and (line := self._crowding.look()):
            self.folder.log.warning(line)
        self._between_steps(stage=stage.stage.name, step=stage.step)

    def _between_steps(self, **fields: Any) -> None:
        """Do what the ranks have decided, and propose this rank's request for the next step.

        Raises Preempted after saving, or the error of the writer.
        """
        decided = self.engine.agreement.decided()
        if decided.broken:
            self._writer.check()
            raise PeerFailed("the main rank cannot write")
        if decided.stop and self.engine.is_main:
            self.folder.log.info(f"asked to stop ({signals.cause()}): saves and ends")
        if decided.stop or decided.save:
            self._count_hours()
            self._collect()
            self._save()
        if decided.stop:
            self._writer.wait()
            self._writer.check()
            raise Preempted(
                f"{self.folder.path}: asked to stop, all saved; run it again to continue", signals.reason()
            )
        if self.engine.is_main and self.folder.beat_due():
            self._writer.submit(partial(self.folder.status, **fields))
        due = self.engine.is_main and time.monotonic() - self._saved_at > self.runtime.save_s
        self.engine.agreement.propose(Request(signals.requested(), due, self._writer.failed))


def _part(
    spec: RunSpec, plan: StagePlan, engine: Engine, loader: Loader | FeatureLoader, version: int
) -> Part:
    """The training of a stage. `version`: of the random numbers, see `streams`."""
    if spec.variant not in PLAIN:
        return StageTrainer(spec, plan, engine, loader, version)
    from leukotree.training.plain import Fit  # loads scikit-learn

    assert isinstance(loader, FeatureLoader)
    return Fit(spec, plan, engine, loader, version)
