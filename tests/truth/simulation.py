"""Studies without training: made-up learning curves through the real search, choice and verdict.

A simulated study has two arms, `flat` and `multilabel`, and a search for each arm and outer fold, as a real
one. Real are the sampler (`hpc.search.sampler.propose`), the record of a search, ASHA
(`hpc.search.early_stopping`, the scheduler that Ray calls; Ray's own loop is left out), the choice
(`hpc.search.choice.current`) and the verdict (`leukotree.stats.compare`). Made up is the score of a
configuration after an epoch. Its parts are in `World`.

    found = search(World(), Design(trials=5), number=0)      # slow: the search of one study
    verdict = judge(found, World(), difference=0.05)         # quick: the outer folds and the comparison
    rate([judge(found, World(), 0.05) for found in ...], "better")

`difference` is what the challenger is truly better by. It moves all scores of an arm equally, so it does not
change what a search finds: one search serves all differences.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np

from hpc.search import choice, early_stopping, sampler
from hpc.search.record import Record, Trial
from hpc.studies.study import SearchId, Study
from leukotree import stats
from leukotree.evaluation.metrics import wilson
from leukotree.report import space as places

REFERENCE, CHALLENGER = ARMS = ("flat", "multilabel")
RAM = Path("/dev/shm")
"""Records of searches are written there where it exists: they are read again at once."""
SPACE: dict[str, dict[str, Any]] = {
    "optim.lr": {"loguniform": [3.0e-4, 1.0e-2]},
    "loss.gamma": {"uniform": [0.0, 5.0]},
    "loss.tau": {"uniform": [0.0, 1.0]},
    "optim.batch_size": {"choice": [16, 32, 64]},
    "optim.weight_decay": {"loguniform": [1.0e-3, 0.3]},
    "optim.head_lr_multiplier": {"choice": [1, 10]},
}
"""The space of the first study of DeepAPL, of a tiny model."""
WEIGHTS = np.array([4.0, 0.6, 0.6, 0.6, 0.2, 0.4])
"""How much a key matters. The learning rate matters most, as in real searches."""
FEATURES = 64
"""Cosines in a smooth random function."""


@dataclass(frozen=True)
class World:
    """The sizes of what decides a score, in macro F1 (0 to 1). Those of noise are standard deviations.

    They give searches and fold-wise differences as in real studies: the first one of DeepAPL had trials
    with scores from 0.50 to 0.63, and spreads of the fold-wise difference of 0.018 and 0.037.
    """

    shift: float = 0.15
    """Distance of the arms' best values on each axis, as a share of its range. The challenger's response is
    that of the reference with each axis turned around, so that an arm is as good as the other in truth: for
    each configuration of one there is an equally good and equally probable one of the other. With 0 both
    arms have the same response."""
    top: float = 0.7
    """Score of the best configuration."""
    fall: float = 0.25
    """By how much the worst configurations are below it."""
    data: float = 0.01
    """What a configuration does on these patients, as a smooth function of the configuration: the same in
    all outer folds, which share most of their training images."""
    fold: float = 0.01
    """The same for one outer fold (fold x configuration), for each arm. The inner folds and the test fold
    have one each."""
    trial: float = 0.012
    """Noise of a trial's score, the mean over its inner folds."""
    epoch: float = 0.01
    """Noise of the score after an epoch."""
    run: float = 0.02
    """Noise of an outer run: its seed, and the images of its test fold."""
    patients: float = 0.007
    """What these patients do to an arm, in all outer folds alike. Without a search, two fold-wise differences
    have a correlation of 0.09 by it, as in the 48 trained studies of `results/phantom`."""
    pessimism: float = 0.01
    """By how much an inner score is lower because its models are trained on fewer images."""


@dataclass(frozen=True)
class Design:
    """What a study chooses."""

    trials: int = 20
    folds: int = 5
    epochs: int = 12
    startup: int = 10
    """Random trials before TPE begins, the default of a study."""
    draws: Literal["fold", "shared", "one search"] = "fold"
    """`fold`: each outer fold draws its own configurations. `shared`: all folds draw the same ones, as in
    version 0.1.0. `one search`: `nested: false`, one search per arm for all folds."""
    slots: int = 2
    """Trials that run at once."""

    def study(self, number: int) -> Study:
        """The study with this number. The number is the seed of its search."""
        return Study.model_validate(
            {
                "study": "simulated",
                "base": {"optim": {"epochs": self.epochs}},
                "variants": ARMS,
                "folds": {"outer": self.folds},
                "search": {
                    "nested": self.draws != "one search",
                    "trials": self.trials,
                    "startup_trials": self.startup,
                    "grace": 3,
                    "seed": number,
                    "space": SPACE,
                },
            }
        )


