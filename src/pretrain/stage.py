"""The stage `pretrain`: text to token shards to a base model (section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, TrainingArguments

from ..data.shards import TokenShards
from ..model.checkpoint import load_causal_lm, load_tokenizer, tokenizer_hash
from ..training import distributed
from ..training.arguments import TO_A_TENTH, training_arguments
from ..training.attention import attending_within_segments
from ..training.engine import device
from ..training.loop import OrderedTrainer, run_trainer, save_trained
from ..training.tracking import Tracker
from .compression import bits_per_byte, model_nats, unigram_nats
from .corpus import write_corpus
from .settings import PretrainSettings


def run(settings: PretrainSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes `out/shards` and trains a Llama of `settings.model` on them into `out/model`.

    Metrics: the corpus by part, `unused_tokens` (at its end, they fill no row), `parameters`,
    `validation_bits_per_byte`, `unigram_bits_per_byte` (the same text under token frequencies alone), and
    those of the training.
    """
    distributed.setup(settings.deepspeed)
    tokenizer = load_tokenizer(inputs["tokenizer"])
    corpus: dict[str, Any] = {}
    if distributed.is_main():
        corpus = write_corpus(settings, tokenizer, inputs["data"], out / "shards")
    distributed.barrier()
    train, held_out = (
        TokenShards(out / "shards" / part, tokenizer_hash(tokenizer)) for part in ("train", "validation")
    )

    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(settings.model.llama_config(len(tokenizer)))
    parameters = model.num_parameters()
    apart = not settings.cross_document_attention
    rows = train.rows(settings.context_length, document_start=tokenizer.bos_token_id if apart else None)
    arguments = training_arguments(
        TrainingArguments,
        settings.trainer,
        out,
        settings.seed,
        settings.deepspeed,
        num_train_epochs=1,
        **TO_A_TENTH,
    )
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        trainer = OrderedTrainer(model=model, args=arguments, train_dataset=rows)
        with attending_within_segments(model, arguments.device) if apart else nullcontext():
            trained = run_trainer(trainer, tracker, "pretrain", settings.context_length, "tokens")
    save_trained(trainer, tokenizer, out / "model")
    if not distributed.is_main():
        return {}

    saved = load_causal_lm(out / "model").to(device())
    begins = tokenizer.bos_token_id
    nats = {
        "validation": model_nats(saved, held_out, settings.context_length, begins, not apart),
        "unigram": unigram_nats(train, held_out, len(tokenizer), begins),
    }
    size = corpus["validation"]["bytes"]
    return {
        "corpus": corpus,
        "unused_tokens": rows.unused,
        "parameters": parameters,
        **{f"{name}_bits_per_byte": bits_per_byte(cost, size) for name, cost in nats.items()},
        **trained,
    }
