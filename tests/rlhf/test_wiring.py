"""The stages pass every setting on: PPO and rejection sampling equal their recomputation in plain Python.

No setting has its default value, the two scorers disagree, and there are prompts of both kinds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from llamita.chat_format.encoding import encode_dialogues
from llamita.chat_format.llama2 import CONTROL_STRINGS
from llamita.data.fine_tuning import fine_tuning_dialogues
from llamita.jsonl import read_rows
from llamita.rlhf import models
from llamita.rlhf.ppo import stage as ppo_stage
from llamita.rlhf.rejection import stage as rejection_stage
from llamita.sampling.draws import uniforms
from llamita.training.permutation import Permutation

from ..helpers.plain_ppo import Ids, PlainPpo, adam, plain_answer
from ..helpers.rlhf import inputs_of, make_inputs, ppo, rejection
from ..helpers.rows import turn, write
from ..helpers.two_ranks import on_two_ranks

OPTIMIZER = {
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-3,
    "weight_decay": 0.3,
    "max_grad_norm": 0.5,
}
SHARED: dict[str, Any] = {"seed": 5, "round": "v3", "max_new_tokens": 6, "safety_threshold": 0.6}
PPO: dict[str, Any] = {
    **SHARED,
    **OPTIMIZER,
    "iterations": 4,
    "episodes": 12,
    "mini_batch_size": 6,
    "micro_batch_size": 3,
    "learning_rate": 2e-3,
    "critic_learning_rate": 7e-3,
    "critic_warmup_iterations": 2,
    "kl_coef": 0.3,
    "cliprange": 0.05,
    "cliprange_value": 0.03,
    "gamma": 0.8,
    "lam": 0.7,
    "temperature": 0.6,
    "missing_eos_penalty": 0.4,
}
TRAINER = {"max_steps": 1, "per_device_train_batch_size": 64, "learning_rate": 3e-3, **OPTIMIZER}
REJECTION: dict[str, Any] = {
    **SHARED,
    "prompts_per_round": 12,
    "num_generations": 8,
    "temperature": 0.7,
    "selection_repeats": 3,
    "trainer": TRAINER,
}


def one_safety(prompt: Ids, answer: Ids) -> float:
    return (1 + (sum(prompt) + 7 * sum(answer)) % 89) / 91


def one_helpfulness(prompt: Ids, answer: Ids) -> float:
    return (1 + (3 * len(prompt) + 11 * sum(answer)) % 79) / 81


def scorer(one: Callable[[Ids, Ids], float]) -> Any:
    def scores(prompts: Sequence[Ids], answers: Sequence[Ids], label: str | None = None) -> Tensor:
        rows = zip(prompts, answers, strict=True)
        return torch.tensor([one(list(prompt), list(answer)) for prompt, answer in rows], dtype=torch.float64)

    return scores


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    folders = make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer)
    earlier = turn("how are you ?", "fine thanks")
    prompts = [turn(f"what is {word} ?") for word in "red fine yes today bolo again friend thanks".split()]
    prompts += [[*earlier, *turn(text)] for text in ("red ?", "yes ?", "fine ?", "bolo ?")]
    rows = [{"messages": one, "is_safety": place % 2 == 0} for place, one in enumerate(prompts)]
    write(folders["data"] / "prompts.jsonl", rows)
    _end_some_answers(folders)
    return folders


def _end_some_answers(inputs: dict[str, Path]) -> None:
    """Gives EOS a probability of about a third; otherwise hardly any answer would be usable."""
    folder = inputs["model"] / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        states = [model.model(torch.tensor([ids])).last_hidden_state[0, -1] for ids, *_ in prompts_of(inputs)]
        usual = torch.stack(states).mean(0)
        model.lm_head.weight[model.config.eos_token_id] = usual * 4 / usual.square().sum()
    model.save_pretrained(folder)


def scorers(patch: pytest.MonkeyPatch) -> None:
    """Replaces the reward models by plain functions."""

    def loaded(folder: Path, *_: Any, **__: Any) -> Any:
        return scorer({"safety": one_safety, "helpfulness": one_helpfulness}[folder.name])

    patch.setattr(models, "Scorer", loaded)


def prompts_of(inputs: dict[str, Path]) -> list[tuple[Ids, bool, list[Any]]]:
    tokenizer = AutoTokenizer.from_pretrained(inputs["model"] / "model")
    return [
        (tokenizer.apply_chat_template(row["messages"], return_dict=False), row["is_safety"], row["messages"])
        for row in map(json.loads, (inputs["data"] / "prompts.jsonl").read_text().splitlines())
    ]


def run_ppo(inputs: dict[str, Path], out: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        scorers(patch)
        ends = ppo_stage.run(ppo(**PPO), inputs_of("ppo", inputs), out)
    return ends, AutoModelForCausalLM.from_pretrained(out / "model").state_dict()


@pytest.fixture(scope="module")
def alone(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return run_ppo(inputs, tmp_path_factory.mktemp("alone"))


def test_ppo_equals_plain_python(
    inputs: dict[str, Path], alone: tuple[dict[str, Any], dict[str, Tensor]]
) -> None:
    policy, reference = (AutoModelForCausalLM.from_pretrained(inputs["model"] / "model") for _ in range(2))
    plain = PlainPpo(
        policy=policy,
        reference=reference,
        critic=AutoModelForSequenceClassification.from_pretrained(inputs["helpfulness"]),
        prompts=[(ids, is_safety) for ids, is_safety, _ in prompts_of(inputs)],
        safety=one_safety,
        helpfulness=one_helpfulness,
        ppo=PPO,
        seed="5/v3/ppo",
    )
    first, *_, last = plain.run()
    ends, weights = alone
    for found, expected in ((ends["first"], first), (ends["last"], last)):
        assert found["ppo/reward"] == pytest.approx(expected["score"], rel=1e-6)
        assert found["ppo/safety_score"] == pytest.approx(expected["safety"], rel=1e-6)
        assert found["ppo/helpfulness_score"] == pytest.approx(expected["helpfulness"], rel=1e-6)
        assert found["ppo/value_loss"] == pytest.approx(expected["value_loss"], rel=1e-4)
    assert ends["last"]["ppo/policy_loss"] == pytest.approx(last["policy_loss"], rel=1e-3, abs=1e-6)
    for name, expected in policy.state_dict().items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)


def test_ppo_on_two_ranks_equals_ppo_on_one(
    inputs: dict[str, Path], alone: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path
) -> None:
    (ends, weights), _ = on_two_ranks(lambda: run_ppo(inputs, tmp_path), tmp_path)
    for name, expected in alone[1].items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)
    for end in ("first", "last"):
        for name, value in alone[0][end].items():
            if "second" not in name and "deviation" not in name:
                assert ends[end][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


# ------------------------------------------------------------------------------- rejection sampling


def run_rejection(
    inputs: dict[str, Path], out: Path, **trainer: int
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The stage's selection and its weights."""
    chosen = rejection(**REJECTION | {"trainer": TRAINER | trainer})
    with pytest.MonkeyPatch.context() as patch:
        scorers(patch)
        rejection_stage.run(chosen, inputs_of("rejection", inputs), out)
    return (
        read_rows(out / "selection.jsonl"),
        AutoModelForCausalLM.from_pretrained(out / "model").state_dict(),
    )


