from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers.benchmark import write_benchmarks
from ..helpers.chatml import chatml_tokenizer
from ..helpers.tiny import save_tiny_model


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local files of all benchmarks."""
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the chat models `small`, whose context cuts long prompts, and `large`."""
    folder = tmp_path_factory.mktemp("models")
    for name, context in (("small", 64), ("large", 8192)):
        save_tiny_model(folder / name, chatml_tokenizer(), max_position_embeddings=context)
    return folder
