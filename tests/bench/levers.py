"""What else could make a training step on a CPU faster: a rank of LeukoTree with a lever, against the
same without it. EfficientNet-Lite0 at 224 px, batch 16, fp32, one thread; two where threads are placed.

`--preload NAME=FILE` also measures another allocator, such as tcmalloc=/usr/lib/libtcmalloc_minimal.so.4.
docs/speed.md says which levers are kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from apart import Worker, comparisons, in_turn, workers
from pairs import Comparison, parser, save
from step import LITE0, SIZE, TINY, Work

from hpc.bench.phantoms import phantoms

SYSTEMS_OWN = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc's first values. A variable of the user switches ours off."""


@dataclass(frozen=True)
class Lever:
    name: str
    without: Work
    work: Work
    variables: Mapping[str, str]


def levers(shards: str, preload: Mapping[str, str]) -> list[Lever]:
    """All levers; those with the same work without them follow one another."""
    work = Work(shards, LITE0, batch=16, threads=1, steps=1)
    pair, vit, bare = replace(work, threads=2), replace(work, model=TINY), replace(work, bare=True)
    variables = {
        "freed memory given back, as glibc does": SYSTEMS_OWN,
        **{name: {"LD_PRELOAD": file} for name, file in preload.items()},
        "huge pages of glibc": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
        "huge pages of torch": {"THP_MEM_ALLOC_ENABLE": "1"},
        "one arena": {"MALLOC_ARENA_MAX": "1"},
        "no cache of oneDNN's primitives": {
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
        },
    }
    return [
        *(Lever(name, work, work, given) for name, given in variables.items()),
        Lever("bf16", work, replace(work, precision="bf16"), {}),
        Lever("two threads bound to cores", pair, pair, {"OMP_PROC_BIND": "close"}),
        Lever("bf16, ViT-Tiny", vit, replace(vit, precision="bf16"), {}),
        Lever("channels last, bare loop", replace(bare, channels_last=False), bare, {}),
    ]


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--preload", metavar="NAME=FILE", action="append", default=[])
    arguments.add_argument("--only", metavar="NAME", action="append", help="this lever (default: all)")
    options = arguments.parse_args()
    preload = dict(text.split("=", 1) for text in options.preload)
    measured: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        shards = str(phantoms(Path(folder), SIZE, folds=2, patients=14, per_patient=4))
        wanted = [x for x in levers(shards, preload) if options.only is None or x.name in options.only]
        for work, group in groupby(wanted, lambda lever: lever.without):
            with workers((work.words, {})) as [without]:
                for lever in group:
                    measured += _compared(lever, without, options.pairs)
                    if not options.no_save:
                        save("levers", measured)


def _compared(lever: Lever, without: Worker, pairs: int) -> list[Comparison]:
    with workers((lever.work.words, lever.variables)) as [its]:
        segments = in_turn(its, without, pairs)
    return comparisons(f"Lever: {lever.name}", ("with", "without"), segments, lever.work.images, {})


if __name__ == "__main__":
    main()
