"""Rejection sampling (section 3.2.3): K answers to a prompt, scored by the reward models, the best kept."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..chat_format.encoding import without_marks
from ..chat_format.packing import pack_dialogues
from ..data.rows import Dialogue
from ..distributed.device import device
from ..distributed.group import gather_rows
from ..errors import DataError
from ..jsonl import Row, read_rows
from ..model.architecture import carries_state, context_of
from ..model.checkpoint import load_causal_lm
from ..model.lora import begin, plain
from ..processes import rank, world_size
from ..sampling.generate import sampler_for
from ..sampling.sampler import without_end
from ..training.arguments import trainer_section
from ..training.finetune import finetune_packed
from ..training.health import watch
from ..training.tracking import Tracker
from .context import Context
from .reward import piecewise_reward
from .rollout import EncodedPrompt
from .rounds import is_of
from .settings import RlhfSettings, RoundSettings


def round_prompts(pool: int, rounds: Sequence[RoundSettings], index: int, seed: int) -> list[int]:
    """Which of `pool` prompts a round takes: each round others, and the first again when all were taken.

    A round gets no prompt twice, so never more than there are.
    """
    order = random.Random(f"{seed}/rounds").sample(range(pool), pool)
    start = sum(entry.prompts for entry in rounds[:index])
    return [order[place % pool] for place in range(start, start + min(rounds[index].prompts, pool))]


def sample_answers(context: Context, newest: Path, prompts: Sequence[EncodedPrompt], index: int) -> list[Row]:
    """K answers of the newest model to each prompt, by all ranks together; rows in the order of the prompts.

    A row: `prompt` (its index), `answer` (text), `answer_ids`, `finished`, `logprob` (of the whole answer).
    """
    settings, entry = context.settings, context.settings.rounds[index]
    sampler = sampler_for(load_causal_lm(newest, settings.dtype).to(device()), settings.sampling_batch_size)
    mine = _share(len(prompts))
    samples = sampler.sample(
        [prompts[place].ids for place in mine],
        settings.max_new_tokens,
        entry.samples_per_prompt,
        temperature=entry.temperature,
        seed=f"{settings.seed}/{entry.name}/samples",
        keys=mine,
        label=f"{entry.name}: sampling",
    )
    rows: list[Row] = [
        {
            "prompt": mine[samples.prompts[place]],
            "answer": context.tokenizer.decode(without_end(ids, finished)).strip(),
            "answer_ids": ids,
            "finished": finished,
            "logprob": sum(samples.logprobs[place]),
        }
        for place, (ids, finished) in enumerate(zip(samples.answer_ids, samples.finished, strict=True))
    ]
    return gather_rows(rows)


def score_answers(
    context: Context, samples: Sequence[Row], prompts: Sequence[EncodedPrompt], index: int
) -> list[Row]:
    """The scores of each sample, in (0, 1): `safety`, `helpfulness` and the piecewise `score`."""
    name, mine = context.settings.rounds[index].name, _share(len(samples))
    told = [prompts[samples[place]["prompt"]] for place in mine]
    ids = [prompt.ids for prompt in told]
    answers = [without_end(samples[place]["answer_ids"], samples[place]["finished"]) for place in mine]
    safety = context.safety(ids, answers, f"{name}: safety scores")
    helpfulness = context.helpfulness(ids, answers, f"{name}: helpfulness scores")
    is_safety = torch.tensor([prompt.prompt.is_safety for prompt in told], dtype=torch.bool)
    score = piecewise_reward(safety, helpfulness, is_safety, context.settings.safety_threshold)
    columns = {"safety": safety, "helpfulness": helpfulness, "score": score}
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return gather_rows([dict(zip(columns, row, strict=True)) for row in values])


def best_answers(
    samples: Sequence[Row],
    scores: Sequence[Row],
    prompts: Sequence[EncodedPrompt],
    *,
    marks: Sequence[str],
    safety_threshold: float,
) -> list[Row]:
    """The best-scored answer of each prompt as a row of SFT; the first of equal ones.

    An unusable answer (see `is_usable`) is never chosen, nor is an unsafe one to an ordinary prompt: the
    piecewise score of an unsafe answer is its safety, which says nothing beside the helpfulness of the
    others. A prompt without any other answer is left out. Adversarial prompts rank by safety.

    Args:
        marks: control strings of the chat format.
        safety_threshold: answers to ordinary prompts whose safety score is below it are unsafe.

    Raises:
        DataError: a score is NaN.
    """
    best: dict[int, tuple[float, str]] = {}
    for number, (sample, score) in enumerate(zip(samples, scores, strict=True), start=1):
        prompt, text, value = sample["prompt"], sample["answer"], score["score"]
        if math.isnan(value):
            raise DataError(f"the score of sample {number} is NaN; expected a number in (0, 1)")
        if not is_usable(sample, marks):
            continue
        if score["safety"] < safety_threshold and not prompts[prompt].prompt.is_safety:
            continue
        if prompt not in best or value > best[prompt][0]:
            best[prompt] = (value, text)
    return [
        {
            "messages": [*prompts[index].prompt.messages, {"role": "assistant", "content": text}],
            "is_safety": prompts[index].prompt.is_safety,
            "score": value,
        }
        for index, (value, text) in sorted(best.items())
    ]


def is_usable(sample: Row, marks: Sequence[str]) -> bool:
    """Whether an answer can be trained: it ended by itself, is not empty and holds no control string."""
    text = sample["answer"]
    return bool(sample["finished"] and text and without_marks(text, marks) == text)


def fine_tune(context: Context, selections: Sequence[Path], index: int, tracker: Tracker, out: Path) -> Row:
    """Fine-tunes the base model on the demonstrations and the best answers of all rounds so far.

    Always from the base, for the same number of steps (section 3.2.3). Up to V3 the paper used the last
    round's answers only, which lost skills; all rounds' is what it ended with.

    Args:
        selections: `selection.jsonl` of the rounds so far.
        out: the model goes to `out/model`.

    Returns the metrics of packing and of the training, and `rows_per_step`.
    """
    settings, entry = context.settings, context.settings.rounds[index]
    best = [
        Dialogue(row["messages"], trained="last")  # earlier answers of a dialogue are not the model's own
        for path in selections
        for row in read_rows(path)
    ]
    dialogues = [*context.demonstrations, *best * settings.selection_repeats]
    model = begin(load_causal_lm, context.base, settings.adapter, seed=settings.seed)
    rows, counts = pack_dialogues(
        context.tokenizer,
        dialogues,
        settings.row_length,
        context_length=context_of(model.config),
        seed=settings.seed,
        alone=carries_state(plain(model)),
    )
    trained = finetune_packed(
        model,
        context.tokenizer,
        rows,
        trainer=trainer_section(settings),
        seed=settings.seed,
        out=out,
        save_to=out / "model",
        tracker=_RoundTracker(tracker, index + 1),
        deepspeed=settings.deepspeed,
        description=f"{entry.name}: fine-tuning",
        watch=watch(settings),
        attention=settings.attention,
    )
    return counts | trained | {"rows_per_step": rows_per_step(settings)}


def rows_per_step(settings: RlhfSettings) -> int:
    """Rows of a step of fine-tuning over all micro-batches and ranks."""
    section = trainer_section(settings)
    micro_batches: int = section.get("gradient_accumulation_steps", 1) * world_size()
    return micro_batches * int(section["per_device_train_batch_size"])


class _RoundTracker(Tracker):
    """Adds the number of the round to what is logged."""

    def __init__(self, tracker: Tracker, number: int) -> None:
        self._tracker, self._number = tracker, number

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._tracker.log({"round": self._number, **metrics}, step)

    def rewind(self, step: int, phase: Callable[[Row], bool] = lambda row: True) -> None:
        self._tracker.rewind(step, lambda row: is_of(row, self._number, "rejection") and phase(row))


def _share(count: int) -> range:
    """This rank's share of `count` indices; shares are contiguous, in the order of ranks."""
    start, end = (count * place // world_size() for place in (rank(), rank() + 1))
    return range(start, end)
