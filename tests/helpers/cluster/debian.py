"""Programs that Debian has, installed where they are missing. Only the standard library."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.cluster.processes import ClusterError, command

LOCK = "/tmp/leukotree-apt.lock"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def install(packages: Mapping[str, str]) -> None:
    """Install the packages (program -> package) whose program is missing. Raises ClusterError where that is
    not possible."""
    with open(LOCK, "w") as lock:  # tests of several processes install at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(packages)


def _install(packages: Mapping[str, str]) -> None:
    missing = sorted(
        {package for program, package in packages.items() if not shutil.which(program, path=SYSTEM_PATH)}
    )
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"packages missing and no apt-get to install them: {' '.join(missing)}")
    # Debian starts a service when it installs one. This policy forbids it, and is removed at the end.
    policy = Path("/usr/sbin/policy-rc.d")
    missing_policy = not policy.exists()
    if missing_policy:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        command("apt-get", "update", "-qq", env=environment)
        command("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)
    finally:
        if missing_policy:
            policy.unlink()
