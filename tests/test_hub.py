"""Models on the Hub: ids, files that are downloaded, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from llamita.errors import ConfigError
from llamita.hub import fetch, is_hub_id


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("org/model", True),
        ("org/model-1.5_b@refs/pr/3", True),
        ("model", False),
        ("./model", False),
        ("../runs/model", False),
        ("/runs/model", False),
        ("a/b/c", False),
        ("org/model@", False),
        ("", False),
    ],
)
def test_ids(text: str, is_id: bool) -> None:
    assert is_hub_id(text) is is_id


@pytest.mark.parametrize(("name", "revision"), [("org/model", None), ("org/model@v1", "v1")])
def test_only_safe_files_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, revision: str | None
) -> None:
    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(tmp_path)

    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch(name) == tmp_path
    assert asked == [("org/model", revision, ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"])]


def test_a_model_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError("no network,\n  no cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(
        ConfigError, match=r"org/model: no such folder, and .*\(OSError: no network, no cache\)"
    ):
        fetch("org/model")
