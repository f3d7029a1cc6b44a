from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llamita.chat_format.llama2 import MARKS
from llamita.data.rows import Prompt
from llamita.errors import ConfigError, DataError
from llamita.jsonl import read_rows
from llamita.rlhf import context, rejection, stage
from llamita.rlhf.ppo_trainer import PpoTrainer
from llamita.rlhf.rejection import best_answers, round_prompts
from llamita.rlhf.rollout import EncodedPrompt
from llamita.rlhf.settings import RoundSettings

from ..helpers.rlhf import make_inputs, settings
from ..helpers.rows import turn, write
from ..helpers.tiny import save_tiny_model

STEPS = ("sample_answers", "score_answers", "best_answers", "fine_tune", "improve")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer)


@pytest.fixture(scope="module")
def undisturbed(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("undisturbed") / "rlhf"
    out.mkdir()
    return out, stage.run(settings(), inputs, out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_folders_and_what_they_hold(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = undisturbed
    assert metrics["versions"] == [
        {"name": "v1", "model": "v1/rejection/model"},
        {"name": "v2_rejection", "model": "v2/rejection/model"},
        {"name": "v2", "model": "v2/ppo/model", "start": "v2_rejection"},
    ]
    for name in ("v1", "v2"):
        samples, scores = (read_rows(out / name / f"{step}.jsonl") for step in ("samples", "scores"))
        assert len(samples) == len(scores) == 12
        assert [row["prompt"] for row in samples] == [index for index in range(3) for _ in range(4)]
        assert metrics["rounds"][name]["samples"] == 12
        best = [row["score"] for row in read_rows(out / name / "selection.jsonl")]
        assert metrics["rounds"][name]["best_score"] == pytest.approx(sum(best) / len(best))
        counts = metrics["rounds"][name]
        assert counts["without_answer"] + counts["all_unsafe"] == 3 - len(best)
    first, second = (
        {row["pool"] for row in read_rows(out / name / "prompts.jsonl")} for name in ("v1", "v2")
    )
    assert not first & second, "each round takes other prompts"
    final, last = weights(out / "model"), weights(out / "v2" / "ppo" / "model")
    assert all(torch.equal(final[name], last[name]) for name in final)
    assert not torch.equal(final["lm_head.weight"], weights(out / "v2/rejection/model")["lm_head.weight"])
    assert AutoTokenizer.from_pretrained(out / "model").apply_chat_template(turn("how ?"), return_dict=False)
    json.dumps(metrics)


def test_metrics_by_step(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = undisturbed
    rows = read_rows(out / "metrics.jsonl")
    ppo = [row for row in rows if "iteration" in row]
    assert [(row["round"], row["iteration"], row["step"]) for row in ppo] == [(2, 1, 1), (2, 2, 2)]
    for name in ("kl", "helpfulness_score", "safety_score", "entropy", "explained_variance", "answer_length"):
        assert name in ppo[0]
    assert {row["round"] for row in rows if "loss" in row} == {1, 2}
    assert metrics["rounds"]["v2"]["ppo"]["last"]["iteration"] == 2


def test_finished_rounds_keep_the_rows_of_a_step(
    undisturbed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(undisturbed[0], tmp_path / "rlhf")
    trainer = {"max_steps": 3, "learning_rate": 1e-3, "per_device_train_batch_size": 2}
    with pytest.raises(ConfigError, match="v1/rejection: its steps had 4 rows, now they would have 2"):
        stage.run(settings(trainer=trainer), inputs, tmp_path / "rlhf")
    trainer["gradient_accumulation_steps"] = 2
    assert stage.run(settings(trainer=trainer), inputs, tmp_path / "rlhf") == undisturbed[1]


def test_iterations_are_counted_over_rounds(inputs: dict[str, Path], tmp_path: Path) -> None:
    rounds = [
        {"name": name, "prompts": 3, "samples_per_prompt": 2, "temperature": 1.0, "ppo": name != "v2"}
        for name in ("v1", "v2", "v3")
    ]
    stage.run(settings(rounds=rounds), inputs, tmp_path)
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if "iteration" in row]
    assert [(row["round"], row["iteration"], row["step"]) for row in rows] == [
        (1, 1, 1),
        (1, 2, 2),
        (3, 3, 3),
        (3, 4, 4),
    ]


def test_half_precision_reaches_every_step(
    inputs: dict[str, Path], undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    rounds = [{"name": "v1", "prompts": 3, "samples_per_prompt": 4, "temperature": 1.0, "ppo": True}]
    measured = stage.run(settings(rounds=rounds, dtype="bfloat16"), inputs, tmp_path)["rounds"]["v1"]
    assert measured["ppo"]["last"]["sampler_deviation"] > 1e-4, "PPO's passes"
    for name, column in (("samples", "logprob"), ("scores", "safety")):
        exact, half = (read_rows(out / "v1" / f"{name}.jsonl") for out in (undisturbed[0], tmp_path))
        assert half[0][column] != exact[0][column]
        assert half[0][column] == pytest.approx(exact[0][column], rel=0.05)
    assert weights(tmp_path / "model")["lm_head.weight"].dtype == torch.float32


def test_every_round_trains_the_base_on_all_best_answers_so_far(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    out, metrics = undisturbed
    best = [len(read_rows(out / name / "selection.jsonl")) for name in ("v1", "v2")]
    assert min(best) > 0
    demonstrations = 32 + 1
    trained = [metrics["rounds"][name]["rejection"]["dialogues"] for name in ("v1", "v2")]
    assert trained == [demonstrations + best[0], demonstrations + sum(best)]
    assert metrics["rounds"]["v1"]["rejection"]["steps"] == metrics["rounds"]["v2"]["rejection"]["steps"] == 3


def interrupt(monkeypatch: pytest.MonkeyPatch, step: str, when: Callable[[int], bool]) -> list[str]:
    """Lets the n-th call of a step fail if `when(n)`; returns the list of the steps that were called."""
    called: list[str] = []
    for name in STEPS:
        original = getattr(stage, name)

        def spy(*arguments: Any, name: str = name, original: Any = original, **keywords: Any) -> Any:
            called.append(name)
            if name == step and when(called.count(name)):
                raise KeyboardInterrupt
            return original(*arguments, **keywords)

        monkeypatch.setattr(stage, name, spy)
    return called


@pytest.mark.parametrize(("step", "count"), [("score_answers", 1), ("fine_tune", 2), ("improve", 1)])
def test_a_killed_run_goes_on_after_its_last_finished_step(
    undisturbed: tuple[Path, dict[str, Any]],
    inputs: dict[str, Path],
    tmp_path: Path,
    step: str,
    count: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        first = interrupt(patch, step, lambda call: call == count)
        with pytest.raises(KeyboardInterrupt):
            stage.run(settings(), inputs, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        second = interrupt(patch, step, lambda call: False)
        metrics = stage.run(settings(), inputs, tmp_path)
    expected = [*STEPS[:4], *STEPS]
    assert first == expected[: len(first)]
    assert second == expected[len(first) - 1 :], "the step that was killed and those after it, no other"
    out, whole = undisturbed
    assert metrics["versions"] == whole["versions"]
    final, theirs = weights(tmp_path / "model"), weights(out / "model")
    assert all(torch.equal(final[name], theirs[name]) for name in theirs)
    steps = [(row["round"], row["step"], "kl" in row) for row in read_rows(tmp_path / "metrics.jsonl")]
    assert len(steps) == len(set(steps)) == len(read_rows(out / "metrics.jsonl"))


@pytest.mark.parametrize("saved", [0, 1, 2])
def test_ppo_goes_on_after_the_iteration_that_was_saved(
    undisturbed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path, saved: int
) -> None:
    every = {0: 10, 1: 1, 2: 2}[saved]
    chosen = settings(ppo=settings().ppo.model_dump() | {"save_iterations": every})
    original, made = PpoTrainer.iterate, []

    def iterate(self: PpoTrainer, iteration: int) -> dict[str, float]:
        if killed and iteration > max(1, saved):
            raise KeyboardInterrupt
        made.append(iteration)
        return original(self, iteration)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PpoTrainer, "iterate", iterate)
        if saved == 2:
            patch.setattr("llamita.rlhf.improvement.save_model", interrupting)
        killed = True
        with pytest.raises(KeyboardInterrupt):
            stage.run(chosen, inputs, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PpoTrainer, "iterate", iterate)
        killed = False
        del made[:]
        stage.run(chosen, inputs, tmp_path)
    assert made == list(range(saved + 1, 3))
    final, theirs = weights(tmp_path / "model"), weights(undisturbed[0] / "model")
    assert all(torch.equal(final[name], theirs[name]) for name in theirs)
    keys = [
        [(row["round"], row["step"], "iteration" in row) for row in read_rows(out / "metrics.jsonl")]
        for out in (tmp_path, undisturbed[0])
    ]
    assert keys[0] == keys[1]


def interrupting(*_: object) -> None:
    raise KeyboardInterrupt


def chosen(rows: list[tuple[int, str, bool, float, float]]) -> list[dict[str, Any]]:
    """The selection from (prompt, answer, finished, safety, helpfulness); prompt 1 is an adversarial one."""
    prompts = [EncodedPrompt(Prompt(turn(name), name == "b"), [1]) for name in "abc"]
    samples = [{"prompt": p, "answer": a, "finished": f} for p, a, f, *_ in rows]
    scores = [
        {"safety": s, "helpfulness": h, "score": s if p == 1 or s < 0.15 else h} for p, _, _, s, h in rows
    ]
    return best_answers(samples, scores, prompts, marks=MARKS, safety_threshold=0.15)


def test_best_answers() -> None:
    found = chosen(
        [
            (0, "low", True, 0.5, 0.2),
            (0, "high", True, 0.5, 0.7),
            (0, "as high", True, 0.9, 0.7),
            (0, "cut", False, 0.5, 0.9),
            (0, "", True, 0.5, 0.95),
            (0, "[INST] me", True, 0.5, 0.99),
            (1, "unsafe", True, 0.1, 0.9),
            (1, "safer", True, 0.12, 0.3),
            (2, "cut", False, 0.5, 0.9),
        ]
    )
    assert found == [
        {"messages": turn("a", "high"), "is_safety": False, "score": 0.7},
        {"messages": turn("b", "safer"), "is_safety": True, "score": 0.12},
    ]


def test_an_unsafe_answer_to_an_ordinary_prompt_is_never_the_best() -> None:
    unsafe, safe = (0, "unsafe", True, 0.14, 0.9), (0, "safe", True, 0.9, 0.1)
    assert [row["messages"][-1]["content"] for row in chosen([unsafe, safe])] == ["safe"]
    assert chosen([unsafe, (2, "unsafe too", True, 0.149, 0.9)]) == []


def test_a_score_that_is_no_number_is_refused() -> None:
    nan = float("nan")
    with pytest.raises(DataError, match="sample 2 is NaN"):
        chosen([(0, "a", True, 0.9, 0.9), (0, "b", True, 0.9, nan), (0, "c", True, 0.9, 0.1)])


def test_a_round_says_what_it_selected(
    inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = context.prepare(settings(safety_threshold=1.0), inputs)
    measured = stage._select(prepared, 0, inputs["sft"] / "model", tmp_path / "v1")
    ordinary = sum(not row["is_safety"] for row in read_rows(tmp_path / "v1" / "prompts.jsonl"))
    assert measured["all_unsafe"] + measured["without_answer"] >= ordinary > 0
    assert measured["selected"] + measured["all_unsafe"] + measured["without_answer"] == 3
    told = capsys.readouterr().out
    assert f"v1: answers selected for {measured['selected']} of 3 prompts" in told
    assert ("no answer was selected" in told) == (measured["selected"] == 0)


def test_round_prompts_share_out_the_pool() -> None:
    rounds = [RoundSettings(name=name, prompts=count) for name, count in (("a", 4), ("b", 5), ("c", 30))]
    taken = [round_prompts(10, rounds, index, seed=0) for index in range(3)]
    assert [len(set(part)) for part in taken] == [4, 5, 10]
    assert len(set(taken[0] + taken[1])) == 9
    assert round_prompts(10, rounds, 0, seed=1) != taken[0]


def test_models_that_do_not_belong_together(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamita.tokenizer.bpe import train_bpe

    other = save_tiny_model(tmp_path / "other", train_bpe(["some other words"] * 50, 300))
    monkeypatch.setattr(rejection, "load_causal_lm", lambda folder: pytest.fail("weights were read"))
    with pytest.raises(DataError, match="other: another tokenizer"):
        stage.run(settings(), {**inputs, "base": other}, tmp_path)


def test_prompts_without_room_are_counted(inputs: dict[str, Path]) -> None:
    long, some = "what " * 100, read_rows(inputs["data"] / "prompts.jsonl")
    write(inputs["data"] / "long.jsonl", [*some, {"messages": turn(long)}])
    source = [{"path": "long.jsonl", "format": "prompts"}]
    counts = context.prepare(settings(prompts=source), inputs).counts
    room = 128 - 40
    assert counts["prompts"] == 8
    assert counts["skipped"] == {f"prompt longer than {room} tokens": 1}
    with pytest.raises(DataError, match=r"longer than 1 tokens \(no room for an answer in the context\)"):
        context.prepare(settings(max_new_tokens=127), inputs)


def test_prompts_above_the_length_that_is_asked_for_are_counted(inputs: dict[str, Path]) -> None:
    lengths = [len(prompt.ids) for prompt in context.prepare(settings(), inputs).pool]
    limit = max(lengths) - 1
    prepared = context.prepare(settings(max_prompt_length=limit), inputs)
    assert [len(prompt.ids) for prompt in prepared.pool] == [length for length in lengths if length <= limit]
    assert prepared.counts["skipped"] == {
        f"prompt longer than {limit} tokens": sum(length > limit for length in lengths)
    }
    assert len(context.prepare(settings(max_prompt_length=limit + 1), inputs).pool) == len(lengths)
    with pytest.raises(DataError, match=r"all 8 prompts are longer than 2 tokens \(max_prompt_length\)"):
        context.prepare(settings(max_prompt_length=2), inputs)


def test_settings_that_do_not_fit_are_told_before_any_work(
    inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="max_steps"):
        settings(trainer={})
    with pytest.raises(ValueError, match="'v1' stands twice"):
        settings(rounds=[{"name": "v1", "prompts": 1}, {"name": "v1", "prompts": 1}])
    with pytest.raises(ValueError, match="mini_batch_size 5"):
        settings(ppo={"episodes": 8, "mini_batch_size": 5})
    file = tmp_path / "zero3.json"
    file.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(ConfigError, match="zero3"):
        context.prepare(settings(deepspeed=str(file)), {})
    file.write_text('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}')
    with pytest.raises(ConfigError, match="2 micro-batches in bf16"):
        context.prepare(
            settings(deepspeed=str(file), ppo={"episodes": 4, "mini_batch_size": 4, "micro_batch_size": 2}),
            {},
        )
