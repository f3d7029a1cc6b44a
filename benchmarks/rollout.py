"""Speed of sampling answers: the engines `builtin` and `vllm` beside `generate` of transformers.

    python benchmarks/rollout.py MODEL [--prompts FILE FORMAT] [--vllm URL] [--rows 64] [--rounds 5] …

MODEL is `miniature` or `smollm2`, a Llama of that shape with random weights, or the folder of a chat model
with `--prompts`, for example `--prompts DATA/seed_tasks/seed_tasks.jsonl seed_tasks`. The random models get
an EOS of constant probability, so that lengths vary as those of chat answers do: see `end_answers`.

All engines sample at temperature 1 without top-k or top-p, ROWS answers in parallel, of several times as
many. `generate` gets what a user of it would do: prompts sorted by length, in batches of ROWS answers,
padded on the left. In each round every engine runs once. Rates count answer tokens, EOS included. While other
programs use the machine, processor time is more reliable than the clock; use one thread then
(OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import describe, table
from transformers import LlamaConfig, LlamaForCausalLM

from llamita.batches import batches
from llamita.chat_format.encoding import encode_prompt
from llamita.data.sources import read_prompts
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.model.padding import pad_left
from llamita.model.special import eos_ids
from llamita.sampling.interface import Sampler
from llamita.sampling.llama import LlamaSampler
from llamita.sampling.settings import VllmEngine
from llamita.sampling.vllm.sampler import VllmSampler
from llamita.settings import Source

GENERATIONS = (1, 8)
REFERENCE = "generate"
PROMPT_LENGTHS = (16, 96)  # tokens of random prompts
MEAN_LENGTH = 40  # tokens of an answer of a random model, unless the limit ends it

SHAPES: dict[str, dict[str, Any]] = {
    "miniature": {
        "vocab_size": 1536,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "smollm2": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}

Engine = Callable[[list[list[int]], int, int], list[int]]
"""(prompts, answers to each, seed) -> lengths of the answers"""


class Speed(NamedTuple):
    """Answer tokens per second of the clock, and per second of this process on the processor."""

    clock: float
    processor: float


def random_model(shape: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=1024, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    model = LlamaForCausalLM(config).eval()
    end_answers(model)
    return model


@torch.no_grad()
def end_answers(model: Any) -> None:
    """Makes EOS about equally likely after any token: lengths become geometric, of mean MEAN_LENGTH.

    The first dimension of all embeddings is made large, so the last hidden states agree in it; EOS gets no
    other weight in the output layer than a multiple of this dimension.
    """
    model.model.embed_tokens.weight[:, 0] = 1.0
    ids = torch.randint(3, model.config.vocab_size, (8, 64))
    hidden = model.model(ids).last_hidden_state
    others = model.lm_head(hidden).logsumexp(-1).mean()
    wanted = others - torch.tensor(MEAN_LENGTH - 1.0).log()
    model.lm_head.weight[2] = 0.0
    model.lm_head.weight[2, 0] = wanted / hidden[..., 0].mean()


def random_prompts(count: int, vocabulary: int) -> list[list[int]]:
    draw = random.Random(0)
    return [
        [1, *(draw.randrange(3, vocabulary) for _ in range(draw.randint(*PROMPT_LENGTHS) - 1))]
        for _ in range(count)
    ]


def by_generate(model: Any, rows: int, new_tokens: int) -> Engine:
    eos = eos_ids(model.config)

    def sample(prompts: list[list[int]], generations: int, seed: int) -> list[int]:
        torch.manual_seed(seed)
        lengths: list[int] = []
        for batch in batches(sorted(prompts, key=len), rows // generations):
            ids, mask = pad_left(batch, eos[0])
            answers = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=new_tokens,
                num_return_sequences=generations,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                eos_token_id=eos,
                pad_token_id=eos[0],
            )[:, ids.shape[1] :].tolist()
            lengths += [_length(answer, eos) for answer in answers]
        return lengths

    return sample


def _length(answer: list[int], eos: list[int]) -> int:
    return next((place + 1 for place, token in enumerate(answer) if token in eos), len(answer))


def by_builtin(model: Any, rows: int, new_tokens: int) -> Engine:
    def sample(prompts: list[list[int]], generations: int, seed: int) -> list[int]:
        # timed with the copy of the weights, which PPO makes in every iteration
        sampler = LlamaSampler(model, rows * (max(map(len, prompts)) + new_tokens))
        return by_sampler(sampler, new_tokens)(prompts, generations, seed)

    return sample


def by_sampler(sampler: Sampler, new_tokens: int) -> Engine:
    def sample(prompts: list[list[int]], generations: int, seed: int) -> list[int]:
        samples = sampler.sample(prompts, new_tokens, generations, seed=seed)
        return [len(answer) for answer in samples.answer_ids]

    return sample


def measure(engine: Engine, prompts: list[list[int]], generations: int, seed: int) -> tuple[Speed, list[int]]:
    clock, processor = time.perf_counter(), time.process_time()
    lengths = engine(prompts, generations, seed)
    tokens = sum(lengths)
    return Speed(tokens / (time.perf_counter() - clock), tokens / (time.process_time() - processor)), lengths


def compare(engines: dict[str, Engine], prompts: list[list[int]], options: argparse.Namespace) -> None:
    """Prints the medians over the rounds, and each round's ratios to `generate`."""
    rows, spreads = [], []
    for generations in GENERATIONS:
        # The same number of answers for every K, but at least twice the prompts of one batch.
        count = max(options.answers, 2 * options.rows) // generations
        speeds: dict[str, list[Speed]] = {name: [] for name in engines}
        lengths: list[int] = []
        for round in range(options.rounds):
            for name, engine in engines.items():
                speed, found = measure(engine, prompts[:count], generations, round)
                speeds[name].append(speed)
                lengths += found
                print(
                    f"K {generations}: {name}: {speed.clock:,.0f} tokens/s, {speed.processor:,.0f} of the "
                    "processor",
                    file=sys.stderr,
                )
        for name, found in speeds.items():
            rows.append([f"{generations}: {name}", *_columns(name, found, speeds[REFERENCE])])
        quartiles = ", ".join(f"{quartile:.0f}" for quartile in statistics.quantiles(lengths, n=4))
        spreads.append(f"K {generations}: {quartiles}, mean {statistics.mean(lengths):.0f}")
    print(describe(sys.argv))
    print(
        table(
            ["K: engine", "tokens/s", "ratio (range)", "tokens/s of processor", "ratio of these (range)"],
            rows,
        )
    )
    print(f"\nratios: to `{REFERENCE}`; quartiles of the lengths of answers: {'; '.join(spreads)}")


