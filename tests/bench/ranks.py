"""Two ranks against one, one torch thread each: images/s of `leukotree train`, from the metrics of its
epochs.

The same spec both times, so the same global batch: ViT-Tiny at 224 px, the default 32 images, fp32; each of
two ranks takes 16 of them. The first epoch, in which processes warm up, is left out. The second row is the
limit: what the same cores do when two runs of one rank train side by side and exchange nothing, since cores
share memory, cache and clock.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pairs import Measure, arguments, compare, save

from hpc.bench.phantoms import phantoms
from leukotree.records.runfolder import read_metrics
from leukotree.spec import RunSpec

SIZE, EPOCHS = 224, 5


def images_per_s(place: Path, ranks: int, runs: int = 1) -> Measure:
    """Images per second in the median epoch of a run of `place`/spec.yaml, summed over `runs` at once."""
    command = [str(Path(sys.executable).with_name("leukotree")), "train", str(place / "spec.yaml")]
    command += ["--ranks", str(ranks), "--threads", "1", "--device", "cpu"]

    def rate(folder: Path) -> float:
        folder.mkdir()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        [metrics] = folder.rglob("metrics.jsonl")
        rows = read_metrics(metrics.parent)
        return statistics.median(
            row["images_per_s"] for row in rows if row["kind"] == "epoch" and row["epoch"]
        )

    def measure() -> float:
        with tempfile.TemporaryDirectory(dir=place) as here:
            folders = [Path(here, str(number)) for number in range(runs)]
            with ThreadPoolExecutor(runs) as pool:
                return sum(pool.map(rate, folders))

    return measure


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shards = phantoms(place, SIZE, patients=28, per_patient=4)
        spec = {
            "data.shards": str(shards),
            "backbone.name": "vit_tiny_patch16_224",
            "optim": {"batch_size": 32, "epochs": EPOCHS},
            "engine.precision": "fp32",
        }
        (place / "spec.yaml").write_text(RunSpec().override(spec).dump())
        two = ("2 ranks", images_per_s(place, 2))
        one = ("1 rank", images_per_s(place, 1))
        apart = ("two runs of 1 rank side by side", images_per_s(place, 1, runs=2))
        comparisons = [
            compare(
                "Two ranks and one, one thread each",
                two,
                one,
                goals={"ratio": ">= 1.8"},
                unit="images/s",
                pairs=options.pairs,
            ),
            compare(
                "Two ranks and two runs side by side",
                two,
                apart,
                goals={},
                unit="images/s",
                pairs=options.pairs,
            ),
        ]
    if not options.no_save:
        save("ranks", comparisons)


if __name__ == "__main__":
    main()
