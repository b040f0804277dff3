"""What can go wrong on the command line besides what pipeline/errors.py has, in words for the person."""

from __future__ import annotations

from pipeline.errors import StepwiseError


class UsageError(StepwiseError):
    """The command line asks for what can't be: names the option and the remedy."""


class FileError(StepwiseError):
    """A picture can't be written or read there: names the path and the cause."""


class OutputLost(StepwiseError):
    """Standard output can't be written: says why."""


class ServerError(StepwiseError):
    """The other Stepwise can't be reached, went away or isn't one: names it and the cause."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. `status` is the exit code that says so: 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
