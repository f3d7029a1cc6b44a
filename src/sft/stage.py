"""The stage `sft`: a base model and dialogues to a chat model, RLHF-V0 (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..chat_format.encoding import check_of
from ..chat_format.llama2 import CHAT_TEMPLATE
from ..chat_format.packing import pack_dialogues
from ..data.fine_tuning import fine_tuning_dialogues
from ..data.intake import Intake
from ..distributed import group
from ..model.architecture import carries_state, context_of
from ..model.checkpoint import load_causal_lm, load_tokenizer
from ..model.lora import begin, plain
from ..training.arguments import trainer_section
from ..training.finetune import finetune_packed
from ..training.health import watch
from ..training.tracking import Tracker
from .settings import SftSettings


def run(settings: SftSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Fine-tunes `inputs["model"]` and writes `out/model`; the loss counts answers only, EOS included.

    Metrics: those of `gatt.rows.pack_dialogues` (rows, tokens), of `data.intake.Intake` (what was left out)
    and of the training.
    """
    group.setup(settings.deepspeed)
    tokenizer = load_tokenizer(inputs["model"])
    if settings.chat_format == "llama2":
        tokenizer.chat_template = CHAT_TEMPLATE
    model = begin(load_causal_lm, inputs["model"], settings.adapter, seed=settings.seed)
    intake = Intake(settings.refuse_at_most, check_of(tokenizer))
    dialogues = fine_tuning_dialogues(
        settings.dialogues,
        settings.ghost_attention,
        inputs["data"],
        gatt_root=inputs.get("gatt"),
        intake=intake,
    )
    rows, counts = pack_dialogues(
        tokenizer,
        dialogues,
        settings.row_length,
        context_length=context_of(model.config),
        seed=settings.seed,
        alone=carries_state(plain(model)),
    )
    intake.skipped.update(counts["skipped"])
    intake.write(out)
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        trained = finetune_packed(
            model,
            tokenizer,
            rows,
            trainer=trainer_section(settings),
            seed=settings.seed,
            out=out,
            save_to=out / "model",
            tracker=tracker,
            deepspeed=settings.deepspeed,
            description="sft",
            watch=watch(settings),
            attention=settings.attention,
        )
    return counts | intake.metrics() | trained
