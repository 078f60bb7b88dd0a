"""Ranks decide together, at the step after one of them asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.launching.ranks import in_ranks
from leukotree.distributed import peers
from leukotree.distributed.agreement import Agreement, Request
from leukotree.distributed.engine import Engine, start
from leukotree.errors import RunFailed
from leukotree.runtime import Runtime


def test_one_process_does_at_the_next_step_what_it_asked_for() -> None:
    agreement = Agreement(1)
    assert agreement.decided() == Request()
    agreement.propose(Request(save=True))
    assert agreement.decided() == Request(save=True)
    assert agreement.decided() == Request()


def steps(runtime: Runtime) -> list[list[Request]]:
    """The requests that each rank sees at six steps.

    Rank 1 asks to save at step 1, rank 0 to stop at step 3, and both ask at step 4.
    """
    asked = {
        1: {1: Request(save=True), 4: Request(save=True)},
        0: {3: Request(stop=True), 4: Request(broken=True)},
    }
    with start(runtime) as engine:
        seen = []
        for step in range(6):
            seen.append(engine.agreement.decided())
            engine.agreement.propose(asked[engine.rank].get(step, Request()))
        return engine.gather(seen)


@pytest.mark.slow("starts ranks")
def test_every_rank_sees_at_the_same_step_what_any_of_them_asked_for() -> None:
    first, second = in_ranks(steps, runtime=Runtime(threads=1), ranks=2)
    assert first == second
    assert first == [
        Request(),
        Request(),
        Request(save=True),
        Request(),
        Request(stop=True),
        Request(save=True, broken=True),
    ]


def hang(folder: Path, runtime: Runtime) -> None:
    """Rank 1 stops without closing a connection, like a machine that loses power; rank 0 waits for it."""
    import os

    peers.BEAT, peers.SILENCE = 0.2, 2.0
    with start(runtime) as engine:
        engine.barrier()
        (folder / f"{engine.rank}").write_text(str(os.getpid()))
        if engine.rank:
            os.kill(os.getpid(), signal.SIGSTOP)
        wait(engine)


def wait(engine: Engine) -> None:
    engine.barrier()


SERVE = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))
print(store.port, flush=True)
time.sleep(600)
"""
LOOK = """
import time
from leukotree.distributed import peers
peers.BEAT, peers.SILENCE = 0.2, 2.0
with peers.watched(1, 2):
    print("watched", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow("waits for a host that does not answer")
def test_a_store_whose_host_falls_silent_ends_the_ranks() -> None:
    """It closes no connection: calls to it do not return, not even after their time limit."""
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            environment = os.environ | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": server.stdout.readline().strip(),
            }
            command = [sys.executable, "-c", LOOK]
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as rank:
                assert rank.stdout
                assert rank.stdout.readline().strip() == "watched"
                time.sleep(1)
                server.send_signal(signal.SIGSTOP)
                _, stderr = rank.communicate(timeout=60)
            assert rank.returncode == peers.EXIT
            assert "the store of the ranks has not answered for 2 s; run it again to continue" in stderr
        finally:
            server.kill()


@pytest.mark.slow("waits for a rank that does not answer")
def test_a_rank_that_falls_silent_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpc.launching import ranks

    monkeypatch.setattr(ranks, "SAVING", 3)  # the stopped rank does not react to SIGTERM
    with pytest.raises(RunFailed) as ended:
        in_ranks(hang, tmp_path, runtime=Runtime(threads=1), ranks=2)
    assert ended.value.kind == "node"
    for rank in "01":
        assert not Path("/proc", (tmp_path / rank).read_text()).exists()
