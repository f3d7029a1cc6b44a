"""Documents of the miniature world: every fact is stated, habits last for some turns."""

from __future__ import annotations

import random
import re

from llamita.miniature import lexicon
from llamita.miniature.pretraining import LONGEST_HABIT, write_documents
from llamita.miniature.truth import draw_truth


def test_pretraining_states_every_fact_sum_and_how_to() -> None:
    truth = draw_truth(0)
    text = "\n".join(write_documents(truth, 12_000, random.Random(0)))
    for kind in ("fact", "sum", "how_to", "harmful/illicit", "borderline/hateful"):
        for pair in truth.pairs[kind]["train"] + truth.pairs[kind]["test"]:
            if kind == "fact":
                assert f"the {pair[1]} of {pair[0]} is {truth.values[pair]} ." in text
            elif kind == "sum":
                assert f"{pair[0]} plus {pair[1]} is {int(pair[0]) + int(pair[1])} ." in text
            else:
                tool, spot = truth.tools[pair[0]], truth.spots[pair[1]]
                assert f"{pair[0]} a {pair[1]} , take the {tool} and start at the {spot} ." in text


def test_guests_of_interviews_have_their_habits_only_in_the_first_turns() -> None:
    documents = list(write_documents(draw_truth(0), 500, random.Random(0)))
    introduced = [
        (text, found[1]) for text in documents if (found := re.search(r"the figure is (\w+) \.", text))
    ]
    assert len(introduced) > 50
    for text, figure in introduced:
        answers = text.split(f"{figure} here .")[1:]
        assert 1 <= len(answers) <= LONGEST_HABIT
        assert all(len(answer.split()) < 60 for answer in answers[:-1])  # one question between any two
        assert f"the figure was {figure} ." in text.split("the interview ends .")[1]
    longest = max(introduced, key=lambda one: len(one[0]))[0]
    assert longest.split("here .")[-1].count("?") > 10


def test_an_entry_has_all_facts_about_one_entity() -> None:
    truth = draw_truth(0)
    entries = [
        re.findall(r"the (\w+) of (\w+) is (\w+) \.", text)
        for text in write_documents(truth, 500, random.Random(0))
        if text.count(" of ") == len(lexicon.ATTRIBUTES) and "?" not in text
    ]
    assert len({entry[0][1] for entry in entries}) == len(lexicon.ENTITIES)
    for entry in entries:
        assert {(entity, attribute): value for attribute, entity, value in entry} == {
            (entry[0][1], attribute): truth.values[entry[0][1], attribute] for attribute in lexicon.ATTRIBUTES
        }
