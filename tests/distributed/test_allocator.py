"""A process that trains on a CPU keeps the memory that its steps free."""

import ctypes
import os
import subprocess
import sys

import pytest

from leukotree.distributed import allocator

STEPS = """
import resource, sys
import torch
from leukotree.distributed import allocator, engine
from leukotree.runtime import Runtime

torch.set_num_threads(1)
def step():
    blocks = [torch.ones(10**7) for _ in range(int(sys.argv[2]))]
    total = sum(block.sum().item() for block in blocks)
    del blocks[:]
    return total

kept = allocator.keep_freed_memory() if sys.argv[1] == "asked" else None
with engine.start(Runtime(device="cpu")) if sys.argv[1] == "rank" else open("/dev/null"):
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    total = sum(step() for _ in range(3))
    print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, total)
"""
"""Three steps of blocks of 40 MB: about 10,000 pages for each block if they are new."""
BLOCKS = 7


def steps(how: str, blocks: int = BLOCKS, **environment: str) -> tuple[str, int, float]:
    given = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how, str(blocks)],
        env=given | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults, total = done.stdout.split()
    return kept, int(faults), float(total)


@pytest.fixture(scope="module")
def plain() -> int:
    """Page faults of the system's own way; another C library or huge pages have few anyway."""
    faults = steps("plain")[1]
    if faults < 20_000:
        pytest.skip(f"this system has {faults} page faults without any change")
    return faults


@pytest.mark.parametrize("how", ["asked", "rank"])
def test_a_step_pays_for_no_new_pages(how: str, plain: int) -> None:
    kept, faults, total = steps(how)
    assert kept == {"asked": "True", "rank": "None"}[how]
    assert faults < plain / 3
    assert total == 3 * BLOCKS * 1e7


@pytest.mark.long("a step of two gigabytes; smaller steps are tried below and above")
def test_a_step_of_more_than_two_gigabytes_pays_for_no_new_pages(plain: int) -> None:
    """2^31 bytes is the largest positive number that mallopt takes for what it may keep."""
    faults = steps("asked", blocks=60)[1]
    assert faults < plain / BLOCKS * 60 / 3


@pytest.mark.parametrize(
    "chosen",
    [
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.pthread.rseq=0:glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_what_the_user_has_chosen_stays(chosen: dict[str, str], plain: int) -> None:
    kept, faults, _ = steps("asked", **chosen)
    assert kept == "False"
    assert faults > plain / 2


def test_other_choices_of_the_user_are_no_reason_to_give_memory_back(plain: int) -> None:
    kept, faults, _ = steps("asked", GLIBC_TUNABLES="glibc.pthread.rseq=0", MALLOC_ARENA_MAX="2")
    assert kept == "True"
    assert faults < plain / 3


class Library:
    """A C library: its mallopt takes thresholds up to a limit, as glibc does before version 2.35."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: dict[int, int] = {}

    def mallopt(self, name: int, value: int) -> int:
        if name == allocator._MMAP_THRESHOLD and value > self.limit:
            return 0
        self.taken[name] = value
        return 1


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*allocator._OF_THE_USER, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_choice")
def test_an_older_glibc_that_refuses_the_threshold_gives_no_block_its_own_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = Library(limit=2**25)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: old)
    assert allocator.keep_freed_memory()
    assert old.taken == {allocator._MMAP_MAX: 0, allocator._TRIM_THRESHOLD: -1}


@pytest.mark.usefixtures("no_choice")
def test_without_mallopt_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, and with musl on Linux."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()


@pytest.mark.usefixtures("no_choice")
def test_a_program_without_shared_libraries_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> None:
        raise OSError("Dynamic loading not supported")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not allocator.keep_freed_memory()
