"""Sampling answers: ours against `generate`, in tokens of answers a second, side by side.

    python benchmarks/rollout.py MODEL_FOLDER DATA_FOLDER FILE FORMAT [DTYPE]

as in `models/SmolLM2-135M-Instruct shared/data seed_tasks/seed_tasks.jsonl seed_tasks bfloat16`. Both draw at
temperature 1 from the whole distribution, up to NEW_TOKENS an answer; answers end where the model ends them,
so their lengths are spread. Each way is taken in turn, several times; what is told is the median.
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
from llamita.sampling.sampler import LlamaSampler
from llamita.settings import Source

BATCHES = (8, 32)
NEW_TOKENS, LONGEST_PROMPT, ROUNDS = 512, 192, 3

Way = Callable[[list[list[int]], int], list[int]]
"""Prompts and a seed -> lengths of the answers."""


def by_generate(model: Any, new_tokens: int = NEW_TOKENS) -> Way:
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
        told = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            pad_token_id=eos,
        )[:, longest:].tolist()
        return [row.index(eos) + 1 if eos in row else len(row) for row in told]

    return sample


def by_ours(model: Any, new_tokens: int = NEW_TOKENS) -> Way:
    def sample(prompts: list[list[int]], seed: int) -> list[int]:
        samples = LlamaSampler(model).sample(prompts, new_tokens, seed=seed)  # its copy of the weights counts
        return [len(answer) for answer in samples.answer_ids]

    return sample


def main() -> None:
    folder, root, path, format, *dtype = sys.argv[1:]
    tokenizer = load_tokenizer(Path(folder))
    model = load_causal_lm(Path(folder), dtype[0] if dtype else "float32").eval()
    source = Source.model_validate({"path": path, "format": format})
    encoded = [encode_prompt(tokenizer, prompt.messages) for prompt in read_prompts([source], Path(root))]
    prompts = [ids for ids in encoded if len(ids) <= LONGEST_PROMPT]
    ways = {"generate": by_generate(model), "ours": by_ours(model)}
    rows, spreads = [], []
    for batch in BATCHES:
        asked = [prompts[place % len(prompts)] for place in range(batch)]
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        lengths: list[int] = []
        for round in range(ROUNDS):
            for name, way in ways.items():
                started = time.perf_counter()
                found = way(asked, round)
                speeds[name].append(sum(found) / (time.perf_counter() - started))
                print(f"batch {batch}: {name}: {speeds[name][-1]:,.0f} tokens/s", file=sys.stderr)
                lengths += found
        ratios = [ours / theirs for theirs, ours in zip(*speeds.values(), strict=True)]
        medians = [f"{statistics.median(found):,.0f}" for found in speeds.values()]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append([str(batch), *medians, f"{statistics.median(ratios):.2f}", spread])
        spreads.append(f"{batch}: " + ", ".join(f"{q:.0f}" for q in statistics.quantiles(lengths, n=4)))
    print(describe(sys.argv))
    print(table(["batch", *(f"{name}, tokens/s" for name in ways), "ours / generate", "in rounds"], rows))
    print(f"\nquartiles of the answers' lengths: {'; '.join(spreads)}")


if __name__ == "__main__":
    main()
