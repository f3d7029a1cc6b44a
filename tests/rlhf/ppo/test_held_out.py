"""Choice and evaluation of held-out prompts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from llamita.data.intake import Intake
from llamita.data.rows import Prompt
from llamita.data.settings import PromptSource
from llamita.data.sources import read_prompts
from llamita.errors import DataError
from llamita.rlhf.ppo.held_out import Evaluation, evaluate, hold_out
from llamita.rlhf.prompts import EncodedPrompt

from ...helpers.ppo_trainer import trainer
from ...helpers.rows import turn, write
from ...helpers.tiny import ragged_prompts
from ...helpers.two_ranks import on_two_ranks


def prompt(text: str, *, is_safety: bool, more: list[Any] | None = None) -> EncodedPrompt:
    return EncodedPrompt(Prompt([*turn(text), *(more or [])], is_safety=is_safety), [1, 5, 6])


def pool() -> list[EncodedPrompt]:
    return [prompt(f"what is {n} ?", is_safety=n % 4 == 0) for n in range(40)]


def test_both_kinds_in_the_proportion_of_the_pool() -> None:
    training, held = hold_out(pool(), 12, seed=1, intake=Intake())
    assert [one.prompt.is_safety for one in held].count(True) == 3
    assert len(held) == 12
    texts = [one.prompt.messages[0]["content"] for one in (*training, *held)]
    assert sorted(texts) == sorted(one.prompt.messages[0]["content"] for one in pool())
    again = hold_out(pool()[::-1], 12, seed=1, intake=Intake())[1]
    assert {one.prompt.messages[0]["content"] for one in again} == set(texts[-12:])
    assert hold_out(pool(), 12, seed=2, intake=Intake())[1] != held
    rare = [*pool()[1:4], *pool()[5:8], prompt("rare ?", is_safety=True)]
    assert [one.prompt.is_safety for one in hold_out(rare, 2, seed=1, intake=Intake())[1]].count(True) == 1
    assert hold_out(pool(), None, seed=1, intake=Intake()) == (pool(), [])


def test_prompts_with_one_opening_are_not_split() -> None:
    twice = [prompt(f"what is {n} ?", is_safety=kind) for n in range(20) for kind in (False, True)]
    training, held = hold_out(twice, 6, seed=1, intake=Intake())
    openings = [{one.prompt.messages[0]["content"] for one in part} for part in (training, held)]
    assert openings[1]
    assert not openings[0] & openings[1]


def test_no_held_out_prompt_is_an_earlier_turn_of_a_training_prompt(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"messages": turn(f"what is {n} ?", f"it is {n}")} for n in range(60)])
    source = PromptSource(path="rows.jsonl", format="messages", multi_turn_share=0.5)
    prompts = [EncodedPrompt(one, [1, 5, 6]) for one in read_prompts([source], tmp_path)]
    intake = Intake()
    training, held = hold_out(prompts, 12, seed=1, intake=intake)
    texts = {one.prompt.messages[-1]["content"] for one in held}
    assert len(texts) == len(held) >= 12
    assert not texts & {message["content"] for one in training for message in one.prompt.messages}
    left_out = len(prompts) - len(training) - len(held)
    assert 0 < left_out < 20
    assert intake.skipped == {"a held-out prompt is one of its earlier turns": left_out}


def test_a_follow_up_question_that_had_another_answer_is_no_reason_to_leave_a_prompt_out() -> None:
    """Dialogues share questions such as "why ?"."""
    rows = [Prompt([*turn(f"is it {n} ?", "yes"), *turn("why ?")], answer=f"{n}") for n in range(9)]
    asked = Prompt([*turn("why ?", "it is"), *turn("and red ?")])
    prompts = [EncodedPrompt(row, [1, 5, 6]) for row in (*rows, asked)]
    intake = Intake()
    training, held = hold_out(prompts, 3, seed=2, intake=intake)
    assert len(held) == 3
    assert prompts[-1] in training
    assert not intake.skipped


def test_prompts_must_be_left() -> None:
    with pytest.raises(DataError, match=r"held_out: 40 of 40 prompts leave none"):
        hold_out(pool(), 40, seed=1, intake=Intake())


def held_prompts(count: int) -> list[EncodedPrompt]:
    return [EncodedPrompt(Prompt(turn("?"), is_safety=False), ids) for ids in ragged_prompts(count, seed=4)]


def measured(evaluation: Evaluation) -> list[list[float]]:
    return [[one.reward, one.kl, one.tokens, one.truncated] for one in evaluation.answers]


def test_one_policy_has_one_evaluation_and_another_a_kl() -> None:
    ppo, prompts = trainer(critic_warmup_iterations=0), held_prompts(7)
    before = copy.deepcopy(ppo.policy.module.state_dict())
    first = evaluate(ppo, prompts, 0)
    assert measured(evaluate(ppo, prompts, 0)) == measured(first), "the same draws each time"
    assert first.kl == pytest.approx(0, abs=1e-5)
    assert 1 <= first.metrics()["eval/answer_length"] <= 6
    weights = ppo.policy.module.state_dict()
    assert all(torch.equal(before[name], weights[name]) for name in before), "nothing is trained"
    other = trainer(critic_warmup_iterations=0)
    for iteration in range(1, 5):
        other.iterate(iteration)
    assert evaluate(other, prompts, 0).kl > 0.1
    assert measured(evaluate(trainer(seed=2), prompts, 0)) != measured(first)


@pytest.mark.parametrize("count", [6, 7])
def test_two_ranks_share_the_prompts(tmp_path: Path, count: int) -> None:
    expected = measured(evaluate(trainer(micro_batch_size=2), held_prompts(count), 0))

    def work() -> tuple[list[list[float]], int]:
        ppo = trainer(micro_batch_size=2)
        passes, original = [0], ppo._passes.before_update

        def counted(*args: Any) -> Any:
            passes[0] += 1
            return original(*args)

        ppo._passes.before_update = counted  # type: ignore[method-assign]  # counts the calls
        return measured(evaluate(ppo, held_prompts(count), 0)), passes[0]

    (one, passes), (other, others) = on_two_ranks(work, tmp_path)
    assert one == other
    assert torch.allclose(torch.tensor(one), torch.tensor(expected), atol=1e-5)
    assert passes == others, "ZeRO-3 needs the same number of forward passes"
