"""What users export for sbatch: part of the site where it says nothing, and named by the doctor where no job
gets it."""

from __future__ import annotations

import pytest

from hpc.doctor.slurm import _environment
from hpc.slurm import exported
from hpc.slurm.site_model import Site, Small
from leukotree.errors import InputError


def test_without_such_variables_the_site_is_as_it_was() -> None:
    site = Site(partition="gpu")
    assert (
        exported.fill(
            site,
            {
                "SLURM_CONF": "/etc/slurm.conf",
                "SBATCH_QOS": "",
                "SBATCH_CPU_BIND": "none",
                "SBATCH_JOB_NAME": "x",
            },
        )
        is site
    )


def test_they_fill_what_the_site_leaves_open_for_all_jobs() -> None:
    variables = {
        "SBATCH_PARTITION": "gpu",
        "SBATCH_ACCOUNT": "abc",
        "SBATCH_QOS": "high",
        "SBATCH_WCKEY": "key",
    }
    variables |= {"SBATCH_CONSTRAINT": "rocky9", "SBATCH_TIMELIMIT": "90", "SBATCH_RESERVATION": "course"}
    assert exported.fill(Site(cpus_per_task=2), variables) == Site(
        cpus_per_task=2,
        partition="gpu",
        account="abc",
        qos="high",
        wckey="key",
        constraint="rocky9",
        time=90,
        extra={"reservation": "course"},
        small=Small(constraint="rocky9", extra={"reservation": "course"}),
    )


def test_what_sizes_nodes_is_for_large_jobs() -> None:
    variables = {"SBATCH_EXCLUSIVE": "", "SBATCH_HINT": "nomultithread", "SBATCH_MEM_PER_CPU": "4G"}
    assert exported.fill(Site(), variables) == Site(
        extra={"exclusive": True, "hint": "nomultithread", "mem-per-cpu": "4G"}
    )
    assert exported.fill(Site(mem_gb=64), {"SBATCH_MEM_PER_CPU": "4G"}) == Site(mem_gb=64)


def test_the_site_wins_also_with_what_is_the_default() -> None:
    site = Site(
        partition="cpu", time=240, extra={"reservation": "mine"}, small=Small(extra={"export": "ALL"})
    )
    variables = {
        "SBATCH_PARTITION": "gpu",
        "SBATCH_TIMELIMIT": "9",
        "SBATCH_RESERVATION": "other",
        "SBATCH_EXPORT": "NONE",
    }
    found = exported.fill(site, variables)
    assert (found.partition, found.time, found.extra) == (
        "cpu",
        240,
        {"reservation": "mine", "export": "NONE"},
    )
    assert found.small.extra == {"export": "ALL", "reservation": "other"}


def test_a_job_that_queues_others_is_handed_them_under_names_that_sbatch_does_not_know() -> None:
    variables = {"SBATCH_ACCOUNT": "abc", "SBATCH_EXCLUSIVE": "", "SBATCH_JOB_NAME": "x", "HOME": "/root"}
    handed = exported.handed_on(variables)
    assert handed == {"LEUKOTREE_SBATCH_ACCOUNT": "abc", "LEUKOTREE_SBATCH_EXCLUSIVE": ""}
    assert (
        exported.fill(Site(), handed)
        == exported.fill(Site(), variables)
        == Site(account="abc", extra={"exclusive": True})
    )
    assert exported.handed_on(handed) == handed


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("1:30:00", 90),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-00:00:30", 2881),
        ("0:10", 1),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(text: str, minutes: int) -> None:
    assert exported.fill(Site(), {"SBATCH_TIMELIMIT": text}).time == minutes


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SBATCH_TIMELIMIT": "long"}, "SBATCH_TIMELIMIT=long: no time limit"),
        ({"SBATCH_PARTITION": "a b"}, "partition: "),
    ],
)
def test_a_value_that_no_site_may_have_is_one_line(variables: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        exported.fill(Site(), variables)
    assert "\n" not in str(refused.value)


def test_the_doctor_names_those_that_no_job_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(_environment())
    for name in ("SBATCH_GPUS", "SBATCH_ACCOUNT", "SBATCH_MEM_BIND_TYPE"):
        monkeypatch.setenv(name, "1")
    [found] = _environment()
    assert (found.state, found.measured) == ("warn", "no job gets SBATCH_GPUS")
