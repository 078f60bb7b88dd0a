"""docs/numbers.md says where each section of a report is explained."""

from __future__ import annotations

import re

from leukotree.report import contents
from tests.helpers import documents

TEXT = (documents.ROOT / "docs/numbers.md").read_text()
TABLE = TEXT.partition("## The sections of a report\n")[2].partition("\n## ")[0]


def test_each_section_of_a_report_is_in_the_table() -> None:
    rows = re.findall(r"^\| (.+?) \| \[.+?\]\(.+?\)", TABLE, re.MULTILINE)
    assert len(rows) > 10
    listed = "; ".join(rows)
    assert [title for title in contents.ENTRIES if title not in listed] == []
