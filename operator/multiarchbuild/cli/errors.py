"""How a command can end, as exit codes that scripts can use.

0    success
1    BuildFailedError: the build failed, was cancelled, superseded or deleted; doctor: a problem
2    UsageError: the command line, a file or a folder it names is wrong
3    RefusedError: API server or registry refuses: not found, forbidden, invalid, conflict
4    UnreachableError: API server or registry does not answer
124  TimedOutError: --timeout is over; the build goes on
130  Ctrl-C; the build goes on
"""

from typing import ClassVar


class CliError(Exception):
    """A command that could not do what it was asked for; the message says why and what to do."""

    code: ClassVar[int] = 1


class BuildFailedError(CliError):
    """The build ended without the image that was asked for."""

    code = 1


class UsageError(CliError):
    """What the user wrote is wrong."""

    code = 2


class RefusedError(CliError):
    """The API server or a registry says no."""

    code = 3


class NotFoundError(RefusedError):
    """The API server has no such thing."""


class UnreachableError(CliError):
    """The API server or a registry does not answer."""

    code = 4


class TimedOutError(CliError):
    """The time that the user gave is over."""

    code = 124


INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a program that SIGINT ends."""
