"""Where ranks meet: at an address that every node can use, or not at all, and then soon and in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.launching import meeting
from leukotree.distributed import engine
from leukotree.errors import RunFailed
from leukotree.runtime import Runtime


def test_the_first_rank_says_its_address_on_the_interface_and_the_others_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEUKOTREE_INTERFACE", "lo")
    place = tmp_path / "7_0_address"
    assert meeting._agreed(place, "n1.nowhere", first=True) == "127.0.0.1"
    assert meeting._agreed(place, "n1.nowhere", first=False) == "127.0.0.1"


def test_an_interface_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOTREE_INTERFACE", "ib7")
    with pytest.raises(
        RunFailed, match="interface 'ib7' has no IPv4 address; see `interface` in the site file"
    ) as failed:
        meeting._agreed(tmp_path / "address", "n1", first=True)
    assert failed.value.kind == "node"


@pytest.mark.parametrize(
    ("interface", "said"),
    [
        ("lo", "the first rank, on n1.invalid, has not written its address"),
        ("", "n1.invalid, does not resolve; set `interface`"),
    ],
)
@pytest.mark.slow("waits for a rank that does not come")
def test_a_first_rank_that_cannot_be_found_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interface: str, said: str
) -> None:
    monkeypatch.setenv("LEUKOTREE_INTERFACE", interface)
    monkeypatch.setattr(meeting, "PATIENCE", 1.0)
    with pytest.raises(RunFailed, match=said) as failed:
        meeting._agreed(tmp_path / "address", "n1.invalid", first=False)
    assert failed.value.kind == "node"


@pytest.mark.parametrize(("rank", "host"), [(0, "127.0.0.1"), (1, "127.0.0.1"), (1, "n1.invalid")])
@pytest.mark.slow("waits for a rank that does not come")
def test_ranks_that_do_not_meet_in_time_say_so(monkeypatch: pytest.MonkeyPatch, rank: int, host: str) -> None:
    monkeypatch.setattr(engine, "MEET", engine.timedelta(seconds=2))
    for name, value in {
        "RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": host,
        "MASTER_PORT": 29387 + rank,
    }.items():
        monkeypatch.setenv(name, str(value))
    with (
        pytest.raises(RunFailed, match=f"the ranks did not meet at {host}:{29387 + rank}: ") as failed,
        engine.start(Runtime(device="cpu")),
    ):
        pass
    assert failed.value.kind == "node"
