"""What all rounds share: prompts, reward models, tokenizer, and the rows that every version is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..chat_format.encoding import check_of, encode_prompt
from ..console import say
from ..data.fine_tuning import fine_tuning_dialogues
from ..data.intake import Intake
from ..data.rows import Dialogue
from ..data.sources import read_prompts
from ..deepspeed_file import check_deepspeed_file
from ..distributed.device import device
from ..errors import DataError
from ..model.checkpoint import context_length, load_tokenizer, tokenizer_hash
from ..model.lora import trunk_of
from ..model.scorer import Scorer
from .ppo_trainer import rank_sizes
from .rollout import EncodedPrompt
from .settings import RlhfSettings
from .trunk import SharedTrunk


@dataclass(frozen=True)
class Context:
    """Checked and read once, before the first round.

    Attributes:
        base: folder of the pretrained model, that every version starts from.
        trunk: with `lora`, the frozen weights that all models of PPO share.
        reward: folder of the helpfulness reward model, that the critic starts from.
        pool: the prompts that leave room for an answer.
        demonstrations: SFT and Ghost Attention rows.
        intake: what was left out of prompts and demonstrations.
        counts: `prompts` and those of `intake`, for the manifest.
    """

    settings: RlhfSettings
    tokenizer: Any
    base: Path
    reward: Path
    helpfulness: Scorer
    safety: Scorer
    pool: list[EncodedPrompt]
    demonstrations: list[Dialogue]
    intake: Intake
    counts: dict[str, Any]
    trunk: SharedTrunk | None = None


def prepare(settings: RlhfSettings, inputs: Mapping[str, Path]) -> Context:
    """Reads and checks the inputs, what is quickly seen to be wrong first.

    Raises:
        ConfigError: PPO's batch or the DeepSpeed file does not suit.
        DataError: models whose tokenizers differ, incomplete folders, broken rows, no prompt short enough.
    """
    if any(entry.ppo for entry in settings.rounds):
        mini, micro = rank_sizes(settings.ppo)
        check_deepspeed_file(settings.deepspeed, mini // micro, gpu=device().type == "cuda")
    tokenizer = load_tokenizer(inputs["sft"])
    if tokenizer_hash(load_tokenizer(inputs["base"])) != tokenizer_hash(tokenizer):
        raise DataError(
            f"{inputs['base']}: another tokenizer than that of {inputs['sft']}; "
            "expected the base model that it was tuned from"
        )
    trunk = None
    if settings.adapter is not None:
        trunk = SharedTrunk(trunk_of(inputs["base"]), settings.adapter)
    helpfulness, safety = (
        _scorer(inputs[name], tokenizer, trunk, name, settings.dtype) for name in ("helpfulness", "safety")
    )
    intake = Intake(settings.refuse_at_most, check_of(tokenizer))
    demonstrations = fine_tuning_dialogues(
        settings.dialogues,
        settings.ghost_attention,
        inputs["data"],
        gatt_root=inputs.get("gatt"),
        intake=intake,
    )
    prompts = read_prompts(settings.prompts, inputs["data"], intake)
    encoded = [EncodedPrompt(prompt, encode_prompt(tokenizer, prompt.messages)) for prompt in prompts]
    room = context_length(inputs["base"]) - settings.max_new_tokens
    longest = min(room, settings.max_prompt_length or room)
    why = "no room for an answer in the context" if longest == room else "max_prompt_length"
    pool = [prompt for prompt in encoded if len(prompt.ids) <= longest]
    if not pool:
        raise DataError(f"all {len(encoded)} prompts are longer than {longest} tokens ({why})")
    if long := len(encoded) - len(pool):
        say(f"{long:,} prompts left out: longer than {longest} tokens ({why})")
    intake.skipped[f"prompt longer than {longest} tokens"] = long
    counts = {"prompts": len(pool), **intake.metrics()}
    return Context(
        settings,
        tokenizer,
        base=inputs["base"],
        reward=inputs["helpfulness"],
        helpfulness=helpfulness,
        safety=safety,
        pool=pool,
        demonstrations=demonstrations,
        intake=intake,
        counts=counts,
        trunk=trunk,
    )


def _scorer(folder: Path, tokenizer: Any, trunk: SharedTrunk | None, name: str, dtype: str) -> Scorer:
    if trunk is None:
        return Scorer(folder, tokenizer, dtype=dtype)
    return Scorer(folder, tokenizer, load=partial(trunk.reward_model, name), dtype=dtype)
