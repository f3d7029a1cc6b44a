"""The errors that a user can mend; the command line shows them as one message, without a traceback."""

from __future__ import annotations


class LlamitaError(Exception):
    """A stage failed for a reason that the user can mend."""

    exit_code = 1


class DataError(LlamitaError):
    """A row or a file of the input is wrong: `path:line: what was wrong; what would be right`."""


class ConfigError(LlamitaError):
    """A setting is wrong: `path:line: key: what was wrong; what would be right`."""

    exit_code = 2


class Interrupted(LlamitaError):
    """The run was asked to stop and saved itself: the same command goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class RolledBack(LlamitaError):
    """A step went wrong and its rows will be left out: the same command goes on from the state before."""

    exit_code = 76
