"""When searches stop drawing trials before they have drawn all that the study allows.

The searches of an outer fold, one per variant, stop together and at the same number of trials, so that no
variant gets more trials than another. That is noted in the record of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpc.search.record import Record
from hpc.studies.study import SearchId, Study


def reason(study: Study, group: Sequence[Record]) -> str | None:
    """Why the searches of an outer fold draw no more trials, in words that follow "stopped after 8 trials:";
    None if they go on. `group`: their records."""
    budget = study.search.budget_hours
    if budget is not None and spent(group) >= 3600 * budget:
        return f"the budget of {budget:g} device-hours is spent"
    if study.search.until == "enough":
        from hpc.search.enough import enough  # imports scipy

        return enough(group)
    return None


def spent(group: Sequence[Record]) -> float:
    """Device-seconds of all trials of some searches. A trial that has not ended counts as the mean of those
    of its search that have, where it has no time of its own."""
    total = 0.0
    for record in group:
        ended = [trial.seconds for trial in record.trials if trial.state is not None]
        mean = sum(ended) / len(ended) if ended else 0.0
        total += sum(trial.seconds if trial.state else trial.seconds or mean for trial in record.trials)
    return total


class Limits:
    """Closes the searches of a sweep that stop drawing."""

    def __init__(self, study: Study, records: Mapping[SearchId, Record]) -> None:
        """`records`: of the searches that have not ended. Raises InputError for a damaged one of the
        others."""
        self._study, self._records = study, records
        limited = study.search.budget_hours is not None or study.search.until == "enough"
        self._groups = self._read() if limited else []
        self._seen: dict[int, tuple[float, ...]] = {}
        """Group -> how far its searches were when it was looked at."""

    def apply(self) -> None:
        """Close the searches of each outer fold that has reached a limit. The number of trials is then the
        most that a search of the fold has drawn: the others draw as many."""
        for place, group in enumerate(self._groups):
            now = (*(float(len(record.trials) + record.ended()) for record in group), spent(group))
            if self._seen.get(place) != now:
                self._seen[place] = now
                self._close(group)

    def _read(self) -> list[list[Record]]:
        """The records of each outer fold, also those of searches that have ended."""
        groups: dict[tuple[int, int], list[Record]] = {}
        for search_id in self._study.search_ids:
            record = self._records.get(search_id) or Record(self._study, search_id)
            groups.setdefault((search_id.test_fold, search_id.repeat), []).append(record)
        return list(groups.values())

    def _close(self, group: Sequence[Record]) -> None:
        at_work = [record for record in group if record.search_id in self._records and record.closed is None]
        if not any(len(record.trials) < record.most for record in at_work):
            return
        known = next((record.closed for record in group if record.closed), None)
        why = known.reason if known else reason(self._study, group)
        if why is None:
            return
        trials = known.trials if known else max(len(record.trials) for record in group)
        for record in at_work:
            if trials < record.most:
                record.close(why, trials)
