"""The section about the searches: numbers of trials, chosen trials, inner against outer scores, draws, the
best trials, learning curves."""

from __future__ import annotations

import pandas as pd

from leukotree import stats
from leukotree.report import searchplots
from leukotree.report.blocks import (
    Block,
    Figure,
    Section,
    Table,
    Text,
    interval,
    number,
    percent,
    points,
    text,
)
from leukotree.report.prose import search as prose
from leukotree.report.sections import drawn, optimism
from leukotree.report.summary import Search, StudySummary, decided

TOP = 5
"""The most trials of a search in the table of the best trials, and at most half of the completed ones."""
MOST_ROWS = 45
"""The most rows of the table of the best trials. Many searches show fewer trials each."""


def section(summary: StudySummary) -> Section | None:
    """Tables of the trials, and the learning curves. None without a search."""
    if not summary.searches:
        return None
    blocks: list[Block] = [_counts(summary), *optimism.blocks(summary), *drawn.blocks(summary)]
    reruns = _reruns(summary)
    by_posterior = any((search.best or {}).get("choice") == "posterior" for search in _all(summary))
    if reruns:
        blocks.append(reruns)
    if reruns or by_posterior:
        blocks.append(_chosen_by(summary, by_posterior, reruns is not None))
    blocks += _closed(summary)
    blocks += [*unequal_trials(summary), _best(summary)]
    return Section("Search", [*blocks, *_learning_curves(summary)])


def _chosen_by(summary: StudySummary, by_posterior: bool, again: bool) -> Text:
    """How a trial was chosen, and what the re-runs say of the luck of the best one."""
    fresh = (summary.study.get("search") or {}).get("rerun_splits") == "fresh"
    less = text(prose.LESS_ITS_RERUNS, splits=" and of its inner folds" if fresh else "").text
    return text(prose.BY_POSTERIOR if by_posterior else prose.RERUNS, less=less if again else "")


def _learning_curves(summary: StudySummary) -> list[Block]:
    """The figure of the learning curves. Empty where no search has a history."""
    histories = {
        variant: [
            (search.history, str((search.best or {}).get("trial")))
            for search in searches.values()
            if len(search.history)
        ]
        for variant, searches in summary.searches.items()
    }
    curves = {variant: of_searches for variant, of_searches in histories.items() if of_searches}
    if not curves:
        return []
    reports = "inner folds" if (summary.study.get("search") or {}).get("rungs") == "folds" else "epoch"
    caption = (
        "Mean macro F1 of the inner folds. Each grey line is a trial. The chosen trial of each search is "
        "coloured."
    )
    return [Figure("learning-curves", caption, searchplots.learning_curves(curves, reports))]


def _closed(summary: StudySummary) -> list[Block]:
    """Which searches stopped before the study's number of trials, and why. All variants of a fold do."""
    lines = {
        f"Fold {summary.fold_name(search.test_fold)}: all variants stopped after {search.best['trials']} "
        f"trials: {search.best['closed']}."
        for search in _all(summary)
        if search.best and search.best.get("closed")
    }
    return [text(line) for line in sorted(lines)]


def _all(summary: StudySummary) -> list[Search]:
    return [search for searches in summary.searches.values() for search in searches.values()]


def _counts(summary: StudySummary) -> Table:
    """A row per search: the numbers of its trials, and the chosen trial with its scores."""
    rows = []
    for search in _all(summary):
        states = search.trials["state"].value_counts()
        best = search.best or {}
        counts = [
            str(len(search.trials)),
            *(str(int(states.get(state, 0))) for state in ("completed", "stopped", "failed")),
        ]
        chosen = str(best.get("trial", "–"))
        result = [percent(optimism.inner_score(search)), percent(optimism.outer_score(summary, search))]
        rows.append([search.variant, summary.fold_name(search.test_fold), chosen, *counts, *result])
    header = [
        "variant",
        "outer fold",
        "chosen trial",
        "trials",
        "completed",
        "stopped early",
        "failed",
        "inner macro F1",
        "outer macro F1",
    ]
    caption = "The trials of each search, by the outer fold that it did not use. Scores are in per cent."
    return Table(caption, header, rows, labels=3)


