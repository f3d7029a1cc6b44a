"""The stage `gatt`: samples the dialogues of Ghost Attention from a chat model (section 3.3).

While answers are sampled, the instruction is part of every user message. Rules check which of a turn's K
answers follow the instruction; of these the most helpful safe one by the reward models is selected, or
without reward models the most probable one. The stage `sft` then places the instruction once, at the start,
and trains on the last answer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..artifact import RESUME
from ..chat_format.encoding import check_of
from ..data.instructions import draw_instruction
from ..data.intake import Intake
from ..data.sources import read_prompts
from ..errors import ConfigError, DataError
from ..jsonl import Row, write_rows
from ..measures import REWARD_MODELS
from ..model.checkpoint import context_length, load_tokenizer
from ..model.reward_models import RewardModels, load_reward_models
from ..model.scorer import Scorer
from ..sampling.engines import Samplers
from .builder import DialogueBuilder, PartialDialogue
from .settings import GattSettings

TRAIN, ABLATION, TEST = "gatt.jsonl", "gatt_without.jsonl", "test.jsonl"


def run(settings: GattSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes `gatt.jsonl`, the same dialogues without instructions as `gatt_without.jsonl`, and `test.jsonl`.

    Metrics: `dialogues`, `turns` (number of dialogues by number of turns), `too_short`, `out_of_context`; by
    kind of instruction `samples` and `kept_share` (share of the samples that follow it); those of
    `data.intake.Intake` (skipped prompts).

    Raises:
        ConfigError: only one reward model is given, or the package that checks an instruction is missing.
        DataError: too few prompts, an invalid row or model, or no dialogue reached `min_turns`.
    """
    tokenizer = load_tokenizer(inputs["model"])
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    reward_models = _reward_models(settings, inputs, tokenizer)
    user_messages = _read_user_messages(settings, inputs["data"], intake)
    intake.write(out)
    draw = random.Random(settings.full_seed)
    draw.shuffle(user_messages)
    for_test = settings.test_dialogues and max(settings.test_turns, len(user_messages) // 5)
    if len(user_messages) - for_test < settings.max_turns:
        raise DataError(
            f"prompts: {len(user_messages)} different last messages; expected at least "
            f"{for_test + settings.max_turns}; add prompts, or lower max_turns or test_turns"
        )
    dialogues = [_start(settings, user_messages[for_test:], draw) for _ in range(settings.dialogues)]
    with Samplers(settings, dtype=settings.dtype, working=out / RESUME) as samplers:
        builder = DialogueBuilder(
            settings,
            samplers.of(inputs["model"]),
            dialogues,
            tokenizer=tokenizer,
            context_length=min(
                context_length(inputs[name]) for name in ("model", *REWARD_MODELS) if name in inputs
            ),
            reward_models=reward_models,
            state=out / RESUME / "turns.json",
        )
        builder.build()
    long_enough = [dialogue for dialogue in dialogues if dialogue.turns >= settings.min_turns]
    if not long_enough:
        raise DataError(
            f"none of {len(dialogues)} dialogues followed its instruction for {settings.min_turns} turns; "
            "raise num_generations, lower min_turns, or use a model that follows instructions better"
        )
    shorten = [draw.random() < settings.short_share for _ in long_enough]
    rows = [
        {
            "instruction": dialogue.instruction.short if short else dialogue.instruction.text,
            "messages": dialogue.messages,
        }
        for dialogue, short in zip(long_enough, shorten, strict=True)
    ]
    write_rows(out / TRAIN, rows)
    write_rows(out / ABLATION, [{"messages": row["messages"]} for row in rows])
    write_rows(out / TEST, _test_rows(settings, user_messages[:for_test], draw))
    return {
        "dialogues": len(long_enough),
        "too_short": len(dialogues) - len(long_enough),
        "turns": dict(sorted(Counter(str(dialogue.turns) for dialogue in long_enough).items())),
        "out_of_context": builder.out_of_context,
        "samples": dict(builder.samples),
        "kept_share": {kind: builder.followed[kind] / count for kind, count in builder.samples.items()},
        **intake.metrics(),
    }


def _reward_models(settings: GattSettings, inputs: Mapping[str, Path], tokenizer: Any) -> RewardModels | None:
    """Both reward models, or None if the stage has none as inputs. Raises ConfigError if it has only one."""
    given = [name for name in REWARD_MODELS if name in inputs]
    if not given:
        return None
    if len(given) == 1:
        raise ConfigError(
            f"inputs: only the reward model {given[0]} is given; "
            f"expected {' and '.join(REWARD_MODELS)}, or neither"
        )
    return load_reward_models(
        inputs,
        safety_threshold=settings.safety_threshold,
        load=lambda _, folder: Scorer(folder, tokenizer, dtype=settings.dtype),
    )


def _read_user_messages(settings: GattSettings, root: Path, intake: Intake) -> list[str]:
    """The last messages of the prompts, without duplicates."""
    prompts = read_prompts(settings.prompts, root, intake, seed=settings.seed)
    return list(dict.fromkeys(prompt.messages[-1]["content"].strip() for prompt in prompts))


def _start(settings: GattSettings, user_messages: Sequence[str], draw: random.Random) -> PartialDialogue:
    turns = draw.randint(settings.min_turns, settings.max_turns)
    return PartialDialogue(draw_instruction(settings.instructions, draw), draw.sample(user_messages, turns))


def _test_rows(settings: GattSettings, user_messages: Sequence[str], draw: random.Random) -> Iterator[Row]:
    for number in range(settings.test_dialogues):
        instruction = draw_instruction(settings.instructions, draw)
        yield {
            "id": f"t{number}",
            "instruction": instruction.text,
            "check": instruction.row(),
            "questions": draw.sample(user_messages, settings.test_turns),
        }
