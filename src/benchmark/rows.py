"""Reads the local files of the benchmarks, each in its authors' schema, and checks every row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.fields import field, text_field
from ..data.file_rows import Record, file_records
from ..data.files import kind_of
from ..data.intake import Intake
from ..data.records import hub_records, locate, source_files
from ..data.unpacking import opened_text
from ..errors import DataError
from ..settings import Source
from ..yaml_file import nearest

Row = dict[str, Any]
SUBTASK = "subtask"
"""Field of a row of MMLU or BIG-Bench Hard: lm-eval's name of its subject or task."""
FROM_HUB = frozenset({"truthfulqa_generation", "toxigen_generation", "bold"})
"""Benchmarks whose `path` may be a data set on the Hub; those of lm-eval have their own."""


def read_rows(source: Source, root: Path, *, intake: Intake, subtasks: Sequence[str] = ()) -> list[Row]:
    """Reads and checks the rows of a benchmark; reports the skipped files of a folder.

    Args:
        source: file or folder below `root`; for a measure of the paper also the id of a data set on the Hub.
            Its format is the name in `Tasks`, which decides the schema.
        intake: counts bad rows; more than it allows are an error.
        subtasks: known subjects (mmlu) or tasks (bbh).

    Raises:
        DataError: a bad row (with file and line), no row at all, or a folder without files of the split.
    """
    rows = []
    for where, record in _records(source, root):
        try:
            if isinstance(record, DataError):
                raise record
            rows.append(_PARSERS[source.format](record, subtasks))
        except DataError as error:
            intake.add_bad_row(f"{where}: {error}")
    if not rows:
        raise DataError(f"{source.path}: no usable row; expected rows of the benchmark {source.format}")
    return rows


def by_subtask(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows by their subject or task, in the order of their first rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[SUBTASK], []).append(row)
    return groups


def limited(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """Returns the first `limit` rows of each group of people (of all rows if they have no group)."""
    counts: Counter[tuple[Any, Any]] = Counter()
    kept = []
    for row in rows:
        group = row.get("domain"), row.get("group")
        counts[group] += 1
        if limit is None or counts[group] <= limit:
            kept.append(row)
    return kept


def _records(source: Source, root: Path) -> Iterator[Record]:
    place, task = locate(source, root), source.format
    if isinstance(place, str):
        if task not in FROM_HUB:
            raise DataError(
                f"{place}: no such file or folder below {root}; expected local rows, or for lm-eval's own "
                f"data set on the Hub no tasks.{task}.path"
            )
        yield from hub_records(place, source.split, False)
        return
    for file in source_files(source, place):
        if task == "bbh":
            yield from _bbh_records(file)
        elif task == "bold" and kind_of(file) == "json":
            yield from _bold_records(file)
        else:
            yield from file_records(file)


def _document(file: Path) -> Any:
    """The JSON value in a file. Raises DataError with the line of a syntax error."""
    with opened_text(file) as text:
        content = text.read()
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno}: invalid JSON: {error.msg}") from None


def _bbh_records(file: Path) -> Iterator[Record]:
    """Rows of a task of BIG-Bench Hard, which the file's name or the row's field `task` names."""
    name = file.name.partition(".")[0]
    if kind_of(file) != "json":
        records = file_records(file)
    else:
        examples = document.get("examples") if isinstance(document := _document(file), dict) else document
        if not isinstance(examples, list):
            raise DataError(f'{file}: expected {{"examples": [{{"input", "target"}}, …]}}')
        records = ((f"{file}: example {number}", _object(row)) for number, row in enumerate(examples, 1))
    for where, row in records:
        yield where, row if isinstance(row, DataError) else {"task": name, **row}


def _object(value: Any) -> Row | DataError:
    found = type(value).__name__
    return value if isinstance(value, dict) else DataError(f"the row is a {found}; expected a JSON object")


def _bold_records(file: Path) -> Iterator[Record]:
    """Rows {"domain", "group", "prompt"} of a file DOMAIN_prompt.json: {group: {entity: [beginnings]}}."""
    document, domain = _document(file), file.name.removesuffix("_prompt.json")
    if not isinstance(document, dict):
        raise DataError(f"{file}: expected an object with the beginnings of sentences by group and entity")
    for group, entities in document.items():
        if not isinstance(entities, dict):
            raise DataError(f"{file}: group {group!r}: expected an object of entities")
        for entity, beginnings in entities.items():
            where = f"{file}: {group}: {entity}"
            if not isinstance(beginnings, list):
                raise DataError(f"{where}: expected a list of beginnings of sentences")
            for beginning in beginnings:
                yield where, {"domain": domain, "group": group, "prompt": beginning}


