"""How a site's jobs enter its container: the exact command lines of Apptainer and pyxis, in golden/, with
stand-ins for both.

A file of golden/ is rewritten with LEUKOTREE_GOLDEN=write in the environment; read what has changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.launching import batch_script, submission
from hpc.launching.place import Place
from hpc.slurm import site as sites
from hpc.slurm.site_model import Site
from leukotree.errors import InputError

REPOSITORY = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IMAGES = {"apptainer": "$HOME/leukotree.sif", "pyxis": "registry#leukotree:1"}
SITE = "nodes: 2\ngpus_per_node: 4\ncpus_per_task: 8\nsrun_args: [--mpi=none]\nscratch: /scratch\n"

CALLED = """\
#!/bin/bash
# Notes its words, then does what the container would be asked to do, but for starting the nodes of a search.
echo "${0##*/}" >>"$CALLS"
for word; do
    if [[ $before == -c ]]; then echo "    (a program)"; else echo "    $word"; fi
    before=$word
done >>"$CALLS"
for word; do
    shift
    if [[ $word == --parsable ]]; then echo 44; fi
    if [[ $word == */guest.sh ]]; then [[ $2 == */node.sh || $* == *submitit* ]] || exec sh "$word" "$@"; fi
done
"""
LEUKOTREE = """\
#!/bin/bash
if [[ $1 == folds ]]; then echo '{"waiting": {"a": "43_0", "b": "43_1"}}'; fi
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout to start from."""
    place = tmp_path / "checkout"
    (place / "sweeps").mkdir(parents=True)
    (place / "sweeps" / "smoke.yaml").write_text("study: smoke\n")
    for name in ("hpc", "slurm"):
        (place / name).symlink_to(REPOSITORY / name)
    return place


@pytest.fixture
def environment(tmp_path: Path, home: Path) -> dict[str, str]:
    """That of a job on two nodes with GPUs, where the commands of SLURM and containers are stand-ins."""
    programs = tmp_path / "programs"
    programs.mkdir()
    quiet = "#!/bin/sh\n"
    scripts = dict.fromkeys(("apptainer", "srun", "sbatch"), CALLED) | dict.fromkeys(
        ("squeue", "nvidia-smi"), quiet
    )
    scripts |= {"leukotree": LEUKOTREE, "python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}
    for name, script in scripts.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "leukotree.sif").touch()
    job = {"ID": "42", "NUM_NODES": "2", "PARTITION": "gpu"}
    return {
        "CALLS": str(tmp_path / "calls"),
        "PATH": f"{programs}:{SYSTEM_PATH}",
        "HOME": str(tmp_path / "user"),
        "LEUKOTREE_HOME": str(home),
        "SLURM_CPUS_ON_NODE": "32",
        "SLURMD_NODENAME": "n1",
        **{f"SLURM_JOB_{name}": value for name, value in job.items()},
    }


@pytest.fixture
def same(tmp_path: Path):
    """Compares a text, without what differs between machines, with a file of golden/."""

    def compare(name: str, text: str) -> None:
        if (REPOSITORY / ".git").is_file():  # a worktree mounts the repository that it is of
            git = (REPOSITORY / ".git").read_text().removeprefix("gitdir: ").partition("/worktrees/")[0]
            text = text.replace(f"{git}:{git},", "").replace(f"{git},", "")
        for path, word in {
            REPOSITORY: "REPOSITORY",
            tmp_path / "checkout": "CHECKOUT",
            tmp_path / "user": "HOME",
        }.items():
            text = text.replace(str(path), word)
        text = re.sub(r"(?m)^    (\d+\.){3}\d+$", "    ADDRESS", text)
        text = re.sub(r"(\d+\.){3}\d+:\d+", "ADDRESS:PORT", text)
        text = re.sub(r"(?m)^(    ADDRESS\n    )\d+$", r"\1PORT", text)
        text = re.sub(r"/\.code/[0-9a-f]{12}", "/.code/DIGEST", text)
        text = re.sub(r"'PYTHONPATH=[^']*'", "'PYTHONPATH=...'", text)
        golden = GOLDEN / f"{name}.txt"
        if os.environ.get("LEUKOTREE_GOLDEN") == "write":
            golden.write_text(text)
        expected = golden.read_text()
        if REPOSITORY.is_relative_to("/tmp"):  # which is mounted anyhow
            expected = re.sub(r",REPOSITORY/\w+(:REPOSITORY/\w+)?(?=[,\n])", "", expected)
        assert text == expected

    return compare


def run(script: str, home: Path, environment: dict[str, str]) -> str:
    """Run a script of bash. Returns what the stand-ins noted."""
    done = subprocess.run(
        ["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return Path(environment["CALLS"]).read_text()


@pytest.mark.slow("runs whole commands")
@pytest.mark.parametrize("runtime", sorted(IMAGES))
def test_the_sweep_its_folds_and_its_report_run_inside(
    runtime: str, home: Path, environment: dict[str, str], same
) -> None:
    site = home / "site.yaml"
    site.write_text(f"{SITE}container: '{IMAGES[runtime]}' # told by its ending\n")
    same(f"{runtime}-sweep", run(f"bash slurm/sweep.sh sweeps/smoke.yaml --site {site}", home, environment))


@pytest.mark.parametrize("runtime", sorted(IMAGES))
def test_a_run_of_two_ranks_runs_inside(
    runtime: str, home: Path, environment: dict[str, str], same, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    site = Site(
        gpus_per_node=4,
        cpus_per_task=8,
        srun_args=("--mpi=none",),
        scratch="/scratch",
        container=IMAGES[runtime],
    )
    executor = submission.executor(Place("slurm", ranks=2, site=site), home / "results")
    executor.update_parameters(
        setup=batch_script.at_the_start(executor.folder, "TOKEN") + executor.parameters["setup"]
    )
    script = executor._make_submission_file_text(executor._submitit_command_str, "")
    calls = run(script, home, environment | {"SLURM_JOB_NODELIST": "n1"})
    for name in ("batch_start.sh", "batch_end.sh"):
        script = script.replace(
            (REPOSITORY / "hpc" / "launching" / name).read_text().strip(), f"# here follows {name}"
        )
    same(f"{runtime}-run", f"{script}\n\n# what it calls\n{calls}")


def test_without_a_container_everything_runs_as_it_is(home: Path, environment: dict[str, str]) -> None:
    script = (
        "source slurm/container/enter.sh; enter_site default; "
        'sbatch "${#inside[@]}" "${#here[@]}" "${LEUKOTREE_RELAY-none}"'
    )
    assert run(script, home, environment).split() == ["sbatch", "0", "0", "none"]


def test_both_recipes_install_the_same(tmp_path: Path) -> None:
    docker, apptainer = (
        (REPOSITORY / "slurm/container/image" / name).read_text() for name in ("Dockerfile", "leukotree.def")
    )
    for pattern in (r"debian:\S+", r"sh /opt/build/\S+", r"PATH=\S+"):
        assert re.findall(pattern, docker) == re.findall(pattern, apptainer) != []
    (copied,) = re.findall(r"COPY (.*) /opt/build/", docker)
    assert copied.split() == [
        line.split()[0].removesuffix("*") for line in re.findall(r".* /opt/build/$", apptainer, re.M)
    ]


class TestOfASiteFile:
    @pytest.mark.parametrize(
        ("text", "image"),
        [
            ("container: /images/a.sqsh", "/images/a.sqsh"),
            ('container:   "reg.example/a#b:1"   # remark', "reg.example/a#b:1"),
            ("# container: /old.sqsh\ncontainer: $HOME/a.sqsh\ntime: 5", "{HOME}/a.sqsh"),
            ("container: null\nnodes: 2", ""),
            ("time: 5", ""),
        ],
    )
    def test_the_shell_reads_the_key_as_python_does(
        self, home: Path, environment: dict[str, str], text: str, image: str
    ) -> None:
        (home / "site.yaml").write_text(f"{text}\n")
        script = 'source slurm/container/enter.sh; enter_site ./site.yaml; sbatch "${inside[0]:-}"'
        expected = f"--container-image={image.format(**environment)}" if image else ""
        assert run(script, home, environment).splitlines()[1].strip() == expected

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("container: /images/none.sif", "/images/none.sif: no such image (site key `container`)"),
            ("container: /images/none", "/images/none: no such image (site key `container`)"),
            ("container: $(reboot).sif", "container: not a path or name: $(reboot).sif"),
        ],
    )
    def test_a_bad_image_is_one_line(
        self, home: Path, environment: dict[str, str], text: str, said: str
    ) -> None:
        (home / "site.yaml").write_text(f"{text}\n")
        words = ["bash", "slurm/container/run.sh", "./site.yaml", "true"]
        done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr

    def test_outside_of_it_an_image_that_is_not_there_is_refused_before_a_job_is_queued(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "site.yaml").write_text("container: $HOME/none.sif\n")
        with pytest.raises(InputError, match=r"container \$HOME/none.sif: no such image"):
            sites.load(f"{tmp_path}/site.yaml")
        monkeypatch.setenv("LEUKOTREE_INSIDE", "yes")
        assert sites.load(f"{tmp_path}/site.yaml").container == "$HOME/none.sif"