class Found(NamedTuple):
    """What the searches of a study chose."""

    number: int
    scores: dict[str, list[float]]
    """Arm -> the true score of the chosen values on each outer fold, without noise and difference."""
    inner: dict[str, list[float]]
    """Arm -> the score in the search of the chosen trial of each outer fold."""
    chosen: dict[str, list[int]]
    """Arm -> the chosen trial of each outer fold."""


class Judged(NamedTuple):
    """The comparison of a study's arms."""

    verdict: str
    mean: float
    """Mean of the fold-wise differences."""
    sd: float
    """Standard deviation of the fold-wise differences within the study."""


class Smooth:
    """A smooth random function of a configuration, with mean 0 and standard deviation 1 over functions:
    random cosines (Rahimi and Recht 2007) of a squared exponential kernel."""

    def __init__(self, *seed: int, length: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        self._slopes = rng.normal(0, 1 / length, (FEATURES, len(SPACE)))
        self._phases = rng.uniform(0, 2 * np.pi, FEATURES)

    def __call__(self, place: np.ndarray) -> float:
        return float(np.cos(self._slopes @ place + self._phases).sum() * np.sqrt(2 / FEATURES))


class Truth:
    """The expected scores of one study's patients: `inner` and `outer` of an arm's configuration."""

    def __init__(self, world: World, design: Design, number: int) -> None:
        self._world = world
        self._data = Smooth(number, 0)
        self._folds = {
            (arm, fold, part): Smooth(number, 1, arms, fold, parts)
            for arms, arm in enumerate(ARMS)
            for fold in range(design.folds)
            for parts, part in enumerate(("inner", "outer"))
        }

    def score(self, arm: str, chosen: Mapping[str, Any], fold: int, part: Literal["inner", "outer"]) -> float:
        """The expected score of a configuration in an outer fold's inner folds, or on its test images."""
        world, place, seen = self._world, _place(chosen), self.seen(arm, chosen)
        away = float(WEIGHTS @ (seen - 0.5 + world.shift / 2) ** 2)
        score = world.top - world.fall * (1 - float(np.exp(-away)))
        score += world.data * self._data(seen) + world.fold * self._folds[arm, fold, part](place)
        return score - (world.pessimism if part == "inner" else 0.0)

    def seen(self, arm: str, chosen: Mapping[str, Any]) -> np.ndarray:
        """(K,) places of a configuration as the arm responds to them: the challenger's axes are turned
        around."""
        place = _place(chosen)
        return 1 - place if arm == CHALLENGER and self._world.shift else place


def _place(chosen: Mapping[str, Any]) -> np.ndarray:
    """(K,) places of a configuration's values on their axes, 0 to 1."""
    shares = []
    for key, domain in SPACE.items():
        low, high = places.bounds(domain)
        shares.append((float(places.place(domain, [chosen[key]])[0]) - low) / (high - low))
    return np.array(shares)


def search(world: World, design: Design, number: int) -> Found:
    """The choices of all searches of one study. The same arguments give the same choices."""
    study, truth = design.study(number), Truth(world, design, number)
    scores: dict[str, list[float]] = {arm: [] for arm in ARMS}
    inner: dict[str, list[float]] = {arm: [] for arm in ARMS}
    numbers: dict[str, list[int]] = {arm: [] for arm in ARMS}
    for arm in ARMS:
        for fold in range(design.folds):
            if fold == 0 or design.draws != "one search":
                best, score = _searched(study, SearchId(arm, fold), design, truth, world)
            scores[arm].append(truth.score(arm, best.chosen, fold, "outer"))
            inner[arm].append(score)
            numbers[arm].append(best.number)
    return Found(number, scores, inner, numbers)


def _searched(
    study: Study, search_id: SearchId, design: Design, truth: Truth, world: World
) -> tuple[Trial, float]:
    """The trial that a search chooses, and its score in the search."""
    drawn = search_id._replace(test_fold=search_id.test_fold if design.draws == "fold" else 0)
    seed = (study.search.seed, 2, ARMS.index(search_id.variant), search_id.test_fold)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as folder:
        record = Record(study, search_id, Path(folder))
        scheduler = early_stopping.scheduler(study, [record])
        running: dict[int, np.ndarray] = {}
        """Trial -> its learning curve."""
        while record.open_trials():
            while len(running) < design.slots and len(record.trials) < design.trials:
                trial = record.draw(sampler.propose(study, drawn, record.trials))
                end = truth.score(search_id.variant, trial.chosen, search_id.test_fold, "inner")
                pace = 2 + 4 * float(truth.seen(search_id.variant, trial.chosen)[0])
                running[trial.number] = _curve(end, pace, design.epochs, world, rng)
                scheduler.on_trial_add(None, _of_tune(search_id, trial.number))  # type: ignore[arg-type]
            for number in list(running):
                if _report(record, scheduler, record.trials[number], running[number]):
                    del running[number]
        best = choice.current(record)
    assert best is not None, "the first trials of a search complete"
    return best


def _report(record: Record, scheduler: Any, trial: Trial, curve: np.ndarray) -> bool:
    """Report the next epoch of a trial. Returns whether the trial has ended with it."""
    epoch = trial.last + 1
    score = float(curve[epoch - 1])
    result = {"epoch": epoch, record.study.search.metric: score}
    decision = scheduler.on_trial_result(None, _of_tune(record.search_id, trial.number), result)
    record.report(trial, epoch, score, float(epoch))
    if epoch == record.reports:
        record.end(trial, "completed")
    elif decision == "STOP":
        record.end(trial, "stopped")
    return trial.state is not None


def _of_tune(search_id: SearchId, number: int) -> Any:
    """A trial with the fields of Ray Tune's that the scheduler reads."""
    config = {**search_id._asdict(), "trial": number, "seed": None}
    return SimpleNamespace(config=config, trial_id=f"{number:05d}")


def _curve(end: float, pace: float, epochs: int, world: World, rng: np.random.Generator) -> np.ndarray:
    """(E,) scores after each epoch. They rise from chance to their end, faster at a higher pace."""
    noise = rng.normal(size=epochs + 1)
    done = np.arange(1, epochs + 1) / epochs
    rise = (1 - np.exp(-pace * done)) / (1 - np.exp(-pace))
    return 0.15 + (end - 0.15) * rise + world.trial * noise[0] + world.epoch * noise[1:]


def judge(found: Found, world: World, difference: float = 0.0) -> Judged:
    """The outer folds of a study with the chosen values, and the verdict on them by the study's rule.

    Args:
        found: what the searches of the study chose.
        difference: what the challenger is truly better by.
    """
    folds = len(found.scores[REFERENCE])
    rng = np.random.default_rng((found.number, 3))
    arms: dict[str, dict[int, stats.Fold]] = {}
    for arm in ARMS:
        own = difference if arm == CHALLENGER else 0.0
        noise = world.patients * rng.normal() + world.run * rng.normal(size=folds)
        arms[arm] = {
            fold: stats.Fold(found.scores[arm][fold] + own + float(noise[fold]), _one_patient(fold))
            for fold in range(folds)
        }
    (row,) = stats.compare(arms, [(CHALLENGER, REFERENCE)], 1 / (folds - 1), draws=1)
    differences = [arms[CHALLENGER][fold].score - arms[REFERENCE][fold].score for fold in range(folds)]
    return Judged(row.verdict, row.mean, float(np.std(differences, ddof=1)))


def _one_patient(fold: int) -> stats.Clusters:
    """The images of a fold, which the verdict does not depend on."""
    return stats.patient_counts([f"fold {fold}"], np.array([0]), np.array([0]), 2)


class Rate(NamedTuple):
    """How often something occurred, with its 95 % interval (Wilson)."""

    times: int
    studies: int
    share: float
    low: float
    high: float


def rate(judged: Iterable[Judged], *verdicts: str) -> Rate:
    """How often studies got one of these verdicts."""
    listed = list(judged)
    times = sum(one.verdict in verdicts for one in listed)
    low, high = wilson(times, len(listed), floor=1) or (0.0, 1.0)
    return Rate(times, len(listed), times / len(listed), low, high)


class Spread(NamedTuple):
    """The sizes that a planned study needs to know, measured on simulated studies."""

    sd: float
    """Standard deviation of the fold-wise differences within a study (root of the mean variance)."""
    correlation: float
    """Correlation of two folds' differences over studies."""


def spread(judged: Iterable[Judged], folds: int) -> Spread:
    """The spread of fold-wise differences: within studies, and of their means over studies."""
    listed = list(judged)
    within = float(np.mean([one.sd**2 for one in listed]))
    common = float(np.var([one.mean for one in listed], ddof=1)) - within / folds
    return Spread(within**0.5, common / (common + within))
