"""The report of a study: `collect` reads its files, `scores` and `compare` compute, `write` renders Markdown and HTML."""

from leukotree.report.collect import StudySummary, collect
from leukotree.report.write import write

__all__ = ["StudySummary", "collect", "write"]
