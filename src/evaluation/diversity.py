"""Diversity of answers by temperature: self-BLEU for factual and creative prompts (5.1, figure 21)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..console import say, track
from ..data.intake import Intake
from ..distributed.cached import cached_folder
from ..jsonl import Row, write_rows
from ..sampling.decoding import Decoding
from ..statistics import measure
from .prompts import read_fitting
from .responder import Models
from .settings import DiversitySettings, EvaluateSettings
from .versions import Version

PROMPT_KINDS = ("factual", "creative")


def self_bleu(answers: Sequence[str]) -> float:
    """Returns the mean BLEU of each answer with the others as references, from 0 (diverse) to 1 (all equal).

    Sentence BLEU of sacrebleu with its tokens and smoothing; orders of n-grams that an answer is too short
    for don't count. At least two answers.
    """
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True)
    numbers = Counter(answers)
    total = 0.0
    for answer, number in numbers.items():
        if number > 1:  # BLEU with an equal reference, also for empty texts
            total += number
        else:
            others = [other for other in numbers if other != answer]  # repeated references change nothing
            total += bleu.sentence_score(answer, others).score / 100
    return total / len(answers)


@dataclass(frozen=True)
class DiversityTest:
    """The test that all versions take: they share its prompts and draws.

    Attributes:
        prompts: token ids of the prompts by kind.
        counts: of the prompts by kind, see `read_fitting`.
    """

    settings: EvaluateSettings
    diversity: DiversitySettings
    models: Models
    prompts: Mapping[str, list[list[int]]]
    counts: Mapping[str, Row]

    @classmethod
    def read(
        cls, settings: EvaluateSettings, data: Path, models: Models, *, context: int, intake: Intake
    ) -> DiversityTest | None:
        """Reads the prompts; None if the settings have none. Raises DataError as `read_fitting`."""
        if settings.diversity is None:
            return None
        prompts: dict[str, list[list[int]]] = {}
        counts: dict[str, Row] = {}
        for kind in PROMPT_KINDS:
            fitting, counts[kind] = read_fitting(
                f"{kind} prompts of diversity",
                getattr(settings.diversity, kind),
                data,
                settings=settings,
                tokenizer=models.tokenizer,
                context=context,
                intake=intake,
            )
            prompts[kind] = [ids for _, ids in fitting]
        return cls(settings, settings.diversity, models, prompts=prompts, counts=counts)

    def run(self, version: Version, out: Path) -> dict[str, Any]:
        """Returns `{kind: {temperature: mean self-BLEU over the prompts, "…_se": its standard error}}`.

        Answers are stored in the folder `out`; a resumed run reuses them.
        """
        values: Row = cached_folder(out, partial(self._measure, version))["self_bleu"]
        result: dict[str, Any] = {}
        for kind, by_temperature in values.items():
            result[kind] = {}
            for temperature, column in by_temperature.items():
                result[kind] |= measure(temperature, column)
        return result

    def _measure(self, version: Version, out: Path) -> Row:
        """Samples the answers; returns the self-BLEU of each prompt by kind and temperature."""
        number, prompts = (
            self.diversity.num_generations,
            [ids for one in self.prompts.values() for ids in one],
        )
        say(f"{version.name}: sampling {number:,} answers to {len(prompts):,} prompts at each temperature")
        responder = self.models.responder(version.folder, self.models.tokenizer)
        texts: dict[str, list[list[str]]] = {}
        rows = []
        for temperature in self.diversity.temperatures:
            name = f"{temperature:g}"
            answers = responder.answer(
                prompts, f"temperature {name}", Decoding(temperature), num_generations=number
            )
            rows += [{"temperature": temperature, **asdict(answer)} for answer in answers]
            found = [answer.text for answer in answers]
            texts[name] = [found[at : at + number] for at in range(0, len(found), number)]
        write_rows(out / "answers.jsonl", rows)
        values: dict[str, dict[str, list[float]]] = {kind: {} for kind in self.prompts}
        for name, groups in track(texts.items(), f"{version.name}: self-BLEU", len(texts)):
            column = iter(map(self_bleu, groups))
            for kind, own in self.prompts.items():
                values[kind][name] = [next(column) for _ in own]
        return {"self_bleu": values}
