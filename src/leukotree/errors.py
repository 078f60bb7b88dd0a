"""Errors that a person can mend: one line each, turned into an exit code by the command line."""


def one_line(error: object) -> str:
    """An error's text without line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


class InputError(ValueError):
    """Bad input. The message is one line: which file, key or value is wrong, and what to do. Exit code 2."""


class RunFailed(RuntimeError):
    """A run that cannot go on, for a reason that its own numbers or jobs gave, in one line. Exit code 1."""


class Preempted(RuntimeError):
    """The scheduler asked for the slot back and everything is saved. Exit code 75 (EX_TEMPFAIL: run it again)."""