def _columns(name: str, found: list[Speed], reference: list[Speed]) -> list[str]:
    columns = []
    for kind in ("clock", "processor"):
        if name == "vllm" and kind == "processor":
            columns += ["–", "–"]
            continue
        rates = [getattr(speed, kind) for speed in found]
        ratios = [rate / getattr(speed, kind) for rate, speed in zip(rates, reference, strict=True)]
        columns.append(f"{statistics.median(rates):,.0f}")
        columns.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="miniature, smollm2 or a folder")
    parser.add_argument("--prompts", nargs=2, metavar=("FILE", "FORMAT"), help="prompts for a folder's model")
    parser.add_argument("--vllm", metavar="URL", help="a vLLM server of the folder's model")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rows", type=int, default=64, help="answers in parallel")
    parser.add_argument("--answers", type=int, default=256, help="answers of a round")
    parser.add_argument("--new-tokens", type=int, default=128, help="maximum length of an answer")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.model in SHAPES:
        model: Any = random_model(options.model).to(getattr(torch, options.dtype))
        prompts = random_prompts(options.answers, model.config.vocab_size)
    else:
        model = load_causal_lm(Path(options.model), options.dtype).eval()
        prompts = _read_prompts(options)
    engines = {
        REFERENCE: by_generate(model, options.rows, options.new_tokens),
        "builtin": by_builtin(model, options.rows, options.new_tokens),
    }
    with tempfile.TemporaryDirectory() as working:
        if options.vllm:
            settings = VllmEngine(engine="vllm", urls=[options.vllm])
            folder = Path(options.model)
            with VllmSampler(settings, folder, dtype=options.dtype, working=Path(working)) as served:
                compare(engines | {"vllm": by_sampler(served, options.new_tokens)}, prompts, options)
        else:
            compare(engines, prompts, options)


def _read_prompts(options: argparse.Namespace) -> list[list[int]]:
    """Encoded prompts of at most PROMPT_LENGTHS tokens, the first ones of the file."""
    path, format = options.prompts
    tokenizer = load_tokenizer(Path(options.model))
    source = Source.model_validate({"path": str(Path(path).absolute()), "format": format})
    encoded = (encode_prompt(tokenizer, row.messages) for row in read_prompts([source], Path(path).parent))
    found = [ids for ids in encoded if len(ids) <= PROMPT_LENGTHS[1]][: options.answers]
    return [found[place % len(found)] for place in range(options.answers)]


if __name__ == "__main__":
    main()
