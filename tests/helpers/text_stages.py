"""Fake stages that write a text file instead of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from llamita import artifact
from llamita.settings import Source, StageSettings


@dataclass
class FakeTrainerArguments:
    """Replaces TrainingArguments, since importing transformers takes seconds."""

    learning_rate: float = 1e-3
    max_steps: int = -1
    output_dir: str = ""


class MakerSettings(StageSettings):
    """Settings of a stage that needs no input and has a trainer."""

    optional_inputs: ClassVar[frozenset[str]] = frozenset({"text"})
    trainer_class: ClassVar[str | None] = "fake_maker.settings.FakeTrainerArguments"
    trainer_reserved: ClassVar[dict[str, str]] = {"output_dir": "the artifact's folder"}
    deepspeed_files: ClassVar[tuple[str, ...]] = ("deepspeed",)

    words: int = 3
    trainer: dict[str, Any] = {}
    deepspeed: str | None = None


class TakerSettings(StageSettings):
    """Settings of a stage that needs the artifact of another stage."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    style: str = "plain"

    def data_read(self, inputs: Mapping[str, Path]) -> dict[str, list[Source]]:
        return {}  # the fake reads all text files of its inputs


class TunerSettings(StageSettings):
    """Settings like those of `rejection`: publishes a language model, takes a list and a round's name."""

    resumable: ClassVar[bool] = True
    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"judge"})
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"earlier"})
    publishes_language_model: ClassVar[bool] = True
    deepspeed_files: ClassVar[tuple[str, ...]] = ("deepspeed",)

    round: str = "alone"
    strength: int = 1
    deepspeed: str | None = None


class JudgeSettings(StageSettings):
    """Settings like those of `reward`: takes a language model and publishes another kind of model."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    strictness: int = 1


class GatherSettings(StageSettings):
    """Settings like those of `report`: takes inputs with any names."""

    any_inputs: ClassVar[bool] = True


class RoundsSettings(StageSettings):
    """Of a stage that resumes after a kill."""

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
    """Records which fake stages ran (`ran`); `during[name]` is called while that stage runs."""

    ran: list[str] = field(default_factory=list)
    during: dict[str, Callable[[Path], None]] = field(default_factory=dict)

    def run(self, settings: StageSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
        """Runs any fake stage: writes its settings and all text of its inputs to one file."""
        name = artifact.stage_name(out)
        self.ran.append(name)
        parts = [type(settings).__name__]
        if isinstance(settings, MakerSettings):
            # not seed and trainer: changing these leaves the contents the same
            parts.append(f"{settings.words} words")
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
