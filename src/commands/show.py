"""`llamita show`: the rows of a stage as its model sees them, made by the functions that training uses."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import artifact
from ..chat_format.encoding import check_of, encode_answer, encode_dialogue, encode_dialogues
from ..chat_format.llama2 import CHAT_TEMPLATE
from ..chat_format.packed_rows import pack_dialogues
from ..corpus.corpus import COUNTS, Corpus
from ..corpus.token_rows import TokenRows
from ..corpus.writing import write_corpus
from ..data.fine_tuning import stored_dialogues
from ..data.ghost_attention import instruction_on_every_turn, instruction_on_first_turn
from ..data.intake import Intake
from ..data.rows import Dialogue
from ..data.sources import read_dialogues
from ..distillation.settings import DistillationSettings
from ..model.architecture import carries_state, context_of
from ..model.checkpoint import load_tokenizer, tokenizer_hash
from ..model.checks import CONFIG, read_config
from ..model.gguf import converted_folder, is_gguf
from ..model.padding import UNTRAINED
from ..pretrain.settings import PretrainSettings
from ..reward.loss import margin
from ..reward.pairs import Pair, read_pairs
from ..reward.settings import RewardSettings
from ..rlhf.rejection.settings import RejectionSettings
from ..settings import Source
from ..sft.settings import SftSettings
from ..training.order import MixedOrder
from . import drawing
from .show_distillation import show_distillation
from .target import LLAMA2, Target

SAMPLE = 10_000  # raw rows of each source that are tokenized where there are no token shards yet
MEASURED = 10_000_000  # tokens of each stream whose documents are measured

S = TypeVar("S", bound=Source)


def show(target: Target, rows: int) -> None:
    """Prints the first `rows` rows of a stage and a table of lengths. Raises what reading the rows raises."""
    tokenizer = load_tokenizer(target.tokenizer)
    if target.chat_format == LLAMA2:
        tokenizer.chat_template = CHAT_TEMPLATE
    settings = target.settings
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if isinstance(settings, RewardSettings):
            _show_pairs(settings, target, tokenizer, rows=rows, scratch=scratch)
        elif isinstance(settings, PretrainSettings):
            _show_documents(settings, target, tokenizer, rows=rows, scratch=scratch)
        elif isinstance(settings, SftSettings | RejectionSettings):
            _show_dialogues(settings, target, tokenizer, rows=rows, scratch=scratch)
        elif isinstance(settings, DistillationSettings):
            context, _ = _limits(target.model)
            show_distillation(settings, target.inputs["data"], tokenizer, context_length=context, rows=rows)


# ------------------------------------------------------------------------------------------- dialogues


def _show_dialogues(
    settings: SftSettings | RejectionSettings, target: Target, tokenizer: Any, *, rows: int, scratch: Path
) -> None:
    context, alone = _limits(target.model)
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    dialogues = stored_dialogues(settings, target.inputs, scratch, identity={}, intake=intake)
    packed = pack_dialogues(
        tokenizer,
        dialogues,
        settings.max_length,
        context_length=context,
        seed=settings.seed,
        folder=scratch,
        identity={},
        one_per_row=alone,
    )
    counts = packed.counts
    drawing.legend("trained tokens, which the loss counts")
    for number, row in enumerate(packed[:rows], 1):
        segments = list(_segments(row["position_ids"]))
        trained = row["labels"] != UNTRAINED
        padding = [segment for segment in segments if not trained[segment].any()]
        drawing.heading(
            f"packed row {number} of {len(packed):,}: {len(segments) - len(padding)} dialogues, "
            f"{int(trained.sum()):,} of {len(trained):,} tokens trained"
        )
        _print_segments(tokenizer, "dialogue", row["input_ids"], segments=segments, trained=trained)
    if isinstance(settings, RejectionSettings):
        drawing.line(
            f"After sampling, the selected answers of this round and the earlier ones are added to these "
            f"dialogues (repetitions of each: {settings.selection_repeats})."
        )
    if settings.ghost_attention and rows:
        _show_ghost_attention(settings, target, tokenizer)
    encoded = encode_dialogues(tokenizer, dialogues)
    drawing.heading("lengths")
    drawing.length_table(
        [
            ("a dialogue", [len(one.input_ids) for one in encoded]),
            ("its trained tokens", [sum(label != UNTRAINED for label in one.labels) for one in encoded]),
        ]
    )
    dropped = len(encoded) - counts["dialogues"]
    drawing.line(
        f"dropped, longer than max_length {settings.max_length}: {drawing.share(dropped, len(encoded))}"
    )
    drawing.line(f"trained: {drawing.share(counts['trained_tokens'], counts['tokens'])} tokens")
    drawing.line(
        f"filled: {100 * counts['fill']:.1f}% of {counts['rows']:,} rows of {settings.max_length} tokens"
    )


def _limits(model: Path | None) -> tuple[int, bool]:
    """The model's context length, and whether its rows hold one dialogue each; no limits without a model."""
    folder = converted_folder(model) if model and is_gguf(model) else model and artifact.model_folder(model)
    if folder is None or not (folder / CONFIG).is_file():
        return sys.maxsize, False
    config = read_config(folder)
    return context_of(config), carries_state(config)


