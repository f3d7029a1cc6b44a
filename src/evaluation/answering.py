"""Lets one model answer the test prompts, and measures and stores its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..console import say
from ..data.held_out import opening
from ..distributed.cached import cached_folder
from ..jsonl import Row, read_rows, write_rows
from ..measures import empty_version
from ..miniature.gold import Gold
from ..model.reward_models import Scores
from ..sampling.decoding import Decoding
from .answers import (
    Answered,
    answer_values,
    log_ratios,
    refusal_agreement,
    refusal_values,
    score_values,
    summed_logprobs,
)
from .prompts import EvaluationPrompt
from .responder import Models, SampledAnswer, load_model
from .settings import DecodingSettings, EvaluateSettings
from .values import Column, Values, drop_not_finite, figures
from .versions import SFT, Version

ANSWERS, VALUES = "answers.jsonl", "values.json"
CLASSIFIER_MEASURES = (
    "classifier_refusal_rate",
    "classifier_false_refusal_rate",
    "classifier_refusal_borderline",
)


@dataclass(frozen=True)
class Result:
    """One model's answers in one decoding.

    Attributes:
        answered: prompts and answers; answers to one prompt are adjacent.
        values: finite measures, one value per answer.
        figures: means and standard errors of all measures.
        not_finite: number of NaN and infinite values of the measures that `values` lacks for them.
        agreement: see `refusal_agreement`; None without a refusal classifier.
    """

    answered: Answered
    values: Values
    figures: Row
    not_finite: Row
    agreement: Row | None


Results = Mapping[str, Result]


@dataclass(frozen=True)
class AnswerTest:
    """The test that all models take: they share its prompts, draws and scorers.

    Attributes:
        scorers: reward models by the names of their inputs.
        gold: the ground truth, None if it is unknown.
        is_refusal: the refusal classifier, if there is one: texts -> whether each is a refusal.
        folders: folder of each version by name.
    """

    settings: EvaluateSettings
    models: Models
    prompts: list[EvaluationPrompt]
    scorers: Mapping[str, Scores]
    gold: Gold | None
    is_refusal: Callable[[Sequence[str]], list[bool]] | None
    folders: Mapping[str, Path]

    @cached_property
    def answered_prompts(self) -> list[EvaluationPrompt]:
        """The prompt of each answer."""
        return [prompt for prompt in self.prompts for _ in range(self.settings.num_generations)]

    @cached_property
    def groups(self) -> list[str]:
        """Groups of answers for standard errors: prompts with the same first user message are one group."""
        return [opening(prompt) for prompt in self.answered_prompts]

    def run(self, version: Version, out: Path) -> Results:
        """Returns a version's results by the names of the decodings, the headline first.

        Answers and measures are stored below `out`; a resumed run reuses them.
        """
        headline, *others = self.settings.decodings
        folders = [out / "versions", *(out / "decodings" / decoding.folder for decoding in others)]
        return {
            decoding.name: self._result(version, decoding, folder / version.name)
            for decoding, folder in zip((headline, *others), folders, strict=True)
        }

    def run_ablation(self, ablation: Version, out: Path) -> Result:
        """Returns the results of an ablation, which answers in the first decoding only."""
        return self._result(ablation, self.settings.decodings[0], out / "ablations" / ablation.name)

    def _result(self, version: Version, decoding: DecodingSettings, folder: Path) -> Result:
        metrics = cached_folder(folder, partial(self._measure, version, decoding))
        answers = [SampledAnswer(**row) for row in read_rows(folder / ANSWERS)]
        return Result(
            list(zip(self.answered_prompts, answers, strict=True)),
            values=json.loads((folder / VALUES).read_text(encoding="utf-8")),
            **metrics,
        )

    def _measure(self, version: Version, decoding: DecodingSettings, out: Path) -> Row:
        say(f"{version.name}: sampling {len(self.answered_prompts):,} answers ({decoding.name})")
        responder = self.models.responder(version.folder, self.models.tokenizer)
        answers = responder.answer(
            [prompt.ids for prompt in self.prompts],
            "test",
            Decoding(decoding.temperature, decoding.top_p),
            num_generations=self.settings.num_generations,
        )
        del responder  # and its copy of the weights, before other models are loaded
        write_rows(out / ANSWERS, map(asdict, answers))
        answered = list(zip(self.answered_prompts, answers, strict=True))
        limit = self.settings.false_refusal_prompts * self.settings.num_generations
        values = answer_values(answered, self.gold, limit)
        values |= score_values(answered, self.scorers)
        if decoding.is_plain:  # other answers are no samples of the distribution whose KL this estimates
            values |= self._kl(version, self.models.load(version.folder), answered)
        agreement = None
        if self.is_refusal is not None:
            classified = self.is_refusal([answer.text for answer in answers])
            values |= refusal_values(answered, classified, CLASSIFIER_MEASURES, limit=limit)
            agreement = refusal_agreement(answered, classified, self.gold, groups=self.groups)
        finite, not_finite = drop_not_finite(values)
        for name, count in not_finite.items():
            say(f"{version.name}: {name} is null: {count:,} of its values are NaN or infinite")
        write_json(out / VALUES, finite)
        measured = empty_version() | figures(finite, self.groups)
        return {"figures": measured, "not_finite": not_finite, "agreement": agreement}

    def _kl(self, version: Version, model: Any, answered: Answered) -> dict[str, Column]:
        """Returns the log-ratios to `sft`, and to the version that PPO started from."""
        logprobs = summed_logprobs(model, answered)
        of_sft = logprobs if version.name == SFT else summed_logprobs(self.models.sft, answered)
        ratios = {"kl_to_sft": log_ratios(logprobs, of_sft)}
        if version.start == SFT:
            ratios["kl_to_start"] = ratios["kl_to_sft"]
        elif version.start is not None:
            start = load_model(self.folders[version.start], self.settings)
            ratios["kl_to_start"] = log_ratios(logprobs, summed_logprobs(start, answered))
        return ratios
