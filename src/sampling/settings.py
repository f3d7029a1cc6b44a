"""Settings of all stages that sample answers (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..settings import StageSettings

CACHE_TOKENS = 32_768


class SamplingSettings(StageSettings):
    """Memory of sampling."""

    sampling_cache_tokens: Annotated[int, Field(ge=1)] = CACHE_TOKENS
    """maximum number of tokens in the key-value cache of the answers that are sampled in parallel: answers x
    (longest prompt + maximum length of an answer); one longer answer is sampled alone; changes no answer. A
    token takes 2 x layers x key-value heads x head dimension x bytes of a number: with Llama 2 7B in bfloat16
    512 KiB, so the default takes 17 GB"""

    no_effect: ClassVar[frozenset[str]] = frozenset({"sampling_cache_tokens"})
