"""`llamita chat MODEL_DIR`: chat with a model in a terminal, or with prompts from a pipe."""

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
from .sampling.engines import local_sampler

HELP = """\
/system TEXT  set the system message (no TEXT: remove it) and start a new dialogue
/reset        start a new dialogue with the same system message
/save FILE    write the dialogue as a JSON row, in the format that the sft stage reads
/help         show this list
/quit         quit, like Ctrl-D; Ctrl-C stops an answer"""


class Chat:
    """A dialogue with a model, and the options for sampling its answers.

    Raises:
        DataError: the folder does not contain a complete model with a tokenizer.
    """

    def __init__(
        self, model_dir: Path, system: str | None, temperature: float, *, max_new_tokens: int, seed: int
    ) -> None:
        self._tokenizer: Any = load_tokenizer(model_dir)
        model = load_causal_lm(model_dir)
        self._context: int = context_of(model.config)
        self._sampler = local_sampler(model)
        self._temperature, self._max_new_tokens, self._seed = temperature, max_new_tokens, seed
        self._control_strings = chat_format(self._tokenizer).control_strings
        self._system = system
        self.messages: list[Message] = []
        self.reset()

    def reset(self) -> None:
        """Starts a new dialogue with the same system message."""
        self.messages = [{"role": "system", "content": self._system}] if self._system else []

    def answer(self, text: str) -> Generator[str]:
        """Yields the answer to the user's text in pieces and adds both to the dialogue, also if interrupted.

        Raises DataError, and does not change the dialogue, if the text contains a control string of the chat
        format or the dialogue fills the model's context.
        """
        messages: list[Message] = [*self.messages, {"role": "user", "content": text}]
        prompt = encode_prompt(self._tokenizer, messages)
        max_new_tokens = min(self._max_new_tokens, self._context - len(prompt))
        if max_new_tokens < 1:
            raise DataError(
                f"the dialogue has {len(prompt)} tokens and fills the model's context of {self._context}; "
                "use /reset to start a new one"
            )
        seed = f"{self._seed}/{len(messages)}"
        tokens = self._sampler.stream(prompt, max_new_tokens, self._temperature, seed=seed)
        answer = ""
        try:
            for piece in _pieces(self._tokenizer, tokens):
                answer += piece
                yield piece
        finally:
            answer = remove_control_strings(answer, self._control_strings).strip()
            self.messages = [*messages, {"role": "assistant", "content": answer}]

    def command(self, line: str) -> str:
        """Runs a command, a line that begins with a slash; returns the message for the user."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/reset":
            self.reset()
            return "started a new dialogue"
        if name == "/system":
            self._system = argument or None
            self.reset()
            return f"started a new dialogue {'with this' if argument else 'without'} system message"
        if name == "/save":
            return self._save(argument)
        return HELP if name == "/help" else f"unknown command: {name}\n{HELP}"

    def _save(self, name: str) -> str:
        if not name:
            return "the file name is missing; expected /save FILE"
        try:
            with Path(name).open("w", encoding="utf-8") as file:
                append_row(file, {"messages": self.messages})
        except OSError as error:
            return f"the dialogue could not be saved: {error.strerror}: {name}"
        return f"saved the dialogue to {name}"


def run(
    model_dir: Path,
    system: str | None = None,
    temperature: float = 1.0,
    *,
    max_new_tokens: int = 256,
    seed: int = 0,
) -> None:
    """Answers prompts and commands until the input ends. Raises DataError or ConfigError as `Chat`."""
    chat = Chat(model_dir, system, temperature, max_new_tokens=max_new_tokens, seed=seed)
    if sys.stdin.isatty():
        say(f"{model_dir} is loaded: type a prompt, or /help for the commands")
    for line in filter(None, map(str.strip, _lines())):
        if line == "/quit":
            return
        if line.startswith("/"):
            say(chat.command(line))
        else:
            _show(chat.answer(line))


def _lines() -> Iterator[str]:
    """Yields the lines that the user types, or those of a pipe."""
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
    """Prints an answer while it is sampled; Ctrl-C stops sampling and keeps the partial answer."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()
    except DataError as error:
        print(error, end="")
    print(flush=True)


def _pieces(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """Decodes tokens to pieces of text; an incomplete character is held back until its bytes are complete."""
    ids: list[int] = []
    printed = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if len(text) > len(printed) and not text.endswith("\ufffd"):
            yield text[len(printed) :]
            printed = text
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if len(text) > len(printed):
        yield text[len(printed) :]
