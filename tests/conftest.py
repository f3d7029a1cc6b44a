"""What all tests share: one thread, no network, and stages that make a text file instead of a model."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest

from llamita import artifact
from llamita.errors import ConfigError
from llamita.runner import pipeline, stages
from llamita.settings import Source, StageSettings

PIPELINE = """\
name: tiny
seed: 7
roots: {data: null}
stages:
  - {name: base, stage: maker, config: base.yaml}
  - {name: chat, stage: taker, config: chat.yaml, inputs: {model: base}}
  - {name: final, stage: rounds, config: final.yaml, inputs: {model: chat}}
"""


@dataclass
class FakeTrainerArguments:
    """Stands for TrainingArguments where importing transformers would take seconds."""

    learning_rate: float = 1e-3
    max_steps: int = -1
    output_dir: str = ""


class MakerSettings(StageSettings):
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"text"})
    trainer_class: ClassVar[str | None] = "fake_maker.settings.FakeTrainerArguments"
    trainer_reserved: ClassVar[dict[str, str]] = {"output_dir": "the artifact's folder"}

    words: int = 3
    trainer: dict[str, Any] = {}
    deepspeed: str | None = None


class TakerSettings(StageSettings):
    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    style: str = "plain"

    def data_read(self, inputs: Mapping[str, Path]) -> dict[str, list[Source]]:
        return {}  # the fake reads all text files of its inputs


class TunerSettings(StageSettings):
    """As `rejection`: publishes a language model, takes a list and the name of its round."""

    resumable: ClassVar[bool] = True
    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"judge"})
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"earlier"})
    publishes_language_model: ClassVar[bool] = True

    round: str = "alone"
    strength: int = 1
    deepspeed: str | None = None


class JudgeSettings(StageSettings):
    """As `reward`: takes a language model and publishes another kind of model."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    strictness: int = 1


class GatherSettings(StageSettings):
    """As `report`: takes artifacts by any names."""

    any_inputs: ClassVar[bool] = True


class RoundsSettings(StageSettings):
    resumable: ClassVar[bool] = True
    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})

    no_effect: ClassVar[frozenset[str]] = frozenset({"logging"})

    rounds: int = 2
    logging: int = 10


FAKES: dict[str, type[StageSettings]] = {
    "maker": MakerSettings,
    "taker": TakerSettings,
    "rounds": RoundsSettings,
    "tuner": TunerSettings,
    "judge": JudgeSettings,
    "gather": GatherSettings,
}


@dataclass
class FakeStages:
    """What the fake stages did (`ran`), and what a test lets happen inside one (`during[name]`)."""

    ran: list[str] = field(default_factory=list)
    during: dict[str, Callable[[Path], None]] = field(default_factory=dict)

    def run(self, settings: StageSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        name = artifact.stage_name(out)
        self.ran.append(name)
        parts = [type(settings).__name__]
        if isinstance(settings, MakerSettings):
            parts.append(
                f"{settings.words} words"
            )  # neither seed nor trainer: same contents for some changes
        if isinstance(settings, TakerSettings):
            parts.append(settings.style)
        if isinstance(settings, TunerSettings):
            parts.append(f"{settings.round} {settings.strength}")
        for folder in inputs.values():
            files = [folder] if folder.is_file() else sorted(folder.glob("*.txt"))
            parts += [path.read_text(encoding="utf-8") for path in files]
        with (out / "begun.log").open("a", encoding="utf-8") as file:
            file.write("begun\n")
        self.during.get(name, lambda out: None)(out)
        (out / "made.txt").write_text("\n".join(parts), encoding="utf-8")
        return {"parts": len(parts), "seed": settings.seed}


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A shell starts background jobs with SIGINT ignored, `nohup` all with SIGHUP; children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeStages:
    """Registers the kinds of `FAKES`, and makes `tmp_path` the current folder."""
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
    """A folder with a pipeline of three stages, none of them run."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "pipeline.yaml").write_text(PIPELINE)
    (configs / "base.yaml").write_text("words: 3\n")
    (configs / "chat.yaml").write_text("style: plain\n")
    (configs / "final.yaml").write_text("rounds: 2\n")
    return configs


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        pipeline.read_pipeline("configs/pipeline.yaml", overrides)
    return str(caught.value)


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A real tokenizer of ours, of 420 tokens, trained on a page of text in a fraction of a second."""
    from llamita.tokenizer.bpe import train_bpe

    words = (
        "what is the color of bolo ? it is red . again and how are you today my friend fine thanks".split()
    )
    page = [" ".join(words[shift:] + words[:shift]) + "\nyes , you\n" for shift in range(len(words))]
    return train_bpe(page * 20, 420)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the real SmolLM2 run where `make smollm` has fetched it."""
    if (Path(__file__).parents[1] / "models" / "SmolLM2-135M-Instruct" / "model.safetensors").is_file():
        return
    for item in items:
        if item.get_closest_marker("smollm"):
            item.add_marker(pytest.mark.skip(reason="no models/SmolLM2-135M-Instruct: run `make smollm`"))
