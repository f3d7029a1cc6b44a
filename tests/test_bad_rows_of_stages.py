"""Every stage that reads rows checks `max_bad_rows` and the chat format before it starts to work."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from llamita.errors import DataError
from llamita.runner.stages import settings_class
from llamita.sft import stage as sft_stage
from llamita.training import finetune

from .helpers.material import HELPFULNESS, PRETRAIN, SFT
from .helpers.rows import turn, write
from .helpers.sources import source_setting
from .helpers.tiny import save_tiny_model, save_tiny_reward_model

CONTROL = "what is </s> ?"
PROMPTS = source_setting("prompts", "prompts")
TRAINER = {"max_steps": 1, "per_device_train_batch_size": 4}
DIALOGUES = source_setting("dialogues", "messages")
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "tokenizer": (
        "dialogues",
        {"vocab_size": 400, "documents": source_setting("fine", "text_rows"), "dialogues": DIALOGUES},
    ),
    "prepare": (
        "documents",
        {"documents": source_setting("documents", "text_rows"), "validation_share": 0.2},
    ),
    "pretrain": ("documents", PRETRAIN | {"validation": [], "validation_share": 0.2}),
    "sft": ("dialogues", SFT | {"ghost_attention": []}),
    "reward": (
        "comparisons",
        HELPFULNESS
        | {
            "comparisons": source_setting("comparisons", "comparison"),
            "test": source_setting("comparisons", "comparison"),
        },
    ),
    "gatt": ("prompts", {"prompts": PROMPTS, "dialogues": 1, "max_new_tokens": 4}),
    "refusal_classifier": (
        "labelled",
        {"answers": source_setting("labelled", "labelled_answers"), "held_out": 1},
    ),
    "distillation": (
        "prompts",
        {
            "prompts": PROMPTS,
            "preprompts": {"templates": ["be {adjective} ."], "adjectives": ["kind"]},
            "max_new_tokens": 4,
        },
    ),
    "ppo": ("prompts", {"prompts": PROMPTS, "max_new_tokens": 4}),
    "rejection": (
        "prompts",
        {
            "prompts": PROMPTS,
            "dialogues": source_setting("sound", "messages"),
            "prompts_per_round": 1,
            "max_new_tokens": 4,
            "max_length": 64,
            "trainer": TRAINER,
        },
    ),
    "evaluate": ("prompts", {"prompts": {"ordinary": PROMPTS}, "gold": False, "max_new_tokens": 4}),
    "red_team": ("prompts", {"prompts": PROMPTS, "max_new_tokens": 4, "judge": {"by": "rules"}}),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    good: dict[str, dict[str, Any]] = {
        "documents": {"text": "it is red"},
        "dialogues": {"messages": turn("how ?", "fine")},
        "comparisons": {"prompt": "how ?", "chosen": "fine", "rejected": "bolo"},
        "prompts": {"messages": turn("how ?")},
        "labelled": {"answer": "no", "refusal": True},
    }
    bad: dict[str, dict[str, Any]] = {
        "documents": {"texts": "it is red"},
        "dialogues": {"messages": turn(CONTROL, "fine")},
        "comparisons": {"prompt": CONTROL, "chosen": "fine", "rejected": "bolo"},
        "prompts": {"messages": turn(CONTROL)},
        "labelled": {"answer": "no", "refusal": "perhaps"},
    }
    for name, row in good.items():
        write(root / f"{name}.jsonl", [row, bad[name], bad[name]])
    write(root / "sound.jsonl", [good["dialogues"]])
    write(root / "fine.jsonl", [good["documents"]])
    model = save_tiny_model(root / "model" / "model", tokenizer).parent
    reward = save_tiny_reward_model(root / "reward", tokenizer)
    names = ("tokenizer", "model", "base", "sft", "start")
    return {"data": root, "helpfulness": reward, "safety": reward} | dict.fromkeys(names, model)


@pytest.mark.parametrize("kind", STAGES)
def test_bad_rows_stop_a_stage_or_are_skipped(kind: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    name, chosen = STAGES[kind]
    schema = settings_class(kind)
    run = importlib.import_module(f"{schema.__module__.removesuffix('.settings')}.stage").run
    path = inputs["data"] / f"{name}.jsonl"
    for most, line in ((0, 2), (1, 3)):
        settings = schema.model_validate_json(json.dumps(chosen | {"max_bad_rows": most}))
        needed = settings.inputs_taken()[0]
        (tmp_path / str(most)).mkdir()
        with pytest.raises(DataError) as error:
            folders = {needs: inputs[needs] for needs in needed} | {"versions.v1": inputs["model"]}
            run(settings, folders, tmp_path / str(most))
        assert str(error.value).startswith(f"{path}:{line}: ")
        assert ("1 bad rows before it were skipped" in str(error.value)) == (most == 1)


def test_skipped_rows_are_in_the_metrics_and_in_a_file(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "finetune_packed", lambda *given, **named: {})
    monkeypatch.setenv("WANDB_MODE", "disabled")
    settings = settings_class("sft").model_validate(STAGES["sft"][1] | {"max_bad_rows": 2})
    metrics = sft_stage.run(settings, {name: inputs[name] for name in ("model", "data")}, tmp_path)
    assert metrics["dialogues"] == 1
    assert metrics["bad_rows"] == 2
    listed = [json.loads(line) for line in (tmp_path / "bad_rows.jsonl").read_text().splitlines()]
    assert [reason.split(": ")[0] for reason in listed] == [
        f"{inputs['data']}/dialogues.jsonl:{line}" for line in (2, 3)
    ]
