"""The whole stage with tiny models: files, figures, resuming, and what it reports before it loads a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamita.benchmark import model as tested
from llamita.benchmark import stage
from llamita.benchmark.settings import BenchmarkSettings
from llamita.config import load_settings
from llamita.errors import ConfigError
from llamita.sandbox import programs

from ..helpers.benchmark import GENERATIONS, HUMANEVAL, TASKS
from ..helpers.chatml import chatml_tokenizer
from ..helpers.tiny import save_tiny_model
from ..helpers.two_ranks import on_two_ranks

CHOSEN = {"tasks": {name: TASKS[name] for name in ("mmlu", "gsm8k")} | {"bold": GENERATIONS["bold"]}}


@pytest.fixture
def inputs(data: Path, models: Path) -> dict[str, Path]:
    return {"data": data, "base": models / "large", "versions.v1/ppo": models / "large"}


def run(inputs: dict[str, Path], out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    settings = BenchmarkSettings.model_validate_json(json.dumps(CHOSEN | changes))
    return stage.run(settings, inputs, out)


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    copy = json.loads(json.dumps(metrics))
    for version in copy["versions"].values():
        for task in version["tasks"].values():
            del task["seconds"]
    return copy


def test_all_models_and_benchmarks_are_measured(inputs: dict[str, Path], tmp_path: Path) -> None:
    found = run(inputs, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == found
    assert found["harness"].startswith("0.4.")
    assert found["tasks"]["gsm8k"] == {
        "measure": "lm-eval",
        "source": "gsm8k.jsonl.gz",
        "shots": 8,
        "limit": None,
        "max_new_tokens": 16,
    }
    assert found["tasks"]["bold"]["measure"] == "paper"
    assert list(found["versions"]) == ["base", "v1/ppo"]
    base, chat = (version["tasks"] for version in found["versions"].values())
    assert [one["mmlu"]["chat_template"] for one in (base, chat)] == [False, True]
    assert base["mmlu"]["prompt_hash"] != chat["mmlu"]["prompt_hash"]
    assert set(base["mmlu"]["by"]) == {"anatomy", "astronomy"}
    assert base["mmlu"]["rows"] == base["gsm8k"]["rows"] == 10
    assert 0 <= base["mmlu"]["accuracy"] <= 1
    samples = (tmp_path / "out" / "versions" / "v1/ppo" / "gsm8k" / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 20  # of each filter
    assert "<|im_start|>" in json.loads(samples[0])["prompt"]


def test_a_resumed_run_reuses_finished_benchmarks(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(inputs, tmp_path / "whole")
    original, calls = stage._run_task, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[2])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(stage, "_run_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path / "out")
    assert without_times(run(inputs, tmp_path / "out")) == without_times(expected)
    assert calls == ["mmlu", "gsm8k", "bold", "bold", "mmlu", "gsm8k", "bold"]
    loads: list[Path] = []
    monkeypatch.setattr(tested, "load_causal_lm", lambda folder, *_: loads.append(folder))
    run(inputs, tmp_path / "out")
    assert not loads


def test_the_template_can_be_forced_and_limits_apply_to_each_subject(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    tasks = {"mmlu": {"path": TASKS["mmlu"]["path"], "limit": 2, "shots": 0}}
    found = run(inputs, tmp_path / "out", tasks=tasks, chat_template=True)["versions"]["base"]["tasks"][
        "mmlu"
    ]
    assert found["chat_template"]
    assert found["rows"] == 4


@pytest.mark.long
def test_two_ranks_give_the_figures_of_one(inputs: dict[str, Path], classifier: Path, tmp_path: Path) -> None:
    inputs = inputs | {"toxicity_classifier": classifier}
    tasks = TASKS | GENERATIONS | HUMANEVAL
    one = run(inputs, tmp_path / "one", tasks=tasks)
    two = on_two_ranks(lambda: run(inputs, tmp_path / "two", tasks=tasks), tmp_path, seconds=600)
    for found in map(without_times, two):
        for version, measured in without_times(one)["versions"].items():
            for name, figures in measured["tasks"].items():
                assert found["versions"][version]["tasks"][name]["prompt_hash"] == figures["prompt_hash"]
                assert _numbers(found["versions"][version]["tasks"][name]) == pytest.approx(
                    _numbers(figures), abs=1e-5
                )


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in figures.items() if isinstance(value, int | float)}


def test_missing_requirements_are_reported_before_models_are_loaded(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no model to test; expected base, sft or versions"):
        run({"data": inputs["data"]}, tmp_path / "a")

    def refuse() -> None:
        raise ConfigError("the sandbox cannot isolate programs here")

    monkeypatch.setattr(programs, "check_isolation", refuse)
    monkeypatch.setattr(tested, "load_causal_lm", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(ConfigError, match="cannot isolate"):
        run(inputs, tmp_path / "b", tasks=HUMANEVAL)
    tasks = {"gsm8k": TASKS["gsm8k"] | {"max_new_tokens": 9000}}
    with pytest.raises(ConfigError, match=r"tasks\.gsm8k\.max_new_tokens: 9,000; expected fewer .* 8,192"):
        run(inputs, tmp_path / "c", tasks=tasks)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r'pip install -c constraints\.txt -e "\.\[eval\]"'):
        run(inputs, tmp_path / "d")
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(
        ConfigError, match=r'tasks\.bold: needs the package vaderSentiment; .* -e "\.\[eval\]"'
    ):
        run(inputs, tmp_path / "e", tasks={"bold": GENERATIONS["bold"]})


def test_a_version_without_a_chat_template_is_named_before_any_model_runs(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = None
    inputs |= {"versions.plain": save_tiny_model(tmp_path / "plain", tokenizer)}
    with monkeypatch.context() as patch:
        patch.setattr(tested, "load_causal_lm", lambda *_: pytest.fail("a model was loaded"))
        with pytest.raises(
            ConfigError, match=r"plain: its tokenizer has no chat template; .*_template: false"
        ):
            run(inputs, tmp_path / "a")
    found = run(inputs, tmp_path / "b", tasks={"bold": GENERATIONS["bold"]}, chat_template=False)
    assert list(found["versions"]) == ["base", "v1/ppo", "plain"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("{}", "no benchmark to run; set at least one of mmlu"),
        ("{mmlu: {path: a}}", "few_shot_path: missing|missing; set the file with the examples"),
        ("{mmlu: {few_shot_path: a}}", "has no effect without `path`"),
        ("{mmlu: {path: a, few_shot_path: b, shots: 0}}", "has no effect with `shots: 0`"),
        ("{gsm8k: {shots: 9}}", "less than or equal to 8"),
        ("{mmmlu: {}}", "unknown key; did you mean 'mmlu'"),
    ],
)
def test_wrong_settings_are_named(tasks: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "benchmark.yaml").write_text(f"tasks: {tasks}\n")
    with pytest.raises(ConfigError, match=message):
        load_settings(tmp_path / "benchmark.yaml", BenchmarkSettings)


def test_inputs_are_those_that_the_benchmarks_use() -> None:
    def taken(**tasks: Any) -> tuple[set[str], set[str]]:
        required, optional = BenchmarkSettings.model_validate({"tasks": tasks}).inputs_taken()
        return set(required), set(optional)

    assert taken(mmlu={}) == (set(), {"base", "sft"})
    assert taken(gsm8k={"path": "a"})[0] == {"data"}
    assert "toxicity_classifier" in taken(toxigen_generation={"path": "a"})[1]
    assert {"truth_judge", "information_judge"} <= taken(truthfulqa_generation={"path": "a"})[1]


def test_other_stages_do_not_import_lm_eval() -> None:
    code = "import sys, llamita.cli, llamita.benchmark.stage; print('lm_eval' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
