"""Errors that a person can mend: one line each, turned into an exit code by the command line."""

from __future__ import annotations

import errno
from typing import Any, Literal

Kind = Literal["preempted", "timeout", "node", "oom", "nan", "disk", "error"]
"""What ended a run before its end. The first three say nothing of the run: whoever drives it tries again, so
many times."""
RETRIED: tuple[Kind, ...] = ("preempted", "timeout", "node")
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
"""What torch says when the process at the other end has gone, when the ranks' port is taken, or when the
machine's GPU is broken. An illegal access or a failed assertion on the device is none of these: it may be the
run's own."""
NO_MEMORY = "can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc"
"""What torch and the system say when there is no memory left."""
NO_ROOM = errno.ENOSPC, errno.EDQUOT
"""Numbers of the errors that say that a disk, or the quota on it, is full."""


def one_line(error: object) -> str:
    """A text, or that of an error, without line breaks; an error's type where it has none."""
    return " ".join(str(error).split()) or (type(error).__name__ if isinstance(error, BaseException) else "")


class InputError(ValueError):
    """Bad input. The message is one line: which file, key or value is wrong, and what to do. Exit code 2."""


class Busy(InputError):
    """Another process holds what this one needs; it may be gone in a while."""


class RunFailed(RuntimeError):
    """A run that cannot go on, for a reason that its own numbers or jobs gave, in one line. Exit code 1.

    Args:
        kind: what it was; stands in the run's status.json.
        details: plain values that say more; they are kept in the run's failure.json.
    """

    def __init__(self, message: str, kind: Kind = "error", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind, self.details = kind, details

    def __reduce__(self) -> tuple[type[RunFailed], tuple[str, Kind, dict[str, Any] | None]]:
        return type(self), (str(self), self.kind, self.details)  # it travels between processes


class PeerFailed(RuntimeError):
    """Another rank failed, and says why."""


class Preempted(RuntimeError):
    """The scheduler asked for the slot back and everything is saved. Exit code 75 (EX_TEMPFAIL: run it
    again).

    Args:
        kind: "preempted", "timeout" near the end of the slot's time, or "node" where a machine of it failed.
    """

    def __init__(self, message: str, kind: Kind = "preempted") -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[Preempted], tuple[str, Kind]]:
        return type(self), (str(self), self.kind)


def kind(error: BaseException) -> Kind:
    """The kind of failure that an exception stands for."""
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
