"""Whether the documents of a packed row see each other, tried on the model itself.

Attention keeps them apart only where its mask follows the positions. Recurrent and convolutional layers carry
their state from one document to the next, and some architectures (GPT-OSS, OPT, BLOOM) make their masks
without the positions. Which of them does what changes with transformers: one forward pass shows it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..console import say
from ..errors import ConfigError
from ..model.architecture import carries_state, context_of
from ..model.lora import plain
from .attention import NAME

TRIED = 160  # tokens of a document, more than the blocks of tokens that some architectures attend to
# As a share of the difference between two unlike documents. Rounding to bf16 in 32 layers gave up to 0.04, a
# neighbour that attention sees 0.8 and more in every architecture tried.
ROUNDING = 0.2
KERNELS = (NAME, "sdpa", "eager")  # in place of a default under which documents see each other


class Isolation(TrainerCallback):
    """Calls `isolate` before the first step, when ZeRO-3's weights can be used."""

    def __init__(self, trainer: Any, kernel: str | None, remedy: str) -> None:
        self._trainer, self._kernel, self._remedy = trainer, kernel, remedy

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        isolate(self._trainer.model, self._kernel, self._remedy)


def isolate(model: Any, kernel: str | None = None, remedy: str = "") -> None:
    """Leaves `model` with a kernel under which packed documents don't see each other; says a change.

    Args:
        kernel: the one that the settings ask for, which is not replaced.
        remedy: what to do about an architecture that can't be packed.

    Raises:
        ConfigError: documents see each other under `kernel`, or, where none is asked for, under every kernel,
            as they always do where layers carry state.
    """
    first = plain(model).config._attn_implementation
    name = type(plain(model)).__name__
    if carries_state(plain(model)):
        raise ConfigError(
            f"attn_implementation: {name} can't be trained on packed documents (recurrent or convolutional "
            f"layers carry their state from one to the next); {remedy}"
        )
    faults = {}
    for tried in [first] if kernel else dict.fromkeys((first, *KERNELS)):
        fault = faults[tried] = _fault(model, tried)
        if fault is None:
            if tried != first:
                say(
                    f"attn_implementation: {name} is trained with {tried} instead of {first} ({faults[first]})"
                )
            return
    if kernel:
        raise ConfigError(
            f"attn_implementation: {kernel}: {name}: {faults[first]}; remove `attn_implementation` to use a "
            "kernel that works with this architecture"
        )
    told = "; ".join(f"{tried}: {fault}" for tried, fault in faults.items())
    raise ConfigError(f"attn_implementation: {name} can't be trained on packed documents ({told}); {remedy}")


def _fault(model: Any, kernel: str) -> str | None:
    """Why packed rows can't be trained under a kernel; None where they can."""
    try:
        if plain(model).config._attn_implementation != kernel:
            plain(model).set_attn_implementation(kernel)
        seen = _difference(model)
    except Exception as error:  # whatever an architecture raises that the kernel is not made for
        return f"it does not work with this architecture ({type(error).__name__}: {error})"
    return "packed documents see each other" if seen > ROUNDING else None


@torch.no_grad()
def _difference(model: Any) -> float:
    """How much the logits of a document change behind another one, against the difference between the two."""
    vocabulary = plain(model).config.get_text_config().vocab_size
    length = min(TRIED, context_of(plain(model).config))
    document = torch.arange(length) % vocabulary
    other = (document + 1) % vocabulary
    places = torch.arange(length).repeat(3)
    training = model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # nothing is compiled for one pass
            logits = model(
                input_ids=torch.cat((document, other, document))[None].to(model.device),
                position_ids=places[None].to(model.device),
                use_cache=False,
            ).logits[0]
    finally:
        model.train(training)
    first, between, last = logits.float().split(length)
    return float(((first - last).norm(dim=-1) / (first - between).norm(dim=-1)).max())
