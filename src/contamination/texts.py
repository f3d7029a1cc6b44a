"""Reads evaluation samples, and training rows as texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.fields import field, text_field
from ..data.intake import Intake
from ..data.reading import Format, Skip, check_formats, stream
from ..data.records import records
from ..data.rows import Comparison, Dialogue, Message, Prompt
from ..data.sources import COMPARISONS, DIALOGUES, DOCUMENTS, PROMPTS
from ..errors import DataError
from ..jsonl import read_rows
from ..settings import Source
from .settings import SampleSource

QUESTIONS = "questions.jsonl"


@dataclass(frozen=True)
class Sample:
    """An evaluation sample: its id ("" if unknown), its text, and its score (None if unknown)."""

    id: str
    text: str
    score: float | None = None


def _scored(row: Mapping[str, Any]) -> Sample:
    """Converts {"id", "text", "score"}; the score is a number, true or false."""
    name, text = text_field(row, "id"), text_field(row, "text")
    score = field(row, "score", (bool, int, float))
    if score is None:
        raise DataError("field 'score' is missing; expected a number, true or false")
    return Sample(name, text, float(score))


def _joined(messages: Sequence[Message], *answers: str) -> str:
    return "\n".join([*(message["content"] for message in messages), *answers])


def _sample_of(row: Prompt | str) -> Sample:
    return Sample("", row) if isinstance(row, str) else Sample(row.id or "", _joined(row.messages))


def _text_of(row: Any) -> str:
    """Returns all texts of a training row, one below the other."""
    if isinstance(row, Comparison):
        return _joined(row.prompt, row.chosen, row.rejected)
    if isinstance(row, Dialogue):
        instruction = [row.instruction] if row.instruction else []
        return "\n".join([*instruction, _joined(row.messages)])
    return row if isinstance(row, str) else _joined(row.messages)


def _converted(convert: Callable[[Any], Any], formats: Mapping[str, Format[Any]]) -> dict[str, Format[Any]]:
    """Returns the formats with rows that `convert` changes."""

    def parse(before: Callable[[dict[str, Any]], Any], row: dict[str, Any]) -> Any:
        parsed = before(row)
        rows = parsed if isinstance(parsed, list) else [parsed]
        return [row if isinstance(row, Skip) else convert(row) for row in rows]

    return {name: format._replace(parse=partial(parse, format.parse)) for name, format in formats.items()}


SAMPLES: dict[str, Format[Sample]] = {
    **_converted(_sample_of, {**DOCUMENTS, **PROMPTS}),
    "scored": Format(_scored, records, frozenset({"id", "text", "score"})),
}
ROWS: dict[str, Format[str]] = _converted(_text_of, {**DOCUMENTS, **PROMPTS, **DIALOGUES, **COMPARISONS})


def read_samples(sources: Sequence[SampleSource], root: Path, intake: Intake) -> dict[str, list[Sample]]:
    """Reads the samples of each benchmark. Raises DataError as `data.reading.stream` does."""
    check_formats(sources, SAMPLES, "evaluation samples")
    benchmarks: dict[str, list[Sample]] = {}
    for source in sources:
        samples = stream([source], root, SAMPLES, kind="evaluation samples", intake=intake)
        benchmarks.setdefault(source.benchmark, []).extend(samples)
    return benchmarks


def read_questions(artifacts: Mapping[str, Path]) -> dict[str, list[Sample]]:
    """Reads the questions of the stages `benchmark`: `versions/MODEL/BENCHMARK/questions.jsonl` below each.

    They are named MODEL/BENCHMARK, with the name of the stage before it if there are several.

    Raises:
        DataError: an artifact has no such file, or a row is not {"id", "text", "score"}.
    """
    benchmarks: dict[str, list[Sample]] = {}
    for stage, folder in artifacts.items():
        paths = sorted(folder.glob(f"versions/**/{QUESTIONS}"))
        if not paths:
            raise DataError(f"{folder}: no {QUESTIONS} in it; expected an output of the stage `benchmark`")
        for path in paths:
            name = path.parent.relative_to(folder / "versions").as_posix()
            samples = list(_questions_in(path))
            if not samples:
                raise DataError(f"{path}: no rows; expected rows with id, text and score")
            benchmarks[f"{stage}/{name}" if len(artifacts) > 1 else name] = samples
    return benchmarks


def _questions_in(path: Path) -> Iterator[Sample]:
    remedy = "run the stage `benchmark` again"
    for number, row in enumerate(read_rows(path, remedy=remedy), start=1):
        try:
            yield _scored(row)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}; {remedy}") from None


def read_texts(source: Source, root: Path, intake: Intake) -> Iterator[str]:
    """Yields the texts of a source of training rows. Raises DataError as `data.reading.stream` does."""
    return stream([source], root, ROWS, kind="training rows", intake=intake)
