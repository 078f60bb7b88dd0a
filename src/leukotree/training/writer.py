"""A thread that writes files in order while the training continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Runs jobs one after another in a separate thread.

    After a job has failed, later ones are skipped, so that no file refers to one that was not written. The
    error (a full disk) is raised by `check`, or at the end of the `with` block, unless the block itself
    raised another error, which is then the first cause.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._last: Future[None] | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._pool.shutdown()
        if kind is None or kind is GeneratorExit:
            self.check()

    @property
    def failed(self) -> bool:
        """Whether a job has failed."""
        return self._error is not None

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job after those before it."""
        self._last = self._pool.submit(self._do, job)

    def wait(self) -> None:
        """Return when all jobs are done, or skipped after one that failed."""
        if self._last is not None:
            self._last.result()

    def check(self) -> None:
        """Raise the error of a job that failed."""
        if self._error is not None:
            raise self._error

    def _do(self, job: Callable[[], object]) -> None:
        if self._error is None:
            try:
                job()
            except BaseException as error:  # `check` raises it where all ranks can end together
                self._error = error
