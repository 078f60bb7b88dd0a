"""A real SLURM on one machine: two hosts, n1 and n2, with accounting. Needs root. Only the standard library.

    python3 -m tests.helpers.cluster.slurm up       boots it if it is not up; prints `export SLURM_CONF=...`
    python3 -m tests.helpers.cluster.slurm down     stops what `up` started
    python3 -m tests.helpers.cluster.slurm status   exit code 0 if it is up

Each host is a slurmd in a network, UTS, PID and mount namespace of its own, at a bridge: the jobs on n1 see
neither n2's processes nor its ports, as on two machines. Everything else is shared, so any folder is a shared
file system. All files lie in one folder; the system's own SLURM, munge and MariaDB are not touched.

Several may be up at once. Each has a number, and with it a network, ports and a folder. The variable
LEUKOTREE_TEST_SLURM is the number of the usual one. Some tests boot another with other settings.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.cluster.debian import SYSTEM_PATH, install
from tests.helpers.cluster.processes import ClusterError, command, end, process_start, wait_for

NUMBER = int(os.environ.get("LEUKOTREE_TEST_SLURM", 0)) + int(
    os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
)
"""Number of the usual cluster. Each worker of pytest-xdist has its own."""
PACKAGES = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "munged": "munge",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "ip": "iproute2",
}
HOSTS = "n1", "n2"
CPUS = 4
PORTS = 17817
"""The first port of cluster 0; each cluster has ten."""


def template(name: str) -> str:
    """Text of a configuration file with {placeholders}, from the folder of this module."""
    return Path(__file__).with_name(f"{name}.template").read_text()


def usual_folder(number: int) -> Path:
    """The default folder of a cluster's files."""
    return Path(tempfile.gettempdir()) / f"leukotree-slurm{number or ''}"


@dataclass(frozen=True)
class Settings:
    """What differs between test clusters."""

    accounting: bool = True
    """With slurmdbd; without it, `sacct` and `sacctmgr` know nothing."""
    node: str = ""
    """More words on each node's line of slurm.conf, such as `Gres=gpu:a100:2`."""
    partitions: str = "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
    """The lines of the partitions."""
    more: str = ""
    """More lines of slurm.conf. One that stands there already is replaced: SLURM takes no key twice."""
    gres: str = ""
    """Lines of gres.conf."""
    names: bool = True
    """Whether the hosts know each other's names; without, they have the addresses only."""


