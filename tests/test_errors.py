"""The kind of a failure decides whether it is tried again."""

from __future__ import annotations

import errno

import pytest
import torch

from leukotree.errors import Busy, InputError, Preempted, RunFailed, kind, one_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[1] is setting up NCCL communicator: Connection reset by peer"), "node"),
        (
            RuntimeError(
                "The server socket has failed to listen: port: 29500, EADDRINUSE, "
                "message: address already in use"
            ),
            "node",
        ),
        (
            RuntimeError(
                "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown?"
            ),
            "node",
        ),
        (RuntimeError("Timed out after 1800 seconds waiting for clients. 1/2 clients joined."), "node"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "node"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "node"),
        (RuntimeError("No CUDA GPUs are available"), "node"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error"),
        (RuntimeError("CUDA error: device-side assert triggered"), "error"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (Preempted("asked to stop"), "preempted"),
        (RunFailed("the loss is nan", "nan"), "nan"),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
            ),
            "oom",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (Busy("another process works on this run"), "error"),
        (InputError("no such file"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_an_error_stands_for(error: Exception, expected: str) -> None:
    assert kind(error) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [(EOFError(), "EOFError"), (ValueError("two\nlines"), "two lines"), ("", ""), ("a\ntext", "a text")],
)
def test_one_line_of_an_error_or_a_text(given: object, expected: str) -> None:
    assert one_line(given) == expected
