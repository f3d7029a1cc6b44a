"""Early stopping in the stage: what is published, what is logged, and resumption."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llamita.artifact import RESUME
from llamita.errors import LlamitaError
from llamita.jsonl import read_rows
from llamita.rlhf.ppo import selection, stage
from llamita.rlhf.ppo.held_out import Answer, Evaluation
from llamita.rlhf.ppo.selection import Selection
from llamita.rlhf.ppo.trainer import PpoTrainer

from ...helpers.rlhf import inputs_of, make_inputs, ppo
from ...helpers.two_ranks import on_two_ranks

KLS = dict.fromkeys(range(6), 1.0)
REWARDS = {0: 0.1, 1: 0.3, 2: 0.5, 3: 0.4, 4: 0.45, 5: 0.9}
EVALUATED = {f"eval/{name}" for name in ("reward", "reward_difference", "reward_difference_se", "kl")}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return inputs_of("ppo", make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer))


def settings(**changes: Any) -> Any:
    chosen: dict[str, Any] = {
        "iterations": 6,
        "critic_warmup_iterations": 0,
        "held_out": 2,
        "eval_iterations": 1,
        "patience": 2,
        "save_iterations": 3,
        "max_new_tokens": 8,
    }
    return ppo(**chosen | changes)


class Script:
    """Gives the version after each iteration the reward in `REWARDS`; kills before `kill_before`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.iteration, self.kill_before = 0, 0
        self.weights: dict[int, Weights] = {}
        self.ran: list[int] = []
        original = PpoTrainer.iterate

        def iterate(trainer: PpoTrainer, iteration: int) -> dict[str, float]:
            if iteration == self.kill_before:
                raise KeyboardInterrupt
            metrics = original(trainer, iteration)
            self.iteration = iteration
            self.ran.append(iteration)
            state = trainer.policy.module.language_model.state_dict()
            self.weights[iteration] = {name: tensor.clone() for name, tensor in state.items()}
            return metrics

        def evaluate(_: PpoTrainer, prompts: list[Any], __: int) -> Evaluation:
            answer = Answer(REWARDS[self.iteration], KLS[self.iteration], 3, truncated=False)
            return Evaluation([answer for _ in prompts])

        patch.setattr(PpoTrainer, "iterate", iterate)
        patch.setattr(selection, "evaluate", evaluate)

    def start(self, *, kill_before: int = 0) -> None:
        self.iteration, self.kill_before, self.ran = 0, kill_before, []


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def published(out: Path) -> Weights:
    return dict(AutoModelForCausalLM.from_pretrained(out / "model").state_dict())


