"""Settings of all stages that sample answers (imports no torch)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..settings import Settings, StageSettings

CACHE_TOKENS = 32_768
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class BuiltinEngine(Settings):
    """This project's decoder for Llama models, in the processes of the stage; others use `generate`."""

    engine: Literal["builtin"]
    """what samples: `builtin`, `generate` or `vllm`"""


class GenerateEngine(Settings):
    """`generate` of transformers, in the processes of the stage, for any model."""

    engine: Literal["generate"]
    """what samples: `builtin`, `generate` or `vllm`"""


class StartedServers(Settings):
    """vLLM servers that the stage starts on the machine of rank 0, and stops."""

    python: str
    """path of the Python of an environment that has vLLM, relative to this YAML"""
    count: Count = 1
    """number of servers"""
    tensor_parallel_size: Count = 1
    """number of GPUs that share the weights of a server"""
    gpus: list[Annotated[int, Field(ge=0)]] | None = None
    """ids of the GPUs: the first server takes the first `tensor_parallel_size` of them, and so on; default:
    the first ones of the machine; set it if the same machine trains"""
    host: str = "127.0.0.1"
    """address at which the servers listen; ranks on other machines need one that they can reach"""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8200
    """port of the first server; the next one has the next port"""
    start_timeout: Seconds = 900.0
    """seconds until a server must be ready"""
    arguments: list[str] = []
    """further arguments of vLLM, such as `--gpu-memory-utilization=0.8`"""
    environment: dict[str, str] = {}
    """further environment variables of the servers"""

    @field_validator("host")
    @classmethod
    def _one_address(cls, host: str) -> str:
        if host in ("", "0.0.0.0", "::", "[::]"):
            raise ValueError(f"{host!r} is no address for requests; give one of this machine's own")
        return host

    @model_validator(mode="after")
    def _enough_gpus(self) -> StartedServers:
        needed = self.count * self.tensor_parallel_size
        if self.gpus is not None and len(self.gpus) != needed:
            raise ValueError(
                f"gpus: {len(self.gpus)} ids; expected {needed}: count {self.count} x tensor_parallel_size "
                f"{self.tensor_parallel_size}"
            )
        return self


class VllmEngine(Settings):
    """vLLM servers, which the stage starts (`start`) or which run already (`urls`)."""

    engine: Literal["vllm"]
    """what samples: `builtin`, `generate` or `vllm`"""
    urls: list[str] = []
    """addresses of running servers, such as `http://node7:8000`"""
    start: StartedServers | None = None
    """servers to start"""
    weights: str | None = None
    """folder for the weights that PPO passes to the servers, relative to this YAML; all servers must be able
    to read it; default: in the stage's working folder"""
    parallel: Count = 256
    """maximum number of parallel requests of a rank to a server"""
    timeout: Seconds = 300.0
    """seconds after which a request without a response has failed"""

    @field_validator("urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no address; expected one such as http://node7:8000")
        if len(set(urls)) < len(urls):
            raise ValueError("an address occurs twice")
        return [url.rstrip("/").removesuffix("/v1") for url in urls]

    @model_validator(mode="after")
    def _one_source(self) -> VllmEngine:
        if bool(self.urls) == (self.start is not None):
            raise ValueError(
                "engine vllm needs either `urls`, of running servers, or `start`; set one of them"
            )
        return self


Engine = Annotated[BuiltinEngine | GenerateEngine | VllmEngine, Field(discriminator="engine")]


class SamplingSettings(StageSettings):
    """Engine and memory of sampling."""

    sampler: Engine = BuiltinEngine(engine="builtin")
    """what samples the answers, see docs/sampling.md"""
    sampling_cache_tokens: Count = CACHE_TOKENS
    """maximum number of tokens in the key-value cache of the answers that are sampled in parallel: answers x
    (longest prompt + maximum length of an answer); one longer answer is sampled alone; changes no answer. A
    token takes 2 x layers x key-value heads x head dimension x bytes of a number: with Llama 2 7B in bfloat16
    512 KiB, so the default takes 17 GB. vLLM has its own limits"""

    no_effect: ClassVar[frozenset[str]] = frozenset(
        {
            "sampling_cache_tokens",
            *(f"sampler.{name}" for name in ("urls", "start", "weights", "parallel", "timeout")),
        }
    )
    paths: ClassVar[tuple[tuple[str, ...], ...]] = (("sampler", "start", "python"), ("sampler", "weights"))
