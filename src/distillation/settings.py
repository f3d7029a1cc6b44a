"""Settings of the stage `distillation` (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from ..data.settings import PromptSource, RowSettings
from ..sampling.settings import SamplingSettings
from ..settings import Precision, Settings

ADJECTIVE = "{adjective}"
Count = Annotated[int, Field(ge=1)]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Position = Literal["system", "user"]


class Preprompts(Settings):
    """Texts that make a model's answers safer when they precede a prompt (table 39)."""

    templates: Texts
    """templates of the generic preprompt, each with `{adjective}`; one is drawn for each prompt"""
    adjectives: Texts
    """adjectives of safe behaviour, such as "responsible"; one is drawn for each prompt"""
    answer_templates: dict[str, Annotated[str, Field(min_length=1)]] = {}
    """texts by risk category that describe the right answer to its prompts, appended to the generic
    preprompt"""
    position: Position = "system"
    """where the preprompt is: `system`, before the text of the system message; `user`, before the text of the
    last user message, where small models follow it more often"""

    @field_validator("templates")
    @classmethod
    def _adjectives_have_a_place(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if ADJECTIVE not in template:
                raise ValueError(f"{template!r} does not contain {ADJECTIVE}; add it")
        return templates


class DistillationSettings(RowSettings, SamplingSettings):
    """Context distillation (section 4.2.4): answers sampled with a safety preprompt, to train without it."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data", "safety"})
    resumable: ClassVar[bool] = True

    round: str | None = None
    """name of the round, part of every random seed so that rounds sample differently; set automatically in a
    block of rounds"""
    prompts: Annotated[list[PromptSource], Field(min_length=1)]
    """prompt sources; only their adversarial prompts (`is_safety`) are used"""
    num_prompts: Count | None = None
    """number of adversarial prompts to draw; default: all"""
    preprompts: Preprompts
    """safety preprompts, and where they are in a prompt"""
    max_prompt_length: Count | None = None
    """maximum length of a prompt in tokens, without its preprompt; longer prompts are skipped and counted, as
    are prompts that leave no room for an answer and an EOS in the smaller context of model and safety
    model"""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """sampling temperature"""
    max_new_tokens: Count
    """maximum length of an answer in tokens, EOS included"""
    dtype: Precision = "float32"
    """precision of sampling and scoring"""

    @property
    def full_seed(self) -> str:
        """Seed of every random draw: the setting `seed`, the round and the stage."""
        return "/".join(filter(None, (str(self.seed), self.round, "distillation")))
