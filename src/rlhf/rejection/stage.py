"""The stage `rejection`: fine-tunes the base model on the newest model's best answers (section 3.2.3)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...artifact import RESUME
from ...chat_format.encoding import chat_format, check_of, format_hash
from ...data.fine_tuning import stored_dialogues
from ...data.intake import Intake
from ...data.row_files import ROWS
from ...data.rows import Dialogue
from ...data.stored_rows import Joined
from ...distributed import group
from ...distributed.cached import cached_rows
from ...errors import DataError
from ...hashes import file_hash
from ...jsonl import Row, read_rows
from ...model.checkpoint import check_length, context_length
from ...model.frozen import free_partitioned
from ...model.lora import base_model_of
from ...sampling.engines import Samplers
from ...sampling.throughput import throughput
from ...settings import listed
from ...training.finetune import finetune_on_dialogues
from ...training.tracking import Tracker
from ..models import common_tokenizer, load_reward_models, smallest_context
from ..prompts import EncodedPrompt, read_pool
from ..shared_base import SharedBaseModel
from .answers import best_answers, choose_prompts, sample_answers, score_answers
from .settings import RejectionSettings
from .summary import selection_metrics

PROMPTS, SAMPLES, SCORES, SELECTION = (
    f"{name}.jsonl" for name in ("prompts", "samples", "scores", "selection")
)


def run(settings: RejectionSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Samples from `inputs["model"]`, fine-tunes `inputs["base"]` on the best answers into `out/model`.

    The base model is trained on the demonstrations and on the best answers of this and all earlier rounds
    (`selections`). In the paper V3, trained on the last round's answers only, lost skills; later versions
    use the answers of all rounds.

    Metrics: see `_select`; those of `data.intake.Intake` (skipped rows), of packing and of the training.
    Raises DataError for models or rows that don't fit together, ConfigError for settings that don't.
    """
    earlier = _earlier_rounds(inputs)
    group.setup(settings.deepspeed)
    tokenizer = common_tokenizer(inputs, "model", "base")
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    # before hours of sampling
    check_length("max_length", settings.max_length, context_length(inputs["base"]))
    demonstrations = stored_dialogues(
        settings, inputs, out / ROWS, identity={"format": format_hash(tokenizer)}, intake=intake
    )
    context = smallest_context(inputs, "model", "base")
    pool = read_pool(settings, inputs["data"], tokenizer, context_length=context, intake=intake)
    intake.write(out)
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        selected = _select(settings, inputs, tokenizer, pool=pool, earlier=earlier, out=out, tracker=tracker)
        selections = [folder / SELECTION for folder in (*earlier, out)]
        best = [
            Dialogue(row["messages"], trained="last")  # only the last answer was sampled
            for path in selections
            for row in read_rows(path)
        ]
        repeats = settings.selection_repeats
        identity = {"selections": [file_hash(path) for path in selections], "repeats": repeats}
        return selected | finetune_on_dialogues(
            settings,
            inputs["base"],
            tokenizer,
            dialogues=Joined(demonstrations, best * repeats),
            identity={**demonstrations.identity, **identity},
            intake=intake,
            out=out,
            tracker=tracker,
            description="fine-tuning",
        )


def _earlier_rounds(inputs: Mapping[str, Path]) -> list[Path]:
    """The folders of `selections`. Raises DataError for a folder that the stage `rejection` did not write."""
    folders = list(listed(inputs, "selections").values())
    for folder in folders:
        if not ((folder / PROMPTS).is_file() and (folder / SELECTION).is_file()):
            raise DataError(
                f"input selections: {folder} has no {PROMPTS} and {SELECTION}; pass only outputs of stage "
                "'rejection' (in a pipeline: `all.` and its name)"
            )
    return folders


def _select(
    settings: RejectionSettings,
    inputs: Mapping[str, Path],
    tokenizer: Any,
    *,
    pool: Sequence[EncodedPrompt],
    earlier: Sequence[Path],
    out: Path,
    tracker: Tracker,
) -> dict[str, Any]:
    """Samples, scores and selects; files that an interrupted run finished are read, not written again.

    Returns the metrics of `selection_metrics`.
    """

    def choose() -> list[Row]:
        used = [row for folder in earlier for row in read_rows(folder / PROMPTS)]
        indices = choose_prompts(pool, settings.prompts_per_round, used, seed=settings.seed)
        return [{"pool": index, **pool[index].row()} for index in indices]

    def sample() -> list[Row]:
        with Samplers(settings, dtype=settings.dtype, working=out / RESUME) as samplers:
            sampler = samplers.of(inputs["model"])
            started = time.monotonic()
            rows = sample_answers(sampler, tokenizer, prompts, settings=settings)
        tokens = sum(len(row["answer_ids"]) for row in rows)
        tracker.rewind(-1)  # removes the row of an attempt that was killed before it stored its samples
        tracker.log(throughput(len(rows), tokens, time.monotonic() - started), step=0)
        return rows

    def score() -> list[Row]:
        shared = (
            SharedBaseModel(
                base_model_of(inputs["base"]),
                settings.adapter,
                bf16=settings.dtype == "bfloat16",
                partitioned=settings.frozen_models == "sharded",
            )
            if settings.adapter
            else None
        )
        reward_models = load_reward_models(settings, inputs, tokenizer, shared=shared)
        return score_answers(reward_models, samples, prompts)

    prompts = [pool[row["pool"]] for row in cached_rows(out / PROMPTS, choose)]
    samples = cached_rows(out / SAMPLES, sample)
    scores = cached_rows(out / SCORES, score)
    free_partitioned()  # the memory is needed for the training
    control_strings = chat_format(tokenizer).control_strings
    selection = cached_rows(
        out / SELECTION,
        lambda: best_answers(
            samples,
            scores,
            prompts,
            control_strings=control_strings,
            safety_threshold=settings.safety_threshold,
        ),
    )
    return selection_metrics(prompts, samples, scores, selection=selection, control_strings=control_strings)