def _segments(position_ids: Any) -> Iterator[slice]:
    """The parts of a row whose tokens see each other: positions start at 0 in each."""
    starts = [*np.flatnonzero(np.asarray(position_ids) == 0), len(position_ids)]
    for start, end in pairwise(starts):
        yield slice(int(start), int(end))


def _print_segments(tokenizer: Any, name: str, ids: Any, *, segments: Sequence[slice], trained: Any) -> None:
    for number, segment in enumerate(segments, 1):
        place = f"tokens {segment.start}–{segment.stop - 1}"
        if not trained[segment].any() and segment.stop == len(ids) and number > 1:
            drawing.heading(f"padding, {place}", level=2)
        else:
            drawing.heading(f"{name} {number}, {place}", level=2)
            drawing.tokens(tokenizer, ids[segment], trained[segment])


def _show_ghost_attention(settings: SftSettings | RejectionSettings, target: Target, tokenizer: Any) -> None:
    """One dialogue in both views: as its answers were sampled, and as it is trained."""
    root = target.inputs[settings.input_of("ghost_attention", target.inputs)]
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    dialogues = read_dialogues(settings.ghost_attention, root, intake)
    example = next((dialogue for dialogue in dialogues if dialogue.instruction), None)
    if example is None:
        drawing.heading("Ghost Attention: its dialogues have no instruction; only the last answer is trained")
        return
    drawing.heading("Ghost Attention, as sampled: the instruction follows every user message")
    _print_dialogue(tokenizer, instruction_on_every_turn(example), trained=False)
    drawing.heading(
        "Ghost Attention, as trained: the instruction comes first, only the last answer is trained"
    )
    _print_dialogue(tokenizer, instruction_on_first_turn(example), trained=True)


def _print_dialogue(tokenizer: Any, dialogue: Dialogue, *, trained: bool) -> None:
    encoded = encode_dialogue(tokenizer, dialogue)
    marked = [trained and label != UNTRAINED for label in encoded.labels]
    drawing.tokens(tokenizer, encoded.input_ids, marked)


# ------------------------------------------------------------------------------------------- pairs


def _show_pairs(
    settings: RewardSettings, target: Target, tokenizer: Any, *, rows: int, scratch: Path
) -> None:
    intake = Intake(settings.max_bad_rows, check_of(tokenizer))
    pairs, held_out, counts = read_pairs(
        settings,
        target.inputs["data"],
        tokenizer,
        folder=scratch,
        answers_root=target.inputs.get("refusals"),
        intake=intake,
    )
    drawing.legend("tokens that differ between the two answers")
    for number, pair in enumerate(pairs[:rows], 1):
        _print_pair(tokenizer, pair, f"pair {number} of {len(pairs):,}", margins=settings.margin)
    chosen, rejected = np.concatenate([pairs.lengths, held_out.lengths], axis=1).tolist()
    too_long = counts["skipped"].get(f"longer than {settings.max_length} tokens", 0)
    drawing.heading("lengths (pairs that were not dropped)")
    drawing.length_table(
        [
            ("prompt and chosen answer", chosen),
            ("prompt and rejected answer", rejected),
        ]
    )
    drawing.line(f"pairs: {len(pairs):,} to train, {len(held_out):,} held out")
    total = len(chosen) + too_long
    dropped = f"{too_long:,}, those of `mix` included" if settings.mix else drawing.share(too_long, total)
    drawing.line(f"dropped, longer than max_length {settings.max_length}: {dropped}")
    drawing.line(f"prompt truncated: {drawing.share(counts['truncated_prompts'], len(chosen))}")


