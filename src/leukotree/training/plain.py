"""`logistic` and `neighbours`: fitted at once to stored features, by scikit-learn and by memory.

There are no steps. A fit that is interrupted is done again, with the same bits.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from leukotree import seeds
from leukotree.data.feature_stream import FeatureLoader
from leukotree.data.stream import Batch
from leukotree.distributed.engine import Engine
from leukotree.errors import PeerFailed, RunFailed
from leukotree.log import logger
from leukotree.models import plain
from leukotree.models.classifier import build
from leukotree.models.terms import Decisions
from leukotree.spec import RunSpec
from leukotree.training.plan import StagePlan

TOLERANCE = 1e-6
"""Largest element of the gradient of the mean loss at the end of a fit."""
MOST_ITERATIONS = 10_000
SMALLEST = 0.1
"""Least divisor of a feature, as a share of the root mean square of all deviations."""
LARGEST_BANK = 2**28
"""Most bytes of features that a run of `neighbours` keeps for predictions of other images."""


class Coefficients(NamedTuple):
    """A logistic regression on features as they are."""

    weight: np.ndarray
    """(L, F) float64."""
    bias: np.ndarray
    """(L,) float64."""
    iterations: int
    """MOST_ITERATIONS: it has not converged."""


def logistic(features: np.ndarray, leaf: np.ndarray, alpha: np.ndarray, c: float) -> Coefficients:
    """A multinomial logistic regression with an L2 penalty on standardised features.

    It minimises the sum over images of -alpha log P(leaf), averaged over an image's views, plus the squared
    norm of the weights / (2 c). It computes on one thread: with more, the bits depend on their number.

    Args:
        features: (n, V, F) of the training images in V views. Their mean and deviation standardise, see
            `_scale`.
        leaf: (n,) int64, each leaf at least once.
        alpha: (L,) class weights.
    """
    _, views, width = features.shape
    samples = features.reshape(-1, width).astype(np.float64)
    targets = np.repeat(leaf, views)
    regression = LogisticRegression(C=c, tol=TOLERANCE, max_iter=MOST_ITERATIONS)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the number of iterations
        scaler = StandardScaler(copy=False).fit(samples)
        scaler.scale_ = _scale(np.sqrt(scaler.var_))
        regression.fit(scaler.transform(samples), targets, sample_weight=alpha[targets] / views)
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # of two leaves scikit-learn models the second
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    weight = weight / scaler.scale_
    return Coefficients(weight, bias - weight @ scaler.mean_, int(regression.n_iter_.max()))


def _scale(deviation: np.ndarray) -> np.ndarray:
    """(F,) what features are divided by, from their standard deviations in the training images: not less than
    SMALLEST of the root mean square over all features. A feature that hardly varies there may vary more in
    other data, and would decide everything."""
    least = SMALLEST * float(np.sqrt(np.mean(deviation**2)))
    return np.maximum(deviation, least) if least else np.ones_like(deviation)


class Fit:
    """The model of a run of `logistic` or `neighbours`. It takes the place of a StageTrainer.

    The main rank fits; the others wait for its coefficients. Every rank remembers the training images of
    `neighbours` itself.
    """

    def __init__(
        self,
        spec: RunSpec,
        plan: StagePlan,
        engine: Engine,
        loader: FeatureLoader,
        version: int = seeds.NEWEST,
    ) -> None:
        self.spec, self.plan, self.stage, self.engine, self.loader = spec, plan, plan.stage, engine, loader
        self.widths = [len(classes) for classes in plan.stage.heads.values()]
        model = build(spec, plan.stage, loader.dataset.size, plan.levels, version, loader.width)
        self.model = model.to(engine.device).eval()
        self.step = self.total_steps = 0
        self.stall_s = 0.0
        self.forward_flops: int | None = None
        """As for a StageTrainer on stored features."""

    def steps_before(self, epoch: int) -> int:
        return 0

    def take_steps(self) -> int:
        return 0

    def begin(self) -> None:
        """The features are mapped: there is nothing to decode."""

    def train_until(self, end: int, on_step: Callable[[], None] = lambda: None) -> None:
        """Fit the model; there are no steps. Every rank calls it."""
        if self.spec.variant == "neighbours":
            self._remember()
            return
        fitted: Coefficients | None = None
        problem: Exception | None = None
        if self.engine.is_main:
            try:
                fitted = self._regression()
            except Exception as error:
                problem = error
        failed, coefficients = self.engine.gather((problem is not None, fitted))[0]
        if failed:
            raise problem or PeerFailed("the main rank could not fit the logistic regression")
        head = cast(plain.Logistic, self.model.heads[0])
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(coefficients.weight))
            head.bias.copy_(torch.from_numpy(coefficients.bias))

    def _regression(self) -> Coefficients:
        views = slice(1, None) if self.spec.augment.views else slice(0, 1)
        features = _finite(self.loader.features.values[:, views][self.plan.rows])
        fitted = logistic(features, self._leaf, self._alpha, self.spec.plain.c)
        if fitted.iterations >= MOST_ITERATIONS:
            logger.warning(
                f"{self.spec.run_name}: the regression has not converged after {MOST_ITERATIONS} iterations; "
                "a smaller plain.c makes it easier"
            )
        return fitted

    def _remember(self) -> None:
        features = _finite(self.loader.features.take(self.plan.rows, None))
        head = cast(plain.Neighbours, self.model.heads[0])
        head.remember(*map(torch.from_numpy, (features, self._leaf, self._alpha)))

    @property
    def _leaf(self) -> np.ndarray:
        """(n,) int64 leaf of each training image."""
        leaf: np.ndarray = self.loader.dataset.leaf_ids[self.plan.rows]
        return leaf

    @property
    def _alpha(self) -> np.ndarray:
        """(L,) class weights, as in the loss of `flat`."""
        decisions = Decisions.of(self.stage, self.plan.taxonomy, self.spec)
        return decisions.class_weights(self.plan.leaf_counts, self.spec.loss.tau)

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def inputs(self, batch: Batch) -> torch.Tensor:
        """(B, F) stored features on the device."""
        return self.engine.put(batch.images)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, F) features -> (B, L) float32 logits."""
        logits: torch.Tensor = self.model(inputs)
        return logits

    @property
    def no_losses(self) -> np.ndarray:
        return np.zeros((0, 1))

    def collect(self) -> np.ndarray:
        return self.no_losses

    def check(self, losses: np.ndarray) -> None:
        """No step has a loss."""

    def metrics(self, epoch: int, losses: np.ndarray) -> list[dict[str, Any]]:
        return []

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        """As `Strategy.state`. A bank above LARGEST_BANK is left out."""
        model = self.model.state_dict()
        large = {name for name, value in model.items() if value.nbytes > LARGEST_BANK}
        return {"step": 0, "model": {name: value for name, value in model.items() if name not in large}}

    def load(self, state: dict[str, Any]) -> None:
        if self.spec.variant == "neighbours":
            self._remember()
        else:
            self.model.load_state_dict(state["model"])

    def close(self) -> None:
        """There is nothing to release."""


def _finite(features: np.ndarray) -> np.ndarray:
    """The features. Raises RunFailed of the kind "nan"."""
    if not np.isfinite(features).all():
        raise RunFailed("the backbone gives features that are not finite; use other weights", "nan")
    return features
