"""Speed of sampling answers, ours and `generate`, in answer tokens per second.

    python benchmarks/rollout.py MODEL_FOLDER DATA_FOLDER FILE FORMAT [DTYPE]

for example `models/SmolLM2-135M-Instruct DATA seed_tasks/seed_tasks.jsonl seed_tasks bfloat16`. Both sample
at temperature 1 without top-k or top-p, at most NEW_TOKENS tokens per answer; answers end at the model's
EOS, so their lengths vary. The two methods alternate for several rounds; the table shows medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe, table

from llamita.chat_format.encoding import encode_prompt
from llamita.data.sources import read_prompts
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.sampling.llama import LlamaSampler
from llamita.settings import Source

BATCHES = (8, 32)
NEW_TOKENS, LONGEST_PROMPT, ROUNDS = 512, 192, 3

Method = Callable[[list[list[int]], int], list[int]]
"""(prompts, seed) -> lengths of the answers"""


def by_generate(model: Any, new_tokens: int = NEW_TOKENS) -> Method:
    eos: int = model.config.eos_token_id

    def sample(prompts: list[list[int]], seed: int) -> list[int]:
        longest = max(map(len, prompts))
        ids = torch.tensor(
            [[eos] * (longest - len(prompt)) + prompt for prompt in prompts], device=model.device
        )
        mask = torch.ones_like(ids)
        for row, prompt in enumerate(prompts):
            mask[row, : longest - len(prompt)] = 0
        torch.manual_seed(seed)
        answers = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            pad_token_id=eos,
        )[:, longest:].tolist()
        return [row.index(eos) + 1 if eos in row else len(row) for row in answers]

    return sample


def by_ours(model: Any, new_tokens: int = NEW_TOKENS) -> Method:
    def sample(prompts: list[list[int]], seed: int) -> list[int]:
        whole = len(prompts) * (max(map(len, prompts)) + new_tokens)  # one batch, as in `generate`
        # timed with the copy of the weights that the sampler makes
        samples = LlamaSampler(model, whole).sample(prompts, new_tokens, seed=seed)
        return [len(answer) for answer in samples.answer_ids]

    return sample


def main() -> None:
    folder, root, path, format, *dtype = sys.argv[1:]
    tokenizer = load_tokenizer(Path(folder))
    model = load_causal_lm(Path(folder), dtype[0] if dtype else "float32").eval()
    source = Source.model_validate({"path": path, "format": format})
    encoded = [encode_prompt(tokenizer, prompt.messages) for prompt in read_prompts([source], Path(root))]
    prompts = [ids for ids in encoded if len(ids) <= LONGEST_PROMPT]
    methods = {"generate": by_generate(model), "ours": by_ours(model)}
    rows, spreads = [], []
    for batch in BATCHES:
        batch_prompts = [prompts[place % len(prompts)] for place in range(batch)]
        speeds: dict[str, list[float]] = {name: [] for name in methods}
        lengths: list[int] = []
        for round in range(ROUNDS):
            for name, method in methods.items():
                started = time.perf_counter()
                answer_lengths = method(batch_prompts, round)
                speeds[name].append(sum(answer_lengths) / (time.perf_counter() - started))
                print(f"batch {batch}: {name}: {speeds[name][-1]:,.0f} tokens/s", file=sys.stderr)
                lengths += answer_lengths
        ratios = [ours / theirs for theirs, ours in zip(*speeds.values(), strict=True)]
        medians = [f"{statistics.median(rates):,.0f}" for rates in speeds.values()]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append([str(batch), *medians, f"{statistics.median(ratios):.2f}", spread])
        spreads.append(f"{batch}: " + ", ".join(f"{q:.0f}" for q in statistics.quantiles(lengths, n=4)))
    print(describe(sys.argv))
    rates = [f"{name}, tokens/s" for name in methods]
    print(table(["batch", *rates, "ours / generate", "range over rounds"], rows))
    print(f"\nquartiles of the answer lengths: {'; '.join(spreads)}")


if __name__ == "__main__":
    main()
