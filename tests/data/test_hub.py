"""Data sets on the Hub, which is replaced by a fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamita.data.sources import read_dialogues, read_documents
from llamita.errors import DataError

from ..helpers.sources import source


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Requests to a fake Hub whose data sets fail after two rows."""
    import datasets

    requests: list[Any] = []

    def rows() -> Iterator[dict[str, Any]]:
        yield {"text": "one"}
        yield {"text": "two"}
        raise ConnectionError("gone")

    def load(name: str, config: str | None = None, **options: Any) -> Any:
        requests.append((name, config, options))
        return rows()

    monkeypatch.setattr(datasets, "load_dataset", load)
    return requests


def test_dialogues_of_the_hub_are_downloaded_once(tmp_path: Path, hub: list[Any]) -> None:
    with pytest.raises(DataError, match="org/set:main: row 1: field 'instruction' is missing; expected text"):
        read_dialogues(source("alpaca", "org/set:main", split="test"), tmp_path)
    assert hub == [("org/set", "main", {"split": "test", "streaming": False})]


def test_documents_of_the_hub_are_streamed(tmp_path: Path, hub: list[Any]) -> None:
    documents = read_documents(source("text_rows", "org/set"), tmp_path)
    assert [next(documents), next(documents)] == ["one", "two"]
    with pytest.raises(DataError, match=r"from the Hub failed after row 2 \(ConnectionError: gone\)"):
        next(documents)
    assert hub == [("org/set", None, {"split": "train", "streaming": True})]


def test_a_hub_that_does_not_respond(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"org/no-such-set: does not exist below .*, and reading it from the Hub failed",
    ):
        read_dialogues(source("alpaca", "org/no-such-set"), tmp_path)
