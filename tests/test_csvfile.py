"""CSV tables: values stay texts, and errors name the line."""

import pytest

from leukotree import csvfile
from leukotree.errors import InputError


def test_a_bom_quotes_and_blank_lines_do_no_harm(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfid, name\r\n01,"Blast, no lineage spec"\r\n\r\nNA,\r\n')
    table = csvfile.read(path, ("id", "name"))
    assert table.columns == {"id": ["01", "NA"], "name": ["Blast, no lineage spec", ""]}
    assert table.lines == [2, 4]


def test_the_line_is_the_one_in_the_file_even_after_a_value_of_two_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,name\n1,"two\nlines"\n2\n')
    with pytest.raises(InputError, match=r"t\.csv row 4: 1 values where the header has 2 columns"):
        csvfile.read(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "missing column 'id'; it has none"),
        (b"name\nx\n", "missing column 'id'; it has 'name'"),
        (b"id|name\n1|x\n", "it has 'id|name'"),
        (b"id,id\n1,2\n", "column 'id' is in the header twice"),
        (b'id\n"open\n', "row 2: not valid CSV"),
        (b"id\n\xff\xfe\n", "not UTF-8 text"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        csvfile.read(path, ("id",))
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        csvfile.read(tmp_path / "t.csv")


def test_lookup_refuses_a_key_with_two_values(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,name\na,x\na, x\nb,y\n")
    assert csvfile.lookup(path, "id", "name") == {"a": "x", "b": "y"}
    path.write_text("id,name\na,x\na,z\n")
    with pytest.raises(InputError, match="row 3: 'a' is 'z' here but 'x' above"):
        csvfile.lookup(path, "id", "name")