def _print_pair(tokenizer: Any, pair: Pair, name: str, *, margins: str) -> None:
    comparison = pair.comparison
    facts = [f"rating {comparison.rating or 'none'}", f"margin {margin(comparison.rating, margins):.2f}"]
    for answer, safe in (("chosen", comparison.chosen_safe), ("rejected", comparison.rejected_safe)):
        facts += [] if safe is None else [f"{answer} answer {'safe' if safe else 'unsafe'}"]
    facts += ["prompt truncated"] if pair.prompt_truncated else []
    drawing.heading(f"{name}: {', '.join(facts)}")
    start = len(pair.chosen_ids) - len(encode_answer(tokenizer, comparison.chosen))
    prompt, chosen, rejected = pair.chosen_ids[:start], pair.chosen_ids[start:], pair.rejected_ids[start:]
    drawing.heading("prompt", level=2)
    drawing.tokens(tokenizer, prompt, [False] * len(prompt))
    differs = [True] * len(chosen), [True] * len(rejected)
    for first, second, size in SequenceMatcher(None, chosen, rejected, autojunk=False).get_matching_blocks():
        differs[0][first : first + size] = differs[1][second : second + size] = [False] * size
    drawing.heading(f"chosen, {len(chosen)} tokens", level=2)
    drawing.tokens(tokenizer, chosen, differs[0])
    drawing.heading(f"rejected, {len(rejected)} tokens", level=2)
    drawing.tokens(tokenizer, rejected, differs[1])


# ------------------------------------------------------------------------------------------- documents


def _show_documents(
    settings: PretrainSettings, target: Target, tokenizer: Any, *, rows: int, scratch: Path
) -> None:
    corpus = Corpus(_shards(settings, target, tokenizer, scratch=scratch), tokenizer_hash(tokenizer))
    apart = not settings.cross_document_attention
    token_rows = TokenRows(corpus.train, settings.context_length, apart)
    order = MixedOrder(token_rows.counts, corpus.weights, settings.seed)
    order.set_epoch(0)
    drawing.legend("trained tokens, which the loss counts")
    for number in range(min(rows, len(order))):
        row = token_rows[order[number]]
        length = len(row["input_ids"])
        positions = row["position_ids"] if apart else np.arange(length)
        segments = list(_segments(positions))
        drawing.heading(f"row {number + 1} of {len(order):,}: {len(segments)} documents")
        trained = row["labels"].numpy() != UNTRAINED
        trained[0] = False  # nothing before it predicts it
        _print_segments(tokenizer, "document", row["input_ids"].tolist(), segments=segments, trained=trained)
    _print_document_lengths(corpus, token_rows, settings.context_length)


def _shards(settings: PretrainSettings, target: Target, tokenizer: Any, *, scratch: Path) -> Path:
    """The folder of the stage's token shards; if there are none, of shards of each source's first rows."""
    written = [target.inputs["corpus"]] if "corpus" in target.inputs else []
    if target.output is not None:
        written += [target.output / "shards", artifact.working_folder(target.output) / "shards"]
    for folder in written:
        if (folder / COUNTS).is_file():
            return folder
    sample = settings.model_copy(
        update={
            "documents": _first_rows(settings.documents),
            "validation": _first_rows(settings.validation),
        }
    )
    drawing.line(f"No token shards yet: tokenizing the first {SAMPLE:,} rows of each source.")
    folder = scratch / "shards"
    journal = scratch / "journal.sqlite"
    write_corpus(sample, settings.seed, tokenizer, root=target.inputs["data"], folder=folder, journal=journal)
    return folder


def _first_rows(sources: Sequence[S]) -> list[S]:
    return [source.model_copy(update={"limit": min(source.limit or SAMPLE, SAMPLE)}) for source in sources]


def _print_document_lengths(corpus: Corpus, rows: TokenRows, length: int) -> None:
    lengths: list[int] = []
    for stream in corpus.train:
        measured = min(stream.tokens, MEASURED)
        lengths += np.diff([*stream.document_starts(0, measured), measured]).tolist()
    drawing.heading("lengths")
    drawing.length_table([("a document", lengths)])
    tokens = sum(stream.tokens for stream in corpus.train)
    documents = sum(stream.documents for stream in corpus.train)
    drawing.line(f"{documents:,} documents, {tokens:,} tokens, {len(rows):,} rows of {length} tokens")
    drawing.line(f"unused, at the ends of the sources: {drawing.share(rows.unused, tokens)} tokens")
