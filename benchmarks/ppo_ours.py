"""Our side of `ppo.py`: one process, one case.

python benchmarks/ppo_ours.py CASE FOLDER           runs an iteration for each line of standard input
python benchmarks/ppo_ours.py --material CASE FOLDER   writes the models and prompts that both sides load
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ppo_worker import BOS, EOS, MATERIAL, PAD, PROMPTS, Case, Reporter, arguments, read_prompts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from llamita.data.rows import Prompt
from llamita.model.checkpoint import load_causal_lm, load_reward_model, load_tokenizer
from llamita.model.reward_models import RewardModels
from llamita.model.scorer import Scorer
from llamita.model.sizes import ModelSize
from llamita.rlhf.ppo import trainer as trainer_module
from llamita.rlhf.ppo.critic import Critic
from llamita.rlhf.ppo.loading import Models
from llamita.rlhf.ppo.metrics import PhaseTimer
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.rlhf.prompts import EncodedPrompt
from llamita.sampling.engines import local_sampler

ITERATIONS_OF_PROMPTS = 16  # more than are run: TRL takes additional optimizer steps with its last batch
NEVER = -30.0  # logit of a token that is never sampled; those of other tokens are near 0
CONSTANT = 0.1  # component 0 of every hidden state, see `_set_logit`


def write_material(case: Case, folder: Path) -> None:
    """Writes policy, critic, reward model, their tokenizer, and random prompts."""
    torch.manual_seed(0)
    shape = ModelSize(
        hidden_size=case.width,
        intermediate_size=case.intermediate,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.heads,
        max_position_embeddings=case.prompt[1] + case.new_tokens,
    )
    config = shape.llama_config(case.vocabulary)
    policy = LlamaForCausalLM(config)
    _fix_endings(policy, case)
    config.num_labels = 1
    for name in MATERIAL:
        model = policy if name == "policy" else LlamaForSequenceClassification(config)
        model.save_pretrained(folder / name)
        _tokenizer(case.vocabulary).save_pretrained(folder / name)
    draw = random.Random("prompts")
    lengths = [draw.randint(*case.prompt) for _ in range(ITERATIONS_OF_PROMPTS * case.episodes)]
    prompts = [[BOS, *draw.choices(range(3, case.vocabulary), k=length - 1)] for length in lengths]
    (folder / PROMPTS).write_text(json.dumps(prompts), encoding="utf-8")


@torch.no_grad()
def _fix_endings(policy: LlamaForCausalLM, case: Case) -> None:
    """Gives EOS the probability that makes answers as long as the case says; the pad is never sampled.

    It is done in the weights, so that both sides sample as they always do: component 0 of the hidden states
    is the same at all positions, as no layer adds to it, and the output layer reads it for EOS and pad only.
    """
    policy.model.embed_tokens.weight[:, 0] = CONSTANT
    for layer in policy.model.layers:
        layer.self_attn.o_proj.weight[0] = 0
        layer.mlp.down_proj.weight[0] = 0
    ids = torch.randint(3, case.vocabulary, (4, 32))
    constant = (
        policy.model(ids).last_hidden_state[..., 0].mean()
    )  # after the norm, which rescales it a little
    logit = NEVER
    if case.mean_answer is not None:
        others = policy(ids).logits.logsumexp(-1).mean()
        logit = float(others) - math.log(case.mean_answer - 1)
    policy.lm_head.weight[:, 0] = 0
    for token, value in ((EOS, logit), (PAD, NEVER)):
        policy.lm_head.weight[token] = 0
        policy.lm_head.weight[token, 0] = value / constant


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    words = {"<unk>": PAD, "<s>": BOS, "</s>": EOS} | {f"w{id}": id for id in range(3, vocabulary)}
    special = {"unk_token": "<unk>", "pad_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "<unk>")), **special)


def _settings(case: Case) -> PpoSettings:
    return PpoSettings.model_validate(
        {
            "prompts": [{"path": "made by the benchmark", "format": "prompts"}],
            "max_new_tokens": case.new_tokens,
            "episodes": case.episodes,
            "mini_batch_size": case.episodes,
            "max_tokens_per_micro_batch": case.micro_tokens,
            "critic_warmup_iterations": 0,
        }
    )


def _always_safe(_: Any, answers: Any, __: Any) -> torch.Tensor:
    """In place of the second reward model, which TRL does not have."""
    return torch.ones(len(answers), dtype=torch.float64)


class ProcessorTimer(PhaseTimer):
    """Also records the processor time of each phase."""

    def __init__(self) -> None:
        super().__init__()
        self.processor_seconds: dict[str, float] = {}
        self._processor_started = time.process_time()

    def end(self, phase: str) -> float:
        now = time.process_time()
        self.processor_seconds[phase] = now - self._processor_started
        self._processor_started = now
        return super().end(phase)


def main() -> None:
    reporter = Reporter()
    case, folder = arguments()
    policy, critic, reward = (folder / name for name in MATERIAL)
    scorer = Scorer(reward, load_tokenizer(reward))
    models = Models(load_causal_lm(policy), Critic(load_reward_model(critic)), load_causal_lm(policy))
    prompts = read_prompts(folder)
    agreement = _agreement(models, scorer.model, torch.tensor(prompts[:1]))
    settings = _settings(case)
    trainer = PpoTrainer(
        models,
        sampler=local_sampler(models.policy, settings.sampling_cache_tokens, settings.dtype),
        reward_models=RewardModels(helpfulness=scorer, safety=_always_safe),
        prompts=[EncodedPrompt(Prompt([{"role": "user", "content": ""}]), ids) for ids in prompts],
        settings=settings,
    )
    reporter.ready(agreement=agreement)
    for number, _ in enumerate(reporter.requests(), start=1):
        timer = ProcessorTimer()
        with patch.object(trainer_module, "PhaseTimer", lambda timer=timer: timer):
            metrics = trainer.iterate(number)
        tokens = round(metrics["ppo/answer_length"] * case.episodes)
        reporter.finished(tokens=tokens, phases=timer.processor_seconds)


@torch.no_grad()
def _agreement(models: Models, reward_model: Any, ids: torch.Tensor) -> list[float]:
    """Numbers that TRL's side computes from the same prompt: a logit, a value and a reward."""
    logit = models.policy(input_ids=ids).logits[0, -1, 5]
    value = models.critic(torch.nn.functional.pad(ids, (0, 1)))[0, -1]
    return [float(logit), float(value), float(reward_model(input_ids=ids).logits[0, 0])]


if __name__ == "__main__":
    if sys.argv[1] == "--material":
        del sys.argv[1]
        write_material(*arguments())
    else:
        main()
