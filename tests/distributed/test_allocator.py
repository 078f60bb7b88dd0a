"""A process that trains on a CPU keeps the memory that its steps free."""

import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from leukotree.distributed import allocator, engine
from leukotree.runtime import Runtime

torch.set_num_threads(1)
kept = allocator.keep_freed_memory() if sys.argv[1] == "asked" else None
with engine.start(Runtime(device="cpu")) if sys.argv[1] == "rank" else open("/dev/null"):
    torch.ones(10**7).sum()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    total = sum(torch.ones(10**7).sum().item() for _ in range(20))
    print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, total)
"""
"""Twenty times 40 MB that are freed at once: about 200,000 pages if each of them is new."""


def steps(how: str, **environment: str) -> tuple[str, int, float]:
    given = {name: text for name, text in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how],
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
    assert total == 2e8


def test_what_the_user_has_chosen_stays(plain: int) -> None:
    kept, faults, _ = steps("asked", MALLOC_MMAP_THRESHOLD_="131072")
    assert kept == "False"
    assert faults > plain / 2
