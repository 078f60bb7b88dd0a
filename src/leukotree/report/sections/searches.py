"""The section about the searches: counts and chosen trials, optimism, the best trials, learning curves."""

from __future__ import annotations

from leukotree import stats
from leukotree.evaluation import decide, metrics
from leukotree.report import prose, searchplots
from leukotree.report.blocks import Block, Figure, Section, Table, interval, number, percent, points, text
from leukotree.report.sections.answer import top
from leukotree.report.summary import Search, StudySummary

MOST_ROWS = 45
"""Of the table of the best trials; with more searches each shows fewer."""


def section(summary: StudySummary) -> Section | None:
    """None without a search."""
    if not summary.searches:
        return None
    blocks: list[Block] = [_counts(summary), text(prose.OPTIMISM)]
    if again := _reruns(summary):
        blocks += [again, text(prose.RERUNS)]
    blocks += [*unequal_trials(summary), _best(summary)]
    histories = {
        variant: [
            (search.history, str((search.best or {}).get("trial")))
            for search in searches.values()
            if len(search.history)
        ]
        for variant, searches in summary.searches.items()
    }
    if shown := {variant: curves for variant, curves in histories.items() if curves}:
        reports = "inner folds" if (summary.study.get("search") or {}).get("rungs") == "folds" else "epoch"
        caption = "Mean macro-F1 of the inner folds: a grey line per trial, the chosen trial of each search in colour."
        blocks.append(Figure("learning-curves", caption, searchplots.learning_curves(shown, reports)))
    return Section("Search", blocks)


def _each(summary: StudySummary) -> list[Search]:
    return [search for searches in summary.searches.values() for search in searches.values()]


def _counts(summary: StudySummary) -> Table:
    rows = []
    for search in _each(summary):
        states = search.trials["state"].value_counts()
        best = search.best or {}
        counts = [
            str(len(search.trials)),
            *(str(int(states.get(state, 0))) for state in ("completed", "stopped", "failed")),
        ]
        chosen = str(best.get("trial", "–"))
        score = search.trials.set_index("trial")["macro_f1"].get(chosen, float("nan"))
        rows.append(
            [
                search.variant,
                str(search.test_fold),
                chosen,
                *counts,
                percent(score),
                _outer_score(summary, search),
            ]
        )
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
    return Table(
        "Trials of each search, by the outer fold that it did not see; scores in per cent.",
        header,
        rows,
        labels=3,
    )


def _outer_score(summary: StudySummary, search: Search) -> str:
    """Of the runs with the chosen values on the fold that the search did not see, mean over seeds; decided as
    in the search."""
    mine = [
        run
        for arm in summary.arms
        if arm.cell is None and arm.variant == search.variant
        for run in arm.runs
        if run.test_fold == search.test_fold
    ]
    values = [
        metrics.macro_f1(run.true, decide.greedy(run.logp, run.taxonomy), len(run.taxonomy.leaves))
        for run in mine
    ]
    return percent(sum(values) / len(values)) if values else "–"


def _reruns(summary: StudySummary) -> Table | None:
    rows = []
    for search in _each(summary):
        again, best = search.reruns, search.best
        if again is None or best is None:
            continue
        n, seeds = again["trial"].nunique(), again["seed"].nunique()
        optimism = float("nan") if best["optimism"] is None else float(best["optimism"])
        scores = [percent(float(best["search_value"])), points(optimism), percent(float(best["value"]))]
        rows.append([search.variant, str(search.test_fold), str(best["trial"]), f"{n} × {seeds}", *scores])
    header = [
        "variant",
        "outer fold",
        "chosen trial",
        "trials × fresh seeds",
        "best of the search",
        "optimism",
        "chosen, run again",
    ]
    return (
        Table(
            "The best trials, run again on seeds that the search did not use; macro F1 in per cent.",
            header,
            rows,
            labels=3,
        )
        if rows
        else None
    )


def _best(summary: StudySummary) -> Table:
    """The best trials of each search by its own scores, with what other patients could make of them."""
    searches = _each(summary)
    most = max(1, MOST_ROWS // len(searches))
    rows = []
    for search in searches:
        again = search.reruns
        means = (
            {}
            if again is None
            else again.groupby("trial")["macro_f1"].agg(lambda scores: scores.mean(skipna=False)).to_dict()
        )
        for rank, trial in enumerate(top(search.trials).head(most).to_dict("records"), 1):
            name = str(trial["trial"])
            values = [number(trial[key]) if key in trial else "–" for key in summary.space]
            rerun = percent(means.get(name, float("nan")))
            rows.append(
                [
                    search.variant,
                    str(search.test_fold),
                    str(rank),
                    name,
                    percent(trial["macro_f1"]),
                    _interval(search, name),
                    rerun,
                    *values,
                ]
            )
    header = [
        "variant",
        "outer fold",
        "rank",
        "trial",
        "inner macro F1",
        "95 % by patient",
        "run again",
        *summary.space,
    ]
    caption = (
        "The best completed trials of each search, by the search's own scores (mean over inner folds, greedy), in per cent. "
        "Intervals: bootstrap over patients of the score pooled over inner folds."
    )
    return Table(caption, header, rows, labels=4)


def _interval(search: Search, trial: str) -> str:
    """Of the macro-F1 pooled over the inner folds, decided as in the search; an en dash where the trial's
    predictions are gone, or have no patients."""
    found = search.predictions(trial)
    if found is None or not (found.images["patient"] != "").any():
        return "–"
    predicted = decide.greedy(found.logp, found.taxonomy)
    patients = stats.patient_counts(
        found.images["patient"].tolist(), found.true, predicted, len(found.taxonomy.leaves)
    )
    return interval(stats.intervals([patients], stats.macro_f1)[0])


def unequal_trials(summary: StudySummary) -> list[Block]:
    """A warning where variants were not searched equally long; failed trials do not count."""
    if not summary.searches:
        return []
    trials = dict.fromkeys(summary.variants, 0)
    for search in _each(summary):
        trials[search.variant] += int((search.trials["state"] != "failed").sum())
    if len(set(trials.values())) == 1:
        return []
    return [
        text(
            prose.UNEQUAL_TRIALS,
            "warning",
            trials=", ".join(f"{variant} {n}" for variant, n in trials.items()),
        )
    ]
