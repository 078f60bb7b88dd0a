"""What an address of shards is, and which are refused in one line."""

from __future__ import annotations

import pytest

from leukotree.data.dataset import Dataset
from leukotree.data.remote import address
from leukotree.errors import InputError


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("https://a.org/sets/my set/".replace(" ", "%20"), "https://a.org/sets/my%20set/dataset.json"),
        ("HTTP://a.org/x", "http://a.org/x/dataset.json"),
        ("s3://bucket/x/", "s3://bucket/x/dataset.json"),
        ("gs://bucket/x", "gs://bucket/x/dataset.json"),
        ("hf://datasets/me/set@main/x", "hf://datasets/me/set@main/x/dataset.json"),
        ("pipe:ssh host cat set/{}", "pipe:ssh host cat set/dataset.json"),
    ],
)
def test_a_file_of_an_address(text: str, file: str) -> None:
    assert address.is_remote(text)
    assert address.parse(text).file("dataset.json") == file


@pytest.mark.parametrize("text", ["data/phantom", "/data/x", "C:/data", "~/data", "data:set", "pipes/x"])
def test_a_folder_is_no_address(text: str) -> None:
    assert not address.is_remote(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://a.org/x", "cannot be read from ftp://; use a folder, http://, https://, s3://, gs://, hf://"),
        ("https://me:secret@a.org/x", "^https://a.org/x: an address of shards has no password"),
        ("https://a.org/x?sig=secret", "^https://a.org/x: an address of shards has no password"),
        ("ftp://me:secret@a.org/x", "^ftp://a.org/x: an address of shards has no password"),
        ("https://a.org/x#part", "no password, no [?] and no #"),
        ("https:///x", "is no whole address"),
        ("https://a.org/a b", "is no whole address"),
        ("pipe:cat set/dataset.json", "put {} where the file's name stands"),
    ],
)
def test_a_bad_address_is_refused_without_its_secret(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        Dataset.open(text)
    assert "secret" not in str(refused.value)


def test_what_may_be_secret_is_not_shown() -> None:
    signed = "https://me:secret@a.org:8/set/x.jpg?X-Amz-Signature=secret#secret"
    assert address.hidden(signed) == "https://a.org:8/set/x.jpg"
    for text in ("data/a?b#c", "/data/me@home/x", "pipe:cat {}?", "s3://bucket/x"):
        assert address.hidden(text) == text
    message = f"404 for url: {signed} (Pool(host='a.org'): with url: /set/x.jpg?sig=secret) is it there?"
    assert address.hidden_in(message) == (
        "404 for url: https://a.org:8/set/x.jpg (Pool(host='a.org'): with url: /set/x.jpg) is it there"
    )


def test_a_name_of_a_file_is_no_path_and_no_command() -> None:
    for name in ("..", ".a", "../x.tar", "a;rm -rf x", "a b", ""):
        with pytest.raises(InputError, match="is no name of a file"):
            address.parse("pipe:cat set/{}").file(name)


def test_a_command_is_run_only_if_it_was_named(many_shards, place, monkeypatch) -> None:
    monkeypatch.setattr(address, "_trusted", set())
    command = f"pipe:cat {many_shards}/{{}}"
    with pytest.raises(InputError, match="only run where a study or the command line names it"):
        Dataset.open(command)
    address.trust(command)
    far, near = Dataset.open(command), Dataset.open(many_shards)
    assert [far.read(row) for row in (0, 50, 167)] == [near.read(row) for row in (0, 50, 167)]
