"""Site files: everything that differs between clusters, checked when read and quoted when printed."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.search import elastic
from hpc.slurm import site as sites
from hpc.slurm.site_model import Site, Small
from leukotree.errors import InputError


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


class TestLoad:
    @pytest.mark.parametrize("name", sites.known())
    def test_every_site_file_is_valid(self, name: str) -> None:
        assert isinstance(sites.load(name), Site)

    def test_none_is_the_default_which_asks_for_nothing_that_a_cluster_may_lack(self) -> None:
        default = sites.load(None)
        assert default == sites.load("default")
        assert (default.partition, default.account, default.interface, default.scratch) == (
            None,
            None,
            None,
            None,
        )
        assert (default.gpus_per_node, default.extra) == (0, {})

    def test_a_path_is_a_site_too(self, tmp_path: Path) -> None:
        assert sites.load(write(tmp_path, "partition: gpu\ntime: 90\n")) == Site(partition="gpu", time=90)

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(InputError, match=r"site 'nope': unknown; known sites: .*default.*test"):
            sites.load("nope")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("partion: gpu", "unknown key 'partion', did you mean 'partition'"),
            ("time: 0", "time: .*greater than or equal to 1"),
            ("partition: gpu; rm -rf", "partition: "),
            ("interface: $(reboot)", "interface: "),
            ("extra: {time: 5}", "'time' has a key of its own"),
            ("extra: {cpus-per-task: 5}", "'cpus-per-task' has a key of its own"),
            ("extra: {requeue: false}", "leave an option out"),
            ('setup: ["a\\nb"]', "each entry is one line"),
            ("gpu_type: a100", "'gpu_type' needs 'gpus_per_node'"),
            ("{gpus_per_node: 4, gpu_type: 'a100:4'}", "gpu_type: "),
            ("gpu_option: gpus", "gpu_option: "),
            ("extra: {gres: 'gpu:a100:4'}", "'gres': ask for GPUs by 'gpus_per_node'"),
            ("extra: {gres: 'disk:1,gpu:4'}", "'gres': ask for GPUs by 'gpus_per_node'"),
            ("extra: {gpus: 4}", "'gpus': ask for GPUs by 'gpus_per_node'"),
            ("extra: {mail-user: me}", "'mail-user' has a key of its own"),
            ("small: {extra: {partition: cpu}}", "'partition' has a key of its own"),
            ("small: {nodes: 2}", "unknown key 'small.nodes'"),
            ("small: {time: 0}", "small.time: "),
            ("container_runtime: apptainer", "'container_runtime' needs 'container'"),
            ("container: $(id)", "container: "),
            ("elastic: 0", "elastic: "),
            ("srun_args: [--mpi=none; id]", "srun_args.0: "),
            ("[1]", "expected a mapping"),
        ],
    )
    def test_a_bad_file_is_one_line_that_names_file_and_key(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        with pytest.raises(InputError, match=f"mine.yaml: .*{message}") as caught:
            sites.load(write(tmp_path, text))
        assert "\n" not in str(caught.value)


class TestSubmitit:
    def test_a_job_file_of_submitit_carries_what_the_site_says(self, tmp_path: Path) -> None:
        """Written by submitit's own SLURM executor, which refuses parameters that it does not know."""
        from submitit.slurm.slurm import _make_sbatch_string

        site = Site(
            partition="gpu",
            account="abc",
            qos="high",
            constraint="a100",
            time=90,
            gpus_per_node=2,
            cpus_per_task=8,
            mem_gb=64,
            array_parallelism=3,
            interface="ib0",
            setup=("module load cuda",),
            extra={"hint": "nomultithread"},
        )
        parameters = sites.submitit_parameters(site)
        slurm = {key.removeprefix("slurm_"): value for key, value in parameters.items()}
        slurm |= {"time": slurm.pop("timeout_min"), "mem": f"{slurm.pop('mem_gb')}GB"}
        lines = _make_sbatch_string("run", tmp_path, map_count=9, **slurm).splitlines()
        options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
        assert options >= {
            "partition=gpu",
            "account=abc",
            "qos=high",
            "constraint=a100",
            "time=90",
            "gpus-per-node=2",
            "cpus-per-task=8",
            "mem=64GB",
            "nodes=1",
            "array=0-8%3",
            "hint=nomultithread",
        }
        command = next(number for number, line in enumerate(lines) if line.startswith("srun "))
        assert lines.index("module load cuda") < lines.index("export GLOO_SOCKET_IFNAME=ib0") < command

    def test_gpus_of_a_type_are_asked_for_by_the_option_that_the_cluster_knows(self) -> None:
        typed = {"gpus_per_node": 4, "gpu_type": "a100", "extra": {"gres": "disk:1"}}
        modern, old = Site.model_validate(typed), Site.model_validate({**typed, "gpu_option": "gres"})
        assert sites.submitit_parameters(modern, 2)["slurm_additional_parameters"] == {
            "requeue": True,
            "gres": "disk:1",
            "gpus-per-node": "a100:2",
        }
        assert sites.submitit_parameters(old, 2)["slurm_additional_parameters"] == {
            "requeue": True,
            "gres": "gpu:a100:2,disk:1",
        }
        assert sites.gpus(Site(gpus_per_node=4), 4) == {"gpus-per-node": "4"}

    def test_small_jobs_take_what_is_theirs_and_nothing_that_is_for_large_nodes(self) -> None:
        site = Site(
            partition="gpu",
            account="abc",
            qos="high",
            wckey="key",
            constraint="a100",
            time=90,
            nodes=2,
            gpus_per_node=4,
            gpu_type="a100",
            cpus_per_task=8,
            mem_gb=64,
            srun_args=("--mpi=none",),
            mail="me@example.org",
            extra={"exclusive": True, "reservation": "big"},
            small=Small(partition="cpu", time=10, extra={"nice": 5}),
        )
        assert sites.sbatch_options(site, small=True) == [
            "--partition=cpu",
            "--account=abc",
            "--qos=high",
            "--wckey=key",
            "--time=10",
            "--nodes=1",
            "--ntasks=1",
            "--nice=5",
            "--mail-user=me@example.org",
            "--mail-type=END,FAIL,REQUEUE",
        ]
        parameters = sites.submitit_parameters(site, small=True)
        assert (parameters["slurm_partition"], parameters["timeout_min"], parameters["cpus_per_task"]) == (
            "cpu",
            10,
            1,
        )
        assert not {"mem_gb", "slurm_constraint"} & set(parameters)
        assert parameters["slurm_srun_args"] == ["--export=ALL"]
        assert parameters["slurm_additional_parameters"] == {
            "requeue": True,
            "nice": 5,
            "mail-user": "me@example.org",
            "mail-type": "END,FAIL,REQUEUE",
        }

    def test_mail_is_about_the_sweep_and_small_jobs_and_not_about_each_run(self) -> None:
        site = Site(mail="me@example.org", mail_type="FAIL")
        assert sites.sbatch_options(site)[-2:] == ["--mail-user=me@example.org", "--mail-type=FAIL"]
        assert "mail" not in str(sites.submitit_parameters(site))

    def test_the_ranks_of_a_run_get_the_arguments_of_srun(self) -> None:
        found = sites.submitit_parameters(Site(srun_args=("--mpi=none",), cpus_per_task=3))["slurm_srun_args"]
        assert found == ["--export=ALL", "--kill-on-bad-exit=1", "--cpus-per-task=3", "--mpi=none"]

    def test_what_the_site_leaves_open_is_left_to_the_cluster(self) -> None:
        keys = {"timeout_min", "nodes", "cpus_per_task", "slurm_array_parallelism"}
        keys |= {"slurm_signal_delay_s", "slurm_srun_args", "slurm_additional_parameters"}
        assert set(sites.submitit_parameters(Site())) == keys

    def test_submitit_knows_every_parameter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import submitit

        monkeypatch.setattr(
            submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2)
        )  # as if sbatch were here
        for name in sites.known():
            submitit.AutoExecutor(tmp_path, cluster="slurm").update_parameters(
                **sites.submitit_parameters(sites.load(name))
            )


