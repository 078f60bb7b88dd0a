"""Questions to the commands of SLURM, asked again where its controller is busy."""

from __future__ import annotations

import subprocess
import time

from hpc.slurm import scheduler
from leukotree.errors import one_line

PATIENCE = 15.0
"""Seconds that a command may take."""
PAUSES = 1.0, 4.0
"""Seconds before a question is asked again."""


class Silent(Exception):
    """A command of SLURM did not answer; the message says what it said."""


def answer(*words: str, script: str | None = None, again: bool = True) -> subprocess.CompletedProcess[str]:
    """What a command says, which reads `script`. Raises Silent where it is missing, or the controller does
    not answer it."""
    said = ""
    for pause in (0.0, *(PAUSES if again else ())):
        time.sleep(pause)
        try:
            done = subprocess.run(
                words, input=script or "", capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except FileNotFoundError:
            raise Silent(f"{words[0]}: no such command here") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            said = one_line(error)
            continue
        if not done.returncode or not scheduler.SILENT.search(done.stderr):
            return done
        said = one_line(done.stderr)
    raise Silent(f"{words[0]}: {said[:200]}")


def ask(*words: str, again: bool = False) -> str:
    """Standard output of a command, asked `again` if the controller is busy. Raises Silent, also where the
    command fails."""
    done = answer(*words, again=again)
    if done.returncode:
        raise Silent(f"{words[0]}: {one_line(done.stderr or done.stdout)[:200]}")
    return done.stdout