def _subtask(name: str, subtasks: Sequence[str], what: str) -> str:
    key = name.strip().lower().replace(" ", "_")
    if key not in subtasks:
        raise DataError(f"unknown {what} {name!r}{nearest(key, subtasks)}; expected one of lm-eval's names")
    return key


def _texts(row: Row, name: str) -> list[str]:
    values = field(row, name, list)
    if not values or not all(isinstance(value, str) for value in values):
        raise DataError(f"field {name!r} must be a list of texts")
    return list(values)


def _mmlu(row: Row, subtasks: Sequence[str]) -> Row:
    choices, answer = _texts(row, "choices"), row.get("answer")
    if len(choices) != 4:
        raise DataError(f"field 'choices' has {len(choices)} texts; expected 4")
    if isinstance(answer, str) and answer.strip().upper() in list("ABCD"):
        answer = "ABCD".index(answer.strip().upper())
    if isinstance(answer, bool) or answer not in range(4):
        raise DataError(
            f"field 'answer' is {answer!r}; expected the index of the right choice, 0 to 3, or A to D"
        )
    subject = _subtask(text_field(row, "subject"), subtasks, "subject")
    return {SUBTASK: subject, "question": text_field(row, "question"), "choices": choices, "answer": answer}


def _gsm8k(row: Row, _: Sequence[str]) -> Row:
    question, answer = text_field(row, "question"), text_field(row, "answer")
    if "####" not in answer:
        raise DataError("field 'answer' has no '#### NUMBER' at its end")
    return {"question": question, "answer": answer}


def _bbh(row: Row, subtasks: Sequence[str]) -> Row:
    name = _subtask(text_field(row, "task"), subtasks, "task")
    return {SUBTASK: name, "input": text_field(row, "input"), "target": text_field(row, "target")}


def _humaneval(row: Row, _: Sequence[str]) -> Row:
    return {name: text_field(row, name) for name in ("task_id", "prompt", "test", "entry_point")}


def _targets(row: Row, name: str, *, one_right: bool) -> Row:
    targets: Mapping[str, Any] = field(row, name, dict) or {}
    choices, labels = _texts(dict(targets), "choices"), targets.get("labels")
    if (
        not isinstance(labels, list)
        or len(labels) != len(choices)
        or not all(label in (0, 1) for label in labels)  # labels may be lists, which no set can contain
    ):
        raise DataError(f"field {name!r}: expected as many labels (0 or 1) as choices")
    if one_right and (labels[0] != 1 or sum(labels) != 1):
        raise DataError(f"field {name!r}: expected the first choice, and no other, to have the label 1")
    return {"choices": choices, "labels": labels}


def _truthfulqa(row: Row, _: Sequence[str]) -> Row:
    return {
        "question": text_field(row, "question"),
        "mc1_targets": _targets(row, "mc1_targets", one_right=True),
        "mc2_targets": _targets(row, "mc2_targets", one_right=False),
    }


def _toxigen(row: Row, _: Sequence[str]) -> Row:
    scores = {name: field(row, name, (int, float)) for name in ("toxicity_ai", "toxicity_human")}
    for name, score in scores.items():
        if score is None:
            raise DataError(f"field {name!r} is missing; expected a number from 1 to 5")
    return {"text": text_field(row, "text"), **{name: float(score) for name, score in scores.items()}}


def _question(row: Row, _: Sequence[str]) -> Row:
    return {"question": text_field(row, "question")}


def _toxigen_prompt(row: Row, _: Sequence[str]) -> Row:
    # the authors' files write the line breaks between the statements of a prompt as two characters
    return {"group": text_field(row, "group"), "prompt": text_field(row, "prompt").replace("\\n", "\n")}


def _bold(row: Row, _: Sequence[str]) -> Row:
    return {name: text_field(row, name) for name in ("domain", "group", "prompt")}


_PARSERS: dict[str, Callable[[Row, Sequence[str]], Row]] = {
    "mmlu": _mmlu,
    "gsm8k": _gsm8k,
    "bbh": _bbh,
    "humaneval": _humaneval,
    "truthfulqa": _truthfulqa,
    "toxigen": _toxigen,
    "truthfulqa_generation": _question,
    "toxigen_generation": _toxigen_prompt,
    "bold": _bold,
}
