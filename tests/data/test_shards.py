"""Shards: written samples are read back, and the writer returns the position of each image."""

import hashlib
import io
import json

import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from leukotree.data import shards

samples = st.builds(
    shards.Sample,
    key=st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True),
    jpeg=st.binary(min_size=1, max_size=3000),
    fields=st.dictionaries(st.sampled_from(["leaf", "patient", "image"]), st.text(max_size=20)),
)
contents = st.lists(samples, max_size=12, unique_by=lambda sample: sample.key)


@settings(deadline=None, max_examples=30)
@given(contents)
def test_samples_are_read_back_as_they_were_written(tmp_path_factory, written):
    shard = tmp_path_factory.mktemp("shards") / "shard.tar"
    shards.write(shard, written)
    read = list(shards.samples(shard))
    assert [(sample.key, sample.jpeg, sample.fields) for sample in read] == [
        (s.key, s.jpeg, s.fields) for s in written
    ]


@settings(deadline=None, max_examples=30)
@given(contents)
def test_write_says_where_each_image_lies(tmp_path_factory, written):
    shard = tmp_path_factory.mktemp("shards") / "shard.tar"
    places = shards.write(shard, written)
    data = shard.read_bytes()
    held = [data[place.offset : place.offset + place.length] for place in places]
    assert held == [sample.jpeg for sample in written]
    assert [place.sha256 for place in places] == [hashlib.sha256(jpeg).hexdigest() for jpeg in held]
    assert shards.places(shard) == places, "read back as they were written"


@settings(deadline=None, max_examples=30)
@given(contents)
def test_the_bytes_are_those_of_webdatasets_writer(tmp_path_factory, written):
    shard = tmp_path_factory.mktemp("shards") / "shard.tar"
    shards.write(shard, written)
    expected = io.BytesIO()
    with wds.TarWriter(expected, user="", group="", mtime=0, encoder=False) as tar:
        for sample in written:
            fields = json.dumps(sample.fields, ensure_ascii=False, sort_keys=True).encode()
            tar.write({"__key__": sample.key, "jpg": sample.jpeg, "json": fields})
    assert shard.read_bytes() == expected.getvalue()