def equal(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def rows(out: Path) -> list[dict[str, Any]]:
    found = read_rows(out / "metrics.jsonl")
    return [{key: value for key, value in row.items() if "second" not in key} for row in found]


def test_the_best_version_is_published(inputs: dict[str, Path], tmp_path: Path, script: Script) -> None:
    measured = stage.run(settings(), inputs, tmp_path)
    assert script.ran == [1, 2, 3, 4], "iterations 3 and 4 did not improve"
    assert equal(published(tmp_path), script.weights[2])
    assert not equal(script.weights[2], script.weights[4]), "a canary"
    logged = rows(tmp_path)
    assert {row["step"]: row["eval/reward"] for row in logged} == pytest.approx(dict([*REWARDS.items()][:5]))
    assert logged[2]["eval/reward_difference"] == pytest.approx(0.4)
    assert measured["held_out"] == {
        "prompts": 3,  # at least one of each kind
        "stopped_by": "reward",
        "best_iteration": 2,
        "reward": pytest.approx(0.5),
        "reward_difference": pytest.approx(0.4),
        "reward_difference_se": pytest.approx(0.0, abs=1e-9),
    }
    assert measured["last"]["step"] == 4


def test_the_start_model_is_published_if_nothing_is_better(
    inputs: dict[str, Path], tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REWARDS, 0, 0.99)
    assert stage.run(settings(), inputs, tmp_path)["held_out"]["best_iteration"] == 0
    start = AutoModelForCausalLM.from_pretrained(inputs["start"] / "model").state_dict()
    assert equal(dict(start), published(tmp_path))


def test_a_version_stored_before_a_kill_does_not_hide_the_best_one(
    inputs: dict[str, Path], tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards of a run that starts again may differ slightly, on a GPU."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PpoTrainer, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stage.run(settings(), inputs, tmp_path)
    assert (tmp_path / RESUME / selection.BEST / "checkpoint-1").is_dir()
    script.start()
    monkeypatch.setitem(REWARDS, 0, 0.99)
    assert stage.run(settings(), inputs, tmp_path)["held_out"]["best_iteration"] == 0


def test_the_last_version_needs_no_checkpoint_to_be_published(
    inputs: dict[str, Path], tmp_path: Path, script: Script
) -> None:
    measured = stage.run(settings(iterations=2), inputs, tmp_path)
    assert (measured["held_out"]["best_iteration"], measured["held_out"]["stopped_by"]) == (2, None)
    assert equal(published(tmp_path), script.weights[2])


def test_it_is_evaluated_only_when_the_policy_has_changed(
    inputs: dict[str, Path], tmp_path: Path, script: Script
) -> None:
    chosen = settings(iterations=5, critic_warmup_iterations=2, eval_iterations=2, save_iterations=5)
    stage.run(chosen, inputs, tmp_path)
    assert [row["step"] for row in rows(tmp_path) if "eval/reward" in row] == [0, 4, 5]


@pytest.mark.parametrize("kill_before", [1, 2, 3, 4])
def test_it_resumes_exactly(
    inputs: dict[str, Path], tmp_path: Path, script: Script, kill_before: int
) -> None:
    chosen = settings(save_iterations=2)
    expected = stage.run(chosen, inputs, tmp_path / "whole")
    script.start(kill_before=kill_before)
    with pytest.raises(KeyboardInterrupt):
        stage.run(chosen, inputs, tmp_path / "killed")
    script.start()
    measured = stage.run(chosen, inputs, tmp_path / "killed")
    assert script.ran == list(range(kill_before if kill_before < 4 else 3, 5)), (
        "a new best version is saved at once"
    )
    assert measured["held_out"] == expected["held_out"]
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert equal(published(tmp_path / "killed"), published(tmp_path / "whole"))


def test_a_version_stored_after_the_last_checkpoint_is_dropped(
    inputs: dict[str, Path], tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the best version and the trainer's checkpoint leaves the version before."""

    def killed(self: Selection, folder: Path) -> None:
        if self.improved(2):
            raise KeyboardInterrupt
        original(self, folder)

    original = Selection.save
    with monkeypatch.context() as patch:
        patch.setattr(Selection, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.run(settings(iterations=2), inputs, tmp_path)
    assert (tmp_path / RESUME / "best" / "checkpoint-2").is_dir()
    monkeypatch.setitem(REWARDS, 2, 0.2)  # as if other ranks rounded otherwise
    script.start()
    assert stage.run(settings(iterations=2), inputs, tmp_path)["held_out"]["best_iteration"] == 1
    assert equal(published(tmp_path), script.weights[1])


def test_a_lost_version_is_reported(
    inputs: dict[str, Path], tmp_path: Path, script: Script, capsys: Any
) -> None:
    script.start(kill_before=3)
    with pytest.raises(KeyboardInterrupt):
        stage.run(settings(iterations=5), inputs, tmp_path)
    shutil.rmtree(tmp_path / RESUME / "best" / "checkpoint-2")
    script.start()
    measured = stage.run(settings(iterations=5), inputs, tmp_path)
    assert "iteration 2, is missing or damaged" in " ".join(capsys.readouterr().out.split())
    assert measured["held_out"]["best_iteration"] == 5, "3 counts as the best, 4 and 5 are better"


def test_the_lost_version_of_a_finished_run_is_an_error(
    inputs: dict[str, Path], tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Selection, "restore", lambda *_: shutil.rmtree(tmp_path / RESUME / "best"))
        stage.run(settings(), inputs, tmp_path)
    with pytest.raises(LlamitaError, match=r"iteration 2, is missing or damaged; delete"):
        stage.run(settings(), inputs, tmp_path)


def test_a_full_disk_keeps_the_version_before(
    inputs: dict[str, Path], tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Selection._save_policy

    def full(self: Selection, folder: Path) -> None:
        if folder.name.endswith("-2"):
            raise OSError("no space left on device")
        original(self, folder)

    monkeypatch.setattr(Selection, "_save_policy", full)
    assert stage.run(settings(iterations=2), inputs, tmp_path)["held_out"]["best_iteration"] == 1
    assert equal(published(tmp_path), script.weights[1])


def test_a_version_above_the_kl_limit_is_not_published_for_lack_of_another(
    inputs: dict[str, Path], tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Selection, "_save_policy", full)
    monkeypatch.setitem(KLS, 2, 9.0)
    chosen = settings(kl_limit=5.0)
    for ran in ([1, 2], []):  # the second start trains nothing
        script.start()
        with pytest.raises(LlamitaError, match=r"above kl_limit 5.0, so the last version is not published"):
            stage.run(chosen, inputs, tmp_path)
        assert script.ran == ran
        assert not (tmp_path / "model").exists()
    measured = stage.run(settings(iterations=1, kl_limit=5.0), inputs, tmp_path / "within")
    assert measured["held_out"]["best_iteration"] is None
    assert equal(published(tmp_path / "within"), script.weights[1]), "within the limit it is published"


def test_real_evaluations_on_two_ranks_equal_those_on_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    chosen = settings(iterations=2, patience=1)
    alone = stage.run(chosen, inputs, tmp_path / "one")
    assert alone["prompts"] == 8
    evaluated = [row for row in rows(tmp_path / "one") if "eval/reward" in row]
    assert evaluated[0].keys() >= EVALUATED
    assert evaluated[0]["eval/reward_difference"] == 0
    assert evaluated[0]["eval/kl"] == pytest.approx(0, abs=1e-5)
    assert evaluated[-1]["eval/kl"] != 0
    together = on_two_ranks(lambda: stage.run(chosen, inputs, tmp_path / "two"), tmp_path)
    for found in together:
        assert found["held_out"].keys() == alone["held_out"].keys()
        assert found["held_out"]["best_iteration"] == alone["held_out"]["best_iteration"]
        assert found["held_out"]["reward"] == pytest.approx(alone["held_out"]["reward"], rel=1e-4)
    one, two = published(tmp_path / "one"), published(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
