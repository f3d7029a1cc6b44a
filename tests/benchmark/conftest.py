from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForSequenceClassification

from ..helpers.benchmark import write_benchmarks
from ..helpers.chatml import chatml_tokenizer
from ..helpers.tiny import save_tiny_model, tiny_model


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


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a classifier with two outputs."""
    folder, tokenizer = tmp_path_factory.mktemp("classifier"), chatml_tokenizer()
    config = tiny_model(vocab_size=len(tokenizer)).config
    config.num_labels, config.pad_token_id = 2, tokenizer.pad_token_id
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
