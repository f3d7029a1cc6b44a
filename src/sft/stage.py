"""The stage `sft`: fine-tunes a base model on dialogues to a chat model, RLHF-V0 (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..chat_format.encoding import check_of, format_hash
from ..chat_format.llama2 import CHAT_TEMPLATE
from ..data.fine_tuning import stored_dialogues
from ..data.intake import Intake
from ..data.row_files import ROWS
from ..distributed import group
from ..model.checkpoint import load_tokenizer
from ..training.finetune import finetune_on_dialogues
from ..training.tracking import Tracker
from .settings import SftSettings


def run(settings: SftSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Fine-tunes `inputs["model"]` and writes `out/model`; the loss covers answers only, EOS included.

    Metrics: those of `pack_dialogues` (rows, tokens), of `data.intake.Intake` (skipped rows) and of
    `run_trainer`.
    """
    group.setup(settings.deepspeed)
    tokenizer = load_tokenizer(inputs["model"])
    if settings.chat_format == "llama2":
        tokenizer.chat_template = CHAT_TEMPLATE
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    dialogues = stored_dialogues(
        settings, inputs, out / ROWS, identity={"format": format_hash(tokenizer)}, intake=intake
    )
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        return finetune_on_dialogues(
            settings,
            inputs["model"],
            tokenizer,
            dialogues=dialogues,
            identity=dialogues.identity,
            intake=intake,
            out=out,
            tracker=tracker,
            description="sft",
        )
