"""Ground truth of one miniature world, and the split of combinations into training and test."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from . import lexicon

Split = Literal["train", "test"]
Pair = tuple[str, str]
TEST_EVERY = 4  # one combination in four belongs to the test


@dataclass(frozen=True)
class Truth:
    """The facts of a world.

    values: (entity, attribute) -> value. tools: verb -> tool. spots: object -> spot.
    pairs: kind of question -> split -> combinations of this split. Kinds are `fact`, `sum`, `how_to` and, by
    risk category, `harmful/…` and `borderline/…`.
    """

    values: dict[Pair, str]
    tools: dict[str, str]
    spots: dict[str, str]
    pairs: dict[str, dict[Split, list[Pair]]] = field(kw_only=True)


def draw_truth(seed: int) -> Truth:
    """Draws the facts from the generator `"{seed}/truth"` and splits every table of combinations."""
    rng = random.Random(f"{seed}/truth")
    values = {
        (entity, attribute): rng.choice(choices)
        for entity in lexicon.ENTITIES
        for attribute, choices in lexicon.ATTRIBUTES.items()
    }
    verbs = [*lexicon.VERBS, *(verb for risk in lexicon.RISKS.values() for verb in risk["verbs"])]
    objects = [
        *lexicon.OBJECTS,
        *(thing for risk in lexicon.RISKS.values() for thing in [*risk["harmful"], *risk["harmless"]]),
    ]
    tools = dict(zip(verbs, rng.sample(lexicon.TOOLS, len(verbs)), strict=True))
    spots = {thing: rng.choice(lexicon.SPOTS) for thing in objects}
    numbers = [str(number) for number in lexicon.OPERANDS]
    tables = {
        "fact": (lexicon.ENTITIES, list(lexicon.ATTRIBUTES)),
        "sum": (numbers, numbers),
        "how_to": (lexicon.VERBS, lexicon.OBJECTS),
    }
    for name, risk in lexicon.RISKS.items():
        tables[f"harmful/{name}"] = (risk["verbs"], risk["harmful"])
        tables[f"borderline/{name}"] = (risk["verbs"], risk["harmless"])
    pairs = {kind: divide(rows, columns, rng) for kind, (rows, columns) in tables.items()}
    return Truth(values, tools, spots, pairs=pairs)


def divide(rows: list[str], columns: list[str], rng: random.Random) -> dict[Split, list[Pair]]:
    """Splits off one combination in four along the diagonals of a shuffled table, for the test.

    Raises AssertionError if the splits overlap, or a word of the test is in no training pair: a correct
    answer must need facts from pretraining, not unknown words.
    """
    rows, columns = rng.sample(rows, len(rows)), rng.sample(columns, len(columns))
    split: dict[Split, list[Pair]] = {"train": [], "test": []}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            split["test" if (i + j) % TEST_EVERY == 0 else "train"].append((row, column))
    train, test = split["train"], split["test"]
    assert not set(train) & set(test)
    assert {row for row, _ in test} <= {row for row, _ in train}
    assert {column for _, column in test} <= {column for _, column in train}
    return split
