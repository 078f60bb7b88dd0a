"""The report of a study: `collect` reads its files, a module per section computes tables and figures, `write`
renders them."""

from leukotree.report.collect import collect
from leukotree.report.summary import StudySummary
from leukotree.report.write import write

__all__ = ["StudySummary", "collect", "write"]
