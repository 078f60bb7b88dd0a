"""Sites that differ from the usual one, each for real: what they take is queued, what they refuse is refused
before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.cli import main
from hpc.doctor import doctor, upfront
from hpc.doctor import slurm as slurm_checks
from hpc.finding import Finding
from hpc.launching import runs
from hpc.launching.place import Place
from hpc.launching.runs import Outcome
from hpc.slurm import scheduler
from hpc.slurm import site as sites
from hpc.slurm.site_model import Site
from leukotree.errors import InputError
from leukotree.runtime import Runtime
from leukotree.spec import RunSpec
from tests.helpers.cluster.jobs import wait_for_jobs
from tests.helpers.cluster.slurm import ClusterError, Settings, Slurm, usual_folder
from tests.helpers.specs import tiny_spec

CODE = Path(__file__).parents[2]
LUA = """
function slurm_job_submit(job, partitions, user)
    if job.partition == nil then job.partition = "main" end
    if job.account == "closed" then
        slurm.log_user("the project is closed")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end
function slurm_job_modify(job, old, partitions, user) return slurm.SUCCESS end
"""
NOBODY = ("setpriv", "--reuid=65534", "--clear-groups", "--")


@contextlib.contextmanager
def booted(number: int, settings: Settings, plugin: str | None = None) -> Iterator[Slurm]:
    """A cluster with settings of its own, and with the text of a job_submit.lua."""
    cluster = Slurm(usual_folder(number), number, settings)
    if plugin:
        cluster.folder.mkdir(exist_ok=True)
        (cluster.folder / "job_submit.lua").write_text(plugin)
    try:
        cluster.up()
    except (ClusterError, OSError) as error:
        pytest.skip(f"no test SLURM here: {error}")
    try:
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def strict() -> Iterator[Slurm]:
    """Accounts and wckeys are enforced. Its user has the account `physics` with the QOS `fast`, and the wckey
    `mine`."""
    settings = Settings(more="AccountingStorageEnforce=associations,wckeys,qos\nTrackWCKey=YES")
    with booted(10, settings) as cluster:
        for words in (
            "add account physics",
            "add user root account=physics",
            "add qos fast",
            "modify user root where account=physics set qos+=fast",
            "add user root wckey=mine",
        ):
            cluster.run("sacctmgr", "-i", *words.split())
        yield cluster


@pytest.fixture(scope="module")
def bare() -> Iterator[Slurm]:
    """No accounting, no default partition but a plugin that chooses one, and a hidden partition."""
    partitions = "\n".join(
        [
            "PartitionName=main Nodes=ALL MaxTime=INFINITE State=UP",
            "PartitionName=secret Nodes=ALL Hidden=YES State=UP",
        ]
    )
    settings = Settings(accounting=False, partitions=partitions, more="JobSubmitPlugins=lua")
    with booted(11, settings, LUA) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def with_gpus() -> Iterator[Slurm]:
    """Two GPUs of type a100 on each node, as far as SLURM knows."""
    settings = Settings(
        accounting=False,
        node="Gres=gpu:a100:2,disk:1",
        more="GresTypes=gpu,disk",
        gres="Name=gpu Type=a100 Count=2 File=/dev/null,/dev/zero\nName=disk Count=1\n",
    )
    with booted(12, settings) as cluster:
        yield cluster


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a cluster the one that commands speak to."""

    def choose(cluster: Slurm) -> Slurm:
        monkeypatch.chdir(tmp_path)
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH", "SRUN"))]:
            monkeypatch.delenv(name)
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        return cluster

    return choose


def spec(shards: Path) -> RunSpec:
    return tiny_spec(shards, {"variant": "flat", "optim.batch_size": 14})


def queue(spec: RunSpec, root: Path, site: Site, ranks: int = 1) -> Outcome:
    runtime = Runtime(device="cpu", threads=1, quiet=True)
    place = Place("slurm", ranks=ranks, site=site)
    todo = upfront.planned([spec], root, place, runtime=runtime)
    return runs.run_many([spec], root, place, wait=False, runtime=runtime, todo=todo)


def shown(cluster: Slurm, job: str) -> dict[str, str]:
    """What SLURM says of a job."""
    return dict(re.findall(r"(\S+?)=(\S*)", cluster.run("scontrol", "show", "job", job)))


