"""A run's curves, spec and scores in MLflow, by its client."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is sent anywhere but to the store
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""Variables of MLflow that are set unless the user has set them."""
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

from leukotree.trackers.metrics import About, Epoch, Point  # noqa: E402

IDENTITY = "leukotree.identity"
"""Tag by which a run finds its entry again."""
BATCH = 100
"""Values in one request. MLflow takes 100 parameters, and more metrics."""
LONGEST = 500
"""Characters of a parameter."""
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
ARTIFACTS = "mlflow-artifacts:/"
"""Stands for the place of files, of which there are none. A local store would name a path of this machine."""


class MLflow:
    """The entry of one run folder. A later attempt finds it, and adds only values that it lacks."""

    def __init__(self, uri: str, about: About) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        if uri.startswith("sqlite:///"):
            Path(urlsplit(uri).path.removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
        self._client, self._about = MlflowClient(tracking_uri=uri), about
        experiment = self._experiment("://" in uri and not uri.startswith("http"))
        found = self._client.search_runs(
            [experiment], f"tags.`{IDENTITY}` = '{about.identity}'", max_results=1
        )
        if found:
            self._run = found[0].info.run_id
            self._parameters = set(found[0].data.params)
            self._client.update_run(self._run, status="RUNNING")
        else:
            created = self._client.create_run(
                experiment,
                start_time=round(1000 * about.begun),
                tags={IDENTITY: about.identity},
                run_name=about.name,
            )
            self._run, self._parameters = created.info.run_id, set()
        self._known: dict[str, set[int]] = {}
        self._continued = bool(found)
        self._waiting: list[Metric] = []
        self._end = about.begun

    def _experiment(self, local: bool) -> str:
        """The id of the study's experiment. Another run may make it at the same time."""
        name = self._about.study
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, ARTIFACTS if local else None))
        except MlflowException:
            if found := self._client.get_experiment_by_name(name):
                return str(found.experiment_id)
            raise

    def begin(self) -> None:
        """Log the spec."""
        missing = [
            Param(key, str(value)[:LONGEST])
            for key, value in self._about.parameters.items()
            if key not in self._parameters
        ]
        for start in range(0, len(missing), BATCH):
            self._client.log_batch(self._run, params=missing[start : start + BATCH])

    def write(self, epoch: Epoch) -> None:
        """Add the values of an epoch, with the mean losses. Those of single steps are many, and stay out."""
        self._add(epoch.of_epoch)

    def _add(self, points: list[Point]) -> None:
        for point in points:
            self._end = max(self._end, point.at)
            name = _NOT_IN_NAMES.sub("_", point.name)
            if point.step not in self._steps(name):
                self._known[name].add(point.step)
                self._waiting.append(Metric(name, point.value, round(1000 * point.at), point.step))

    def _steps(self, name: str) -> set[int]:
        """The steps at which a curve has a value."""
        if name not in self._known:
            history = self._client.get_metric_history(self._run, name) if self._continued else []
            self._known[name] = {metric.step for metric in history}
        return self._known[name]

    def finish(self, scores: Mapping[str, float], epochs: int) -> None:
        """Add the scores of a finished run, at its last epoch."""
        self._add([Point(f"final/{name}", epochs, value, self._end) for name, value in scores.items()])

    def flush(self) -> None:
        """Send what was written so far."""
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:BATCH])
            del self._waiting[:BATCH]

    def close(self, ended: bool) -> None:
        """Note that no process works on the run. `ended`: whether it is done."""
        self._client.set_terminated(self._run, status="FINISHED" if ended else "KILLED")
