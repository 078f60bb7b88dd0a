"""Every process that trains on a CPU has told the C library to keep freed memory, whatever command started
it, and has computed the same bits as one that has not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [
    pytest.mark.slow("starts commands that train"),
    pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler"),
]

NOTES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int mallopt(int name, int value) {
    int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "mallopt");
    FILE *notes = fopen(getenv("NOTES_OF_MALLOPT"), "a");
    if (notes) {
        fprintf(notes, "%d %d %d\n", getpid(), name, value);
        fclose(notes);
    }
    return real(name, value);
}
"""
"""A library that stands before the C library and notes who calls mallopt."""
TRIM_THRESHOLD = -1
STUDY = {
    "study": "kept",
    "base": {
        "backbone": {"name": "test_vit"},
        "optim": {"epochs": 1, "batch_size": 14},
        "engine": {"precision": "fp32"},
    },
    "variants": ["flat"],
    "folds": {"outer": 4, "inner": 2},
    "search": {
        "nested": False,
        "trials": 1,
        "algorithm": "random",
        "scheduler": "none",
        "space": {"optim.lr": {"loguniform": [1e-4, 1e-2]}},
    },
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    (folder / "notes.c").write_text(NOTES)
    out = folder / "notes.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", out, folder / "notes.c", "-ldl"], check=True)
    return out


@pytest.fixture
def work(tmp_path: Path, shards: Path) -> Path:
    base = {**STUDY["base"], "data": {"shards": str(shards)}}  # type: ignore[dict-item]
    study = {**STUDY, "base": base}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**base, "variant": "flat"}))
    return tmp_path


def command(work: Path, *words: str, **variables: str) -> None:
    given = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-m", "hpc.cli", *words, "--device", "cpu"],
        cwd=work,
        env=given | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        (["train", "run.yaml"], 1),
        (["train", "run.yaml", "--ranks", "2"], 2),
        (["sweep", "study.yaml"], 1),
        pytest.param(
            ["sweep", "study.yaml", "--ranks-per-trial", "2", "--cpus-per-trial", "1"],
            2,
            marks=pytest.mark.long("a trial, and ranks, are tried above"),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_process_that_trains_keeps_freed_memory(
    words: list[str], ranks: int, work: Path, library: Path
) -> None:
    notes = work / "notes.txt"
    command(work, *words, LD_PRELOAD=str(library), NOTES_OF_MALLOPT=str(notes))
    calls = [[int(word) for word in line.split()] for line in notes.read_text().splitlines()]
    kept = {pid for pid, name, value in calls if (name, value) == (TRIM_THRESHOLD, -1)}
    attempts = [
        json.loads(line)
        for file in work.rglob("attempts.jsonl")
        if file.parent.name.startswith("flat-")
        for line in file.read_text().splitlines()
    ]
    assert {attempt["pid"] for attempt in attempts} <= kept
    assert attempts
    assert len(kept) >= ranks


def test_the_bits_are_those_of_a_process_that_gives_memory_back(work: Path) -> None:
    """A user's variable leaves the C library as it is."""
    runs = []
    for name, variables in (("kept", {}), ("given back", {"MALLOC_MMAP_THRESHOLD_": "131072"})):
        place = work / name
        place.mkdir()
        words = ("train", str(work / "run.yaml"), "backbone.name=test_convnext", "--threads", "1")
        command(place, *words, **variables)
        [predictions] = place.rglob("predictions.parquet")
        runs.append(predictions.read_bytes())
    assert runs[0] == runs[1]
