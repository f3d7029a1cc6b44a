"""Inputs that are models on the Hub, with a fake download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from llamita.config import load_settings
from llamita.errors import ConfigError
from llamita.processes import ACTIVITY, rank
from llamita.runner import pipeline, stages

from ..helpers.text_pipeline import problem, replace
from ..helpers.text_stages import TakerSettings
from ..helpers.two_ranks import on_two_ranks


def on_the_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Makes the Hub hold one model; returns the list of requests."""
    import huggingface_hub

    requests: list[str] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        requests.append(f"{repository} {revision} {' '.join(allow_patterns)}")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return requests


SAFE_FILES = "*.json *.safetensors *.jinja tokenizer.model"


def test_an_input_on_the_hub(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cached").mkdir()
    requests = on_the_hub(monkeypatch, tmp_path / "cached")
    replace("configs/pipeline.yaml", "inputs: {model: base}", "inputs: {model: org/model@v1}")
    planned = pipeline.read_pipeline("configs/pipeline.yaml")
    assert planned[1].stage_run.inputs == {"model": tmp_path / "cached"}
    assert requests == [f"org/model v1 {SAFE_FILES}"]
    pipeline.read_pipeline("configs/pipeline.yaml", folders_needed=False)
    assert len(requests) == 1, "a check of the files alone fetches nothing"


def test_a_stage_alone_with_an_input_on_the_hub(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cached").mkdir()
    requests = on_the_hub(monkeypatch, tmp_path / "cached")
    settings = load_settings("configs/chat.yaml", TakerSettings, ["inputs.model=org/model", "output=out"])
    stage_run = stages.standalone_run("taker", settings, Path("configs/chat.yaml"))
    assert stage_run.inputs == {"model": tmp_path / "cached"}
    assert requests == [f"org/model None {SAFE_FILES}"]


def test_rank_0_downloads_for_all_ranks(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cached").mkdir()
    requests = tmp_path / "requests"

    def fetch(name: str) -> Path:
        requests.open("a").write(f"{name} for rank {rank()}\n")
        before = ACTIVITY.progress
        time.sleep(2.5)
        assert ACTIVITY.progress > before, "a long download is not a hang"
        return tmp_path / "cached"

    monkeypatch.setattr(stages, "fetch", fetch)
    settings = load_settings("configs/chat.yaml", TakerSettings, ["inputs.model=org/model", "output=out"])
    missing = load_settings("configs/chat.yaml", TakerSettings, ["inputs.model=nowhere", "output=out"])

    def work() -> tuple[Any, str]:
        with pytest.raises(ConfigError) as caught:
            stages.standalone_run("taker", missing, Path("configs/chat.yaml"))
        found = stages.standalone_run("taker", settings, Path("configs/chat.yaml")).inputs
        return dict(found), str(caught.value)

    for found, message in on_two_ranks(work, tmp_path):
        assert found == {"model": tmp_path / "cached"}
        assert "inputs.model: no such folder" in message
    assert requests.read_text() == "org/model for rank 0\n"


def test_a_model_that_is_not_on_the_hub(project: Path) -> None:
    replace("configs/pipeline.yaml", "inputs: {model: base}", "inputs: {model: org/no-such-model}")
    message = problem()
    assert (
        "pipeline.yaml:6: stages.1.inputs.model: org/no-such-model: no such folder, and the download"
        in message
    )
    settings = load_settings("configs/chat.yaml", TakerSettings, ["inputs.model=org/no-such", "output=out"])
    with pytest.raises(ConfigError, match=r"inputs\.model: org/no-such: no such folder, and the download"):
        stages.standalone_run("taker", settings, Path("configs/chat.yaml"))
