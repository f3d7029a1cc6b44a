"""`llamita chat MODEL_DIR`: a dialogue with a model, on a terminal or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from .chat_format.encoding import chat_format, encode_prompt, remove_control_strings
from .console import say
from .data.rows import Message
from .errors import DataError
from .jsonl import append_row
from .model.architecture import context_of
from .model.checkpoint import load_causal_lm, load_tokenizer
from .sampling.generate import sampler_for

HELP = """\
/system TEXT  sets the system message (none without TEXT) and begins a new dialogue
/reset        begins a new dialogue, with the same system message
/save FILE    writes the dialogue as a row of JSON, as the sft stage reads them
/help         shows this
/quit         ends, as Ctrl-D does; Ctrl-C stops an answer"""


class Chat:
    """A dialogue: the model, the messages so far, and how answers are drawn.

    Raises:
        DataError: the folder holds no complete model with a tokenizer.
    """

    def __init__(
        self, model_dir: Path, system: str | None, temperature: float, *, max_new_tokens: int, seed: int
    ) -> None:
        self._tokenizer: Any = load_tokenizer(model_dir)
        model = load_causal_lm(model_dir)
        self._context: int = context_of(model.config)
        self._sampler = sampler_for(model)
        self._temperature, self._max_new_tokens, self._seed = temperature, max_new_tokens, seed
        self._control_strings = chat_format(self._tokenizer).control_strings
        self._system = system
        self.messages: list[Message] = []
        self.reset()

    def reset(self) -> None:
        """Begins a new dialogue, with the same system message."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def answer(self, text: str) -> Generator[str]:
        """Yields the answer to the user's text piece by piece and keeps both, also if left half-way.

        Raises DataError if the text holds a mark of the chat format or the dialogue fills the model's
        context; nothing of it is kept then.
        """
        asked: list[Message] = [*self.messages, {"role": "user", "content": text}]
        prompt = encode_prompt(self._tokenizer, asked)
        room = min(self._max_new_tokens, self._context - len(prompt))
        if room < 1:
            raise DataError(
                f"the dialogue of {len(prompt)} tokens fills the model's context of {self._context}; "
                "/reset begins a new one"
            )
        tokens = self._sampler.stream(prompt, room, self._temperature, seed=f"{self._seed}/{len(asked)}")
        said = ""
        try:
            for piece in _pieces(self._tokenizer, tokens):
                said += piece
                yield piece
        finally:
            self.messages = [
                *asked,
                {"role": "assistant", "content": remove_control_strings(said, self._control_strings).strip()},
            ]

    def command(self, line: str) -> str:
        """Obeys a line that begins with a slash; returns what to tell the user."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/reset":
            self.reset()
            return "a new dialogue"
        if name == "/system":
            self._system = argument or None
            self.reset()
            return "a new dialogue, " + ("with this system message" if argument else "without system message")
        if name == "/save":
            return self._save(argument)
        return HELP if name == "/help" else f"no such command: {name}\n{HELP}"

    def _save(self, name: str) -> str:
        if not name:
            return "where to? /save FILE"
        try:
            with Path(name).open("w", encoding="utf-8") as file:
                append_row(file, {"messages": self.messages})
        except OSError as error:
            return f"not saved: {error.strerror}: {name}"
        return f"saved: {name}"


def run(
    model_dir: Path,
    system: str | None = None,
    temperature: float = 1.0,
    *,
    max_new_tokens: int = 256,
    seed: int = 0,
) -> None:
    """Talks until the input ends. Raises DataError or ConfigError as `Chat`."""
    chat = Chat(model_dir, system, temperature, max_new_tokens=max_new_tokens, seed=seed)
    if sys.stdin.isatty():
        say(f"{model_dir}: say something; /help shows the commands")
    for line in filter(None, map(str.strip, _lines())):
        if line == "/quit":
            return
        if line.startswith("/"):
            say(chat.command(line))
        else:
            _show(chat.answer(line))


def _lines() -> Iterator[str]:
    """What the user types, or the lines of a pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401  (gives `input` a line editor and a history)

    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def _show(pieces: Generator[str]) -> None:
    """Prints an answer while it grows; Ctrl-C stops it and what was said is kept."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()
    except DataError as error:
        print(error, end="")
    print(flush=True)


def _pieces(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """Text that grows with the tokens; half of a character waits for its other bytes."""
    ids: list[int] = []
    said = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if len(text) > len(said) and not text.endswith("\ufffd"):
            yield text[len(said) :]
            said = text
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if len(text) > len(said):
        yield text[len(said) :]
