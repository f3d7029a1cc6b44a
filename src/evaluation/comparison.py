"""Lets all versions answer the same test prompts, measures each version and compares them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..console import say
from ..data.held_out import opening
from ..data.intake import Intake
from ..distributed.cached import cached_folder
from ..errors import DataError
from ..jsonl import Row, read_rows, write_rows
from ..measures import REWARD_MODELS, empty_version
from ..miniature.gold import Gold
from ..model.architecture import context_of
from ..model.checkpoint import load_tokenizer, tokenizer_hash
from ..model.reward_models import Scores
from ..model.scorer import Scorer
from ..settings import listed
from .answers import (
    Answered,
    answer_values,
    log_ratios,
    sample_answers,
    score_values,
    summed_logprobs,
)
from .prompts import EvaluationPrompt, Kind, read_evaluation_prompts
from .responder import SampledAnswer, load_model, make_responder
from .settings import EvaluateSettings
from .values import Values, differences, drop_not_finite, figures
from .versions import SFT, Version, list_versions

ANSWERS, VALUES = "answers.jsonl", "values.json"
SAMPLES: dict[Kind, int] = {"ordinary": 8, "harmful": 6, "borderline": 4}


@dataclass(frozen=True)
class _VersionTest:
    """The test of one version; all versions share its prompts and scorers."""

    settings: EvaluateSettings
    tokenizer: Any
    sft: Any
    prompts: list[EvaluationPrompt]
    scorers: Mapping[str, Scores]
    gold: Gold | None
    folders: Mapping[str, Path]

    def run(self, version: Version, out: Path) -> Row:
        """Writes a version's answers and values to `out` and returns its figures."""
        say(f"{version.name}: sampling {len(self.prompts):,} answers")
        model = self.sft if version.name == SFT else load_model(version.folder, self.settings)
        responder = make_responder(model, self.tokenizer, self.settings)
        answers = responder.answer([prompt.ids for prompt in self.prompts], "test")
        write_rows(out / ANSWERS, map(asdict, answers))
        answered = list(zip(self.prompts, answers, strict=True))
        logprobs = summed_logprobs(model, answered)
        reference = logprobs if model is self.sft else summed_logprobs(self.sft, answered)
        values = answer_values(answered, self.gold, self.settings.false_refusal_prompts)
        values |= score_values(answered, self.scorers)
        values["kl_to_sft"] = log_ratios(logprobs, reference)
        if version.start is not None:
            start = load_model(self.folders[version.start], self.settings)
            values["kl_to_start"] = log_ratios(logprobs, summed_logprobs(start, answered))
        finite, not_finite = drop_not_finite(values)
        for name, count in not_finite.items():
            say(f"{version.name}: {name} is null: {count:,} of its values are NaN or infinite")
        write_json(out / VALUES, finite)
        return {"figures": empty_version() | figures(finite, self.groups), "not_finite": not_finite}

    @property
    def groups(self) -> list[str]:
        """Groups of answers for standard errors: prompts with the same first user message are one group."""
        return [opening(prompt) for prompt in self.prompts]


def compare_versions(
    settings: EvaluateSettings, inputs: Mapping[str, Path], out: Path, *, gold: Gold | None, intake: Intake
) -> dict[str, Any]:
    """Returns the keys `versions`, `differences`, `not_finite`, `prompts` and `samples` of the evaluation.

    Each version's answers are stored in a folder of its name below `out`; a resumed run reuses them.

    Raises:
        DataError: a version's name can't be a folder, or its tokenizer differs from that of `sft`.
    """
    tokenizer = load_tokenizer(inputs["sft"])
    versions = list_versions(inputs["sft"], listed(inputs, "versions"))
    for version in versions[1:]:
        if tokenizer_hash(load_tokenizer(version.folder)) != tokenizer_hash(tokenizer):
            raise DataError(
                f"{version.folder}: the tokenizer of version {version.name!r} differs from that of "
                f"{inputs['sft']}; only versions of one model can be compared"
            )
    sft = load_model(inputs["sft"], settings)
    prompts, counts = read_evaluation_prompts(
        settings, inputs["data"], tokenizer, context=context_of(sft.config), intake=intake
    )
    scorers = {
        name: Scorer(inputs[name], tokenizer, dtype=settings.dtype)
        for name in REWARD_MODELS
        if name in inputs
    }
    folders = {version.name: version.folder for version in versions}
    test = _VersionTest(
        settings, tokenizer, sft, prompts=prompts, scorers=scorers, gold=gold, folders=folders
    )
    results = {
        version.name: cached_folder(out / version.name, partial(test.run, version)) for version in versions
    }
    answers: dict[str, Answered] = {}
    values: dict[str, Values] = {}
    for name in results:
        stored = [SampledAnswer(**row) for row in read_rows(out / name / ANSWERS)]
        answers[name] = list(zip(prompts, stored, strict=True))
        values[name] = json.loads((out / name / VALUES).read_text(encoding="utf-8"))
    return {
        "versions": {name: result["figures"] for name, result in results.items()},
        "differences": differences(values, test.groups),
        "not_finite": {
            name: result["not_finite"] for name, result in results.items() if result["not_finite"]
        },
        "prompts": counts,
        "samples": sample_answers(answers, gold, SAMPLES),
    }
