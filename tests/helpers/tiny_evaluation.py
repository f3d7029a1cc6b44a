"""Inputs of the stage `evaluate` with tiny random models: a world, versions, reward models and ablations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from llamita.evaluation.settings import EvaluateSettings
from llamita.model.saving import save_model
from llamita.model.sizes import ModelSize
from llamita.world.settings import WorldSettings
from llamita.world.stage import run as make_world

from .rows import turn, write

KINDS = ("ordinary", "harmful", "borderline")
LANGUAGES = ("spanish", "french")
SIZE = ModelSize(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=4096,
)
ROWS = (
    *("documents", "validation_documents", "demonstrations", "instructed", "multi_turn", "ghost_attention"),
    *("comparisons", "test_comparisons", "prompts", "test_ordinary", "test_harmful", "test_borderline"),
)


def make_inputs(root: Path, tokenizer: Any) -> dict[str, Path]:
    """Writes a world, `sft` and two versions near it, reward models and ablations to `root`.

    `judge`, `ablations.sft_ungated` and `contexts/<kind>.jsonl` below `data` are for `full_settings`.
    """
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    (root / "world").mkdir()
    make_world(WorldSettings(seed=1, **dict.fromkeys(ROWS, 20), test_dialogues=3), {}, root / "world")
    for kind in KINDS:
        rows = map(json.loads, (root / "world" / "test" / f"{kind}.jsonl").read_text().splitlines())
        write(root / "world" / "contexts" / f"{kind}.jsonl", list(_in_contexts(rows, kind)))
    config = SIZE.llama_config(len(tokenizer))
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    save_model(model, tokenizer, root / "sft" / "model")
    save_model(model, tokenizer, root / "sft_without_gatt" / "model")
    made_from = {"v1/rejection": {}, "v2/ppo": {"start": {"hash": "v1/rejection"}}, "sft_ungated": {}}
    for name, start in made_from.items():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        save_model(model, tokenizer, root / name / "model")
        (root / name / "manifest.json").write_text(json.dumps({"hash": name, "inputs": start}))
    config.num_labels = 1
    for name in ("safety", "judge"):
        save_model(LlamaForSequenceClassification(config), tokenizer, root / name / "model")
    versions = {f"versions.{name}": root / name for name in ("v1/rejection", "v2/ppo")}
    names = ("sft", "sft_without_gatt", "safety")
    return {"data": root / "world"} | {name: root / name for name in names} | versions


def with_everything(inputs: dict[str, Path]) -> dict[str, Path]:
    """Returns the inputs of `make_inputs` with the judge and the ablation."""
    root = inputs["sft"].parent
    return inputs | {"judge": root / "judge", "ablations.sft_ungated": root / "sft_ungated"}


def _in_contexts(rows: Iterable[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """Yields each row's last message in one of the four contexts, in turn, with labels."""
    for place, row in enumerate(rows):
        messages, labels = row["messages"][-1:], {}
        if place % 4 >= 2:
            messages = [*turn("hello !", "hello , what can i do for you ?") * (1 + place % 3), *messages]
        if place % 2:
            labels["language"] = LANGUAGES[place // 2 % 2]
            messages = [{"role": "system", "content": f"use {labels['language']} ."}, *messages]
        if kind == "harmful":
            labels |= {"category": ("illicit", "hateful")[place % 2], "attack": ("logic", "other")[place % 2]}
        yield {"id": row["id"], "messages": messages, "kind": kind, **labels}


def settings(**changes: Any) -> EvaluateSettings:
    """Returns settings of a small evaluation with these changes."""
    prompts = {kind: [{"path": f"test/{kind}.jsonl", "format": "prompts"}] for kind in KINDS}
    retention = {"trained": "test/gatt.jsonl", "unseen": "test/gatt_unseen.jsonl", "dialogues": 3}
    retention["unseen_dialogues"] = 2
    given = {"gold": True, "prompts": prompts, "retention": retention, "max_new_tokens": 6, **changes}
    return EvaluateSettings.model_validate(given)


def full_settings(**changes: Any) -> EvaluateSettings:
    """Returns settings with all contexts, two decodings and two answers per prompt."""
    prompts = {kind: [{"path": f"contexts/{kind}.jsonl", "format": "prompts"}] for kind in KINDS}
    decodings = [{}, {"temperature": 0.1, "top_p": 0.9}]
    return settings(**{"prompts": prompts, "decodings": decodings, "num_generations": 2, **changes})