class TestShell:
    def test_a_shell_gets_the_arguments_of_srun_as_an_array(self) -> None:
        script = (
            sites.shell_exports(Site(srun_args=("--mpi=none", "--cpu-bind=map_cpu:0,1")))
            + 'printf "%s|" "${srun_args[@]}"'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "--mpi=none|--cpu-bind=map_cpu:0,1|"

    def test_exports_follow_the_setup_lines(self) -> None:
        text = sites.shell_exports(Site(setup=("module load cuda",), interface="eth0", scratch="/scratch"))
        assert text.splitlines() == [
            "module load cuda",
            "export GLOO_SOCKET_IFNAME=eth0",
            "export NCCL_SOCKET_IFNAME=eth0",
            "export LEUKOTREE_INTERFACE=eth0",
            'export LEUKOTREE_SCRATCH="/scratch"',
        ]

    @given(st.text(st.characters(codec="ascii", exclude_characters="\x00"), min_size=1, max_size=12))
    def test_any_value_that_is_accepted_reaches_a_shell_unchanged(self, value: str) -> None:
        try:
            site = Site(interface=value, partition=value)
        except ValueError:
            return
        assert shlex.split(sites.shell_exports(site).splitlines()[0]) == [
            "export",
            f"GLOO_SOCKET_IFNAME={value}",
        ]
        assert " ".join(sites.sbatch_options(site)).split()[0] == f"--partition={value}"

    @pytest.mark.parametrize(
        ("scratch", "found"),
        [
            ("/scratch/a-b_1.c", "/scratch/a-b_1.c"),
            ("$NODE/tmp", "/disk of it/tmp"),
            ("/x${NODE}", "/x/disk of it"),
        ],
    )
    def test_a_node_looks_up_the_variables_of_scratch(self, scratch: str, found: str) -> None:
        script = sites.shell_exports(Site(scratch=scratch)) + 'printf %s "$LEUKOTREE_SCRATCH"'
        assert (
            subprocess.run(
                ["bash", "-c", script], env={"NODE": "/disk of it"}, capture_output=True, text=True
            ).stdout
            == found
        )

    @pytest.mark.parametrize("scratch", ["$(id)", "`id`", 'a"b', "a b", "$", "$1", "~/x", "${x:-$(id)}"])
    def test_scratch_runs_no_command(self, scratch: str) -> None:
        with pytest.raises(ValueError, match="scratch"):
            Site(scratch=scratch)

    def test_sbatch_options_of_a_sweep_and_of_a_small_job(self) -> None:
        site = Site(
            partition="gpu",
            nodes=2,
            gpus_per_node=4,
            cpus_per_task=16,
            mem_gb=480,
            time=60,
            extra={"requeue": True},
        )
        assert sites.sbatch_options(site) == [
            "--partition=gpu",
            "--time=60",
            "--nodes=2",
            "--ntasks-per-node=1",
            "--cpus-per-task=64",
            "--mem=480G",
            "--requeue",
            "--gpus-per-node=4",
        ]
        assert sites.sbatch_options(site, small=True) == [
            "--partition=gpu",
            "--time=60",
            "--nodes=1",
            "--ntasks=1",
        ]

    def test_the_command_prints_what_eval_takes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert sites.main(["test"]) == 0
        shell = capsys.readouterr().out + 'echo "$GLOO_SOCKET_IFNAME"'
        assert (
            subprocess.run(["bash", "-euc", shell], capture_output=True, text=True, check=True).stdout
            == "eth0\n"
        )

    def test_by_hand_the_name_of_the_site_passes_an_export_that_keeps_variables_back(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else the job would take the default site, and run on that."""
        for name in [name for name in os.environ if name.startswith(("LEUKOTREE_", "SBATCH_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("SBATCH_ACCOUNT", "abc")
        site = write(tmp_path, "extra: {export: NONE, hint: nomultithread}\n")
        assert sites.main([site, "--sbatch"]) == 0
        assert capsys.readouterr().out.split()[-3:] == [
            "--export=SITE,SBATCH_ACCOUNT",
            "--get-user-env",
            "--hint=nomultithread",
        ]

    def test_the_command_on_an_unknown_site_exits_2_with_one_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert sites.main(["nope"]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1


def test_a_worker_takes_one_gpu_and_its_share_or_a_whole_node() -> None:
    fields = {
        "nodes": 3,
        "gpus_per_node": 4,
        "gpu_type": "a100",
        "cpus_per_task": 8,
        "mem_gb": 400,
        "elastic": 5,
    }
    one = elastic.worker_options(Site.model_validate(fields))
    assert {"--gpus-per-node=a100:1", "--cpus-per-task=8", "--mem=100G"} <= set(one)
    whole = elastic.worker_options(Site.model_validate({**fields, "worker": "node"}))
    assert {"--gpus-per-node=a100:4", "--cpus-per-task=32", "--mem=400G"} <= set(whole)
    assert not [option for option in [*one, *whole] if option.startswith("--nodes")], (
        "its script asks for one"
    )


def test_the_head_of_an_elastic_search_is_a_small_job(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("elastic: 5\nnodes: 2\ngpus_per_node: 4\nmem_gb: 400\nsmall: {time: 720, mem_gb: 4}\n")
    assert sites.main([str(path), "--sbatch"]) == 0
    words = capsys.readouterr().out.split()
    assert {"--nodes=1", "--time=720", "--mem=4G"} <= set(words)
    assert not [word for word in words if "gpu" in word]
