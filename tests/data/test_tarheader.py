"""Tar headers are compared with Python's tarfile."""

import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leukotree.data import tarheader

names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40).filter(
    lambda name: len(name.encode()) <= tarheader.MAX_NAME
)


@given(st.lists(st.tuples(names, st.binary(max_size=2000)), max_size=30))
@example([("a" * tarheader.MAX_NAME, bytes(512))])
def test_tarfile_reads_what_is_written(files):
    members = b"".join(tarheader.member(name, content) for name, content in files)
    data = members + tarheader.ending(len(members))
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        assert [(info.name, tar.extractfile(info).read(), info.mode) for info in tar] == [
            (*file, 0o444) for file in files
        ]


@given(names, st.binary(max_size=2000))
def test_a_header_names_its_file_and_no_other(name, content):
    header = tarheader.member(name, content)[: tarfile.BLOCKSIZE]
    assert tarheader.names(header, name)
    assert not tarheader.names(header, name + "x")
    assert not tarheader.names(header, name[:-1])
    assert tarheader.fault(header, name, len(content)) == ""
    assert (
        tarheader.fault(header, name, len(content) + 1) == f"{name!r} of {len(content)} bytes is in its place"
    )


def test_each_fault_is_described():
    header = tarheader.member("a.jpg", b"123")[: tarfile.BLOCKSIZE]
    assert tarheader.fault(header, "b.jpg", 3) == "'a.jpg' of 3 bytes is in its place"
    assert tarheader.fault(bytes(tarfile.BLOCKSIZE), "a.jpg", 3) == "there is no tar header before it"
    link = tarfile.TarInfo("a.jpg")
    link.type = tarfile.SYMTYPE
    assert tarheader.fault(link.tobuf(), "a.jpg", 0) == "it is not a plain file"
    assert not tarheader.names(link.tobuf(), "a.jpg")


def test_a_long_name_is_refused():
    with pytest.raises(ValueError, match="a name in a tar may have 99 bytes"):
        tarheader.member("a" * 100, b"")
