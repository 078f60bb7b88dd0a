"""Each section has its place in the page, and folding hides no warning."""

import re
from pathlib import Path

from leukotree.report import contents
from leukotree.report.blocks import Figure, Folded, Section, Table, Text

REPORT = Path(contents.__file__).parent
MADE = re.compile(r'(?:Section\(\s*|title = |TITLE = )"([^"]+)"')


def test_every_section_of_the_code_is_named_and_no_other():
    """A new section is folded until somebody names its place."""
    files = [*(REPORT / "sections").glob("*.py"), REPORT / "checklists.py", REPORT / "side_by_side.py"]
    made = {title for file in files for title in MADE.findall(file.read_text())}
    leads = {"Variants", "Arms", "The declared comparisons"}
    assert made - leads == contents.ENTRIES.keys() - leads


def test_an_unknown_section_is_folded():
    assert contents.place(Section("new", [])) == "folded"
    assert contents.place(Section("Runs", [])) == "appendix"
    assert contents.place(Section("Is it the tree?", [])) == "key"


def test_the_line_counts_what_is_inside_and_its_warnings():
    table, warning = Table("", ["a"], []), Text("x", "warning")
    blocks = [table, Folded("more", [table, warning, Figure("f", "", b"")]), Text("y", "note")]
    assert contents.line(Section("new", blocks)) == "2 tables, 1 figure, 1 warning"
    assert contents.line(Section("Runs", [table])) == "Every expected run, with its folder. (1 table)"
    assert contents.line(Section("Runs", [table], line="Two failed.")) == "Two failed. (1 table)"
