"""The sampler over vLLM servers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ...console import progress
from ...distributed.group import once
from ...errors import ConfigError, LlamitaError
from ...model.checkpoint import load_tokenizer, loaded_config
from ...model.special import eos_ids
from ...processes import is_main_process, phase
from ...settings import Precision
from ..decoding import Decoding
from ..interface import Sampler, Samples, Stop
from ..logprobs import excluded_pad_id
from ..settings import VllmEngine
from .checks import TEXT, canary, check_logprobs, check_tokenizer, is_unchanged
from .client import Answer, Client, Request, ServedModel, ServerFault
from .servers import Server, Servers
from .sharing import share_out
from .weights import differ, difference, servable, write_snapshot

EXCLUDED = -100.0  # logit bias; the probability of an excluded token becomes about 1e-43 of what it was


class VllmSampler(Sampler):
    """Samples from servers; rank 0 starts and stops them, and passes the weights to them.

    Every rank calls all methods but `sample` and `sample_dialogues`.

    Draws are named by seed, prompt and sample, as with the other engines, but the server's generator makes
    them: the answers are others than theirs, except greedy ones.

    Args:
        settings: the settings of the engine.
        folder: the model to serve first.
        dtype: precision of the weights.
        working: folder for log files and weights.

    Raises:
        ConfigError: servers that do not fit the model: another tokenizer, a route is missing.
        LlamitaError: a server cannot be started or reached.
    """

    def __init__(self, settings: VllmEngine, folder: Path, *, dtype: Precision, working: Path) -> None:
        self._settings, self._dtype, self._working = settings, dtype, working
        self._weights = _weights_folder(settings, working)
        self.version = 0
        self._synced: int | None = None  # version whose weights the servers have got from `sync`
        # a run that was killed leaves its weights
        once("clearing weights", lambda: shutil.rmtree(self._weights, ignore_errors=True))
        self._open(folder)

    def _describe(self, folder: Path) -> None:
        """Sets what requests need to know about the model in a folder that servers can load."""
        tokenizer = load_tokenizer(folder)
        config = loaded_config(folder, tokenizer)
        self.eos, self._pad = eos_ids(config), excluded_pad_id(config)
        self._vocab_size = config.vocab_size
        if self._pad is not None and self._pad >= self._vocab_size:
            self._pad = None  # has no embedding, so the server cannot sample it
        self._canary_prompts = _canary_prompts(tokenizer, self.eos)

    def _open(self, folder: Path) -> None:
        self._loaded = folder
        self._folder = self._source = folder = self._servable(folder)
        self._describe(folder)
        own: Servers | None = None

        def start() -> list[str]:
            nonlocal own
            urls = self._settings.urls or None
            own = Servers(self._settings, urls, dtype=self._dtype, working=self._working)
            try:
                own.start(folder)
                for server in own.members:
                    self._check(server, folder)
            except BaseException:
                own.close()
                raise
            return own.urls

        urls = once("starting servers", start)
        if own is None:
            own = Servers(self._settings, urls, dtype=self._dtype, working=self._working)
            own.start(folder)
        self._servers = own

    def _check(self, server: Server, folder: Path) -> None:
        """Raises ConfigError if a server does not fit; gives it the folder's weights if it has others."""
        try:
            check_tokenizer(server, load_tokenizer(folder))
            check_logprobs(server, self._canary_prompts[0], self.eos)
            if server.process is None:
                _give_weights(server, folder)
        except ServerFault as fault:
            raise server.failure(str(fault)) from None

    def load(self, folder: Path) -> None:
        """Samples from the model in another folder from now on.

        Servers that the stage has started are started again if the model has another shape. Raises
        ConfigError if running ones cannot load it: a reload that fails would end them.
        """
        if folder == self._loaded and self._synced is None:
            return
        self.version += 1
        served = self._servable(folder)
        problem = difference(served, self._source)
        if problem is not None and self._settings.start is None:
            raise ConfigError(
                f"sampler.urls: the servers serve {self._source} and cannot load {served}: {problem}; set "
                "sampler.start, so that the stage starts servers for each model"
            )
        if problem is not None:
            self._servers.close()
            self._open(folder)
        else:
            source = self._source
            once("loading weights", lambda: self._load(served))
            self._loaded, self._folder, self._source = folder, served, served
            once("clearing weights", lambda: self._discard(source))
            self._describe(served)
        self._synced = None

    def _servable(self, folder: Path) -> Path:
        copy = self._weights / f"model-{self.version}"
        return once("preparing weights", lambda: servable(folder, copy, self._dtype))

    @phase("passing weights")
    def sync(self, model: Any, version: int = 0) -> None:
        """See `Sampler.sync`; the same version is not passed again.

        Raises LlamitaError if the weights cannot be written, or a server does not load them.
        """
        if version == self._synced:
            return
        if (size := model.config.vocab_size) != self._vocab_size:
            raise ConfigError(
                f"sampler: the trained model has {size:,} tokens, {self._source}, which is served, "
                f"{self._vocab_size:,}: its pad token has no embedding; start from a model that the "
                "stage sft has written"
            )
        folder = self._weights / f"version-{version}"
        once("clearing weights", lambda: shutil.rmtree(folder, ignore_errors=True))
        failure = write_snapshot(model, self._source, folder, dtype=getattr(torch, self._dtype))

        def load() -> None:
            if failure is not None:
                raise LlamitaError(f"sampler: the weights cannot be written to {folder}: {failure}")
            self._load(folder)

        once("loading weights", load)
        self._folder = folder
        self.version = self._synced = version

    def _load(self, folder: Path) -> None:
        """Makes all servers load the weights of a folder, and removes those of the version before."""
        members = self._servers.members
        try:
            must_change = differ(folder, self._folder, getattr(torch, self._dtype))
            before = [self._canary(server) for server in members if must_change]
            self._servers.load(folder)
            for server, old in zip(members, before, strict=False):
                if is_unchanged(old, self._canary(server)):
                    raise LlamitaError(
                        f"sampler: server {server.url} still samples from the weights of {self._folder} "
                        f"after it loaded {folder}; can it read that folder?"
                    )
        except ServerFault as fault:
            raise LlamitaError(f"sampler: a server fails while it gets weights: {fault}") from None
        self._discard(self._folder, folder)

    def _canary(self, server: Server) -> list[list[float]]:
        """See `canary`; a server that fails is repaired, and then asked again."""
        life = server.life
        try:
            return canary(server, self._canary_prompts, self.eos)
        except ServerFault as fault:
            self._servers.repair(server, fault, life)
            return canary(server, self._canary_prompts, self.eos)

    def _discard(self, folder: Path, *needed: Path) -> None:
        """Removes weights that this sampler has written, unless they or their config are needed."""
        if folder.parent == self._weights and folder not in (*needed, self._source):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Stops the servers that the stage has started."""
        self._servers.close()
        if is_main_process():
            shutil.rmtree(self._weights, ignore_errors=True)

    def _sample_rows(
        self,
        prompts: Sequence[Sequence[int]],
        rows: list[int],
        names: list[tuple[int, int]],
        *,
        max_new_tokens: int,
        decoding: Decoding,
        seed: int | str,
        stop: Stop | None,
        label: str | None,
    ) -> Samples:
        self._check_context(max(map(len, prompts), default=0) + max_new_tokens)
        joined = _joined(rows, names)
        greedy = decoding.temperature == 0  # then one answer is like another, and vLLM samples only one
        requests = [
            Request(
                list(prompts[prompt]), 1 if greedy else count, _seed(seed, *name), max_new_tokens, decoding
            )
            for prompt, name, count in joined
        ]
        with progress(label, sum(request.count for request in requests), "answers") as advance:
            found = share_out(
                self._servers,
                requests,
                self._complete,
                parallel=self._settings.parallel,
                advance=advance,
            )
        if greedy:
            found = [one * count for one, (_, _, count) in zip(found, joined, strict=True)]
        answers = [answer for several in found for answer in several]
        return Samples(
            rows,
            [answer.ids for answer in answers],
            [answer.logprobs for answer in answers],
            [answer.finished for answer in answers],
            self.version,
        )

    def _complete(self, client: Client, model: ServedModel, request: Request) -> list[Answer]:
        excluded = {} if self._pad is None else {self._pad: EXCLUDED}
        return client.complete(model.name, request, eos=self.eos, bias=excluded)

    def _check_context(self, needed: int) -> None:
        for server in self._servers.members:
            if server.model.context < needed:
                raise ConfigError(
                    f"sampler: server {server.url} takes {server.model.context:,} tokens of a prompt and "
                    f"its answer, but the longest may have {needed:,}; start it with a higher --max-model-len"
                )


def _give_weights(server: Server, folder: Path) -> None:
    """Makes a running server load a folder, also if it was started with it: it may have got others since.

    Raises ConfigError if it cannot: it lacks the route and was started with another folder, or the model has
    another shape, so that a reload would end it.
    """
    started_with = Path(server.model.folder)
    if (started_with / "config.json").is_file() and (problem := difference(folder, started_with)):
        raise ConfigError(
            f"sampler.urls: server {server.url} serves {started_with} and cannot load {folder}: {problem}; "
            "serve the model of the stage's input, or a version of it"
        )
    try:
        server.client.reload(folder)
    except ConfigError:
        if started_with != folder:
            raise


def _weights_folder(settings: VllmEngine, working: Path) -> Path:
    """The folder for weights, in which no other run writes."""
    if settings.weights is None:
        return working / "weights"
    name = hashlib.sha256(str(working.absolute()).encode()).hexdigest()[:12]
    return Path(settings.weights) / f"llamita-{name}"


def _joined(rows: Sequence[int], names: Sequence[tuple[int, int]]) -> list[tuple[int, tuple[int, int], int]]:
    """Prompt, first name and number of answers of each request: answers with successive numbers share one."""
    joined = []
    numbered = zip(rows, names, range(len(rows)), strict=True)
    for prompt, group in groupby(numbered, key=lambda row: (row[0], row[1][0], row[1][1] - row[2])):
        members = list(group)
        joined.append((prompt[0], members[0][1], len(members)))
    return joined


def _seed(seed: int | str, key: int, sample: int) -> int:
    """The seed of an answer; successive samples have successive seeds, as the answers to one request."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return (int.from_bytes(digest[:6], "little") << 14) + sample


def _canary_prompts(tokenizer: Any, eos: list[int]) -> list[list[int]]:
    """Prompts to notice new weights by: parts of a text, of different lengths."""
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"] or eos
    return [ids[: len(ids) * part // 4 + 1] for part in range(4)]
