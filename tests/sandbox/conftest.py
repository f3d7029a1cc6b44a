"""Runs every test of hostile programs as this user and, if that is root, also as an ordinary user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..helpers.sandboxed import AsOrdinaryUser, Runner, runners


@pytest.fixture(scope="module", params=[kind for _, kind in runners()], ids=[name for name, _ in runners()])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Runner]:
    runner = request.param()
    yield runner
    if isinstance(runner, AsOrdinaryUser):
        runner.close()
