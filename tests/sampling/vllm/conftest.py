"""A model that two servers serve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llamita.sampling.vllm.sampler import VllmSampler

from ...helpers.fake_vllm import FakeVllm, fake_vllm
from ...helpers.served import open_sampler
from ...helpers.tiny import save_tiny_model


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that the servers load."""
    return save_tiny_model(tmp_path_factory.mktemp("served") / "model", tokenizer)


@pytest.fixture
def servers(folder: Path) -> Iterator[list[FakeVllm]]:
    """Two running servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(fake_vllm(folder)) for _ in range(2)]


@pytest.fixture
def sampler(servers: list[FakeVllm], folder: Path, tmp_path: Path) -> Iterator[VllmSampler]:
    """A sampler over both servers."""
    with open_sampler([server.url for server in servers], folder, tmp_path) as opened:
        yield opened
