"""Parameters of the paper's models, from `config.json`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from llamita.errors import DataError
from llamita.memory.shape import Shape

from ..helpers.paper_shapes import PAPER


@pytest.mark.parametrize(
    ("name", "published"), [("7B", 6_738_415_616), ("13B", 13_015_864_320), ("70B", 68_976_648_192)]
)
def test_published_numbers_of_parameters(name: str, published: int) -> None:
    assert Shape.from_config(PAPER[name]).parameters == published


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"head_dim": 64}])
@pytest.mark.parametrize("name", PAPER)
def test_tensors_are_those_of_a_model_on_the_meta_device(name: str, changes: dict[str, Any]) -> None:
    config = PAPER[name] | {"num_hidden_layers": 2} | changes
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
        scorer = LlamaForSequenceClassification(LlamaConfig(**config, num_labels=1))
    assert sorted(Shape.from_config(config).tensors) == sizes(model)
    assert sorted(Shape.from_config(config, scores=True).tensors) == sizes(scorer)


def sizes(model: torch.nn.Module) -> list[int]:
    return sorted(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model_type": "gpt2"}, "model_type: expected llama"), ({"hidden_size": None}, "hidden_size: missing")],
)
def test_an_unknown_config_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Shape.from_config(PAPER["7B"] | changes)


def test_accounting_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, llamita.memory.account; print({'torch', 'transformers', 'deepspeed'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