@dataclass(frozen=True)
class Slurm:
    """The test cluster of a number, whose files lie in `folder`."""

    folder: Path = field(default_factory=lambda: usual_folder(NUMBER))
    number: int = NUMBER
    settings: Settings = Settings()

    @property
    def bridge(self) -> str:
        return f"lt-br{self.number or ''}"

    @property
    def controller(self) -> str:
        """Address of slurmctld and slurmdbd."""
        return f"10.77.{self.number}.1"

    @property
    def hosts(self) -> dict[str, str]:
        """Name -> address."""
        return {host: f"10.77.{self.number}.{11 + index}" for index, host in enumerate(HOSTS)}

    @property
    def cluster(self) -> str:
        """Its name, as in slurm.conf."""
        return f"leukotree{self.number or ''}"

    def space(self, host: str) -> str:
        """Name of a host's network namespace, and of its end at the bridge."""
        return f"lt{self.number or ''}-{host}"

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The current environment with what SLURM's commands need, without the variables of a job."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH", "SRUN"))
        }
        return clean | {"SLURM_CONF": str(self.conf), "PATH": f"{clean.get('PATH', '')}:{SYSTEM_PATH}"}

    def run(self, *words: str, **options) -> str:
        """Standard output of a command that talks to this cluster. Raises ClusterError if it fails."""
        return command(*words, env=options.pop("env", self.environment), **options).stdout

    def up(self) -> bool:
        """Boot the cluster unless it is up; True if it had to be booted. Raises ClusterError where that is
        not possible."""
        if os.geteuid() != 0:
            raise ClusterError("the test SLURM needs root")
        self._make_folder()
        with self._lock():
            if self.is_up():
                return False
            self._stop()
            install(PACKAGES)
            try:
                self._boot()
            except (ClusterError, OSError):
                self._stop()
                raise
            return True

    def down(self) -> None:
        """Stop what `up` started, and remove its files. Doing it again is fine."""
        if not self.folder.exists():
            return
        with self._lock():
            self._stop()
            shutil.rmtree(self.folder)

    def is_up(self) -> bool:
        """Whether all processes run and both hosts answer."""
        started = self.started()
        if len(started) != (4 if self.settings.accounting else 2) + len(HOSTS) or any(
            process_start(pid) != start for pid, start in started
        ):
            return False
        return self._hosts_ready()

    def kill_host(self, host: str) -> None:
        """End a host with its slurmd and all processes of its jobs at once, as a loss of power does."""
        pid, start = self.started()[self._index(host)]
        end(pid, start, signal.SIGKILL)

    def start_host(self, host: str) -> None:
        """Boot a host that `kill_host` ended."""
        with self._lock():
            index = len(self.started()) + self._index(host)
            self._start_host(host)
            lines = (self.folder / "processes").read_text().splitlines()
            lines[index] = lines.pop()
            (self.folder / "processes").write_text("".join(f"{line}\n" for line in lines))
        wait_for("hosts", self._hosts_ready, 90)

    @staticmethod
    def _index(host: str) -> int:
        """Index of a host among the recorded processes. The hosts are the last ones."""
        return list(HOSTS).index(host) - len(HOSTS)

    def started(self) -> list[tuple[int, int]]:
        """(pid, start time) of each process that `up` started, in that order."""
        try:
            lines = (self.folder / "processes").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [tuple(json.loads(line)) for line in lines]

    def _make_folder(self) -> None:
        """Make the folder. A link of this name, or another user's folder, is refused: root writes keys into
        it."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if self.folder.is_symlink() or self.folder.stat().st_uid != os.geteuid():
            raise ClusterError(
                f"{self.folder}: belongs to somebody else; remove it, or set TMPDIR to another place"
            )
        self.folder.chmod(0o755)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with open(self.folder / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _boot(self) -> None:
        self._write_files()
        self._make_network()
        self._start(
            "munged",
            "munged",
            "--foreground",
            "--force",
            "--num-threads=4",
            f"--key-file={self.folder}/munge.key",
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munge.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munge.seed",
        )
        if self.settings.accounting:
            self._start_database()
        wait_for("munged", (self.folder / "munge.socket").exists)
        if self.settings.accounting:
            self._start("slurmdbd", "slurmdbd", "-D")
            # The cluster has to be in the books before slurmctld, or its first jobs are not recorded.
            wait_for(
                "slurmdbd",
                lambda: self._succeeds("sacctmgr", "-i", "add", "cluster", self.cluster) or self._booked(),
            )
        self._start("slurmctld", "slurmctld", "-D", "-i", "-f", str(self.conf))
        for host in HOSTS:
            self._start_host(host)
        wait_for("hosts", self._hosts_ready)

    def _write_files(self) -> None:
        for name in ("state", "db", *(f"spool-{host}" for host in HOSTS)):
            (self.folder / name).mkdir(mode=0o755, exist_ok=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        first = PORTS + 10 * self.number
        values = {
            "folder": self.folder,
            "controller": self.controller,
            "controller_name": os.uname().nodename,
            "cluster": self.cluster,
            "ctld_port": first,
            "d_port": first + 1,
            "dbd_port": first + 2,
        }
        nodes = [
            f"NodeName={host} NodeAddr={address} CPUs={CPUS} RealMemory=16000 State=UNKNOWN "
            f"{self.settings.node}"
            for host, address in self.hosts.items()
        ]
        lines = template("slurm.conf").format(**values).splitlines()
        if not self.settings.accounting:
            lines = [line for line in lines if not line.startswith("AccountingStorage")]
        replaced = {line.partition("=")[0] for line in self.settings.more.splitlines()}
        lines = [line for line in lines if line.partition("=")[0] not in replaced]
        self.conf.write_text("\n".join([*lines, self.settings.more, *nodes, self.settings.partitions, ""]))
        (self.folder / "gres.conf").write_text(self.settings.gres)
        dbd = self.folder / "slurmdbd.conf"  # slurmdbd looks for it beside slurm.conf
        dbd.touch(mode=0o600)
        dbd.write_text(template("slurmdbd.conf").format(**values))
        known = [f"127.0.0.1 localhost\n{self.controller} {values['controller_name']}"]
        known += [f"{address} {host}" for host, address in self.hosts.items() if self.settings.names]
        (self.folder / "hosts").write_text("\n".join(known) + "\n")

    def _make_network(self) -> None:
        if Path("/sys/class/net", self.bridge).exists():
            raise ClusterError(
                f"network bridge {self.bridge} exists: a test SLURM is up in another folder; "
                "stop it with its TMPDIR"
            )
        (self.folder / "network").touch()  # `_stop` removes the network
        command("ip", "link", "add", self.bridge, "type", "bridge")
        command("ip", "addr", "add", f"{self.controller}/24", "dev", self.bridge)
        command("ip", "link", "set", self.bridge, "up")
        for host, address in self.hosts.items():
            space = self.space(host)
            command("ip", "netns", "add", space)
            command("ip", "link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
            command("ip", "link", "set", space, "master", self.bridge, "up")
            command("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            command("ip", "-n", space, "link", "set", "eth0", "up")
            command("ip", "-n", space, "link", "set", "lo", "up")

    def _start_database(self) -> None:
        data, socket = self.folder / "db", self.folder / "db.socket"
        command(
            "mariadb-install-db",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
            "--auth-root-socket-user=root",
            env=self.environment,
        )
        self._start(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={socket}",
            f"--pid-file={self.folder}/db.pid",
            "--skip-networking",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
        )
        wait_for("mariadbd", socket.exists)

    def _start_host(self, host: str) -> None:
        """A slurmd with namespaces of its own.

        nsenter instead of `ip netns exec`: that mounts another /sys, without the cgroups that slurmd needs.
        The shell is the host's process 1 and reaps the orphans of jobs. When `unshare` is killed, the host
        ends with all its processes.
        """
        boot = (
            f"hostname {host} && mount --bind {self.folder}/hosts /etc/hosts && "
            f"slurmd -D -N {host} -f {self.conf}; exit 1"
        )
        enter = ("nsenter", f"--net=/run/netns/{self.space(host)}")
        self._start(
            f"slurmd-{host}",
            *enter,
            "unshare",
            "--uts",
            "--pid",
            "--mount",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            boot,
        )

    def _start(self, name: str, *words: str) -> None:
        """Start a daemon in the background and record it, so that `down` stops this process and no other."""
        # MYSQL_UNIX_PORT: slurmdbd has no setting for the database's socket, its client library reads this.
        environment = self.environment | {"MYSQL_UNIX_PORT": str(self.folder / "db.socket")}
        with open(self.folder / f"{name}.out", "ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        with open(self.folder / "processes", "a") as file:
            file.write(json.dumps([process.pid, process_start(process.pid)]) + "\n")

    def _stop(self) -> None:
        """End the recorded processes, the last one first, then remove namespaces and bridge."""
        for number, (pid, start) in enumerate(reversed(self.started())):
            is_host = number < len(HOSTS)  # `unshare` ignores SIGTERM while it waits for its child
            end(pid, start, signal.SIGKILL if is_host else signal.SIGTERM)
        (self.folder / "processes").unlink(missing_ok=True)
        if (self.folder / "network").exists():
            for host in HOSTS:
                subprocess.run(["ip", "netns", "delete", self.space(host)], capture_output=True)
            subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True)
            (self.folder / "network").unlink()
        for name in ("munge.socket", "db.socket", "db", "state"):
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _succeeds(self, *words: str) -> bool:
        try:
            self.run(*words, timeout=30)
        except (ClusterError, subprocess.TimeoutExpired):
            return False
        return True

    def _booked(self) -> bool:
        """Whether slurmdbd knows the cluster."""
        try:
            return (
                self.cluster in self.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split()
            )
        except ClusterError:
            return False

    def _hosts_ready(self) -> bool:
        try:
            nodes = set(
                self.run("sinfo", "--all", "-h", "-N", "-o", "%N %T", timeout=30).splitlines()
            )  # once per partition
            states = [node.split()[1] for node in nodes]
        except (ClusterError, subprocess.TimeoutExpired):
            return False
        return len(states) == len(HOSTS) and all(
            state in {"idle", "mixed", "allocated", "completing"} for state in states
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["up", "down", "status"])
    action = parser.parse_args().action
    cluster = Slurm()
    try:
        if action == "up":
            cluster.up()
        if action == "down":
            cluster.down()
            return 0
    except (ClusterError, OSError) as error:
        print(f"test SLURM: {error}", file=sys.stderr)
        return 1
    if not cluster.is_up():
        print("test SLURM: not up", file=sys.stderr)
        return 1
    print(f"export SLURM_CONF={cluster.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
