"""The stage `gatt`: Ghost Attention's dialogues, sampled from a chat model and checked by code (3.3).

The instruction is on every user message while answers are sampled. Of K answers to a turn, of those that
keep it, the most helpful safe one stays by the reward models, or without them the likeliest. The stage `sft`
then states the instruction once, at the start, and trains the last answer.
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
from ..model.checkpoint import load_tokenizer
from ..model.reward_models import RewardModels, load_reward_models
from .builder import DialogueBuilder, PartialDialogue
from .settings import GattSettings

TRAIN, ABLATION, TEST = "gatt.jsonl", "gatt_without.jsonl", "test.jsonl"


def run(settings: GattSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes `gatt.jsonl`, the same dialogues without instructions as `gatt_without.jsonl`, and `test.jsonl`.

    Metrics: `dialogues`, `turns` (dialogues by their turns), `too_short`, `out_of_context`, and by kind of
    instruction `samples` and `kept_share` of them; those of `data.intake.Intake` (prompts left out).

    Raises:
        ConfigError: a package that an instruction's check needs is missing, or one of two reward models.
        DataError: too few prompts, a broken row, a model that can't be read.
    """
    tokenizer = load_tokenizer(inputs["model"])
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    reward_models = _reward_models(settings, inputs, tokenizer)
    questions = _questions(settings, inputs["data"], intake)
    intake.write(out)
    draw = random.Random(settings.draws)
    draw.shuffle(questions)
    for_test = settings.test_dialogues and max(settings.test_turns, len(questions) // 5)
    if len(questions) - for_test < settings.max_turns:
        raise DataError(
            f"{len(questions)} prompts that differ; expected at least {for_test + settings.max_turns}"
        )
    dialogues = [_begin(settings, questions[for_test:], draw) for _ in range(settings.dialogues)]
    builder = DialogueBuilder(
        settings,
        inputs["model"],
        dialogues,
        reward_models=reward_models,
        state=out / RESUME / "turns.json",
    )
    builder.finish()
    done = [one for one in dialogues if one.turns >= settings.min_turns]
    if not done:
        raise DataError(
            f"none of {len(dialogues)} dialogues kept its instruction for {settings.min_turns} turns"
        )
    short = [draw.random() < settings.short_share for _ in done]
    rows = [
        {"instruction": one.instruction.short if brief else one.instruction.text, "messages": one.messages}
        for one, brief in zip(done, short, strict=True)
    ]
    write_rows(out / TRAIN, rows)
    write_rows(out / ABLATION, [{"messages": row["messages"]} for row in rows])
    write_rows(out / TEST, _test_rows(settings, questions[:for_test], draw))
    return {
        "dialogues": len(done),
        "too_short": len(dialogues) - len(done),
        "turns": dict(sorted(Counter(str(one.turns) for one in done).items())),
        "out_of_context": builder.outgrown,
        "samples": dict(builder.samples),
        "kept_share": {kind: builder.kept[kind] / count for kind, count in builder.samples.items()},
        **intake.metrics(),
    }


def _reward_models(settings: GattSettings, inputs: Mapping[str, Path], tokenizer: Any) -> RewardModels | None:
    """Those that choose among answers, where they are given."""
    given = [name for name in REWARD_MODELS if name in inputs]
    if not given:
        return None
    if len(given) == 1:
        raise ConfigError(f"inputs: {given[0]} is given alone; answers are chosen by both reward models")
    return load_reward_models(
        inputs, tokenizer, safety_threshold=settings.safety_threshold, dtype=settings.dtype
    )


def _questions(settings: GattSettings, root: Path, intake: Intake) -> list[str]:
    """What the prompts ask last, each once."""
    prompts = read_prompts(settings.prompts, root, intake)
    return list(dict.fromkeys(prompt.messages[-1]["content"].strip() for prompt in prompts))


def _begin(settings: GattSettings, questions: Sequence[str], draw: random.Random) -> PartialDialogue:
    turns = draw.randint(settings.min_turns, settings.max_turns)
    return PartialDialogue(draw_instruction(settings.instructions, draw), draw.sample(questions, turns))


def _test_rows(settings: GattSettings, questions: Sequence[str], draw: random.Random) -> Iterator[Row]:
    for number in range(settings.test_dialogues):
        instruction = draw_instruction(settings.instructions, draw)
        yield {
            "id": f"t{number}",
            "instruction": instruction.text,
            "check": instruction.row(),
            "questions": draw.sample(questions, settings.test_turns),
        }
