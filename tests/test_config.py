"""Settings: errors name file, line, key and similar names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, model_validator

from llamita.config import load_settings
from llamita.errors import ConfigError
from llamita.runner.stages import settings_class
from llamita.settings import Settings, Source, StageSettings


class Optimizer(Settings):
    learning_rate: float
    steps: Annotated[int, Field(gt=0)] = 10


class RowOptions(Settings):
    max_length: int


class ExampleSettings(StageSettings):
    trainer_class: ClassVar[str | None] = "transformers.TrainingArguments"
    trainer_reserved: ClassVar[dict[str, str]] = {"output_dir": "it is the artifact's folder"}
    deepspeed_files: ClassVar[tuple[str, ...]] = ("deepspeed",)

    optimizer: Optimizer
    trained: Literal["all", "last"] = "all"
    sizes: tuple[int, ...] = ()
    sources: list[Source] = []
    shards: int | None = None
    shard_rows: int | None = None
    rows: list[RowOptions] = []
    deepspeed: str | None = None
    trainer: dict[str, Any] = {}

    @model_validator(mode="after")
    def _shards(self) -> ExampleSettings:
        if self.shards is not None and self.shard_rows is not None:
            raise ValueError("shard_rows can't be given together with shards; leave one out")
        return self


class MeanJudge(Settings):
    by: Literal["mean"]


class LimitJudge(Settings):
    by: Literal["limit"]
    limit: int

    @model_validator(mode="after")
    def _positive(self) -> LimitJudge:
        if self.limit <= 0:
            raise ValueError("limit: must be above 0")
        return self


class JudgedSettings(StageSettings):
    judge: Annotated[MeanJudge | LimitJudge, Field(discriminator="by")]


GOOD = "optimizer: {learning_rate: 1e-3}\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "stage.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problem(path: Path, *overrides: str, schema: type[StageSettings] = ExampleSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, schema, overrides)
    return str(caught.value)


def test_values_arrive_with_their_types(write: Any) -> None:
    path = write("optimizer:\n  learning_rate: 1e-3\nsizes: [1, 2]\nsources:\n  - {path: a, format: text}\n")
    settings = load_settings(path, ExampleSettings)
    assert settings.optimizer.learning_rate == 0.001  # a float, where YAML 1.1 reads text
    assert settings.sizes == (1, 2)
    assert settings.sources == [Source(path="a", format="text")]
    assert (
        load_settings(write("optimizer: {learning_rate: 1}\n"), ExampleSettings).optimizer.learning_rate
        == 1.0
    )


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (
            "optimizer:\n  learning_rat: 1e-3\n",
            2,
            "optimizer.learning_rat",
            ["did you mean 'learning_rate'", "allowed"],
        ),
        ("optimizer:\n  steps: 1\n", 1, "optimizer.learning_rate", ["required"]),
        (GOOD + "optimzer: {}\n", 2, "optimzer", ["unknown key", "did you mean 'optimizer'"]),
        (
            GOOD + "max_steps: 3\n",
            2,
            "max_steps",
            ["arguments of transformers.TrainingArguments belong below `trainer:`"],
        ),
        ('optimizer: {learning_rate: "1"}\n', 1, "optimizer.learning_rate", ["number", '"1" (text)']),
        (GOOD + "seed: 1.0\n", 2, "seed", ["integer", "1.0"]),
        (GOOD + "seed: true\n", 2, "seed", ["integer", "true"]),
        (GOOD + 'seed: "1"\n', 2, "seed", ["integer", '"1" (text)']),
        ("optimizer:\n  learning_rate: 1\n  steps: 0\n", 3, "optimizer.steps", ["greater than 0"]),
        (GOOD + "trained: lst\n", 2, "trained", ["'all' or 'last'", "did you mean 'last'"]),
        (GOOD + "sizes:\n  - 1\n  - x\n", 4, "sizes.1", ["integer", '"x"']),
        (GOOD + "sources:\n  - path: a\n    fromat: b\n", 4, "sources.0.fromat", ["did you mean 'format'"]),
        (GOOD + "shard_rows: 2\nshards: 1\n", 2, "shard_rows", ["can't be given together"]),
        (GOOD + "deepspeed: zero.json\n", 2, "deepspeed", ["no such file"]),
    ],
)
def test_wrong_keys_and_values_name_their_line(
    write: Any, text: str, line: int, key: str, words: list[str]
) -> None:
    path = write(text)
    errors = [error for error in problem(path).splitlines() if error.startswith(f"{path}:{line}: {key}: ")]
    assert len(errors) == 1, problem(path)
    assert all(word in errors[0] for word in words), errors[0]


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ("{by: model}", "judge.by: expected 'mean' or 'limit', found \"model\" (text)"),
        ("{by: limits}", "found \"limits\" (text); did you mean 'limit'?"),
        ("{limit: 3}", "judge.by: this key is required"),
        ("{by: limit}", "judge.limit: this key is required"),
        ("{by: limit, limit: 0}", ":1: judge.limit: must be above 0"),
    ],
)
def test_sections_of_several_kinds_name_the_key_that_decides(write: Any, judge: str, words: str) -> None:
    assert words in problem(write(f"judge: {judge}\n"), schema=JudgedSettings)


@pytest.mark.parametrize(
    ("kinds", "old", "new"),
    [
        ("pretrain", "validation_steps", "eval_steps"),
        ("reward", "cut_prompts", "truncate_prompts"),
        (
            "tokenizer prepare pretrain sft reward gatt rejection ppo evaluate",
            "refuse_at_most",
            "max_bad_rows",
        ),
        ("sft rejection", "row_length", "max_length"),
        ("tokenizer", "vocabulary_size", "vocab_size"),
        ("pretrain sft rejection", "attention", "attn_implementation"),
        ("ppo", "kl_coefficient", "kl_coef"),
        ("ppo", "clip_threshold", "cliprange"),
        ("ppo", "value_clip_threshold", "cliprange_value"),
        ("ppo", "gae_lambda", "lam"),
        ("rejection", "samples_per_prompt", "num_generations"),
        ("gatt", "samples_per_turn", "num_generations"),
    ],
)
def test_former_names_are_reported_with_the_new_one(write: Any, kinds: str, old: str, new: str) -> None:
    for kind in kinds.split():
        path = write(f"seed: 1\n{old}: 1\n")
        assert f"{path}:2: {old}: renamed to {new}" in problem(path, schema=settings_class(kind)).splitlines()
        path = write("seed: 1\n")
        place = f"override '{old}=1' ({path})"
        errors = problem(path, f"{old}=1", schema=settings_class(kind)).splitlines()
        assert f"{place}: {old}: renamed to {new}" in errors


def test_a_key_under_its_former_name_is_not_reported_as_missing(write: Any) -> None:
    path = write("vocabulary_size: 320\n")
    errors = problem(path, schema=settings_class("tokenizer"))
    assert "vocabulary_size: renamed to vocab_size" in errors
    assert " vocab_size: this key is required" not in errors


def test_former_names_in_a_nested_section(write: Any) -> None:
    path = write(GOOD + "rows:\n  - {max_length: 2}\n  - row_length: 2\n")
    assert problem(path) == f"{path}:4: rows.1.row_length: renamed to max_length"
    path = write("optimizer: {learning_rate: 1, row_length: 1}\n")
    assert "unknown key; allowed: learning_rate, steps" in problem(path), "no such key under any name"


def test_all_problems_are_reported_at_once_in_order(write: Any) -> None:
    path = write("seed: x\noptimizer:\n  learning_rate: y\n  nonsense: 1\n")
    assert [one.split(":")[1] for one in problem(path).splitlines()] == ["1", "3", "4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", ":2: invalid YAML: found duplicate key"),
        ("optimizer:\n  steps: 1\n  steps: 2\n", ":3: invalid YAML: found duplicate key"),
        ("seed: [1\n", "invalid YAML"),
        ("", "expected lines of `key: value`, found null"),
        ("- 1\n", "expected lines of `key: value`, found [1]"),
    ],
)
def test_broken_yaml(write: Any, text: str, words: str) -> None:
    path = write(text)
    assert problem(path).startswith(str(path))
    assert words in problem(path)


def test_missing_file_names_the_nearest(write: Any, tmp_path: Path) -> None:
    write(GOOD, "reward_safety.yaml")
    assert "no such file; did you mean 'reward_safety.yaml'" in problem(tmp_path / "reward_saftey.yaml")


def test_overrides(write: Any) -> None:
    path = write(GOOD + "sizes: [1, 2]\n")
    settings = load_settings(
        path, ExampleSettings, ["optimizer.learning_rate=3e-4", "trained=last", "sizes.1=5", "sizes.0=4"]
    )
    assert settings.optimizer.learning_rate == 3e-4
    assert settings.trained == "last"
    assert settings.sizes == (4, 5)
    assert load_settings(path, ExampleSettings, ["sizes=[7]", "shards=null"]).sizes == (7,)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.steps=ten", "optimizer.steps: expected a valid integer"),
        ("optimizer.stepps=10", "did you mean 'steps'"),
        ("seed=", "seed: expected a valid integer"),
        ("seed", "expected key=value"),
        ("=3", "expected key=value"),
        ("seed.x=3", "seed is not a section"),
        ("sizes.9=3", "9 does not exist"),
        ("trained=[", "invalid YAML"),
        ("trainer.max_stepz=1", "did you mean 'max_steps'"),
    ],
)
def test_wrong_override_is_named_instead_of_a_line(write: Any, override: str, words: str) -> None:
    message = problem(write(GOOD + "seed: 1\nsizes: [1]\n"), override)
    assert f"override '{override}'" in message
    assert words in message
    assert "stage.yaml:" not in message


def test_paths_are_relative_to_the_yaml_or_to_the_current_folder(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 2}}')
    path = write(GOOD + "deepspeed: zero.json\ninputs: {model: ../m}\noutput: here\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load_settings(path, ExampleSettings, ["inputs.data=d"])
    assert settings.deepspeed == str(tmp_path / "zero.json")
    assert settings.output == str(tmp_path / "here")
    assert settings.inputs == {"model": str(tmp_path.parent / "m"), "data": str(elsewhere / "d")}
    assert settings.fingerprinted()["deepspeed"] == {"zero_optimization": {"stage": 2}}
    assert not {"inputs", "output"} & settings.fingerprinted().keys()
    (tmp_path / "zero.json").write_text("{")
    assert "invalid JSON" in problem(path)


def test_a_trainer_section_is_checked_and_kept(write: Any) -> None:
    good = "trainer: {learning_rate: 1e-3, max_steps: 5, lr_scheduler_type: cosine, bf16: false}\n"
    assert load_settings(write(GOOD + good), ExampleSettings).trainer["max_steps"] == 5
    path = write(GOOD + "trainer:\n  output_dir: x\n")
    assert f"{path}:3: trainer.output_dir: the stage sets this itself" in problem(path)


def test_settings_without_trainer_section_import_no_torch(write: Any) -> None:
    code = (
        "import sys; from llamita.config import load_settings; from llamita.settings import StageSettings\n"
        f"load_settings({str(write('seed: 1'))!r}, StageSettings)\n"
        "assert not {'torch', 'transformers', 'trl'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
