"""Writing beside the training: one thread does what it is handed, in order, while the loop goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """Does jobs one after another in a thread of its own.

    After a job has failed none is done any more, so that nothing is claimed that was not written. Its error
    (a full disk) is raised by `check`, or at the end of the `with` block; there not over another error, which
    is the first cause then.
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
        """Have a job done after those before it."""
        self._last = self._pool.submit(self._do, job)

    def wait(self) -> None:
        """Return when all jobs are done, or left undone after one that failed."""
        if self._last is not None:
            self._last.result()

    def check(self) -> None:
        """Raise what ended a job, if one has failed."""
        if self._error is not None:
            raise self._error

    def _do(self, job: Callable[[], object]) -> None:
        if self._error is None:
            try:
                job()
            except BaseException as error:  # it is raised where the ranks can leave together
                self._error = error
