"""Settings of the stage `refusal_classifier` (imports no torch)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ..data.settings import RowSettings
from ..settings import Source


class RefusalClassifierSettings(RowSettings):
    """A classifier of refusals, with which false refusals are counted (section 4.4)."""

    required_inputs: ClassVar[frozenset[str]] = frozenset({"data"})

    answers: list[Source] = Field(min_length=1)
    """sources of the training answers, each labelled as a refusal or not"""
    test: list[Source] = []
    """sources of held-out labelled answers; set either this or `held_out`"""
    held_out: int = Field(0, ge=0)
    """number of `answers` to hold out; equal answers are all held out or all trained on; set either this or
    `test`"""

    @model_validator(mode="after")
    def _something_is_held_out(self) -> RefusalClassifierSettings:
        if self.test and self.held_out:
            raise ValueError("held_out: `test` already names held-out answers; remove one of the two")
        if not (self.test or self.held_out):
            raise ValueError("held_out: nothing to test with; set `held_out` to a number, or `test`")
        return self
