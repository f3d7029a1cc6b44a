"""Tests on the model itself whether documents of a packed row see each other.

Attention keeps them apart only if its mask follows the positions. Recurrent and convolutional layers carry
their state from one document to the next, and some architectures (GPT-OSS, OPT, BLOOM) ignore the positions
in their masks. This changes between releases of transformers; one forward pass shows it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..console import say
from ..distributed.group import gather_rows
from ..distributed.reports import raised_by_collective
from ..errors import ConfigError
from ..model.architecture import carries_state, context_of
from ..model.lora import plain
from .attention import NAME

TEST_LENGTH = 160  # tokens of a document: longer than the attention chunks of some architectures
# Largest difference that rounding may cause, as a share of the difference between two unlike documents. bf16
# in 32 layers gave up to 0.04; a visible neighbour gave at least 0.8 in every architecture tried.
ROUNDING = 0.2
KERNELS = (NAME, "sdpa", "eager")  # tried if documents see each other with the model's own kernel


class Isolation(TrainerCallback):
    """Calls `isolate` before the first step, when weights sharded by ZeRO-3 can be used."""

    def __init__(self, trainer: Any, kernel: str | None, remedy: str) -> None:
        self._trainer, self._kernel, self._remedy = trainer, kernel, remedy

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        isolate(self._trainer.model, self._kernel, self._remedy)


def isolate(model: Any, kernel: str | None = None, remedy: str = "") -> None:
    """Sets `model` to a kernel with which packed documents don't see each other; reports a change.

    Args:
        kernel: the kernel chosen in the settings, which is not replaced; None: any.
        remedy: what the user can do if the architecture can't be trained on packed documents.

    Raises:
        ConfigError: documents see each other with `kernel`, or, if it is None, with every kernel. Layers that
            carry state always cause this error.
    """
    current = plain(model).config._attn_implementation
    name = type(plain(model)).__name__
    if carries_state(plain(model).config):
        raise ConfigError(
            f"attn_implementation: {name} can't be trained on packed documents (recurrent or convolutional "
            f"layers carry their state from one to the next); {remedy}"
        )
    problems = {}
    for candidate in [current] if kernel else dict.fromkeys((current, *KERNELS)):
        problem = problems[candidate] = _problem(model, candidate)
        if problem is None:
            if candidate != current:
                say(
                    f"attn_implementation: {name} is trained with {candidate} instead of {current} "
                    f"({problems[current]})"
                )
            return
    if kernel:
        raise ConfigError(
            f"attn_implementation: {kernel}: {name}: {problems[current]}; remove "
            "`attn_implementation` from the settings to let the stage choose a kernel"
        )
    reasons = "; ".join(f"{candidate}: {problem}" for candidate, problem in problems.items())
    raise ConfigError(
        f"attn_implementation: {name} can't be trained on packed documents ({reasons}); {remedy}"
    )


def _problem(model: Any, kernel: str) -> str | None:
    """Why packed rows can't be trained with a kernel, the same on all ranks; None if they can.

    Raises the error of a rank that ran out of memory or lost the others: it says nothing about the kernel.
    """
    try:
        if plain(model).config._attn_implementation != kernel:
            plain(model).set_attn_implementation(kernel)
        difference = _relative_difference(model)
        problem = "packed documents see each other" if difference > ROUNDING else None
    except Exception as error:  # architectures raise any error for a kernel that they don't support
        if "out of memory" in str(error) or raised_by_collective(error):
            raise
        problem = f"it does not work with this architecture ({type(error).__name__}: {error})"
    return next(filter(None, gather_rows([problem])), None)  # another kernel has other collectives


@torch.no_grad()
def _relative_difference(model: Any) -> float:
    """How much a document's logits change after another one, relative to the difference between the two."""
    vocabulary = plain(model).config.get_text_config().vocab_size
    length = min(TEST_LENGTH, context_of(plain(model).config))
    document = torch.arange(length) % vocabulary
    other = (document + 1) % vocabulary
    positions = torch.arange(length).repeat(3)
    training = model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiling for one pass takes too long
            logits = model(
                input_ids=torch.cat((document, other, document))[None].to(model.device),
                position_ids=positions[None].to(model.device),
                use_cache=False,
            ).logits[0]
    finally:
        model.train(training)
    alone, other_logits, after_other = logits.float().split(length)
    return float(((alone - after_other).norm(dim=-1) / (alone - other_logits).norm(dim=-1)).max())
