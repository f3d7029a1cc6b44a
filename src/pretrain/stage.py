"""The stage `pretrain`: tokenizes text and trains a base model on it (section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..artifact import RESUME
from ..corpus.corpus import COUNTS, Corpus
from ..corpus.token_rows import TokenRows
from ..corpus.writing import JOURNAL, write_corpus
from ..distributed import group
from ..model.checkpoint import check_length, context_length, load_causal_lm, load_tokenizer, tokenizer_hash
from ..model.flops import training_flops_per_token
from ..model.initial_weights import new_causal_lm
from ..model.lora import load_trainable, plain
from ..model.sharded import parameter_count
from ..model.special import fit_config
from ..processes import is_main_process, rank, world_size
from ..training.arguments import base_dtype, trainer_section, training_arguments
from ..training.attention import OneRowCollator, attending_within_segments
from ..training.isolation import Isolation
from ..training.loop import run_trainer, save_trained
from ..training.monitoring import monitor_options
from ..training.order import MixedOrder
from ..training.ordered_trainer import OrderedTrainer
from ..training.tracking import Tracker
from .bits_per_byte import bits_per_byte, counted_bytes, unigram_nats
from .settings import PretrainSettings
from .validation import Validation

REMEDY = "set `cross_document_attention: true`"


def run(settings: PretrainSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Trains on the input `corpus`, or tokenizes `documents` to `out/shards` first, and writes `out/model`.

    The model is a new Llama of the shape `settings.model`, or the input `model` with its tokenizer.

    Metrics: `corpus` (counts by part), `unused_tokens` (at the sources' ends, too few for a row),
    `parameters`, `validation_bits_per_byte`, `unigram_bits_per_byte` (of a model that only knows token
    frequencies), and those of `run_trainer`.
    """
    group.setup(settings.deepspeed)
    tokenizer = load_tokenizer(inputs["tokenizer"] if settings.model is not None else inputs["model"])
    if settings.model is None:  # before hours of tokenizing
        check_length("context_length", settings.context_length, context_length(inputs["model"]))
    shards = inputs.get("corpus", out / "shards")
    if "corpus" not in inputs:
        journal = out / RESUME / JOURNAL
        write = partial(write_corpus, settings, settings.seed, tokenizer)
        group.once("tokenizing", lambda: write(root=inputs["data"], folder=shards, journal=journal))
        group.wait_until_visible(shards / COUNTS)
    corpus = Corpus(shards, tokenizer_hash(tokenizer))
    corpus.verify(rank(), world_size())
    size = counted_bytes(corpus.counts["validation"]["bytes"], corpus.validation, tokenizer)

    isolated = not settings.cross_document_attention
    length = settings.context_length
    rows = TokenRows(corpus.train, length, isolated)
    arguments = training_arguments(
        TrainingArguments,
        trainer_section(settings),
        out,
        seed=settings.seed,
        deepspeed=settings.deepspeed,
    )
    model = _initial_model(settings, inputs, tokenizer, arguments=arguments)
    parameters = parameter_count(model)
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        joined = settings.attn_implementation == "flash_attention_2" and isolated
        collator = OneRowCollator() if joined else None
        flops = training_flops_per_token(model.config, rows.mean_attended())
        trainer = OrderedTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=collator,
            order=MixedOrder(rows.counts, corpus.weights, settings.seed),
            description="pretrain",
            monitor=monitor_options(settings, flops),
        )
        validation = Validation(trainer, corpus, tracker, settings=settings, size=size)
        trainer.add_callback(validation)
        if isolated:
            trainer.add_callback(Isolation(trainer, settings.attn_implementation, REMEDY))
        kernel = settings.attn_implementation if isolated else settings.attn_implementation or "sdpa"
        with attending_within_segments(plain(model), kernel):
            trained = run_trainer(trainer, tracker, items_per_row=length, unit="tokens")
            bits = validation.bits_per_byte()
    save_trained(trainer, tokenizer, out / "model", merge=settings.lora is None or settings.lora.merge)
    if not is_main_process():
        return {}

    unigram = unigram_nats(corpus.train, corpus.validation, len(tokenizer))
    return {
        "corpus": corpus.counts,
        "unused_tokens": rows.unused,
        "parameters": parameters,
        "validation_bits_per_byte": bits,
        "unigram_bits_per_byte": bits_per_byte(unigram, size),
        **trained,
    }


def _initial_model(
    settings: PretrainSettings, inputs: Mapping[str, Path], tokenizer: Any, *, arguments: TrainingArguments
) -> Any:
    if settings.model is not None:
        config = settings.model.llama_config(len(tokenizer))
        fit_config(config, tokenizer)
        return new_causal_lm(config, settings.seed)
    load = partial(load_causal_lm, dtype=base_dtype(arguments, settings.adapter))
    return load_trainable(load, inputs["model"], settings.adapter, seed=settings.seed)
