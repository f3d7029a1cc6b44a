"""Chooses the engine that samples, by the setting `sampler`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from ..model.checkpoint import load_causal_lm
from ..settings import Precision
from .dialogues import DialogueSampler
from .generate import GenerateSampler
from .interface import Sampler
from .settings import CACHE_TOKENS, SamplingSettings, VllmEngine
from .vllm.sampler import VllmSampler
from .weights import is_supported

SERVERS = "servers"  # below the stage's working folder: log files and weights of the servers


def local_sampler(
    model: Any,
    cache_tokens: int = CACHE_TOKENS,
    dtype: str | None = None,
    *,
    generate: bool = False,
) -> DialogueSampler | GenerateSampler:
    """A `DialogueSampler` if it supports the model (it is faster), else a `GenerateSampler`.

    `generate`: always a `GenerateSampler`.
    """
    builtin = is_supported(model) and not generate
    return (DialogueSampler if builtin else GenerateSampler)(model, cache_tokens, dtype)


class Samplers:
    """Samplers of models in folders, with the engine of a stage's settings.

    Servers are started for the first model; the next ones only get its weights. As a context it stops them.

    Args:
        dtype: precision of the weights.
        working: the stage's working folder.
    """

    def __init__(self, settings: SamplingSettings, *, dtype: Precision, working: Path) -> None:
        self._settings, self._dtype, self._folder = settings, dtype, working / SERVERS
        self._served: VllmSampler | None = None

    def of(self, folder: Path, model: Any = None) -> Sampler:
        """A sampler of the model in `folder`; with servers the samplers before it end.

        `model`: the loaded model, if the caller has it; None: it is loaded into the host's memory if the
        engine needs it. The built-in engine copies it from there and forgets it: a GPU never holds it twice.
        """
        if isinstance(self._settings.sampler, VllmEngine):
            return self._server_of(folder)
        if model is None:
            model = load_causal_lm(folder, self._dtype).eval()
        return self._local(model)

    def for_training(self, model: Any, folder: Path, *, dtype: str | None) -> Sampler:
        """A sampler without weights until it is synced with `model`, which is still to be trained.

        Args:
            folder: folder that the model was loaded from.
            dtype: precision of the sampler's copy; None: that of the model.
        """
        if isinstance(self._settings.sampler, VllmEngine):
            return self._server_of(folder)
        sampler = self._local(model, dtype)
        sampler.release()  # its copy of the weights would lie beside a checkpoint that is loaded
        return sampler

    def _local(self, model: Any, dtype: str | None = None) -> Sampler:
        generate = self._settings.sampler.engine == "generate"
        return local_sampler(model, self._settings.sampling_cache_tokens, dtype, generate=generate)

    def _server_of(self, folder: Path) -> VllmSampler:
        assert isinstance(self._settings.sampler, VllmEngine)
        if self._served is None:
            self._served = VllmSampler(
                self._settings.sampler, folder, dtype=self._dtype, working=self._folder
            )
        else:
            self._served.load(folder)
        return self._served

    def close(self) -> None:
        """Stops all servers that were started."""
        if self._served is not None:
            self._served.close()
            self._served = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
