"""The stage `distillation`: safer answers from a safety preprompt, to train without it (section 4.2.4).

The chat model answers adversarial prompts without a preprompt, with a generic one, and with one that is
tailored to the prompt's risk category. The safety model scores all answers as answers to the prompt without
preprompt. The stages `sft` and `rejection` train the distilled answers that score above the original ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..artifact import RESUME
from ..chat_format.encoding import chat_format, check_of
from ..console import say
from ..data.intake import Intake
from ..distributed.cached import cached_rows
from ..errors import DataError
from ..jsonl import Row, write_rows
from ..model.checkpoint import context_length, load_tokenizer
from ..model.scorer import Scorer, check_same_tokenizer
from ..sampling.engines import Samplers
from ..sampling.interface import Sampler, without_end
from ..sampling.usable import is_usable
from .gate import Answer, Outcome
from .metrics import distillation_metrics
from .prompts import KINDS, DistilledPrompt, Kind, read_distilled_prompts
from .settings import DistillationSettings

DIALOGUES, UNGATED, SCORES = "dialogues.jsonl", "ungated.jsonl", "scores.jsonl"


def run(settings: DistillationSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes `dialogues.jsonl`, the same without the gate as `ungated.jsonl`, and `scores.jsonl`.

    Metrics: those of `distillation_metrics`, `ordinary_prompts` (skipped), and those of `data.intake.Intake`
    (skipped rows). Answers and scores that an interrupted run finished are read, not computed again.

    Raises:
        DataError: no adversarial prompt, an invalid row, preprompt or model, models with different
            tokenizers, or the gate keeps no answer.
    """
    tokenizer = load_tokenizer(inputs["model"])
    check_same_tokenizer(inputs["safety"], tokenizer)  # before hours of sampling
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    prompts, ordinary = read_distilled_prompts(
        settings,
        inputs["data"],
        tokenizer,
        context_length=min(context_length(inputs[name]) for name in ("model", "safety")),
        intake=intake,
    )
    intake.write(out)
    (out / RESUME).mkdir(exist_ok=True)
    with Samplers(settings, dtype=settings.dtype, working=out / RESUME) as samplers:
        samples = _sample_answers(
            settings,
            partial(samplers.of, inputs["model"]),
            tokenizer,
            prompts=prompts,
            folder=out / RESUME,
        )
    scores = cached_rows(
        out / RESUME / "scores.jsonl",
        lambda: _score_answers(settings, inputs["safety"], tokenizer, prompts=prompts, samples=samples),
    )
    outcomes = _outcomes(prompts, samples, scores, control_strings=chat_format(tokenizer).control_strings)
    metrics = distillation_metrics(outcomes)
    if not metrics["kept"]:
        unusable = len(outcomes) - metrics["ungated"]
        raise DataError(
            f"the gate keeps none of {len(outcomes):,} distilled answers: {unusable:,} of them are "
            "truncated, empty or contain a control string (if most are, raise max_new_tokens), the others "
            "score no higher than the original answer (use preprompts that the model follows)"
        )
    say(f"distilled answers kept for {metrics['kept']:,} of {len(outcomes):,} prompts")
    write_rows(out / SCORES, [outcome.row() for outcome in outcomes])
    write_rows(out / UNGATED, [one.dialogue() for one in outcomes if one.distilled is not None])
    write_rows(out / DIALOGUES, [one.dialogue() for one in outcomes if one.kept])
    return metrics | {"ordinary_prompts": ordinary} | intake.metrics()


def _sample_answers(
    settings: DistillationSettings,
    load: Callable[[], Sampler],
    tokenizer: Any,
    *,
    prompts: Sequence[DistilledPrompt],
    folder: Path,
) -> dict[Kind, list[Row]]:
    """One answer of each kind per prompt, in their order; each finished kind is stored in `folder`.

    Rows: `prompt` (its index), `answer` (text), `ids` (without EOS), `finished`.
    """

    sampler = cache(load)  # not loaded if an interrupted run has finished sampling

    def sample(kind: Kind) -> list[Row]:
        indices = [index for index, prompt in enumerate(prompts) if kind in prompt.ids]
        if not indices:
            return []
        samples = sampler().sample(
            [prompts[index].ids[kind] for index in indices],
            settings.max_new_tokens,
            temperature=settings.temperature,
            seed=f"{settings.full_seed}/{kind}",
            keys=indices,
            label=f"{kind} answers",
        )
        return [
            {
                "prompt": index,
                "answer": tokenizer.decode(without_end(ids, finished)).strip(),
                "ids": without_end(ids, finished),
                "finished": finished,
            }
            for index, ids, finished in zip(indices, samples.answer_ids, samples.finished, strict=True)
        ]

    return {kind: cached_rows(folder / f"{kind}.jsonl", partial(sample, kind)) for kind in KINDS}


def _score_answers(
    settings: DistillationSettings,
    safety: Path,
    tokenizer: Any,
    *,
    prompts: Sequence[DistilledPrompt],
    samples: Mapping[Kind, Sequence[Row]],
) -> list[Row]:
    """Safety scores of the answers of all kinds, one after the other: rows of `score`, in (0, 1).

    An answer is scored with the prompt that it is trained with: without preprompt.
    """
    rows = [row for kind in KINDS for row in samples[kind]]
    scores = Scorer(safety, tokenizer, dtype=settings.dtype)(
        [prompts[row["prompt"]].ids["original"] for row in rows],
        [row["ids"] for row in rows],
        "safety scores",
    )
    return [{"score": score} for score in scores.tolist()]


def _outcomes(
    prompts: Sequence[DistilledPrompt],
    samples: Mapping[Kind, Sequence[Row]],
    scores: Sequence[Row],
    *,
    control_strings: Sequence[str],
) -> list[Outcome]:
    answers: list[dict[Kind, Answer]] = [{} for _ in prompts]
    named = [(kind, row) for kind in KINDS for row in samples[kind]]
    for (kind, row), score in zip(named, scores, strict=True):
        usable = is_usable(row["answer"], row["finished"], control_strings)
        answers[row["prompt"]][kind] = Answer(row["answer"], usable, score["score"])
    return [Outcome(prompt, found) for prompt, found in zip(prompts, answers, strict=True)]
