"""Evaluation: every version answers the same test prompts, judged by the truth and by the reward models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..chat_format.encoding import check_of
from ..console import say
from ..data.held_out import opening
from ..data.intake import Intake
from ..distributed.device import device
from ..distributed.steps import made_folder
from ..jsonl import Row, read_rows, write_rows
from ..measures import ATTENTION_SERIES, empty_evaluation, empty_version
from ..miniature.gold import Gold
from ..model.architecture import context_of
from ..model.checkpoint import load_causal_lm, load_tokenizer
from ..model.scorer import Scorer
from ..sampling.generate import sampler_for
from .attention import Held, measure_attention
from .questions import Kind, Question, read_questions
from .retention import CheckedByCode, InstructedDialogue, measure_retention, read_instructed
from .settings import EvaluateSettings, RetentionSettings
from .speaker import Answer, Speaker
from .values import Values, differences, figures, finite, less
from .versions import (
    Answered,
    Scores,
    Version,
    answer_values,
    list_versions,
    log_ratios,
    sample_answers,
    score_values,
    summed_logprobs,
)

ANSWERS, VALUES, DIALOGUES = "answers.jsonl", "values.json", "dialogues.jsonl"
ATTENTION_DIALOGUES = 8
SAMPLES: dict[Kind, int] = {"ordinary": 8, "harmful": 6, "borderline": 4}


def run(settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Measures all versions and Ghost Attention, writes `evaluation.json`, and returns the same.

    What each version and each series of dialogues said is kept below `out`, and never sampled twice.

    Raises:
        DataError: broken test prompts, no versions in the rlhf artifact, a model that can't be read.
    """
    gold = Gold.load(inputs["data"]) if settings.gold else None
    intake = Intake(settings.refuse_at_most, check_of(load_tokenizer(inputs["sft"])))
    evaluation = empty_evaluation()
    if gold is not None:
        evaluation["demonstrations"] = {
            "gold_helpfulness": gold.demonstrations_helpfulness,
            "gold_helpfulness_se": gold.demonstrations_helpfulness_se,
        }
    _compare_versions(evaluation, settings, inputs, gold, intake, out / "versions")
    if settings.retention is not None:
        _measure_ghost_attention(
            evaluation, settings, settings.retention, inputs, gold, intake, out / "retention"
        )
    intake.write(out)
    evaluation["rows"] = intake.metrics()
    write_json(out / "evaluation.json", evaluation)
    return evaluation


# ----------------------------------------------------------------------------------------- versions


@dataclass(frozen=True)
class _Test:
    """What all versions are tested with."""

    settings: EvaluateSettings
    tokenizer: Any
    sft: Any
    questions: list[Question]
    scorers: Mapping[str, Scores]
    gold: Gold | None
    folders: Mapping[str, Path]

    def take(self, version: Version, out: Path) -> Row:
        """Writes a version's answers and returns what is measured of them."""
        say(f"{version.name}: {len(self.questions):,} answers")
        model = self.sft if version.name == "sft" else _load(version.folder, self.settings)
        speaker = _speaker(model, self.tokenizer, self.settings)
        told = speaker.ask([question.ids for question in self.questions], "test")
        write_rows(out / ANSWERS, map(asdict, told))
        answered = list(zip(self.questions, told, strict=True))
        logprobs = summed_logprobs(model, answered)
        reference = logprobs if model is self.sft else summed_logprobs(self.sft, answered)
        values = answer_values(answered, self.gold, self.settings.false_refusal_prompts)
        values |= score_values(answered, self.scorers)
        values["kl_to_sft"] = log_ratios(logprobs, reference)
        if version.start is not None:
            start = _load(self.folders[version.start], self.settings)
            values["kl_to_start"] = log_ratios(logprobs, summed_logprobs(start, answered))
        known, broken = finite(values)
        for name, count in broken.items():
            say(f"{version.name}: {name} is left out: {count:,} of its values are NaN or infinite")
        write_json(out / VALUES, known)
        return {"figures": empty_version() | figures(known, self.groups), "not_finite": broken}

    @property
    def groups(self) -> list[str]:
        """The prompt of each answer; prompts that open alike are one, as in the reward models' test."""
        return [opening(question) for question in self.questions]