def _reruns(summary: StudySummary) -> Table | None:
    """A row per search whose best trials were run again. None without one."""
    rows = []
    for search in _all(summary):
        reruns, best = search.reruns, search.best
        if reruns is None or best is None:
            continue
        n, seeds = reruns["trial"].nunique(), reruns["seed"].nunique()
        loss = float("nan") if best["optimism"] is None else float(best["optimism"])
        again = percent(optimism.rerun_score(search))
        scores = [percent(float(best["search_value"])), points(loss), again]
        rows.append(
            [
                search.variant,
                summary.fold_name(search.test_fold),
                str(best["trial"]),
                f"{n} × {seeds}",
                *scores,
            ]
        )
    header = [
        "variant",
        "outer fold",
        "chosen trial",
        "trials × fresh seeds",
        "best of the search",
        "less its re-runs",
        "chosen, run again",
    ]
    caption = "The best trials, run again on seeds that the search did not use. Macro F1 in per cent."
    return Table(caption, header, rows, labels=3) if rows else None


def _best(summary: StudySummary) -> Table:
    """The best trials of each search by its own scores, each with its interval over patients."""
    searches = _all(summary)
    most = max(1, MOST_ROWS // len(searches))
    rows = []
    for search in searches:
        means = _means_of_reruns(search)
        for rank, trial in enumerate(top(search.trials).head(most).to_dict("records"), 1):
            name = str(trial["trial"])
            values = [number(trial[key]) if key in trial else "–" for key in summary.space]
            rerun = percent(means.get(name, float("nan")))
            result = [percent(trial["macro_f1"]), *_pooled(search, name), rerun]
            rows.append(
                [search.variant, summary.fold_name(search.test_fold), str(rank), name, *result, *values]
            )
    header = [
        "variant",
        "outer fold",
        "rank",
        "trial",
        "inner macro F1",
        "pooled over inner folds",
        "95 % by patient",
        "run again",
        *summary.space,
    ]
    caption = (
        "The best completed trials of each search, by the search's own scores (mean over inner folds, rule "
        "greedy), in per cent. Pooled: the score of the images of all inner folds together, with its "
        "interval by the bootstrap over patients."
    )
    return Table(caption, header, rows, labels=4)


def top(trials: pd.DataFrame) -> pd.DataFrame:
    """The best completed trials of a search, the best first."""
    done = trials[(trials["state"] == "completed") & trials["macro_f1"].notna()]
    return done.sort_values("macro_f1", ascending=False, kind="stable").head(min(TOP, -(-len(done) // 2)))


def _means_of_reruns(search: Search) -> dict[str, float]:
    """Trial -> the mean macro F1 of its re-runs, NaN where one failed. Empty without re-runs."""
    if search.reruns is None:
        return {}
    by_trial = search.reruns.groupby("trial")["macro_f1"]
    means = by_trial.agg(lambda scores: scores.mean(skipna=False))
    return {str(trial): float(mean) for trial, mean in means.items()}


def _pooled(search: Search, trial: str) -> tuple[str, str]:
    """The macro F1 pooled over the inner folds, decided as in the search, and its interval. En dashes where
    the trial's predictions were removed. No interval without patient ids."""
    pooled = search.predictions(trial)
    if pooled is None:
        return "–", "–"
    predicted = decided(pooled, "greedy")
    patients = pooled.images["patient"].tolist()
    counts = stats.patient_counts(patients, pooled.true, predicted, len(pooled.taxonomy.leaves))
    score = percent(float(stats.macro_f1(counts.counts.sum(axis=0))))
    known = counts.alone < len(counts.names)
    return score, interval(stats.intervals([counts], stats.macro_f1)[0]) if known else "–"


def unequal_trials(summary: StudySummary) -> list[Block]:
    """A warning where the variants have different numbers of trials. Failed trials do not count."""
    if not summary.searches:
        return []
    trials = dict.fromkeys(summary.variants, 0)
    for search in _all(summary):
        trials[search.variant] += int((search.trials["state"] != "failed").sum())
    if len(set(trials.values())) == 1:
        return []
    listed = ", ".join(f"{variant} {n}" for variant, n in trials.items())
    return [text(prose.UNEQUAL_TRIALS, "warning", trials=listed)]
