"""Pack: equal manifests give equal bytes, broken input is named, and nothing incomplete is left."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leukotree import signals
from leukotree.data import shards
from leukotree.data.dataset import Dataset
from leukotree.data.images import codec, digests, encoding
from leukotree.data.pack import pack
from leukotree.errors import InputError, Preempted
from leukotree.taxonomy import Taxonomy
from tests.helpers.small_data import LEAVES, change_manifest, files, write_manifest

SMALL = {"folds": 3, "size": 32, "samples_per_shard": 5, "workers": 1}


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "raw")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "shards"


def hidden(out):
    return out.with_name(f".{out.name}.partial")


# --- written files


def test_folder_says_what_it_holds(manifest, out):
    summary = pack(manifest, out, **SMALL, seed=4)
    data = Dataset.open(out)
    described = json.loads((out / "dataset.json").read_text())
    assert described["format"] == 1
    assert {name: described[name] for name in ("size", "folds", "seed", "group", "patients", "dropped")} == {
        "size": 32,
        "folds": 3,
        "seed": 4,
        "group": "patient",
        "patients": 18,
        "dropped": [],
    }
    assert described["counts"] == dict.fromkeys(LEAVES, 12)
    assert Taxonomy.from_nested(described["taxonomy"]) == Taxonomy.paper().prune(LEAVES)
    assert len(data) == 36
    assert (data.index.groupby("group")["fold"].nunique() == 1).all()
    assert sorted(path.name for path in out.iterdir()) == sorted(
        {"dataset.json", "index.parquet", *data.index["shard"]}
    )
    assert list(data.index["shard"]) == sorted(data.index["shard"]), "in order of fold and shard"
    assert data.index.groupby("shard").size().max() <= 5
    assert summary.written
    assert "36 images of 32 x 32, 18 patients: normal 12, AML 12, APML 12" in summary.lines()[1]


def described(table):
    """The manifest with a site, and two readers of which one knows better."""
    return table.assign(**{"site": "Ulm", "reader:A": "AML", "reader:B": ["AML", ""] * (len(table) // 2)})


def test_columns_that_describe_an_image_are_in_the_index_and_change_nothing_else(manifest, out, tmp_path):
    before = pack(manifest, tmp_path / "before", **SMALL).dataset
    change_manifest(manifest, described)
    data = pack(manifest, out, **SMALL).dataset
    assert list(data.index)[-3:] == ["site", "reader:A", "reader:B"]
    pd.testing.assert_frame_equal(data.index.iloc[:, :-3], before.index)
    assert set(data.index["reader:B"]) == {"AML", ""}
    change_manifest(manifest, lambda table: table.rename(columns={"site": "scanner"}))
    with pytest.raises(InputError, match="another manifest"):
        pack(manifest, out, **SMALL)


def test_labels_may_be_the_consensus_of_readers(manifest, out):
    """It is recorded, and it is part of what the folder is packed from."""
    change_manifest(manifest, lambda table: described(table).assign(**{"reader:B": table["leaf"]}))
    with pytest.raises(InputError, match=r"dawid-skene: needs 3 readers"):
        pack(manifest, out, **SMALL, label_from="dawid-skene")
    summary = pack(manifest, out, **SMALL, label_from="majority")
    said = json.loads((out / "dataset.json").read_text())
    assert said["options"]["label_from"] == "majority"
    assert said["labels"] == {
        "from": "majority",
        "readers": ["A", "B"],
        "by_consensus": 12,
        "unread": 0,
        "undecided": 24,
        "changed": 0,
    }
    assert "labels by majority of 2 readers: 12 images" in "\n".join(summary.lines())
    with pytest.raises(InputError, match="label_from majority there, None now"):
        pack(manifest, out, **SMALL)


def test_index_points_at_the_bytes_in_the_shards(manifest, out):
    pack(manifest, out, **SMALL)
    data = Dataset.open(out)
    row = 0
    for shard in data.index["shard"].unique():
        for sample in shards.samples(out / shard):
            known = data.index.iloc[row]
            assert (sample.key, shard) == (known["key"], known["shard"]), "one row per sample, in order"
            assert sample.jpeg == data.read(row)
            assert set(sample.fields) == {"leaf", "patient", "source", "group", "image"}
            assert all(sample.fields[name] == known[name] for name in ("leaf", "patient", "source", "group"))
            assert codec.decode(sample.jpeg).shape == (32, 32, 3)
            row += 1
    assert row == len(data)


def test_plain_webdataset_reads_the_shards(manifest, out):
    import hashlib

    import webdataset as wds

    pack(manifest, out, **SMALL)
    index = Dataset.open(out).index.set_index("key")
    urls = [str(path) for path in sorted(out.glob("*.tar"))]
    raw = {sample["__key__"]: sample["jpg"] for sample in wds.WebDataset(urls, shardshuffle=False)}
    assert {key: hashlib.sha256(jpeg).hexdigest() for key, jpeg in raw.items()} == index["sha256"].to_dict()
    for sample in wds.WebDataset(urls, shardshuffle=False).decode("rgb8"):
        assert sample["jpg"].shape == (32, 32, 3)
        assert sample["json"]["leaf"] == index.loc[sample["__key__"], "leaf"]


def test_a_shard_mixes_the_leaves(tmp_path, out):
    pack(
        write_manifest(tmp_path / "many", patients=10, images=4),
        out,
        folds=2,
        size=16,
        samples_per_shard=20,
        workers=1,
    )
    assert (Dataset.open(out).index.groupby("shard")["leaf"].nunique() == len(LEAVES)).all()


def test_bytes_do_not_depend_on_workers_or_place(manifest, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = manifest.parent.rename(tmp_path / "elsewhere" / "data") / manifest.name
    for name, workers in (("one", 1), ("two", 2)):
        pack(moved, tmp_path / name, **{**SMALL, "workers": workers})
    moved = moved.parent.rename(tmp_path / "raw") / manifest.name
    pack(moved, tmp_path / "three", **SMALL)
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")
    pack(moved, tmp_path / "seeded", **SMALL, seed=1)
    assert files(tmp_path / "one") != files(tmp_path / "seeded")


def test_group_is_the_weakest_kind(manifest, out):
    def unnamed(table):
        table.loc[0, "patient"] = ""
        return table

    pack(change_manifest(manifest, unnamed), out, **SMALL)
    data = Dataset.open(out)
    assert data.group == "image"
    assert data.index["patient"].eq("").sum() == 1
    assert data.index["group"].ne("").all()
    assert data.description.patients == 18


# --- broken images among good ones


@pytest.fixture
def damaged(manifest):
    for name in ("AML/0_0.png", "normal/2_1.png"):
        path = manifest.parent / name
        path.write_bytes(path.read_bytes()[:200])
    return manifest


def test_all_broken_images_are_named_and_nothing_is_left(damaged, tmp_path):
    out = tmp_path / "new" / "shards"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=r"2 broken.*(AML/0_0|normal/2_1).*(AML/0_0|normal/2_1).*--drop-broken"
    ):
        pack(damaged, out, **SMALL)
    assert sorted(tmp_path.iterdir()) == before


def test_many_broken_images_are_counted(manifest, out):
    for path in sorted(manifest.parent.rglob("*.png"))[:9]:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"9 broken image\(s\): .*; and 4 more; repair") as refusal:
        pack(manifest, out, **SMALL)
    assert "\n" not in str(refusal.value)


def test_dropped_images_are_recorded_and_folds_are_those_without_them(damaged, tmp_path):
    dropped, clean = tmp_path / "dropped", tmp_path / "clean"
    summary = pack(damaged, dropped, **SMALL, drop_broken=True)
    recorded = json.loads((dropped / "dataset.json").read_text())["dropped"]
    assert [item["image"] for item in recorded] == ["normal/2_1.png", "AML/0_0.png"]
    assert all(item["reason"] for item in recorded)
    assert "left out, broken: normal/2_1.png" in summary.lines()[-1]
    names = {"normal/2_1.png", "AML/0_0.png"}
    pack(change_manifest(damaged, lambda table: table[~table["image"].isin(names)]), clean, **SMALL)
    fold_of = [
        Dataset.open(folder).index.set_index("sha256")["fold"].to_dict() for folder in (dropped, clean)
    ]
    assert fold_of[0] == fold_of[1]
    assert len(fold_of[0]) == 34


def test_dropping_too_much_is_refused(manifest, out):
    for path in (manifest.parent / "AML").glob("[0-3]_*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"leaf 'AML' has 2 group"):
        pack(manifest, out, **SMALL, drop_broken=True)
    assert not out.exists()
    assert not hidden(out).exists()


@pytest.mark.slow("reads and packs many images")
def test_the_two_truncated_deepapl_files_are_named(real_data, tmp_path, out):
    from leukotree.data.sources.importer import import_source

    import_source("deepapl", real_data / "deepapl", tmp_path / "m.csv", cell_types=True)
    with pytest.raises(InputError, match=r"2 broken image\(s\)") as refusal:
        pack(tmp_path / "m.csv", out, size=16)
    assert "BL_7821735.jpg" in str(refusal.value)
    assert "BL_7744281.jpg" in str(refusal.value)


# --- interrupted and repeated packs


def test_packing_again_does_nothing(manifest, out):
    pack(manifest, out, **SMALL)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    summary = pack(manifest, out, **{**SMALL, "workers": 2})
    assert not summary.written
    assert "already packed" in summary.lines()[0]
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps


def test_other_options_or_another_manifest_are_refused(manifest, out):
    pack(manifest, out, **SMALL)
    with pytest.raises(InputError, match=r"size 32 there, 48 now.*remove it or choose another folder"):
        pack(manifest, out, **{**SMALL, "size": 48})
    with pytest.raises(InputError, match="another tree"):
        pack(manifest, out, **SMALL, taxonomy=Taxonomy.paper().prune(LEAVES))
    change_manifest(manifest, lambda table: table.iloc[1:])
    with pytest.raises(InputError, match="another manifest"):
        pack(manifest, out, **SMALL)


def invert(manifest, name):
    """Replace a picture by another one with the same number of bytes and the same time."""
    path = manifest.parent / name
    stamp, size = path.stat(), path.stat().st_size
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == size


@pytest.fixture
def bitmaps(manifest):
    """The manifest with BMP files, whose size does not depend on the picture."""
    for path in sorted(manifest.parent.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    return change_manifest(
        manifest, lambda table: table.assign(image=table["image"].str.replace("png", "bmp"))
    )


def test_changed_bytes_of_the_same_size_are_refused(bitmaps, out):
    pack(bitmaps, out, **SMALL)
    assert not pack(bitmaps, out, **SMALL).written
    before = files(out)
    invert(bitmaps, "AML/3_1.bmp")
    with pytest.raises(
        InputError,
        match=r"packed from other input \(other bytes in the images\); remove it or choose another",
    ):
        pack(bitmaps, out, **SMALL)
    assert files(out) == before


def test_a_killed_pack_notices_changed_bytes(bitmaps, out, monkeypatch):
    with monkeypatch.context() as patch:
        die_at_image(patch, 20)
        with pytest.raises(Killed):
            pack(bitmaps, out, **SMALL)
    invert(bitmaps, "AML/3_1.bmp")
    with pytest.raises(
        InputError, match=r"\.shards\.partial: packed from other input \(other bytes in the images\)"
    ):
        pack(bitmaps, out, **SMALL)


def test_bytes_that_change_while_they_are_packed_are_refused(bitmaps, out, monkeypatch):
    whole, seen = codec.square, []

    def changing(*arguments):
        seen.append(None)
        if len(seen) == 3:
            for path in bitmaps.parent.rglob("*.bmp"):
                invert(bitmaps, path.relative_to(bitmaps.parent))
        return whole(*arguments)

    monkeypatch.setattr(codec, "square", changing)
    with pytest.raises(
        InputError, match=r"\.bmp: was changed while it was packed; run the same command again"
    ):
        pack(bitmaps, out, **SMALL)
    assert not out.exists()
    assert not hidden(out).exists()


def age(folder, manifest):
    """Turn a packed folder into one of an older version: sizes instead of digests, no names in the index."""
    table = pd.read_csv(manifest)
    digest = hashlib.sha256()
    for row in table.to_dict("records"):
        size = (manifest.parent / row["image"]).stat().st_size
        group = f"{row['source']}/{row['patient']}"
        digest.update(
            json.dumps(
                [row["image"], row["leaf"], row["patient"], row["source"], "patient", group, size]
            ).encode()
        )
    description = json.loads((folder / "dataset.json").read_text())
    del description["bytes"]
    description["manifest"] = digest.hexdigest()
    (folder / "dataset.json").write_text(json.dumps(description, indent=2, ensure_ascii=False))
    pd.read_parquet(folder / "index.parquet").drop(columns="image").to_parquet(
        folder / "index.parquet", index=False
    )


def test_a_folder_of_an_older_version_is_compared_image_by_image(bitmaps, out):
    pack(bitmaps, out, **SMALL)
    age(out, bitmaps)
    before = files(out)
    assert not pack(bitmaps, out, **SMALL).written
    assert files(out) == before, "its fingerprint stays"
    invert(bitmaps, "AML/3_1.bmp")
    with pytest.raises(
        InputError, match=r"older version, which kept no digest.*'AML/3_1.bmp' gives other bytes now"
    ):
        pack(bitmaps, out, **SMALL)
    with pytest.raises(InputError, match="size 32 there, 48 now"):
        pack(bitmaps, out, **{**SMALL, "size": 48})
    change_manifest(bitmaps, lambda table: table.iloc[1:])
    with pytest.raises(InputError, match="another manifest"):
        pack(bitmaps, out, **SMALL)
    assert files(out) == before


def test_dropped_images_of_an_older_version_are_compared_too(bitmaps, out):
    whole = (bitmaps.parent / "AML/0_0.bmp").read_bytes()
    (bitmaps.parent / "AML/0_0.bmp").write_bytes(bytes(len(whole)))
    pack(bitmaps, out, **SMALL, drop_broken=True)
    age(out, bitmaps)
    assert not pack(bitmaps, out, **SMALL, drop_broken=True).written
    (bitmaps.parent / "AML/0_0.bmp").write_bytes(whole)
    with pytest.raises(InputError, match=r"'AML/0_0.bmp' gives other bytes now"):
        pack(bitmaps, out, **SMALL, drop_broken=True)


def test_a_file_that_cannot_be_read_is_broken(manifest, out, monkeypatch):
    target, original = str(manifest.parent / "AML/0_0.png"), open

    def denied(path, *arguments, **options):
        if str(path) == target:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError, match=r"1 broken image\(s\): AML/0_0.png \(Permission denied\)"):
        pack(manifest, out, **SMALL)


def test_a_stop_while_images_are_read_leaves_nothing(manifest, out, monkeypatch):
    monkeypatch.setattr(signals, "requested", lambda: True)
    with pytest.raises(Preempted, match="0 of 36 images are read"):
        pack(manifest, out, **SMALL)
    assert not hidden(out).exists()


class Killed(BaseException):
    """Ends a pack like a signal: no handler of ordinary errors runs."""


def die_at_image(monkeypatch, number):
    """Let the pack die at the image of this number; return the growing list of encoded images."""
    encoded, whole = [], codec.square

    def mortal(*arguments):
        if len(encoded) == number:
            raise Killed
        encoded.append(arguments[0])
        return whole(*arguments)

    monkeypatch.setattr(codec, "square", mortal)
    return encoded


@pytest.mark.parametrize("number", [0, 1, 11, 30, 35])
@pytest.mark.parametrize("drop_broken", [False, True])
def test_a_killed_pack_goes_on_to_the_same_bytes(manifest, tmp_path, monkeypatch, number, drop_broken):
    if drop_broken:
        (manifest.parent / "AML/0_0.png").write_bytes(b"")
    options = {**SMALL, "drop_broken": drop_broken}
    out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    pack(manifest, undisturbed, **options)
    with monkeypatch.context() as patch:
        die_at_image(patch, number)
        with pytest.raises(Killed):
            pack(manifest, out, **options)
    assert not out.exists()
    finished = {path.name: path.stat().st_ino for path in hidden(out).glob("*.tar")}
    with monkeypatch.context() as patch:
        encoded = die_at_image(patch, -1)
        pack(manifest, out, **options)
    assert not hidden(out).exists()
    assert files(out) == files(undisturbed)
    if not drop_broken:
        kept = sum(finished.get(path.name) == path.stat().st_ino for path in out.glob("*.tar"))
        assert kept == len(finished)
        assert len(encoded) == 36 - Dataset.open(out).index["shard"].isin(finished).sum()


def test_a_damaged_shard_of_a_killed_pack_is_written_again(manifest, tmp_path, monkeypatch):
    out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    pack(manifest, undisturbed, **SMALL)
    with monkeypatch.context() as patch:
        die_at_image(patch, 20)
        with pytest.raises(Killed):
            pack(manifest, out, **SMALL)
    shard = sorted(hidden(out).glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-600] + b"x" * 600)
    pack(manifest, out, **SMALL)
    assert files(out) == files(undisturbed)


def test_what_a_killed_pack_left_is_not_mixed_with_other_options(manifest, out, monkeypatch):
    with monkeypatch.context() as patch:
        die_at_image(patch, 20)
        with pytest.raises(Killed):
            pack(manifest, out, **SMALL)
    (hidden(out) / ".lock").unlink()  # it says who tried last, and when
    left = files(hidden(out))
    with pytest.raises(
        InputError, match=r"\.shards\.partial: packed from other input \(seed 0 there, 1 now\)"
    ):
        pack(manifest, out, **SMALL, seed=1)
    (hidden(out) / ".lock").unlink()
    assert files(hidden(out)) == left


@pytest.mark.slow("reads and packs many images")
def test_kill_signal_leaves_no_process_and_a_folder_to_go_on_with(tmp_path, out):
    manifest = write_manifest(tmp_path / "raw", patients=20, images=5)
    options = {**SMALL, "workers": 2}
    process = multiprocessing.get_context("fork").Process(target=pack, args=(manifest, out), kwargs=options)
    process.start()
    while process.is_alive() and len(list(hidden(out).glob("*.tar"))) < 2:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    pack(manifest, out, **options)
    pack(manifest, tmp_path / "undisturbed", **options)
    assert files(out) == files(tmp_path / "undisturbed")


def test_only_few_images_are_in_memory_at_once(tmp_path, monkeypatch):
    begun, whole = [], codec.square
    monkeypatch.setattr(
        codec, "square", lambda *arguments: (begun.append(arguments[0]), whole(*arguments))[1]
    )
    manifest = write_manifest(tmp_path / "raw", patients=1, images=100)
    paths = [str(path) for path in manifest.parent.rglob("*.png")]
    results = encoding.encode_files(paths, digests.of_files(paths, 2), size=8, quality=95, workers=2)
    for number in range(1, len(paths) + 1):
        assert isinstance(next(results), bytes)
        assert len(begun) - number < 2 * (encoding._AHEAD + 1) * encoding._CHUNK
    assert len(begun) == len(paths)


def test_two_at_once_are_refused(manifest, out, monkeypatch):
    whole, refusals = codec.square, []

    def second(*arguments):
        if not refusals:
            refusals.append(None)
            with pytest.raises(InputError, match="another `leukotree pack` is writing there"):
                pack(manifest, out, **SMALL)
        return whole(*arguments)

    monkeypatch.setattr(codec, "square", second)
    pack(manifest, out, **SMALL)
    assert refusals
    assert len(Dataset.open(out)) == 36


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shards": {'])
def test_a_damaged_state_is_refused(manifest, out, text):
    hidden(out).mkdir()
    (hidden(out) / "pack.json").write_text(text)
    with pytest.raises(InputError, match=r"pack.json: damaged; remove .*\.shards\.partial"):
        pack(manifest, out, **SMALL)


# --- refusals before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 7}, r"leaf '\w+' has 6 group.*fewer than 7 folds"),
        ({"folds": 1}, "at least 2"),
        ({"size": 0}, "size 0: must be from 8"),
        ({"quality": 101}, "quality 101"),
        ({"samples_per_shard": 0}, "samples_per_shard 0"),
        ({"workers": 0}, "workers 0"),
    ],
)
def test_bad_options(manifest, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(codec, "square", lambda *_: pytest.fail("decoded before the options were checked"))
    with pytest.raises(InputError, match=message) as refusal:
        pack(manifest, tmp_path / "shards", **{**SMALL, **change})
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_one_leaf_is_no_study(tmp_path, out):
    manifest = write_manifest(tmp_path / "raw", leaves=["normal"])
    with pytest.raises(InputError, match="only the leaf normal has images"):
        pack(manifest, out, **SMALL)
    assert not hidden(out).exists()


def test_a_folder_with_other_things_is_left_alone(manifest, out):
    out.mkdir()
    (out / "thesis.txt").write_text("three years")
    with pytest.raises(InputError, match="is not empty and no packed data set"):
        pack(manifest, out, **SMALL)
    assert files(out) == {"thesis.txt": b"three years"}
    (out / "thesis.txt").unlink()
    assert pack(manifest, out, **SMALL).written, "an empty folder is taken"


def test_a_full_disk_gives_one_line_and_finished_shards_are_kept(manifest, out, monkeypatch):
    whole, written = shards.write, []

    def full(shard, contents):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(shard)
        whole(shard, contents)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write", full)
        with pytest.raises(
            InputError, match=r"shards: cannot be written: No space left on device.*run again to continue"
        ):
            pack(manifest, out, **SMALL)
    assert len(list(hidden(out).glob("*.tar"))) == 2
    pack(manifest, out, **SMALL)
    assert len(Dataset.open(out)) == 36


def test_an_image_with_a_very_long_name_gets_a_legal_key(manifest, out):
    strange = "normal/ü b" + "x" * 150 + ".jpeg.png"
    (manifest.parent / "normal/0_0.png").rename(manifest.parent / strange)
    change_manifest(manifest, lambda table: table.replace("normal/0_0.png", strange))
    pack(manifest, out, **SMALL)
    index = Dataset.open(out).index
    assert index["key"].str.fullmatch(r"[A-Za-z0-9_-]{1,60}").all()
    fields = {
        sample.key: sample.fields for shard in sorted(out.glob("*.tar")) for sample in shards.samples(shard)
    }
    assert pd.Series([item["image"] for item in fields.values()]).eq(strange).sum() == 1


def test_a_stop_signal_ends_a_pack_between_two_images_and_the_next_call_continues(tmp_path, monkeypatch):
    """A real signal after the second shard. The final folder is that of an undisturbed pack."""
    manifest = write_manifest(tmp_path / "raw")
    options = {"folds": 3, "size": 16, "samples_per_shard": 5, "workers": 1}
    pack(manifest, tmp_path / "undisturbed", **options)
    written, original = [], shards.write

    def write(shard, contents):
        places = original(shard, contents)
        written.append(shard.name)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return places

    monkeypatch.setattr(shards, "write", write)
    with signals.watched(), pytest.raises(Preempted, match="2 of 9 shards are written"):
        pack(manifest, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert len(written) == 2
    with signals.watched():  # another process, with its flag down
        pack(manifest, tmp_path / "out", **options)
    assert len(written) == 9
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")
