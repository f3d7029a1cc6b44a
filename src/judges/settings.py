"""Settings of a judge behind an endpoint (imports no torch)."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ..settings import Settings

Count = Annotated[int, Field(ge=1)]
OF_THE_ENDPOINT = ("api_key_env", "timeout", "parallel")
"""Settings of `Endpoint` without effect on the judgements."""


def with_placeholders(text: str, *names: str) -> str:
    """Returns a template. Raises ValueError if it lacks one of the placeholders."""
    for name in names:
        if name not in text:
            raise ValueError(f"{text!r:.60} does not contain {name}, which is replaced by the text; add it")
    return text


class Endpoint(Settings):
    """A model behind an OpenAI-compatible endpoint."""

    base_url: str
    """address of the endpoint up to `/chat/completions`, such as `http://localhost:8000/v1`"""
    model: str
    """name of the judge model at the endpoint"""
    temperature: Annotated[float, Field(ge=0)] | None = 0.0
    """sampling temperature of the judge; null: the endpoint's own"""
    max_tokens: Count | None = None
    """maximum number of tokens of a reply, sent to the endpoint; null: the endpoint's own"""
    api_key_env: str | None = None
    """name of the environment variable with the API key, which is stored nowhere; null: no key is sent"""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """seconds without data from the endpoint after which a request has failed"""
    retries: Annotated[int, Field(ge=0)] = 5
    """number of retries of a failed request, and above temperature 0 of a reply that can't be read; the wait
    after a failure doubles each time, from one second"""
    parallel: Count = 4
    """number of parallel requests"""

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of an endpoint; expected http(s)://HOST[:PORT]/PATH")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "expected an address without user, query and fragment; name the environment variable with "
                "the API key in api_key_env"
            )
        return url.rstrip("/")
