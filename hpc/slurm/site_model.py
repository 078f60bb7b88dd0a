"""The keys of a site file: everything that differs between clusters, checked when it is read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from leukotree.config import Strict
from leukotree.trackers.choice import Tracker, check_uri

# Printable ASCII without spaces, quotes, `$`, "`" and backslash: the values also travel as `$(python -m
# hpc.slurm.site NAME --sbatch)`, which the shell splits at spaces.
Word = Annotated[str, Field(pattern=r"^[!#%&(-\[\]-_a-~]+$")]
# A path that a shell may read between double quotes: variables, but no commands.
Folder = Annotated[str, Field(pattern=r"^([A-Za-z0-9._/+-]|\$[A-Za-z_]+|\$\{[A-Za-z_]+\})+$")]


# An image of a container: such a path, or a name in a registry.
Image = Annotated[str, Field(pattern=r"^([A-Za-z0-9._/+:#@-]|\$[A-Za-z_]+|\$\{[A-Za-z_]+\})+$")]
Uri = Annotated[str, AfterValidator(check_uri)]
GpuType = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


def _only_sbatch(extra: dict[str, Any]) -> dict[str, Any]:
    """`extra` itself. Raises ValueError for an option of sbatch that the launcher sets."""
    for name in extra:
        if name.replace("-", "_") in Site.model_fields or name in LAUNCHER_OPTIONS:
            raise ValueError(f"{name!r} has a key of its own in a site file, or is set by the launcher")
        if extra[name] is False:
            raise ValueError(f"{name!r}: leave an option out instead of setting it to false")
    return extra


GPUS = {"gpus", "gpus-per-task", "gpus-per-socket"}
"""Options of sbatch for GPUs that a site does not use."""
LAUNCHER_OPTIONS = {"mem", "array", "mail-user", "ntasks", "ntasks-per-node", "output", "error", "dependency"}
"""Options of sbatch that the launcher sets, and that have no key of their name."""
Extra = Annotated[dict[Word, bool | int | Word], AfterValidator(_only_sbatch)]


class Small(Strict):
    """Keys for small jobs, which ask for one core and no GPU: the report, the list of missing runs, the head
    of an elastic search. None takes the site's value."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    """Not taken from the site, whose constraint is for large nodes."""
    time: int | None = Field(None, ge=1)
    """Time limit in minutes."""
    mem_gb: int | None = Field(None, ge=1)
    """Memory in GB. Not taken from the site, whose memory is that of a node. The head of an elastic search
    needs about 4."""
    extra: Extra = {}  # noqa: RUF012 - pydantic copies it
    """Further options of sbatch. Not taken from the site, whose `extra` is for large nodes."""


class Site(Strict):
    """One cluster: the options of its SLURM for a job, and the job's environment there. None leaves the
    cluster's own default."""

    partition: Word | None = None
    """`--partition`; several with commas."""
    account: Word | None = None
    """`--account`, the project that pays."""
    qos: Word | None = None
    """`--qos`."""
    wckey: Word | None = None
    """`--wckey`, on clusters that account by it."""
    constraint: Word | None = None
    """`--constraint`, node features. Not for small jobs."""
    time: int = Field(240, ge=1)
    """Time limit of a job in minutes."""
    nodes: int = Field(1, ge=1)
    """Nodes of the sweep's Ray cluster. How many a run takes follows from its ranks, or from --nodes."""
    gpus_per_node: int = Field(0, ge=0)
    """GPUs that a job takes on each node; 0 trains on the CPU."""
    gpu_type: GpuType | None = None
    """Type of these GPUs as SLURM calls it (`sinfo -o %G`), such as `a100`. None takes any."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """The option of sbatch that asks for GPUs. A few clusters (those with select/linear) know `gres`
    alone."""
    cpus_per_task: int = Field(4, ge=1)
    """CPU cores of one rank. The sweep takes this many for each GPU of a node (once, without GPUs)."""
    mem_gb: int | None = Field(None, ge=1)
    """Memory of a job on each node, in GB."""
    max_array_size: int | None = Field(None, ge=1)
    """Most jobs in one array; 1 makes none. None asks SLURM for its MaxArraySize."""
    array_parallelism: int = Field(256, ge=1)
    """Most jobs of an array that run at the same time."""
    elastic: int | None = Field(None, ge=1)
    """Most worker jobs that an elastic search has at a time. None searches in one allocation of `nodes`
    nodes."""
    worker: Literal["gpu", "node"] = "gpu"
    """What a worker of an elastic search takes: one GPU with its share of a node, or what a job takes of a
    whole node."""
    warn: int = Field(120, ge=10)
    """Seconds before the time limit at which a run is asked to save and end. Its job is then queued again."""
    interface: Word | None = None
    """Network interface between the nodes, for Gloo, NCCL and Ray. None lets each choose."""
    scratch: Folder | None = None
    """Node-local folder for temporary files, where `$NAME` is looked up. Keep it short: a socket's path ends
    at 107 bytes."""
    setup: tuple[str, ...] = ()
    """Shell lines run at the start of every job, for example `module load cuda`."""
    srun_args: tuple[Word, ...] = ()
    """Further arguments of each srun that starts the ranks of a run or the nodes of a search, such as
    `--mpi=none`."""
    container: Image | None = None
    """The image that jobs run in: an Apptainer `.sif`, an enroot `.sqsh` or `registry#image` for pyxis, a
    folder for Charliecloud."""
    container_runtime: Literal["apptainer", "pyxis", "charliecloud"] | None = None
    """The program that runs the image. None chooses it by the image's ending."""
    mail: Word | None = None
    """The address for mail about the sweep's job and small jobs. There is no mail about the jobs of runs: the
    report names what failed."""
    mail_type: Word = "END,FAIL,REQUEUE"
    """`--mail-type`: the events that mail is sent about."""
    trackers: tuple[Tracker, ...] = ()
    """What follows each run beside its own files: `tensorboard` (a folder in that of the run), `mlflow`. A
    study may say otherwise."""
    mlflow_uri: Uri | None = None
    """Where MLflow is: `http://HOST:PORT`, or `sqlite:///FILE`. It takes a name and a password from its own
    variables."""
    small: Small = Small()
    """Keys for small jobs."""
    extra: Extra = {}  # noqa: RUF012 - pydantic copies it
    """Further options of sbatch, by their long names without dashes. `true` for an option without a value.
    Not for small jobs."""

    @field_validator("setup")
    @classmethod
    def _single_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if any("\n" in line or not line.strip() for line in lines):
            raise ValueError("each entry is one line of shell, not empty")
        return lines

    @field_validator("extra")
    @classmethod
    def _no_gpus(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for name, value in extra.items():
            if name in GPUS or (name == "gres" and re.search(r"(^|,)gpu\b", str(value))):
                keys = "'gpus_per_node', 'gpu_type' and 'gpu_option'"
                raise ValueError(f"{name!r}: ask for GPUs by {keys}, so that each job gets its share")
        return extra

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.gpu_type and not self.gpus_per_node:
            raise ValueError("'gpu_type' needs 'gpus_per_node', the number of these GPUs in a node")
        if self.container_runtime and not self.container:
            raise ValueError("'container_runtime' needs 'container', the image")
        return self