@pytest.fixture(scope="module")
def round_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selected")


@pytest.fixture(scope="module")
def selected(inputs: dict[str, Path], round_folder: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    return run_rejection(inputs, round_folder)


def plain_selection(inputs: dict[str, Path]) -> tuple[list[float], list[dict[str, Any]]]:
    """The piecewise scores of all samples, and the selected rows."""
    tokenizer = AutoTokenizer.from_pretrained(inputs["model"] / "model")
    model = AutoModelForCausalLM.from_pretrained(inputs["model"] / "model")
    pool = prompts_of(inputs)
    order = Permutation(len(pool), "5/prompts")
    scores, rows = [], []
    for number in range(len(pool)):
        ids, is_safety, messages = pool[order[number]]
        best = None
        for sample in range(8):
            numbers = uniforms("5/v3/samples", [(number, sample)], 6)[0].tolist()
            answer = plain_answer(model, ids, 6, 0.7, numbers)
            ended = answer[-1] == tokenizer.eos_token_id
            content = answer[:-1] if ended else answer
            text = tokenizer.decode(content).strip()
            safety, helpfulness = one_safety(ids, content), one_helpfulness(ids, content)
            unsafe = safety < SHARED["safety_threshold"]
            scores.append(safety if is_safety or unsafe else helpfulness)
            usable = ended and text and not any(mark in text for mark in CONTROL_STRINGS)
            if not usable or unsafe:
                continue
            if best is None or scores[-1] > best["score"]:
                dialogue = [*messages, {"role": "assistant", "content": text}]
                best = {"messages": dialogue, "is_safety": is_safety, "score": scores[-1]}
        rows += [best] if best else []
    return scores, rows


def test_the_selection_equals_plain_python(
    inputs: dict[str, Path], selected: tuple[list[dict[str, Any]], dict[str, Tensor]], round_folder: Path
) -> None:
    scores, expected = plain_selection(inputs)
    assert [row["score"] for row in read_rows(round_folder / "scores.jsonl")] == pytest.approx(scores)
    assert [row["messages"] for row in selected[0]] == [row["messages"] for row in expected]
    assert [row["is_safety"] for row in selected[0]] == [row["is_safety"] for row in expected]
    assert [row["score"] for row in selected[0]] == pytest.approx([row["score"] for row in expected])
    assert {row["is_safety"] for row in expected} == {True, False}
    assert max(len(row["messages"]) for row in expected) == 4, "a canary: one dialogue has an earlier answer"


def test_fine_tuning_starts_from_the_base_model_and_trains_only_last_answers(
    inputs: dict[str, Path], selected: tuple[list[dict[str, Any]], dict[str, Tensor]]
) -> None:
    """One step over all rows, so their order and packing have no effect."""
    selection, weights = selected
    tokenizer = AutoTokenizer.from_pretrained(inputs["base"] / "model")
    model = AutoModelForCausalLM.from_pretrained(inputs["base"] / "model")
    chosen = rejection(**REJECTION)
    demonstrations = list(fine_tuning_dialogues(chosen, inputs))
    examples = [(one.input_ids, one.labels) for one in encode_dialogues(tokenizer, demonstrations)]
    for row in selection:
        prompt = tokenizer.apply_chat_template(row["messages"][:-1], return_dict=False)
        whole = tokenizer.apply_chat_template(row["messages"], return_dict=False)
        labels = [-100] * len(prompt) + whole[len(prompt) :]
        examples += [(whole, labels)] * REJECTION["selection_repeats"]
    tokens = sum(label != -100 for _, labels in examples for label in labels)
    optimizer = adam(model, TRAINER["learning_rate"], TRAINER)
    for ids, labels in examples:
        logits = model(torch.tensor([ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum")
        (loss / tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINER["max_grad_norm"])
    optimizer.step()
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)


def test_rejection_sampling_on_two_ranks_equals_that_on_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 4}
    alone = run_rejection(inputs, tmp_path / "alone", **cut, gradient_accumulation_steps=2)
    selection, weights = on_two_ranks(lambda: run_rejection(inputs, tmp_path / "two", **cut), tmp_path)[0]
    assert selection == alone[0]
    for name, expected in alone[1].items():
        torch.testing.assert_close(weights[name], expected, atol=2e-5, rtol=1e-4, msg=name)
