"""Tables as files: numbers in columns of their own, the order of cells, and names that nothing runs."""

import csv
import io
import re

import pytest

from leukotree.report import tables
from leukotree.report.blocks import Folded, Section, Table


def read(table: Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(tables.as_csv(table))))


def column(*cells: str) -> list[list[str]]:
    """The columns of a file that a column with these cells becomes, each with its name."""
    table = Table("", ["name", "x"], [[str(place), cell] for place, cell in enumerate(cells)])
    return [list(one) for one in zip(*read(table), strict=True)][1:]


@pytest.mark.parametrize(
    ("cells", "columns"),
    [
        (["84.3", "–", "+1.5"], [["x", "84.3", "", "1.5"]]),
        (["84.3 ± 2.0", "7.0"], [["x", "84.3", "7.0"], ["x sd", "2.0", ""]]),
        (["-1.5 to 3.0", "not estimable"], [["x low", "-1.5", ""], ["x high", "3.0", ""]]),
        (
            ["84.3 (80.1 to 88.0)", "50.0 (no spread)", "–"],
            [["x", "84.3", "50.0", ""], ["x low", "80.1", "", ""], ["x high", "88.0", "", ""]],
        ),
        (["3e-05", "1"], [["x", "3e-05", "1"]]),
        (["12.5 %", "1.0 %"], [["x", "12.5", "1.0"]]),
        (["5 : 4, p 1.000", "–"], [["x", "5 : 4, p 1.000", "–"]]),  # no shape of a number: as it is
        (["better", "–"], [["x", "better", "–"]]),
    ],
)
def test_numbers_have_columns_of_their_own(cells, columns):
    assert column(*cells) == columns


def test_a_label_is_no_number_even_if_it_looks_like_one():
    table = Table("", ["leaf", "n"], [["1 to 2", "3"], ["7", "4"]])
    assert read(table) == [["leaf", "n"], ["1 to 2", "3"], ["7", "4"]]


def test_no_name_is_a_formula_of_a_spreadsheet():
    table = Table("", ["=leaf", "n"], [["=1+1", "1"], ["-2", "+3"], ["@x", "4"], ["−a", "5"]])
    assert read(table) == [["'=leaf", "n"], ["'=1+1", "1"], ["-2", "3"], ["'@x", "4"], ["−a", "5"]]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("9.9", "10.1"),
        ("-2.0", "+1.0"),
        ("59 s", "1.0 min"),
        ("59.0 min", "1.00 h"),
        ("< 0.001", "0.001"),
        ("100.0", "over 100"),
        ("3e-05", "0.001"),
        ("84.3 ± 9.0", "84.4 ± 0.1"),
    ],
)
def test_the_order_of_cells_is_that_of_their_numbers(low, high):
    assert tables.value(low) < tables.value(high)


@pytest.mark.parametrize("cell", ["–", "not estimable", "", "better", "unknown"])
def test_a_cell_without_a_number_has_no_place_in_the_order(cell):
    assert tables.value(cell) is None


def test_a_column_of_labels_is_sorted_by_numbers_only_if_all_its_cells_are_numbers():
    table = Table("", ["fold", "leaf", "n"], [["2", "2 cells", "1"], ["10", "ALL", "–"]], labels=2)
    assert tables.values(table) == [[2.0, None, 1.0], [10.0, None, None]]


def test_each_table_of_a_section_has_files_and_main_ones_latex():
    inner = Table("deep", ["a"], [["1"]])
    section = Section("Two words", [Table("main", ["a"], [["1"]], file="main"), Folded("more", [inner])])
    named = tables.named(section)
    assert [one.name for one in named] == ["main", "two-words-2"]
    assert set(tables.files(named)) == {"tables/main.csv", "tables/main.tex", "tables/two-words-2.csv"}


def test_latex_has_a_row_for_each_row_and_no_command_of_a_name():
    names = [r"\input{/etc/passwd}", "50 % & more", "a_b^c", "#1 $x$", "`code`"]
    written = tables.as_latex(Table("x ± 1", ["n", "v"], [[name, "1"] for name in names]), "x")
    assert written.count(r" \\") == len(names) + 1
    body = written.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert set(re.findall(r"\\[a-zA-Z]+", body)) == {r"\textbackslash", r"\textasciicircum", r"\texttt"}
    assert r"50 \% \& more & 1" in body
    assert r"\{/etc/passwd\}" in body
    assert r"\caption{x $\pm$ 1}" in written
