"""Errors that a user can fix; the command line prints them as one message without a traceback."""

from __future__ import annotations


class LlamitaError(Exception):
    """A stage failed for a reason that the user can fix."""

    exit_code = 1


class DataError(LlamitaError):
    """A row or file of the input is invalid: `path:line: problem; what was expected`."""


class ConfigError(LlamitaError):
    """A setting is invalid: `path:line: key: problem; what was expected`."""

    exit_code = 2


class Interrupted(LlamitaError):
    """The run was asked to stop and saved a checkpoint; the same command resumes it."""

    exit_code = 75  # EX_TEMPFAIL in sysexits.h: retry


class RolledBack(LlamitaError):
    """Training diverged: the same command resumes from an earlier checkpoint and skips the rows since."""

    exit_code = 76


def install_command(extra: str) -> str:
    """What to type to install the packages of an extra: llamita is installed from its checkout only."""
    return f'in the checkout, type `pip install -c constraints.txt -e ".[{extra}]"`'
