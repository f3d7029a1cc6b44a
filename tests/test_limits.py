"""What the system lets this process use."""

from __future__ import annotations

import os
import resource

import pytest

from llamita.errors import ConfigError
from llamita.limits import OTHER_FILES, allow_open_files, available_cores


def test_cores_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert available_cores() == len(allowed)


def test_the_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OTHER_FILES, hard))
        allow_open_files(100, "sampler.parallel: 100")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OTHER_FILES + 100, hard)
        allow_open_files(10, "sampler.parallel: 10")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OTHER_FILES + 100, hard), "never lowered"
        with pytest.raises(
            ConfigError, match=r"sampler.parallel: 9: needs [\d,]+ open files.*allows a process"
        ):
            allow_open_files(hard, "sampler.parallel: 9")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
