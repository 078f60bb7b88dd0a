"""The loader against timm's, WebDataset's README pipeline, and decoding alone; 384x384 JPEGs, two workers.

The images are phantoms saved as Pillow saves a JPEG by default (quality 75, 4:2:0), packed byte for byte.
Everybody draws a random resized crop of area 0.8 to 1, horizontal flips and vertical flips. Ours ends with
the uint8 batch that a device takes and normalises; timm's (without its prefetcher, which is for a GPU) and
WebDataset's end with float tensors that their workers normalised. The last rows have ours normalise too, on
the cores that decode, and turn by right angles, as it does by default. The clock starts at the first batch,
so that starting workers costs nobody anything.

What is asked against timm and WebDataset is asked of a training, where an image is decoded when it first
comes and is in the decoded cache from then on. Epochs that decode every image have rows of their own.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import timm.data
import torch
import webdataset as wds
from pairs import Comparison, Measure, arguments, compare, save
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from leukotree.data import augment, phantom
from leukotree.data.cache import Cache, open_cache
from leukotree.data.dataset import Dataset
from leukotree.data.manifest import read as read_manifest
from leukotree.data.order import TrainOrder
from leukotree.data.pack import pack
from leukotree.data.stream import Loader
from leukotree.spec import AugmentSpec
from leukotree.taxonomy import Taxonomy

SIZE, WORKERS, BATCH, COPIES = 384, 2, 32, 20
"""Pixels, threads or processes, images, and how often a measurement goes through all images: long enough for
a steady rate."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = AugmentSpec(crop_scale=(0.8, 1.0), flips=True, turns=False, jitter=0)
TURNED = SPEC.model_copy(update={"turns": True})


def images_per_s(batches: Iterable[int]) -> float:
    """The rate of an iterable of batch sizes, measured from the first batch on."""
    iterator = iter(batches)
    next(iterator)
    began = time.perf_counter()
    return sum(iterator) / (time.perf_counter() - began)


def ours(dataset: Dataset, cache: Cache | None, normalised: bool = False, spec: AugmentSpec = SPEC) -> float:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
    order = TrainOrder(np.tile(np.arange(len(dataset)), COPIES), BATCH, 0, spec, SIZE)

    def sizes() -> Iterator[int]:
        for _, [batch] in loader.train(order, range(order.steps_before(1))):
            if normalised:
                augment.to_input(batch.images, batch.numbers, spec, mean, std)
            yield len(batch.rows)

    with Loader(dataset, workers=WORKERS, cache=cache) as loader:
        return images_per_s(sizes())


def training(dataset: Dataset, folder: Path) -> float:
    """As `ours`, with a cache that is empty at first: an image is decoded once in COPIES times."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return ours(dataset, open_cache(place, dataset, 4.0))


def timm_loader(folder: Path) -> float:
    images = ImageFolder(folder)
    images.samples = images.samples * COPIES
    loader = timm.data.create_loader(
        images,
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        scale=(0.8, 1.0),
        hflip=0.5,
        vflip=0.5,
        color_jitter=0,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=WORKERS,
        use_prefetcher=False,
        persistent_workers=False,
    )
    return images_per_s(len(pixels) for pixels, _ in loader)


def webdataset_readme(dataset: Dataset) -> float:
    shards = sorted(str(dataset.folder / name) for name in set(dataset.index["shard"]))
    steps = [
        transforms.RandomResizedCrop(SIZE, scale=(0.8, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    pipeline = (
        wds.WebDataset(shards * COPIES, shardshuffle=len(shards))
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "json")
        .map_tuple(transforms.Compose(steps), lambda fields: fields["leaf"])
        .batched(BATCH)
    )
    return images_per_s(
        len(pixels) for pixels, _ in wds.WebLoader(pipeline, num_workers=WORKERS, batch_size=None)
    )


def decode_only(jpegs: list[bytes]) -> float:
    """libjpeg-turbo from memory into one buffer per thread."""
    share = len(jpegs) * COPIES // WORKERS

    def decode(start: int) -> None:
        buffer = np.empty(SIZE * SIZE * 3, np.uint8)
        for jpeg in itertools.islice(itertools.cycle(jpegs), start, start + share):
            simplejpeg.decode_jpeg(jpeg, "RGB", buffer=buffer)

    threads = [threading.Thread(target=decode, args=(worker * share,)) for worker in range(WORKERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return share * WORKERS / (time.perf_counter() - began)


def draw(folder: Path) -> Dataset:
    """Phantoms as plain JPEGs, in a folder per leaf and in shards."""
    manifest = phantom.write(folder / "phantom", patients=14, per_patient=16, size=SIZE, seed=0)
    table = read_manifest(manifest, Taxonomy.paper())
    for path, leaf in zip(table["image"], table["leaf"], strict=True):
        target = folder / "leaves" / leaf / Path(path).with_suffix(".jpg").name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("RGB").save(path, "JPEG")
        target.write_bytes(Path(path).read_bytes())
    return pack(manifest, folder / "shards", folds=2, size=SIZE).dataset


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = draw(folder)
        jpegs = [dataset.read(row) for row in range(len(dataset))]
        cache = open_cache(folder / "cache", dataset, 4.0)
        ours(dataset, cache)  # fills it

        def rate(
            question: str, one: tuple[str, Measure], other: tuple[str, Measure], goal: str | None = None
        ) -> Comparison:
            goals = {"ratio": goal} if goal else {}
            return compare(question, one, other, unit="images/s", goals=goals, pairs=options.pairs)

        first: tuple[str, Measure] = ("uint8 batches", lambda: ours(dataset, None))
        cached: tuple[str, Measure] = ("uint8 batches", lambda: ours(dataset, cache))
        whole: tuple[str, Measure] = ("uint8 batches", lambda: training(dataset, folder))
        turned: tuple[str, Measure] = ("with right-angle turns", lambda: ours(dataset, None, spec=TURNED))
        limit: tuple[str, Measure] = ("decoding alone", lambda: decode_only(jpegs))
        timm_plain: tuple[str, Measure] = ("timm create_loader", lambda: timm_loader(folder / "leaves"))
        readme: tuple[str, Measure] = ("WebDataset README", lambda: webdataset_readme(dataset))
        as_floats: tuple[str, Measure] = ("float batches", lambda: ours(dataset, cache, normalised=True))
        comparisons = [
            rate("loader, first epoch", first, limit, ">= 0.45"),
            rate("loader, decoded cache", cached, limit, ">= 0.8"),
            rate(f"loader, {COPIES} epochs, the first without a decoded image", whole, timm_plain, ">= 8"),
            rate(f"loader, {COPIES} epochs, the first without a decoded image", whole, readme, ">= 8"),
            rate("loader, first epoch", first, timm_plain),
            rate("loader, first epoch", first, readme),
            rate("loader, decoded cache, normalised by the same cores", as_floats, timm_plain),
            rate("loader, first epoch, turned by right angles as well", turned, first),
        ]
    if not options.no_save:
        save("loader", comparisons)


if __name__ == "__main__":
    main()
