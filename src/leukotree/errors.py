"""Errors that a person can fix: one line each. The command line turns them into exit codes."""

from __future__ import annotations

import errno
from typing import Any, Literal

Kind = Literal["preempted", "timeout", "node", "server", "oom", "nan", "disk", "error"]
"""Why a run ended early. A server is the one of an address of shards: it is away for all nodes."""
RETRIED: tuple[Kind, ...] = ("preempted", "timeout", "node", "server")
"""Kinds whose cause is not the run. The launcher tries the run again, a limited number of times."""
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL Error 6",
    "remote process exited",
    "Connection was likely closed",
    "waiting for clients",
    "client socket has timed out",
    "EADDRINUSE",
    "uncorrectable ECC error",
    "busy or unavailable",
    "unhandled system error",
    "No CUDA GPUs are available",
)
"""Parts of torch's messages when another rank's process has ended, when the port of the ranks is taken, or
when the GPU is broken. An illegal access or a failed assertion on the device is not among them: its cause may
be the run."""
NO_MEMORY = "can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc"
"""Parts of messages of torch and of the system when there is no memory left."""
NO_ROOM = errno.ENOSPC, errno.EDQUOT
"""Error numbers for a full disk, or a used up quota."""


def one_line(error: object) -> str:
    """A text, or the message of an error, without line breaks. The type of an error that has no message."""
    return " ".join(str(error).split()) or (type(error).__name__ if isinstance(error, BaseException) else "")


class InputError(ValueError):
    """Bad input. The message is one line: the file, key or value that is wrong, and what to do. Exit code
    2."""


class Busy(InputError):
    """Another process holds a lock that this one needs. Trying again later may work."""


class RunFailed(RuntimeError):
    """A run that cannot continue. The message is one line. Exit code 1.

    Args:
        kind: the kind of failure, for the run's status.json.
        details: more values, for the run's failure.json.
    """

    def __init__(self, message: str, kind: Kind = "error", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind, self.details = kind, details

    def __reduce__(self) -> tuple[type[RunFailed], tuple[str, Kind, dict[str, Any] | None]]:
        return type(self), (str(self), self.kind, self.details)  # it is sent between processes


class PeerFailed(RuntimeError):
    """Another rank failed. The message is its reason."""


class Preempted(RuntimeError):
    """The scheduler ends the job, and everything is saved. Exit code 75 (EX_TEMPFAIL: run it again).

    Args:
        kind: "preempted", "timeout" near the end of the job's time, "node" where a machine failed, or
            "server" where the server of the shards did not answer.
    """

    def __init__(self, message: str, kind: Kind = "preempted") -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[Preempted], tuple[str, Kind]]:
        return type(self), (str(self), self.kind)


def kind(error: BaseException) -> Kind:
    """The kind of failure of an exception."""
    if isinstance(error, RunFailed | Preempted):
        return error.kind
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "preempted"
    # torch.OutOfMemoryError by its name: this module must not import torch.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in NO_MEMORY)
    ):
        return "oom"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "disk"
    return "node" if any(words in str(error) for words in LOST) else "error"
