"""The doctor on a real SLURM: a site that asks for what the cluster has not is told so before anything is
queued."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc.cli import main
from hpc.doctor import doctor
from hpc.doctor import slurm as slurm_checks
from hpc.finding import Finding
from hpc.slurm import scheduler
from hpc.slurm.site_model import Site
from leukotree.errors import InputError
from leukotree.spec import RunSpec
from tests.helpers.cluster.slurm import Slurm


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.state for finding in findings}


@pytest.fixture
def on_slurm(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.chdir(tmp_path)
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    return slurm


@pytest.mark.parametrize(
    ("changes", "what", "state", "says"),
    [
        ({}, "partition", "ok", "main is up"),
        ({"partition": "main"}, "nodes", "ok", "2 of 2"),
        ({"partition": "gpu"}, "partition", "warn", "one of main"),
        ({"partition": "gpu"}, "jobs of runs", "FAIL", "invalid partition specified: gpu"),
        ({"small": {"partition": "gpu"}}, "jobs of runs", "ok", "takes them"),
        ({"small": {"partition": "gpu"}}, "small jobs", "FAIL", "invalid partition specified: gpu"),
        ({"gpus_per_node": 4, "cpus_per_task": 1}, "nodes", "warn", "4 GPUs"),
        ({"gpus_per_node": 4, "cpus_per_task": 1}, "jobs of runs", "FAIL", "4 GPUs"),
        ({"cpus_per_task": 64}, "nodes", "warn", "64 cores"),
        ({"cpus_per_task": 64}, "jobs of runs", "FAIL", "64 cores"),
        ({"mem_gb": 4000}, "nodes", "warn", "4000 GB"),
        ({"mem_gb": 4000}, "jobs of sweeps", "FAIL", "4000 GB"),
        ({"nodes": 3}, "nodes", "warn", "asks for 3"),
        ({"nodes": 3}, "jobs of runs", "ok", "takes them"),
        ({"nodes": 3}, "jobs of sweeps", "FAIL", "asks for 3"),
        ({"constraint": "a100"}, "nodes", "warn", "a100"),
        ({"constraint": "a100"}, "jobs of runs", "FAIL", "Invalid feature"),
        ({"extra": {"bogus": True}}, "jobs of runs", "FAIL", "--bogus"),
        ({"max_array_size": 102}, "array size", "FAIL", "takes 101 jobs"),
        ({"max_array_size": 101}, "array size", "ok", "up to 101 jobs"),
        ({"account": "PROJECT"}, "account", "warn", "PROJECT"),
        ({"qos": "urgent"}, "qos", "warn", "urgent"),
    ],
)
def test_a_site_is_compared_with_its_slurm(
    on_slurm: Slurm, changes: dict[str, object], what: str, state: str, says: str
) -> None:
    site = Site.model_validate({"cpus_per_task": 2, **changes})
    found = [finding for finding in slurm_checks.check(site, needed=True, sweep=True) if finding.what == what]
    assert [finding.state for finding in found] == [state]
    assert says in found[0].line()


def test_a_partition_that_is_down_and_a_time_limit_that_is_too_long_make_jobs_wait(on_slurm: Slurm) -> None:
    on_slurm.run("scontrol", "create", "PartitionName=short", "Nodes=n1", "MaxTime=10", "State=DOWN")
    try:
        site = Site(partition="short", cpus_per_task=2, time=30)
        [down] = [finding for finding in slurm_checks.check(site, needed=True) if finding.what == "partition"]
        assert (down.state, down.measured) == ("warn", "short is DOWN")
        on_slurm.run("scontrol", "update", "PartitionName=short", "State=UP")
        [limit] = [
            finding for finding in slurm_checks.check(site, needed=True) if finding.what == "time limit"
        ]
        assert limit.state == "warn"
        assert "to 10 or less" in limit.fix
    finally:
        on_slurm.run("scontrol", "delete", "PartitionName=short")


def test_what_is_sure_to_fail_is_refused_before_it_is_queued(
    on_slurm: Slurm, shards: Path, tmp_path: Path
) -> None:
    spec = RunSpec().override({"backbone.name": "test_vit", "data.shards": str(shards)})
    doctor.require([spec] * 500, Site(cpus_per_task=2), tmp_path / "runs")
    with pytest.raises(InputError, match=r"invalid partition specified: gpu.*set `partition`") as refused:
        doctor.require(spec, Site(partition="gpu"), tmp_path / "runs")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_without_its_controller_slurm_does_not_answer(
    on_slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (
        re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=17999", on_slurm.conf.read_text())
        + "SlurmctldTimeout=2\nMessageTimeout=2\n"
    )
    (tmp_path / "slurm.conf").write_text(config)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setattr(scheduler, "QUICK", 3.0)
    [found] = slurm_checks.check(Site(), needed=True)
    assert (found.what, found.state, found.certain) == ("slurm", "FAIL", False)
    assert "\n" not in found.line()


def test_the_command_is_ready_where_the_site_is_right(
    on_slurm: Slurm, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(f"data: {{shards: {shards}}}\nbackbone: {{name: test_vit}}\n")
    assert main(["doctor", "run.yaml", "--site", "test"]) == 0
    out = capsys.readouterr().out
    assert "ok    nodes: 2 of 2" in out
    assert "ok    clock: within 2 s of SLURM's controller" in out
    (tmp_path / "site.yaml").write_text("partition: gpu\n")
    assert main(["doctor", "--site", str(tmp_path / "site.yaml")]) == 1
    assert "FAIL  jobs of runs: sbatch refuses: invalid partition specified: gpu" in capsys.readouterr().out


def test_folds_and_train_are_refused_before_anything_is_queued(
    on_slurm: Slurm, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one line of the doctor, exit code 2, no job."""
    base = (
        f"{{data: {{shards: {shards}}}, backbone: {{name: test_vit}}, optim: {{batch_size: 8, epochs: 1}}}}"
    )
    (tmp_path / "study.yaml").write_text(f"study: demo\nbase: {base}\nfolds: {{outer: 4}}\n")
    (tmp_path / "site.yaml").write_text("cpus_per_task: 64\n")
    before = on_slurm.run("squeue", "-h")
    assert main(["folds", "study.yaml", "--on", "slurm", "--site", str(tmp_path / "site.yaml")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "64 cores" in err
    assert on_slurm.run("squeue", "-h") == before
    assert not (tmp_path / "results").exists()
