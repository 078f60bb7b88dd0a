"""A loaded run takes files, PIL images and arrays of any size, and answers with leaves and paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leukotree.data.dataset import Dataset
from leukotree.errors import InputError
from leukotree.inference.loaded import load
from leukotree.inference.predictor import Predictions, Predictor
from leukotree.taxonomy import Taxonomy
from leukotree.training.run import run
from tests.helpers.specs import tiny_spec


@pytest.fixture(scope="module")
def predictor(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(load(run(tiny_spec(shards), tmp_path_factory.mktemp("runs")).folder))


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """A PNG of another size and shape than the training images."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    path = tmp_path / "ein Bild ä.png"
    small.resize((120, 90), Image.Resampling.BICUBIC).save(path)
    return path


def test_a_source_file_has_the_answer_of_its_packed_image(
    predictor: Predictor, phantom_manifest: Path, shards: Path
) -> None:
    import pandas as pd

    dataset, manifest = Dataset.open(shards), pd.read_csv(phantom_manifest, dtype=str)
    files = [phantom_manifest.parent / name for name in manifest["image"][:14]]
    from_files = predictor.predict(files)
    packed = {dataset.read(row): dataset.image(row) for row in range(len(dataset))}
    from leukotree.data.images import codec

    images = [packed[codec.square(file, 48, 95)] for file in files]
    assert np.array_equal(from_files.logp, predictor.predict(images).logp)


def test_a_file_an_image_and_an_array_of_the_same_pixels_are_the_same(
    predictor: Predictor, cell: Path
) -> None:
    image = Image.open(cell)
    sources = [cell, str(cell), image, np.asarray(image)]
    first, *others = (predictor.predict(source).logp for source in sources)
    assert all(np.array_equal(first, other) for other in others)
    assert predictor.predict(sources).images == (str(cell), str(cell), "image 2", "image 3")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_each_mode_of_pil_is_taken(predictor: Predictor, cell: Path, mode: str) -> None:
    image = Image.open(cell)
    image = image.convert("P") if mode == "P" else image
    assert len(predictor.predict(image.convert(mode))) == 1


def test_an_image_is_turned_upright(predictor: Predictor, cell: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = tmp_path / "turned.png"
    Image.open(cell).save(turned, exif=exif)
    upright = np.rot90(np.asarray(Image.open(cell)), -1)
    sources = [turned, Image.open(turned), np.ascontiguousarray(upright)]
    first, *others = (predictor.predict(source).logp for source in sources)
    assert all(np.array_equal(first, other) for other in others)


def test_an_answer_has_a_path_of_conditionals_and_leaves_that_sum_to_1(
    predictor: Predictor, cell: Path
) -> None:
    [one] = predictor.predict(cell)
    assert tuple(one.path) == predictor.run.taxonomy.path(one.leaf)
    assert np.isclose(np.prod(list(one.path.values())), one.probabilities[one.leaf])
    assert np.isclose(sum(one.probabilities.values()), 1)
    assert list(one.probabilities) == list(predictor.run.taxonomy.leaves)


def test_another_rule_decides_otherwise() -> None:
    tree = Taxonomy.from_nested({"root": {"a": None, "b": ["c", "d"]}})
    logp = np.log(np.float32([[0.45, 0.55, 0.6, 0.4]]))
    found = {rule: Predictions(("x",), logp, tree, rule)[0].leaf for rule in ("greedy", "joint")}
    assert found == {"greedy": "c", "joint": "a"}


def test_texts_fit_a_screen(predictor: Predictor, cell: Path) -> None:
    answers = predictor.predict([cell] * 40)
    lines = repr(answers).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("40 predictions", "and 30 more", 12)
    assert repr(answers[3]).startswith(f"{cell}: {answers.leaves[3]} (p = 0.")
    assert len(repr(predictor).splitlines()) == 2
    assert "48 x 48 pixels, seed 0, trained without fold 0" in repr(predictor)
    assert len(answers[5:8]) == 3
    frame = answers.frame()
    assert list(frame.columns) == ["image", "leaf", *(f"p:{leaf}" for leaf in predictor.run.taxonomy.leaves)]
    assert len(frame) == 40


def test_no_images_have_no_answers(predictor: Predictor) -> None:
    answers = predictor.predict([])
    assert (len(answers), repr(answers), len(answers.frame())) == (0, "0 predictions", 0)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("none.png", "none.png: cannot be read as an image: No such file"),
        (np.zeros((5, 5, 3), np.float32), "image 0: expected .* array of uint8, got .* of float32"),
        (np.zeros((5, 5, 2), np.uint8), "image 0: expected"),
        (np.zeros((0, 5, 3), np.uint8), "image 0: cannot be read"),
        (None, "images: expected images or paths of files, got NoneType"),
        ([3], "image 0: expected a path, a PIL image or an array, got int"),
        ("a\0b.png", "cannot be read as an image"),
    ],
)
def test_what_is_no_image_is_named_in_one_line(predictor: Predictor, image: object, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        predictor.predict(image)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_folder_a_text_and_a_broken_image_are_named(
    predictor: Predictor, tmp_path: Path, cell: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "torn.png").write_bytes(cell.read_bytes()[:200])
    for name in ("", "text.jpg", "torn.png"):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            predictor.predict([cell, tmp_path / name])


def test_an_unknown_rule_is_refused_before_an_image_is_read(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="decision rule 'best'"):
        predictor.predict("none.png", rule="best")
