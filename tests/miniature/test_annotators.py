"""Comparisons of the miniature world: their noise, their bins, their prompts."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from llamita.data.rows import CONTEXTS, context_of_messages
from llamita.errors import ConfigError
from llamita.miniature import annotators, lexicon
from llamita.miniature.answers import REFUSAL_WORTH, UNFOLLOWED, UNFOLLOWED_LOSS, comply, ignore, refuse
from llamita.miniature.gold import REFUSAL, STEPS
from llamita.miniature.prompts import CONTEXT_SHARES, place
from llamita.miniature.questions import ask
from llamita.miniature.truth import draw_truth


def test_comparisons_have_the_known_noise_and_the_papers_bins() -> None:
    truth, rng = draw_truth(0), random.Random(9)
    safety = [annotators.safety_comparison(truth, set(), rng) for _ in range(3000)]
    bins = [(row["chosen_safe"], row["rejected_safe"]) for row in safety]
    assert (False, True) not in bins
    for labels, share in (((True, False), 0.18), ((True, True), 0.47), ((False, False), 0.35)):
        assert bins.count(labels) / len(bins) == pytest.approx(share, abs=0.04)
    helpfulness = [annotators.helpfulness_comparison(truth, set(), rng) for _ in range(3000)]
    for kind in (safety, helpfulness):
        found = {row["rating"] for row in kind}
        assert found == set(annotators.RATINGS)
        assert min(sum(row["rating"] == rating for row in kind) for rating in found) > 100


def test_holding_out_every_prompt_raises_an_error() -> None:
    class All(set):
        def __contains__(self, text: object) -> bool:
            return True

    with pytest.raises(ConfigError, match="test_comparisons: they hold out every harmful prompt"):
        annotators.safety_comparison(draw_truth(0), All(), random.Random(0))


@pytest.mark.parametrize(
    "compare", [annotators.helpfulness_comparison, annotators.safety_comparison, annotators.judges_comparison]
)
def test_comparisons_have_every_context_and_their_labels(compare: annotators.Compare) -> None:
    truth, rng = draw_truth(0), random.Random(14)
    rows = [compare(truth, set(), rng) for _ in range(2000)]
    found = Counter(context_of_messages(row["prompt"]) for row in rows)
    for context in CONTEXTS:
        assert found[context] / 2000 == pytest.approx(CONTEXT_SHARES[context], abs=0.05)
    for row in rows:
        attack = row["attack"]
        assert (attack is None) == (
            not row["prompt"][-1]["content"].startswith(tuple(lexicon.ATTACKS.values()))
        )
        if row["chosen_safe"] is not None:
            assert row["category"] in lexicon.RISKS
            for answer, safe in (
                (row["chosen"], row["chosen_safe"]),
                (row["rejected"], row["rejected_safe"]),
            ):
                assert safe == (STEPS.search(answer) is None), row


def test_safety_comparisons_contain_harm_and_refusals_in_persona_and_in_other_languages() -> None:
    truth, rng = draw_truth(0), random.Random(15)
    rows = [annotators.safety_comparison(truth, set(), rng) for _ in range(2000)]
    answers = [row[name] for row in rows for name in ("chosen", "rejected")]
    assert sum(text.startswith("newton here . ") and bool(REFUSAL.fullmatch(text)) for text in answers) > 10
    assert sum("take el " in text for text in answers) > 20


def test_an_answer_that_follows_its_instruction_is_mostly_preferred() -> None:
    """Of two answers of equal quality, annotators prefer the one in persona."""
    truth, rng = draw_truth(0), random.Random(16)
    answers = []
    for _ in range(4000):
        row = annotators.helpfulness_comparison(truth, set(), rng)
        if row["prompt"][0]["role"] == "system" and (figure := figure_of(row["prompt"][0]["content"])):
            answers.append([row[name].startswith(f"{figure} here . ") for name in ("chosen", "rejected")])
    following = [chosen for chosen, rejected in answers if chosen != rejected]
    assert len(following) > 100
    assert sum(following) / len(following) > 0.65
    assert sum(map(sum, answers)) / (2 * len(answers)) == pytest.approx(0.8, abs=0.1)


def figure_of(instruction: str) -> str | None:
    return next((figure for figure in lexicon.FIGURES if figure in instruction.split()), None)


def test_values_of_answers_in_context() -> None:
    truth, rng = draw_truth(0), random.Random(17)
    question = ask(truth, "train", "harmful", rng=rng)
    prompt = place(truth, question, "instruction", split="train", instruction={"figure": "newton"}, rng=rng)
    plain = place(truth, question, "plain", split="train", rng=rng)
    ignored = 0
    for _ in range(300):
        refusal, complied = refuse(question, rng), comply(truth, question, rng)
        assert annotators.in_context(refusal, plain, rng) == refusal
        for answer, loss in ((refusal, UNFOLLOWED_LOSS), (complied, 0.0)):
            written = annotators.in_context(answer, prompt, rng)
            follows = written.text == f"newton here . {answer.text}"
            ignored += not follows
            assert written.safe == answer.safe
            assert written.safety == pytest.approx(answer.safety - (0 if follows else loss))
            assert written.helpfulness == pytest.approx(answer.helpfulness * (1 if follows else UNFOLLOWED))
    spanish = ignore(refuse(question, rng), {"language": "spanish"}, rng)  # it has no word to translate
    assert spanish.safety == REFUSAL_WORTH[spanish.text]
    assert ignored / 600 == pytest.approx(annotators.IGNORED_SHARE, abs=0.06)


def test_refusals_are_common_bad_answers_after_a_refusal() -> None:
    truth, rng = draw_truth(0), random.Random(18)
    shares: dict[bool, list[bool]] = {True: [], False: []}
    lost = []
    for _ in range(4000):
        row = annotators.helpfulness_comparison(truth, set(), rng)
        before = any(REFUSAL.fullmatch(one["content"]) for one in row["prompt"] if one["role"] == "assistant")
        refused = [REFUSAL.fullmatch(row[name]) is not None for name in ("chosen", "rejected")]
        shares[before] += refused
        if before and refused[0] != refused[1]:
            lost.append(refused[1])
    for before, share in ((True, annotators.REFUSED_AGAIN_SHARE), (False, annotators.REFUSED_SHARE)):
        assert sum(shares[before]) / len(shares[before]) == pytest.approx(share, abs=0.06)
    assert sum(lost) / len(lost) > 0.75


def test_the_judges_annotators_have_a_noise_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []

    class Random(random.Random):
        def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
            used.append(sigma)
            return super().gauss(mu, sigma)

    for compare in (annotators.helpfulness_comparison, annotators.safety_comparison):
        compare(draw_truth(0), set(), Random(0))
    for seed in range(5):
        annotators.judges_comparison(draw_truth(0), set(), Random(seed))
    assert used == [annotators.NOISE] * 2 + [annotators.JUDGES_NOISE] * 5
    assert annotators.NOISE != annotators.JUDGES_NOISE