def _compare_versions(
    evaluation: dict[str, Any],
    settings: EvaluateSettings,
    inputs: Mapping[str, Path],
    gold: Gold | None,
    intake: Intake,
    out: Path,
) -> None:
    tokenizer = load_tokenizer(inputs["sft"])
    sft = _load(inputs["sft"], settings)
    questions, evaluation["prompts"] = read_questions(
        settings, inputs["data"], tokenizer, context_of(sft.config), intake=intake
    )
    scorers = {
        name: Scorer(inputs[name], tokenizer, dtype=settings.dtype)
        for name in ("helpfulness", "safety")
        if name in inputs
    }
    versions = list_versions(inputs["sft"], inputs.get("rlhf"))
    folders = {version.name: version.folder for version in versions}
    test = _Test(settings, tokenizer, sft, questions, scorers, gold, folders)
    answers: dict[str, Answered] = {}
    values: dict[str, Values] = {}
    for version in versions:
        folder = out / version.name
        found = made_folder(folder, partial(test.take, version))
        evaluation["versions"][version.name] = found["figures"]
        if found["not_finite"]:
            evaluation["not_finite"][version.name] = found["not_finite"]
        told = [Answer(**row) for row in read_rows(folder / ANSWERS)]
        answers[version.name] = list(zip(questions, told, strict=True))
        values[version.name] = json.loads((folder / VALUES).read_text(encoding="utf-8"))
    evaluation["differences"] = differences(values, test.groups)
    evaluation["samples"] = sample_answers(answers, gold, SAMPLES)


# ----------------------------------------------------------------------------------------- Ghost Attention


def _measure_ghost_attention(
    evaluation: dict[str, Any],
    settings: EvaluateSettings,
    retention: RetentionSettings,
    inputs: Mapping[str, Path],
    gold: Gold | None,
    intake: Intake,
    out: Path,
) -> None:
    """Retention of the model trained with GAtt, of its ablation, and with attribute values never trained."""
    series = (
        ("with", "sft", retention.trained, retention.dialogues),
        ("without", "sft_without_gatt", retention.trained, retention.dialogues),
        ("unseen", "sft", retention.unseen, retention.unseen_dialogues),
    )
    root = inputs.get("gatt", inputs["data"])
    # a test that two models take is read, and its bad rows are counted, once
    read = cache(lambda path, count: read_instructed(path, root, count, retention.turns, intake=intake))
    kept: dict[str, Values] = {}
    instructions: list[str] = []
    first: Path | None = None  # of the series, whose dialogues all models read: nothing else differs then
    for name, model_input, path, count in series:
        if model_input not in inputs or path is None:
            continue
        dialogues = read(path, count)
        if name == "with":
            instructions = [one.instruction for one in dialogues]
        hold = partial(_hold, name, inputs[model_input], dialogues, settings, gold, first)
        found = made_folder(out / name, hold)
        first = first or out / name
        evaluation["gatt_retention"][name] |= found["implicit"]
        evaluation["gatt_retention_explicit"][name] |= found["explicit"]
        evaluation["gatt_dialogues"][name] = found["counts"]
        if attention := found["attention"]:
            by_turn = evaluation["gatt_attention"][name]["by_turn"] | attention["by_turn"]
            evaluation["gatt_attention"][name] = attention | {"by_turn": by_turn}
        _tell_outgrown(name, found["counts"])
        kept[name] = found["kept"]
    if {"with", "without"} <= kept.keys():
        apart = less(kept["with"], kept["without"], kept["with"])
        evaluation["gatt_retention_difference"] |= figures(apart, instructions)


def _tell_outgrown(name: str, counts: Mapping[str, Any]) -> None:
    """Which shares are those of survivors only."""
    if counts["outgrown"]:
        left = ", ".join(f"turn {turn}: {reached:,}" for turn, reached in counts["reached"].items())
        say(
            f"warning: retention {name}: {counts['outgrown']:,} of {counts['started']:,} dialogues outgrew "
            f"the context; shares count only those that reached the turn ({left})"
        )


def _hold(
    name: str,
    folder: Path,
    dialogues: Sequence[InstructedDialogue],
    settings: EvaluateSettings,
    gold: Gold | None,
    first: Path | None,
    out: Path,
) -> Row:
    """Writes the dialogues that a model holds and returns what is measured of them."""
    say(f"retention {name}: {len(dialogues)} dialogues")
    model, tokenizer = _load(folder, settings), load_tokenizer(folder)
    speaker = _speaker(model, tokenizer, settings)
    found = measure_retention(speaker, gold or CheckedByCode(dialogues), dialogues)
    write_rows(out / DIALOGUES, ({"text": tokenizer.decode(one.ids), **asdict(one)} for one in found.held))
    attention = None
    if name in ATTENTION_SERIES:
        rows = read_rows((first or out) / DIALOGUES)[:ATTENTION_DIALOGUES]
        attention = measure_attention(model, [Held.from_row(row) for row in rows])
    return {
        "kept": found.kept,
        "implicit": found.implicit,
        "explicit": found.explicit,
        "counts": found.counts,
        "attention": attention,
    }


def _load(folder: Path, settings: EvaluateSettings) -> Any:
    return load_causal_lm(folder, settings.dtype).to(device()).eval()


def _speaker(model: Any, tokenizer: Any, settings: EvaluateSettings) -> Speaker:
    context = context_of(model.config)
    sampler = sampler_for(model, settings.sampling_batch_size)
    return Speaker(sampler, tokenizer, context, settings.max_new_tokens, settings.seed)
