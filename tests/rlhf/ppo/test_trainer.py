from __future__ import annotations

import copy
from pathlib import Path
from traceback import extract_stack
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llamita.errors import ConfigError, LlamitaError
from llamita.model.precision import computing_in
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.sampling.llama import LlamaSampler
from llamita.sampling.logprobs import answer_logprobs

from ...helpers.ppo_trainer import Ids, trainer
from ...helpers.tiny import ragged_prompts, tiny_model


def test_ppo_solves_a_toy() -> None:
    policy = tiny_model(spread=0.05)
    start = copy.deepcopy(policy)
    history = list(trainer(policy, iterations=25, missing_eos_penalty=2.0).iterations())
    first, last = history[0], history[-1]
    assert first["ppo/helpfulness_score"] < 0.15
    assert last["ppo/helpfulness_score"] > 0.5
    assert last["ppo/truncated_share"] < first["ppo/truncated_share"], "an answer that ends is worth more"
    assert first["ppo/kl"] == pytest.approx(0, abs=1e-5)
    assert last["ppo/explained_variance"] > first["ppo/explained_variance"]
    # the logged KL is that of the answers, measured once more by other code
    prompts = ragged_prompts(20) * 10
    answers = LlamaSampler(policy).sample(prompts, 6, seed=9).answer_ids
    new, old = (answer_logprobs(model, prompts, answers) for model in (policy, start))
    kl = (sum(map(sum, new)) - sum(map(sum, old))) / len(answers)
    assert kl == pytest.approx(last["ppo/kl"], rel=0.2)


def test_the_first_mini_batch_has_ratio_one() -> None:
    for micro_batch_size in (None, 4):
        ppo = trainer(critic_warmup_iterations=0, micro_batch_size=micro_batch_size)
        for iteration in (1, 2):
            metrics = ppo.iterate(iteration)
            assert metrics["ppo/first_ratio_deviation"] < 1e-5
            assert metrics["ppo/sampler_deviation"] < 1e-5
        assert metrics["ppo/approx_kl"] > 1e-6, "the policy has changed before later mini-batches"


def logprobs(ppo: PpoTrainer, ids: Tensor) -> Tensor:
    """Those of all tokens but the first of one row."""
    with computing_in(ppo._passes._dtype, "cpu"):
        found: Tensor = ppo.policy(ids, torch.arange(ids.shape[1] - 1))[0]
    return found


def test_half_precision_starts_at_ratio_one_and_trains_fp32_weights() -> None:
    ppo = trainer(dtype="bfloat16", critic_warmup_iterations=0)
    before = [weight.clone() for weight in ppo.policy.module.parameters()]
    exact, ids = trainer(), torch.tensor([[1, 5, 6, 7, 8]])
    assert ppo._sampler._copy is None, "there is room for a checkpoint that is loaded"
    ppo._sampler.sync(ppo.policy.module.language_model)
    assert ppo._sampler._weights.dtype == torch.bfloat16
    for half, whole in (
        (logprobs(ppo, ids), logprobs(exact, ids)),
        (ppo._passes.values(ids), exact._passes.values(ids)),
    ):
        assert not torch.equal(half, whole), "a canary"
        torch.testing.assert_close(half, whole, atol=0.05, rtol=0.05)
    metrics = ppo.iterate(1)
    assert metrics["ppo/first_ratio_deviation"] == 0
    assert metrics["ppo/kl"] == 0
    assert 0 < metrics["ppo/sampler_deviation"] < 0.05, "sampler and forward passes round differently"
    for weight, old in zip(ppo.policy.module.parameters(), before, strict=True):
        assert weight.dtype == torch.float32
        assert not torch.equal(weight, old)


def test_a_reference_in_half_precision_keeps_its_buffers() -> None:
    """An engine in bf16 casts only parameters; with other RoPE frequencies the first KL would not be 0."""
    policy = tiny_model()
    for parameter in policy.parameters():
        parameter.data = parameter.data.bfloat16()
    reference = trainer(policy).reference.module
    assert {parameter.dtype for parameter in reference.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in reference.buffers()} == {torch.float32}
    ids = torch.tensor([[1, *range(3, 29)] * 4])
    with torch.no_grad():
        assert torch.equal(policy(ids).logits, reference.language_model(ids).logits)


