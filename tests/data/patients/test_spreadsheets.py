"""Manifests and label tables as spreadsheets save them: read correctly, or refused in one line with a fix."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukotree import csvfile
from leukotree.data import manifest
from leukotree.data.sources.importer import import_source
from leukotree.errors import InputError
from leukotree.taxonomy import Taxonomy

ROWS = [
    ["image", "leaf", "patient", "source"],
    ["a.png", "AML", "Müller, A", "x"],
    ["b.png", "normal", "007", "x"],
]
RIGHT = [("a.png", "AML", "Müller, A"), ("b.png", "normal", "007")]


def table(rows, separator=",", end="\n"):
    def cell(text):
        return '"' + text.replace('"', '""') + '"' if set(text) & {separator, '"', "\n"} else text

    return "".join(separator.join(map(cell, row)) + end for row in rows)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"pixels")
    return tmp_path


def read(folder: Path, content: bytes, name: str = "m.csv"):
    (folder / name).write_bytes(content)
    frame = manifest.read(folder / name, Taxonomy.paper())
    return list(zip(frame["name"], frame["leaf"], frame["patient"], strict=True))


UTF16 = "utf-16"
READ = {
    "comma": (table(ROWS), "utf-8"),
    "semicolon": (table(ROWS, ";"), "utf-8"),
    "tab": (table(ROWS, "\t"), "utf-8"),
    "BOM": (table(ROWS, ";", "\r\n"), "utf-8-sig"),
    "CRLF": (table(ROWS, end="\r\n"), "utf-8"),
    "CR": (table(ROWS, end="\r"), "utf-8"),
    "no end of the last line": (table(ROWS).rstrip("\n"), "utf-8"),
    "Unicode text": (table(ROWS, "\t", "\r\n"), UTF16),
    "UTF-16, big end first": ("\ufeff" + table(ROWS, ";"), "utf-16-be"),
    "UTF-32": (table(ROWS), "utf-32"),
    "sep": ("sep=;\r\n" + table(ROWS, ";", "\r\n"), "utf-8-sig"),
    "sep, tab": ("sep=\t\n" + table(ROWS, "\t"), "utf-8"),
    "sep in quotes": ('"sep=,"\n' + table(ROWS), "utf-8"),
    "two empty columns": (table([[*row, "", ""] for row in ROWS]), "utf-8"),
    "two empty columns, header only": (table([[*ROWS[0], "", ""], *ROWS[1:]], ";"), "utf-8"),
    "two empty columns, rows only": (table([ROWS[0], *([*row, "", " "] for row in ROWS[1:])]), "utf-8"),
    "empty columns before": (table([["", "", *row] for row in ROWS]), "utf-8"),
    "other order": (table([row[::-1] for row in ROWS], ";"), "utf-8"),
    "other case": (table([["Image", "LEAF", " Patient ", "\u00a0source\u200b"], *ROWS[1:]]), "utf-8"),
    "empty rows": (table([["", "", "", ""], *ROWS, ["", "", "", ""], [" ", "", "", ""]]) + "\n\n", "utf-8"),
    "further column with decimal commas": (
        table([[*ROWS[0], "age"], [*ROWS[1], "1,5"], [*ROWS[2], "2,5"]]),
        "utf-8",
    ),
    "decimal commas beside semicolons": (
        table([[*ROWS[0], "age"], [*ROWS[1], "1,5"], [*ROWS[2], "2,5"]], ";"),
        "utf-8",
    ),
    "two further columns of one name": (table([[*row, "note", "note"] for row in ROWS]), "utf-8"),
    "all in quotes": ("\n".join('"' + '";"'.join(row) + '"' for row in ROWS), "utf-8"),
}


@pytest.mark.parametrize("case", READ)
def test_what_a_spreadsheet_saves_is_read_correctly(folder, case):
    text, encoding = READ[case]
    assert read(folder, text.encode(encoding)) == RIGHT


REFUSED = {
    "cp1252": (
        table(ROWS).encode("cp1252"),
        "row 2: not UTF-8 text (byte 0xfc); save the table as 'CSV UTF-8'",
    ),
    "UTF-16 without its mark": (table(ROWS).encode("utf-16-le"), "perhaps UTF-16"),
    "half of a UTF-16": (table(ROWS).encode("utf-16")[:-1], "not UTF-16 text"),
    "another separator": (table(ROWS, "|").encode(), "missing column 'image', 'leaf', 'patient', 'source'"),
    "another declared": (
        ("sep=|\n" + table(ROWS, "|")).encode(),
        "row 1: separator '|'; it is one of a comma, a semicolon",
    ),
    "a wrong one declared": (("sep=;\n" + table(ROWS)).encode(), "missing column"),
    "decimal commas without quotes": (
        table(ROWS).encode() + b"a.png,AML,1,5,x\n",
        "row 4: 5 values where the header has 4",
    ),
    "rows of another separator": (table(ROWS).encode() + b"a.png;AML;1;x\n", "row 4: 1 values"),
    "a value without a column": (table(ROWS).encode() + b"a.png,AML,p,x,,note\n", "row 4: 6 values"),
    "a short row": (
        table([[*ROWS[0], "mask"], *ROWS[1:]], ";").encode(),
        "row 2: 4 values where the header has 5",
    ),
    "one name twice": (
        table([[*row, row[1]] for row in ROWS]).encode(),
        "column 'leaf' is in the header twice",
    ),
    "one name in two cases": (
        table([[*row, ("Leaf", "ALL")[n > 0]] for n, row in enumerate(ROWS)]).encode(),
        "as 'leaf' and as",
    ),
    "a workbook": (
        b"PK\x03\x04\x14\x00\x06\x00",
        "a spreadsheet's workbook or a zip file, no CSV; open it and save the table",
    ),
    "an old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook"),
    "gzip": (b"\x1f\x8b\x08\x00", "compressed"),
    "Parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "only a header": (table(ROWS[:1]).encode(), "no rows"),
    "empty": (b"", "missing column"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ambiguous_tables_are_refused_in_one_line(folder, case):
    content, says = REFUSED[case]
    with pytest.raises(InputError) as caught:
        read(folder, content)
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(folder / "m.csv"))
    assert len(message.splitlines()) == 1


def test_rows_are_named_as_the_spreadsheet_numbers_them(folder):
    with pytest.raises(InputError, match="row 5: unknown leaf 'AMK'"):
        read(folder, ("sep=;\r\n" + table(ROWS, ";", "\r\n") + "a.png;AMK;p;x\r\n").encode())


def test_optional_columns_may_be_in_another_case_too(folder):
    (folder / "m.csv").write_text("Image;Leaf;Patient;Source;Group;MASK\na.png;AML;s1;x;slide;b.png\n")
    frame = manifest.read(folder / "m.csv", Taxonomy.paper())
    assert frame["group"].tolist() == ["slide"]
    assert frame["mask"].tolist() == [str(folder / "b.png")]
    frame = pd.DataFrame(
        {"Image": ["a.png"], "LEAF": ["AML"], "patient ": ["p"], "source": ["x"], "Group": ["slide"]}
    )
    frame.to_parquet(folder / "m.parquet")
    assert manifest.read(folder / "m.parquet", Taxonomy.paper())["group"].tolist() == ["slide"]


@pytest.mark.parametrize("name", ["m.xlsx", "m.XLS", "m.ods", "m.csv.gz", "m", "m.json", "m.xlsm"])
def test_an_ending_that_is_no_table_is_refused_for_reading_and_writing(folder, name):
    (folder / "AML").mkdir()
    (folder / "a.png").rename(folder / "AML/a.png")
    with pytest.raises(InputError, match=r"a manifest ends in \.csv or \.parquet"):
        import_source("folder", folder, folder / name)
    assert not (folder / name).exists()
    with pytest.raises(InputError, match="a manifest ends in"):
        manifest.write(pd.DataFrame(), folder / name)
    with pytest.raises(InputError, match=r"a manifest ends in \.csv or \.tsv or \.txt or \.parquet"):
        read(folder, table(ROWS).encode(), name)


@pytest.mark.parametrize("name", ["m.CSV", "m.tsv", "m.txt"])
def test_text_has_one_of_a_few_endings(folder, name):
    assert read(folder, table(ROWS, "\t").encode(), name) == RIGHT


@pytest.mark.parametrize("separator", csvfile.SEPARATORS)
def test_the_label_tables_of_public_sets_may_have_been_saved_again(tmp_path, separator):
    def laid_out(name: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"pixels")
        return tmp_path / name.split("/")[0]

    def saved(name: str, rows: list[list[str]]) -> None:
        (tmp_path / name).write_text(
            table([[*row, "", ""] for row in rows], separator, "\r\n"), encoding="utf-16", newline=""
        )

    cnmc = laid_out("cnmc/phase2/1.bmp")
    saved("cnmc/phase2.CSV", [["labels", "Patient_ID", "new_names"], ["1", "UID_57_29_1_all.bmp", "1.bmp"]])
    assert import_source("cnmc", cnmc, tmp_path / "m.csv").leaves == {"ALL": 1}
    deepapl = laid_out("deepapl/All/Patient_01/Signed slides/Promyelocyte/PM_1.jpg")
    saved("deepapl/master.csv", [["Cohort", "diagnosis", "PATIENT_ID"], ["Discovery", "APL", "Patient_01"]])
    assert import_source("deepapl", deepapl, tmp_path / "m.csv").leaves == {"APML": 1}
    krd = laid_out("krd/image/0001.jpg")
    saved("krd/class labels.csv", [["Image ID", "Categoriy"], ["Image1", "Basophil"]])
    assert import_source("krd", krd, tmp_path / "m.csv", cell_types=True).leaves == {"normal": 1}


CELLS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from(',;\t"\n'), min_size=1, max_size=6
).filter(str.strip)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=4),
    separator=st.sampled_from([*csvfile.SEPARATORS]),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    empty=st.integers(0, 2),
)
def test_every_value_comes_back_whatever_the_dialect(tmp_path_factory, rows, separator, end, encoding, empty):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    written = [["Name", "id"], *map(list, rows)]
    path.write_bytes(table([[*row, *[""] * empty] for row in written], separator, end).encode(encoding))
    columns = csvfile.read(path, ("id", "name")).columns
    assert list(zip(columns["name"], columns["id"], strict=True)) == rows
