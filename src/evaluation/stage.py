"""Evaluation: every version answers the same test prompts, judged by the truth and by the reward models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..console import say
from ..model.checkpoint import load_causal_lm, load_tokenizer
from ..rlhf.scorer import Scorer
from ..sampling.generate import sampler_for
from ..training.engine import device
from ..world.gold import Gold
from .attention import Held, measure_attention
from .keys import ATTENTION_SERIES, empty_evaluation, empty_version
from .questions import Kind, read_questions
from .retention import CheckedByCode, measure_retention, read_instructed
from .settings import EvaluateSettings
from .speaker import Speaker
from .versions import (
    Answered,
    kl,
    list_versions,
    measure_answers,
    measure_scores,
    sample_answers,
    summed_logprobs,
)

ATTENTION_DIALOGUES = 8
SAMPLES: dict[Kind, int] = {"ordinary": 8, "harmful": 6, "borderline": 4}


def run(settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Measures all versions and Ghost Attention, writes `evaluation.json`, and returns the same.

    Raises:
        DataError: broken test prompts, no versions in the rlhf artifact, a model that can't be read.
    """
    gold = Gold.load(inputs["data"]) if settings.gold else None
    evaluation = empty_evaluation()
    if gold is not None:
        evaluation["demonstrations"] = {
            "gold_helpfulness": gold.demonstrations_helpfulness,
            "gold_helpfulness_se": gold.demonstrations_helpfulness_se,
        }
    _compare_versions(evaluation, settings, inputs, gold)
    if settings.retention is not None:
        _measure_ghost_attention(evaluation, settings, inputs, gold)
    write_json(out / "evaluation.json", evaluation)
    return evaluation


def _compare_versions(
    evaluation: dict[str, Any], settings: EvaluateSettings, inputs: Mapping[str, Path], gold: Gold | None
) -> None:
    tokenizer = load_tokenizer(inputs["sft"])
    sft = _load(inputs["sft"], settings)
    questions, evaluation["prompts"] = read_questions(
        settings, inputs["data"], tokenizer, sft.config.max_position_embeddings
    )
    scorers = {
        name: Scorer(inputs[name], tokenizer, dtype=settings.dtype)
        for name in ("helpfulness", "safety")
        if name in inputs
    }
    versions = list_versions(inputs["sft"], inputs.get("rlhf"))
    folders = {version.name: version.folder for version in versions}
    answers: dict[str, Answered] = {}
    for version in versions:
        say(f"{version.name}: {len(questions):,} answers")
        model = sft if version.name == "sft" else _load(version.folder, settings)
        speaker = _speaker(model, tokenizer, settings)
        told = speaker.ask([question.ids for question in questions], "test")
        answers[version.name] = answered = list(zip(questions, told, strict=True))
        logprobs = summed_logprobs(model, answered)
        reference = logprobs if model is sft else summed_logprobs(sft, answered)
        found = empty_version() | measure_answers(answered, gold, settings.false_refusal_prompts)
        found |= measure_scores(answered, scorers) | kl("kl_to_sft", logprobs, reference)
        if version.start is not None:
            start = _load(folders[version.start], settings)
            found |= kl("kl_to_start", logprobs, summed_logprobs(start, answered))
        evaluation["versions"][version.name] = found
    evaluation["samples"] = sample_answers(answers, gold, SAMPLES)


def _measure_ghost_attention(
    evaluation: dict[str, Any], settings: EvaluateSettings, inputs: Mapping[str, Path], gold: Gold | None
) -> None:
    """Retention of the model trained with GAtt, of its ablation, and with attribute values never trained."""
    assert settings.retention is not None
    retention = settings.retention
    series = (
        ("with", "sft", retention.trained, retention.dialogues),
        ("without", "sft_without_gatt", retention.trained, retention.dialogues),
        ("unseen", "sft", retention.unseen, retention.unseen_dialogues),
    )
    read: list[Held] = []  # by both models, so that nothing else makes a difference
    for name, model_input, path, count in series:
        if model_input not in inputs or path is None:
            continue
        say(f"retention {name}: {count} dialogues")
        model = _load(inputs[model_input], settings)
        speaker = _speaker(model, load_tokenizer(inputs[model_input]), settings)
        root = inputs.get("gatt", inputs["data"])
        dialogues = read_instructed(path, root, count, retention.turns)
        found = measure_retention(speaker, gold or CheckedByCode(dialogues), dialogues)
        evaluation["gatt_retention"][name] |= found.implicit
        evaluation["gatt_retention_explicit"][name] |= found.explicit
        evaluation["gatt_dialogues"][name] = found.counts
        read = read or found.held[:ATTENTION_DIALOGUES]
        if name in ATTENTION_SERIES:
            attention = measure_attention(model, read)
            evaluation["gatt_attention"][name]["by_turn"] |= attention.pop("by_turn")
            evaluation["gatt_attention"][name] |= attention
        if found.counts["outgrown"]:
            say(f"retention {name}: {found.counts['outgrown']} dialogues outgrew the context")


def _load(folder: Path, settings: EvaluateSettings) -> Any:
    return load_causal_lm(folder, settings.dtype).to(device()).eval()


def _speaker(model: Any, tokenizer: Any, settings: EvaluateSettings) -> Speaker:
    context = model.config.max_position_embeddings
    sampler = sampler_for(model, settings.sampling_batch_size)
    return Speaker(sampler, tokenizer, context, settings.max_new_tokens, settings.seed)
