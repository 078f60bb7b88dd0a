"""A Ray of our own, and how many trials a Ray cluster carries at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.launching import snapshot
from hpc.search import cluster
from hpc.search.cluster import connect, nodes
from hpc.search.slot_plan import SlotPlan, plan_slots
from leukotree.errors import InputError, Preempted
from tests.helpers.checkouts import make_checkout

LAPTOP = {"CPU": 2.0}
NODE = {"CPU": 64.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "concurrency", "expected"),
    [
        ([LAPTOP], None, None, None, SlotPlan(1, 0.0, 2)),
        ([LAPTOP], 2, None, None, SlotPlan(2, 0.0, 1)),
        ([LAPTOP], None, None, 1, SlotPlan(1, 0.0, 1)),
        ([NODE], None, None, None, SlotPlan(8, 1.0, 8)),  # a GPU and its share of the cores
        ([NODE], None, 0.25, None, SlotPlan(2, 0.25, 32)),
        (
            [NODE],
            None,
            0.3,
            None,
            SlotPlan(2, 0.3, 24),
        ),  # three fit on one GPU; a fourth would have parts of two
        ([NODE], 16, 0.25, None, SlotPlan(16, 0.25, 4)),
        ([NODE, NODE, LAPTOP], None, 0.5, None, SlotPlan(4, 0.5, 32)),
        ([NODE], None, 0.0, None, SlotPlan(1, 0.0, 64)),
        ([{"CPU": 4.0, "GPU": 8.0}], None, 1.0, None, SlotPlan(1, 1.0, 4)),
    ],
)
def test_slots(
    nodes: list[dict[str, float]],
    cpus: int | None,
    gpus: float | None,
    concurrency: int | None,
    expected: SlotPlan,
) -> None:
    assert plan_slots(nodes, cpus, gpus, concurrency) == expected


@pytest.mark.parametrize(
    ("nodes", "gpus", "ranks", "expected"),
    [
        ([NODE], None, 4, SlotPlan(8, 1.0, 2, 4)),
        ([NODE, NODE], None, 3, SlotPlan(8, 1.0, 4, 3)),  # the ranks of a trial share a node
        ([NODE], 2.0, 2, SlotPlan(16, 2.0, 2, 2)),
        ([LAPTOP, LAPTOP], None, 2, SlotPlan(1, 0.0, 2, 2)),
    ],
)
def test_slots_of_several_ranks(
    nodes: list[dict[str, float]], gpus: float | None, ranks: int, expected: SlotPlan
) -> None:
    assert plan_slots(nodes, None, gpus, ranks=ranks) == expected


def test_ranks_do_not_share_a_gpu_and_a_trial_does_not_span_nodes() -> None:
    with pytest.raises(
        InputError, match=r"--gpus-per-trial 0\.5: each of the 2 ranks of a trial takes whole GPUs"
    ):
        plan_slots([NODE], None, 0.5, ranks=2)
    with pytest.raises(InputError, match="no node of Ray has the 4 cores and 0 GPUs of a trial"):
        plan_slots([LAPTOP, LAPTOP], None, None, ranks=4)


def test_a_cluster_whose_nodes_do_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "nodes", lambda: [LAPTOP])
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    with pytest.raises(Preempted, match="only 1 of 2 nodes of Ray have joined within 0 s") as early:
        cluster._wait_for_nodes(2)
    assert early.value.kind == "node"  # the job that searches is queued again


@given(
    cores=st.lists(st.integers(1, 128), min_size=1, max_size=4),
    cards=st.integers(0, 8),
    gpus=st.sampled_from([None, 0.1, 0.2, 0.25, 1 / 3, 0.5, 1.0]),
)
def test_what_the_machine_is_divided_into_never_exceeds_it(
    cores: list[int], cards: int, gpus: float | None
) -> None:
    nodes = [{"CPU": float(count), "GPU": float(cards)} for count in cores]
    if gpus and not cards:
        with pytest.raises(InputError):
            plan_slots(nodes, None, gpus)
        return
    found = plan_slots(nodes, None, gpus)
    assert 1 <= found.count * found.cpus <= sum(cores)
    assert found.count * found.gpus <= cards * len(cores) + 1e-9


@pytest.mark.parametrize(
    ("cpus", "gpus", "says"), [(3, None, "3 cores and 0 GPUs"), (1, 0.25, "1 cores and 0.25 GPUs")]
)
def test_trials_that_fit_nowhere_are_refused(cpus: int, gpus: float | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_slots([LAPTOP, LAPTOP], cpus, gpus)


JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(ray.cluster_resources()['CPU'])"


@pytest.mark.slow("starts Ray")
def test_only_who_has_the_token_reaches_a_ray_of_our_own() -> None:
    import ray  # before it is told to ask for a token: that must not matter

    with connect(None) as private:
        assert [node["CPU"] for node in nodes()] == [len(os.sched_getaffinity(0))]
        command = [sys.executable, "-c", JOIN, ray.get_runtime_context().gcs_address]
        friend = subprocess.run(command, capture_output=True, text=True, check=False)
        assert friend.stdout.strip() == str(nodes()[0]["CPU"])
        without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        stranger = subprocess.run(
            command,
            env={**without, "HOME": str(private), "RAY_NUM_REDIS_GET_RETRIES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert stranger.returncode != 0
        assert "Failed to connect" in stranger.stderr
    assert not private.exists()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert "RAY_AUTH_MODE" not in os.environ


WHERE = """
import hpc, leukotree, subprocess, sys
of_a_rank = subprocess.run([sys.executable, "-c", "import hpc; print(hpc.__file__)"], capture_output=True, text=True).stdout
found = hpc.__file__, leukotree.__file__, of_a_rank.strip()
"""


def test_its_processes_take_the_code_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts the current folder of the search first in their path, where the checkout is, and others may
    edit that."""
    import ray

    copy = snapshot.take(tmp_path / "runs")
    monkeypatch.chdir(make_checkout(tmp_path / "checkout"))

    def where() -> tuple[str, ...]:
        known: dict[str, Any] = {}
        exec(WHERE, known)  # by its value: Ray would take the function itself from this file
        return known["found"]

    with connect(None, code=copy):
        found = ray.get(ray.remote(where).remote())
    assert found == (f"{copy}/hpc/__init__.py", f"{copy}/leukotree/__init__.py", f"{copy}/hpc/__init__.py")
    assert Path.cwd() == tmp_path / "checkout"
    assert str(copy) not in os.environ.get("PYTHONPATH", "")
