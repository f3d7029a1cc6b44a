"""Set-up of all tests: one thread, no network, and fake stages that write a text file instead of a model."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not os.environ.get("TEST_ON_GPU"):  # set by `make test-gpu`; most tests compare what a CPU computes
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest

from llamita.runner import stages

from .helpers.repository import SMOLLM
from .helpers.text_pipeline import PIPELINE
from .helpers.text_stages import FAKES, FakeStages, FakeTrainerArguments


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Restores signal handlers: background jobs inherit an ignored SIGINT, `nohup` an ignored SIGHUP."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeStages:
    """Registers the kinds of stages of `FAKES` and changes to `tmp_path`."""
    fakes = FakeStages()
    for kind, settings in FAKES.items():
        package = f"fake_{kind}"
        for name in (package, f"{package}.settings", f"{package}.stage"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[f"{package}.settings"].__dict__.update(
            {"FakeSettings": settings, "FakeTrainerArguments": FakeTrainerArguments}
        )
        sys.modules[f"{package}.stage"].__dict__["run"] = fakes.run
        monkeypatch.setitem(stages.REGISTRY, kind, (package, "FakeSettings"))
    monkeypatch.chdir(tmp_path)
    return fakes


@pytest.fixture
def project(fake: FakeStages, tmp_path: Path) -> Path:
    """Returns a folder with a pipeline of three stages that have not run."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "pipeline.yaml").write_text(PIPELINE)
    (configs / "base.yaml").write_text("words: 3\n")
    (configs / "chat.yaml").write_text("style: plain\n")
    (configs / "final.yaml").write_text("rounds: 2\n")
    return configs


@pytest.fixture(scope="module")
def without_wandb() -> Iterator[None]:
    """Disables Weights & Biases for modules that train often."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "disabled")
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Returns one of our tokenizers with 420 tokens, trained in a fraction of a second."""
    from llamita.tokenizer.bpe import train_bpe

    words = (
        "what is the color of bolo ? it is red . again and how are you today my friend fine thanks".split()
    )
    page = [" ".join(words[shift:] + words[:shift]) + "\nyes , you\n" for shift in range(len(words))]
    return train_bpe(page * 20, 420)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests that need SmolLM2 if `make smollm` has not downloaded it."""
    if (SMOLLM / "model.safetensors").is_file():
        return
    for item in items:
        if item.get_closest_marker("smollm"):
            item.add_marker(pytest.mark.skip(reason="no models/SmolLM2-135M-Instruct: run `make smollm`"))