def findings(site: Site) -> dict[str, Finding]:
    return {finding.what: finding for finding in slurm_checks.check(site, needed=True)}


HELD = {"cpus_per_task": 1, "time": 5, "extra": {"hold": True}, "small": {"extra": {"hold": True}}}


class TestAccounts:
    @pytest.mark.parametrize("account", ["physics", "Physics"])
    def test_an_account_and_a_qos_in_any_case_are_taken(
        self, strict: Slurm, use, shards: Path, tmp_path: Path, account: str
    ) -> None:
        use(strict)
        site = Site.model_validate({**HELD, "account": account, "qos": "FAST"})
        assert {finding.state for finding in findings(site).values()} == {"ok"}
        outcome = queue(spec(shards), tmp_path / "study", site)
        job = shown(strict, outcome.submitted[0])
        assert (job["Account"], job["QOS"]) == ("physics", "fast")
        strict.run("scancel", outcome.submitted[0], str(outcome.reducer))

    def test_another_account_is_refused_in_the_words_of_sbatch(
        self, strict: Slurm, use, shards: Path, tmp_path: Path
    ) -> None:
        use(strict)
        with pytest.raises(
            InputError, match=r"Invalid account.*set `account` in the site file to one of physics, root"
        ):
            queue(spec(shards), tmp_path / "study", Site(account="biology", cpus_per_task=1))
        assert not (tmp_path / "study").exists()

    def test_no_wckey_is_sent_unless_the_site_names_one(
        self, strict: Slurm, use, shards: Path, tmp_path: Path
    ) -> None:
        """submitit's own would be refused."""
        use(strict)
        for named, key in ((None, "*mine"), ("mine", "mine")):  # SLURM marks the user's default
            outcome = queue(
                spec(shards), tmp_path / f"study-{named}", Site.model_validate({**HELD, "wckey": named})
            )
            for job in (outcome.submitted[0], str(outcome.reducer)):
                assert shown(strict, job)["WCKey"] == key
                strict.run("scancel", job)
        with pytest.raises(InputError, match="Invalid wckey"):
            queue(spec(shards), tmp_path / "other", Site(wckey="submitit", cpus_per_task=1))


