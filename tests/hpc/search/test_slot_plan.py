"""How many trials fit on the nodes of a Ray cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.search.slot_plan import SlotPlan, plan_slots
from leukotree.errors import InputError

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


@given(
    cores=st.lists(st.integers(1, 128), min_size=1, max_size=4),
    cards=st.integers(0, 8),
    gpus=st.sampled_from([None, 0.1, 0.2, 0.25, 1 / 3, 0.5, 1.0]),
)
def test_slots_never_exceed_the_nodes(cores: list[int], cards: int, gpus: float | None) -> None:
    nodes = [{"CPU": float(count), "GPU": float(cards)} for count in cores]
    if gpus and not cards:
        with pytest.raises(InputError):
            plan_slots(nodes, None, gpus)
        return
    plan = plan_slots(nodes, None, gpus)
    assert 1 <= plan.count * plan.cpus <= sum(cores)
    assert plan.count * plan.gpus <= cards * len(cores) + 1e-9


@pytest.mark.parametrize(
    ("cpus", "gpus", "says"), [(3, None, "3 cores and 0 GPUs"), (1, 0.25, "1 cores and 0.25 GPUs")]
)
def test_trials_that_fit_nowhere_are_refused(cpus: int, gpus: float | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_slots([LAPTOP, LAPTOP], cpus, gpus)