def test_micro_batches_have_no_effect() -> None:
    def weights(**settings: int) -> list[Tensor]:
        ppo = trainer(critic_warmup_iterations=0, learning_rate=1e-4, **settings)
        ppo.iterate(1)
        return [*ppo.policy.module.parameters(), *ppo.critic.module.parameters()]

    whole = weights()
    for settings in ({"micro_batch_size": 4}, {"micro_batch_size": 7}, {"max_tokens_per_micro_batch": 20}):
        for one, other in zip(whole, weights(**settings), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


class _Waits(TorchDispatchMode):
    """Counts conversions of tensors to numbers: on a GPU, Python would wait for each.

    Without the one in each forward pass of transformers, which looks for packed rows.
    """

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += all(frame.name != "find_packed_sequence_indices" for frame in extract_stack())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("micro_batch_size", [1, 16])
def test_python_waits_for_a_step_not_for_a_micro_batch_or_token(micro_batch_size: int) -> None:
    ppo = trainer(critic_warmup_iterations=0, micro_batch_size=micro_batch_size)
    ppo.iterate(1)
    places = ppo._places(2)
    samples = ppo.sample(
        [ppo.prompts[ppo._order[place]] for place in places], "rollout", keys=places, version=0
    )
    lists = 0

    def counting(tensor: Tensor) -> Any:
        nonlocal lists
        lists += 1
        return to_list(tensor)

    to_list = Tensor.tolist
    with pytest.MonkeyPatch.context() as patch, _Waits() as waits:
        patch.setattr(ppo, "sample", lambda *_, **__: samples)
        patch.setattr(Tensor, "tolist", counting)
        ppo.iterate(2)
    steps, models = 64 // 16, 2
    assert waits.count <= models * steps + 16  # the gradient norms, and metrics of the iteration
    assert lists <= 8


def test_same_seed_same_weights() -> None:
    def weights() -> list[Tensor]:
        ppo = trainer(critic_warmup_iterations=0)
        ppo.iterate(1)
        return list(ppo.policy.module.parameters())

    assert all(torch.equal(one, other) for one, other in zip(weights(), weights(), strict=True))


def test_it_resumes_from_what_it_saved(tmp_path: Path) -> None:
    def state(ppo: PpoTrainer) -> list[object]:
        return [
            part
            for engine in (ppo.policy, ppo.critic)
            for part in (engine.module.state_dict(), engine._optimizer.state_dict())
        ]

    whole, first, second = (trainer(iterations=4, critic_warmup_iterations=1) for _ in range(3))
    history = list(whole.iterations())
    for _ in zip(range(2), first.iterations(), strict=False):
        pass
    first.save(tmp_path)
    second.load(tmp_path)
    rest = list(second.iterations(done=2))
    torch.testing.assert_close(state(second), state(whole), atol=0, rtol=0)
    for metrics, expected in zip(rest, history[2:], strict=True):
        assert {n: v for n, v in metrics.items() if "second" not in n} == {
            n: v for n, v in expected.items() if "second" not in n
        }


def test_warm_up_trains_only_the_critic_and_the_reference_never_changes() -> None:
    ppo = trainer(critic_warmup_iterations=1)
    before = {name: tensor.clone() for name, tensor in ppo.policy.module.state_dict().items()}
    critic = ppo.critic.module.head.weight.clone()
    metrics = ppo.iterate(1)
    assert "ppo/policy_loss" not in metrics
    assert all(torch.equal(before[name], tensor) for name, tensor in ppo.policy.module.state_dict().items())
    assert not torch.equal(critic, ppo.critic.module.head.weight)
    ppo.iterate(2)
    head = "lm_head.weight"
    assert not torch.equal(before[f"model.{head}"], ppo.policy.module.state_dict()[f"model.{head}"])
    assert torch.equal(before[f"model.{head}"], ppo.reference.module.state_dict()[f"model.{head}"])


def test_the_critic_starts_on_the_scale_of_the_rewards() -> None:
    """Values start near whitened rewards even if the scores have a large spread or a mean far from 0."""
    ppo = trainer()
    scores = torch.tensor([0.9, 0.99, 0.999, 0.9999], dtype=torch.float64)
    logits = torch.logit(scores)
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        before = ppo.critic(ids)
        ppo.critic.module.calibrate(scores)
        expected = (before - logits.mean()) / logits.std(correction=0)
        torch.testing.assert_close(ppo.critic(ids), expected, check_dtype=False)
        ppo.critic.module.calibrate(torch.full((4,), 0.5, dtype=torch.float64))
        assert ppo.critic(ids).isfinite().all(), "a batch without spread"


def test_values_keep_their_scale_in_checkpoints(tmp_path: Path) -> None:
    first, second = trainer(), trainer()
    first.iterate(1)
    first.save(tmp_path)
    second.load(tmp_path)
    assert first.critic.module.scale != 1
    assert second.critic.module.scale == first.critic.module.scale


def test_dropout_is_off() -> None:
    policy = tiny_model(spread=0.05, attention_dropout=0.5).train()
    metrics = trainer(policy, critic_warmup_iterations=0).iterate(1)
    assert metrics["ppo/first_ratio_deviation"] < 1e-5


def test_a_nan_loss_is_an_error() -> None:
    ppo = trainer(critic_warmup_iterations=0)
    with torch.no_grad():
        ppo.critic.module.head.weight.fill_(float("nan"))
    with pytest.raises(LlamitaError, match=r"NaN or infinite .*ppo/value_loss"):
        next(ppo.iterations())


def test_a_mini_batch_that_cannot_be_split_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"mini_batch_size.*3 ranks"):
        trainer()


def test_eos_belongs_to_the_answer() -> None:
    """The policy learns to answer with EOS only: the mask must include the EOS for that."""

    def brevity(prompts: Ids, answers: Ids, _: object) -> Tensor:
        return torch.tensor([0.9 if answer == [] else 0.2 for answer in answers], dtype=torch.float64)

    policy = tiny_model(spread=0.05)
    history = list(trainer(policy, brevity, iterations=10).iterations())
    assert history[-1]["ppo/answer_length"] < 1.5 < history[0]["ppo/answer_length"]


def saved(model: Any) -> int:
    """Number of elements that autograd saves in a forward pass, weights included."""
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.arange(3, 29)[None], use_cache=False)
    return sum(sizes)


def test_activation_checkpointing_keeps_the_losses() -> None:
    options: dict[str, Any] = {"critic_warmup_iterations": 0, "episodes": 32}
    usual, checkpointed = (trainer(gradient_checkpointing=on, **options) for on in (False, True))
    for iteration in (1, 2):
        expected, found = (
            {name: value for name, value in one.iterate(iteration).items() if name.startswith("ppo/")}
            for one in (usual, checkpointed)
        )
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for name in ("policy", "critic"):
        pairs = zip(*(getattr(one, name).module.parameters() for one in (usual, checkpointed)), strict=True)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_policy_and_critic_save_less_though_they_are_in_eval_mode() -> None:
    usual, checkpointed = (trainer(gradient_checkpointing=on) for on in (False, True))
    for model in (lambda one: one.policy.module.model, lambda one: one.critic.module.backbone):
        assert saved(model(checkpointed)) < 0.5 * saved(model(usual))