class TestWhatUsersExport:
    def test_it_is_taken_where_the_site_says_nothing(
        self, strict: Slurm, use, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also inside of a job, whose own account it is not."""
        use(strict)
        exported = {
            "SBATCH_ACCOUNT": "physics",
            "SBATCH_QOS": "fast",
            "SBATCH_WCKEY": "mine",
            "SBATCH_TIMELIMIT": "0:07:00",
        }
        of_the_job = {
            "SLURM_JOB_ID": "1",
            "SLURM_JOB_ACCOUNT": "root",
            "SLURM_NTASKS": "7",
            "SBATCH_CPU_BIND": "cores",
        }
        for name, value in (exported | of_the_job).items():
            monkeypatch.setenv(name, value)
        (tmp_path / "site.yaml").write_text(
            "cpus_per_task: 1\nextra: {hold: true}\nsmall: {extra: {hold: true}}\n"
        )
        outcome = queue(spec(shards), tmp_path / "study", sites.load("site.yaml"))
        job = shown(strict, outcome.submitted[0])
        assert [job[key] for key in ("Account", "QOS", "WCKey", "TimeLimit", "NumTasks")] == [
            "physics",
            "fast",
            "mine",
            "00:07:00",
            "1",
        ]
        small = shown(strict, str(outcome.reducer))
        assert [small[key] for key in ("Account", "QOS", "WCKey", "TimeLimit")] == [
            "physics",
            "fast",
            "mine",
            "00:15:00",
        ]
        strict.run("scancel", outcome.submitted[0], str(outcome.reducer))

    def test_the_site_wins(
        self, strict: Slurm, use, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(strict)
        monkeypatch.setenv("SBATCH_ACCOUNT", "root")
        monkeypatch.setenv("SBATCH_TIMELIMIT", "9")
        text = (
            "cpus_per_task: 1\naccount: physics\ntime: 5\nextra: {hold: true}\nsmall: {extra: {hold: true}}\n"
        )
        (tmp_path / "site.yaml").write_text(text)
        outcome = queue(spec(shards), tmp_path / "study", sites.load("site.yaml"))
        job = shown(strict, outcome.submitted[0])
        assert (job["Account"], job["TimeLimit"]) == ("physics", "00:05:00")
        strict.run("scancel", outcome.submitted[0], str(outcome.reducer))


class TestWithoutMuch:
    def test_a_plugin_chooses_the_partition_and_nobody_accounts(
        self,
        bare: Slurm,
        use,
        shards: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        use(bare)
        outcome = queue(spec(shards), tmp_path / "study", Site.model_validate(HELD))
        assert shown(bare, outcome.submitted[0])["Partition"] == "main"
        assert "the cluster has no default" in capfd.readouterr().err, "a doubt, not a refusal"
        bare.run("scancel", outcome.submitted[0], str(outcome.reducer))

    def test_what_the_plugin_refuses_is_said_in_its_words(
        self, bare: Slurm, use, capsys: pytest.CaptureFixture[str]
    ) -> None:
        use(bare)
        Path("site.yaml").write_text("account: closed\ncpus_per_task: 1\n")
        assert main(["doctor", "--queue", "--site", "./site.yaml"]) == 2
        said = capsys.readouterr().err
        assert "the project is closed" in said
        assert len(said.splitlines()) == 1

    def test_a_hidden_partition_is_seen_by_who_may_not_list_it(
        self, bare: Slurm, use, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(bare)
        run = scheduler._run
        monkeypatch.setattr(scheduler, "_run", lambda *words, **options: run(*NOBODY, *words, **options))
        listed = bare.run(*NOBODY, "scontrol", "show", "partition", "--oneliner")
        assert "PartitionName=secret" not in listed
        found = findings(Site(partition="secret", cpus_per_task=1))
        assert [found[what].state for what in ("partition", "nodes", "jobs of runs", "small jobs")] == [
            "ok"
        ] * 4

    def test_no_sacctmgr_on_this_machine(
        self, strict: Slurm, use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a compute node, from which the folds are queued after the search."""
        use(strict)
        (tmp_path / "bin").mkdir()
        names = ("sbatch", "srun", "squeue", "sinfo", "scontrol")
        for name in names:
            (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        site = Site(account="physics", cpus_per_task=1)
        assert (
            findings(site)["account"].line()
            == "warn  account: not looked at: sacctmgr: no such command here; run this where SLURM is"
        )
        doctor.require(None, site, tmp_path / "runs")
        for name in names[2:]:
            (tmp_path / "bin" / name).unlink()
        doctor.require(None, site, tmp_path / "runs")
        with pytest.raises(InputError, match="Invalid account"):
            doctor.require(None, Site(account="biology", cpus_per_task=1), tmp_path / "runs")

    def test_a_drained_node_makes_jobs_wait_and_refuses_none(self, bare: Slurm, use, tmp_path: Path) -> None:
        """`sbatch --test-only` refuses what sbatch takes: it counts nodes that are down as missing."""
        use(bare)
        for host in bare.hosts:
            bare.run("scontrol", "update", f"nodename={host}", "state=drain", "reason=test")
        try:
            site = Site(partition="main", cpus_per_task=1)
            found = findings(site)
            assert found["jobs of runs"].state == "warn"
            assert "sbatch refuses" in found["jobs of runs"].measured
            doctor.require(None, site, tmp_path / "runs")
            doctor.require(
                None, Site(partition="main", cpus_per_task=1, nodes=3), tmp_path / "runs"
            )  # a run takes one
            with pytest.raises(InputError, match="64 cores"):
                doctor.require(None, Site(partition="main", cpus_per_task=64), tmp_path / "runs")
        finally:
            for host in bare.hosts:
                bare.run("scontrol", "update", f"nodename={host}", "state=resume")

    def test_a_controller_that_is_busy_refuses_nothing(
        self,
        bare: Slurm,
        use,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        use(bare)
        monkeypatch.setattr(scheduler, "QUICK", 1.0)
        monkeypatch.setattr(scheduler, "QUICK_PAUSES", (0.1,))
        [_, (controller, _), *_] = bare.started()
        os.kill(controller, signal.SIGSTOP)
        try:
            doctor.require(None, Site(cpus_per_task=1), tmp_path / "runs")
        finally:
            os.kill(controller, signal.SIGCONT)
        assert "slurm: does not answer" in capfd.readouterr().err


class TestGpus:
    @pytest.mark.parametrize("option", ["gpus-per-node", "gres"])
    def test_each_job_gets_gpus_of_the_type_and_small_jobs_none(
        self, with_gpus: Slurm, use, shards: Path, tmp_path: Path, option: str
    ) -> None:
        """A run takes one per rank, fewer than the node has."""
        use(with_gpus)
        fields = {"gpus_per_node": 2, "gpu_type": "a100", "gpu_option": option}
        extra = {"hold": True, "gres": "disk:1", "exclusive": True}
        site = Site.model_validate({**HELD, **fields, "extra": extra})
        outcome = queue(spec(shards), tmp_path / "study", site)
        job, small = shown(with_gpus, outcome.submitted[0]), shown(with_gpus, str(outcome.reducer))
        assert set(job["TresPerNode"].split(",")) == {"gres:gpu:a100:1", "gres:disk:1"}
        assert "TresPerNode" not in small
        assert small["OverSubscribe"] != job["OverSubscribe"] == "NO"
        with_gpus.run("scancel", outcome.submitted[0], str(outcome.reducer))
        sweep = with_gpus.run("sbatch", "--parsable", *sites.sbatch_options(site), "--wrap", "true").strip()
        assert set(shown(with_gpus, sweep)["TresPerNode"].split(",")) == {"gres:gpu:a100:2", "gres:disk:1"}
        with_gpus.run("scancel", sweep)

    def test_a_type_that_no_node_has_is_refused(self, with_gpus: Slurm, use) -> None:
        use(with_gpus)
        with pytest.raises(InputError, match=r"0 of 2 nodes have 2 GPUs of type h100 .*types: a100"):
            doctor.require(None, Site(gpus_per_node=2, gpu_type="h100", cpus_per_task=1))

    def test_ranks_of_a_run_see_the_gpus_of_their_job(self, with_gpus: Slurm, use, tmp_path: Path) -> None:
        use(with_gpus)
        site = Site(gpus_per_node=2, gpu_type="a100", cpus_per_task=1, gpu_option="gres")
        words = ["sbatch", "--wait", "--output=out", *sites.sbatch_options(site), "--wrap"]
        with_gpus.run(*words, 'srun --export=ALL sh -c "echo $CUDA_VISIBLE_DEVICES"', cwd=tmp_path)
        assert (tmp_path / "out").read_text().strip() == "0,1"


@pytest.mark.parametrize("exported", [{}, {"SBATCH_EXPORT": "NONE"}], ids=["extra", "environment"])
def test_a_run_trains_where_no_variable_is_exported_and_setup_brings_another_python(
    slurm: Slurm, use, shards: Path, tmp_path: Path, exported: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module such as `python/3.11` comes before the venv on PATH, and knows none of its packages."""
    use(slurm)
    (tmp_path / "module").mkdir()
    for name in ("python", "python3", "leukotree"):
        (tmp_path / "module" / name).write_text("#!/bin/sh\necho wrong python >&2\nexit 1\n")
        (tmp_path / "module" / name).chmod(0o755)
    setup = [f"export PATH={tmp_path}/module:$PATH", f"export PYTHONPATH={CODE}:{CODE}/src"]
    none = {} if exported else {"export": "NONE"}
    fields = {
        "partition": "main",
        "time": 5,
        "cpus_per_task": 1,
        "setup": setup,
        "extra": none,
        "small": {"extra": none},
    }
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    Path("site.yaml").write_text(Site.model_validate(fields).model_dump_json(exclude_unset=True))
    outcome = queue(spec(shards), tmp_path / "study", sites.load("./site.yaml"))
    assert "--export=NONE" in (tmp_path / "study/jobs" / f"{outcome.submitted[0]}_submission.sh").read_text()
    jobs = [outcome.submitted[0], str(outcome.reducer)]
    assert wait_for_jobs(slurm, *jobs) == dict.fromkeys(jobs, "COMPLETED")
