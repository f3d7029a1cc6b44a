"""TRL's side of `ppo.py`: one process, one case, in the environment of `ppo_trl_requirements.txt`.

    python benchmarks/ppo_trl.py CASE FOLDER

Runs an iteration of `PPOTrainer.train` for each line of standard input.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from datasets import Dataset
from ppo_worker import EOS, MATERIAL, PAD, Case, Phases, Reporter, arguments, read_prompts
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import PPOConfig, PPOTrainer
from trl.trainer import ppo_trainer


class OnRequest:
    """The trainer's batches; a batch is handed out, and its iteration begins, when `ppo.py` asks for it."""

    def __init__(self, batches: Iterable[Any], watch: Watch, reporter: Reporter) -> None:
        self._batches, self._watch, self._reporter = batches, watch, reporter

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._batches)
        for _ in self._reporter.requests():
            self._watch.phases = Phases()
            yield next(batches)
            self._watch.phases.begin("")  # ends the last one
            self._reporter.finished(tokens=self._watch.tokens, phases=self._watch.phases.seconds)
        sys.exit()  # otherwise the trainer would start over


class Watch:
    """Times the functions of TRL's loop and counts the tokens of its answers."""

    phases: Phases
    tokens: int

    def __init__(self, reward_model: Any, trained: Callable[[], Any]) -> None:
        generation, forward, reward = (
            getattr(ppo_trainer, name) for name in ("batch_generation", "forward", "get_reward")
        )

        def timed_generation(policy: Any, queries: Any, *rest: Any) -> Any:
            self.phases.begin("sampling")
            found = generation(policy, queries, *rest)
            self.tokens = int((found[0][:, queries.shape[1] :] != PAD).sum())
            self.phases.begin("advantages")
            return found

        def timed_reward(model: Any, *rest: Any) -> Any:
            self.phases.begin("scoring" if model is reward_model else "advantages")
            found = reward(model, *rest)
            self.phases.begin("advantages")
            return found

        def timed_forward(model: Any, *rest: Any) -> Any:
            self.phases.begin("update" if model is trained() else "advantages")
            return forward(model, *rest)

        ppo_trainer.batch_generation = timed_generation
        ppo_trainer.get_reward = timed_reward
        ppo_trainer.forward = timed_forward


def config(case: Case, folder: str) -> PPOConfig:
    return PPOConfig(
        output_dir=folder,
        total_episodes=10**6 * case.episodes,
        per_device_train_batch_size=case.micro_batch,
        gradient_accumulation_steps=case.episodes // case.micro_batch,
        num_mini_batches=1,
        num_ppo_epochs=1,
        local_rollout_forward_batch_size=case.episodes,
        response_length=case.new_tokens,
        stop_token=None if case.mean_answer is None else "eos",
        num_sample_generations=0,
        learning_rate=1e-6,
        kl_coef=0.01,
        temperature=1.0,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_steps=10**6,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    )


def main() -> None:
    reporter = Reporter()
    case, folder = arguments()
    policy, value, reward = (folder / name for name in MATERIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(policy / "tokenizer.json"),
        pad_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
    )
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (PAD, EOS)
    prompts = read_prompts(folder)
    value_model, reward_model = (
        LlamaForSequenceClassification.from_pretrained(path, num_labels=1) for path in (value, reward)
    )
    with tempfile.TemporaryDirectory() as out:
        trainer = PPOTrainer(
            args=config(case, out),
            processing_class=tokenizer,
            model=LlamaForCausalLM.from_pretrained(policy),
            ref_model=LlamaForCausalLM.from_pretrained(policy),
            reward_model=reward_model,
            value_model=value_model,
            train_dataset=Dataset.from_dict({"input_ids": prompts}),
        )
        watch = Watch(reward_model, lambda: trainer.model)
        reporter.ready(agreement=_agreement(trainer, torch.tensor(prompts[:1])))
        trainer.dataloader = OnRequest(trainer.dataloader, watch, reporter)
        trainer.train()


@torch.no_grad()
def _agreement(trainer: PPOTrainer, ids: torch.Tensor) -> list[float]:
    """Numbers that our side computes from the same prompt: a logit, a value and a reward."""
    logit = trainer.policy_model(input_ids=ids).logits[0, -1, 5]
    value, reward = (
        model(input_ids=ids).logits[0, 0] for model in (trainer.value_model, trainer.reward_model)
    )
    return [float(logit), float(value), float(reward)]


if __name__ == "__main__":
    main()
