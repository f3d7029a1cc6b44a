"""The files of a world: equal for equal seeds, as many rows as in the settings, separate held-out rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from llamita.data.rows import CONTEXTS, check_roles, context_of_messages
from llamita.errors import ConfigError
from llamita.miniature import lexicon
from llamita.miniature.answers import CORRECT, FOLLOWS_UP, POLITE, obey
from llamita.miniature.gold import Gold
from llamita.miniature.truth import draw_truth
from llamita.world.settings import WorldSettings
from llamita.world.stage import run

SMALL = WorldSettings(
    seed=3,
    documents=60,
    validation_documents=5,
    demonstrations=200,
    instructed=30,
    multi_turn=20,
    ghost_attention=20,
    comparisons=200,
    test_comparisons=50,
    prompts=300,
    preprompted=60,
    safety_demonstrations=30,
    judge_comparisons=100,
    refusal_answers=40,
    test_refusal_answers=20,
    red_team_prompts=96,
    test_ordinary=60,
    test_harmful=40,
    test_borderline=40,
    test_dialogues=10,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    run(SMALL, {}, out)
    return out


def rows(world: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (world / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_same_seed_same_bytes_other_seed_other_truth(world: Path, tmp_path: Path) -> None:
    run(SMALL, {}, tmp_path)
    for path in sorted(world.rglob("*.json*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(world)).read_bytes()
    assert draw_truth(3).values != draw_truth(4).values


def test_counts_are_the_settings(world: Path) -> None:
    assert len(rows(world, "pretrain/train")) == 60
    assert len(rows(world, "sft/dialogues")) == 200 + 30 + 20 + 60
    assert len(rows(world, "sft/safety")) == 30
    assert len(rows(world, "reward/judge")) == 100
    assert len(rows(world, "reward/judge_test")) == 50
    assert (len(rows(world, "refusal/answers")), len(rows(world, "refusal/test"))) == (40, 20)
    assert len(rows(world, "red_team/prompts")) == 96
    assert len(rows(world, "reward/safety_test")) == 50
    assert len({row["messages"][-1]["content"] for row in rows(world, "test/ordinary")}) == 60


def test_helpful_dialogues_are_the_demonstrations_without_harmful_questions(world: Path) -> None:
    """So a model learns what to do about harmful questions from the safety data alone (figure 15)."""
    helpful, everything = (
        [row["messages"] for row in rows(world, f"sft/{name}")] for name in ("helpful", "dialogues")
    )
    known = [messages for messages in everything[:200] if messages in helpful]
    assert helpful[: len(known)] == known
    assert 0.7 * 200 < len(known) == len(helpful) - 30 - 20 < 0.95 * 200
    assert {context_of_messages(messages[:-1]) for messages in helpful} == {
        "plain",
        "instruction",
        "multi_turn",
    }
    for messages in helpful:
        for message in messages:
            words = set(message["content"].split())
            for risk in lexicon.RISKS.values():
                assert not (words & set(risk["verbs"]) and words & set(risk["harmful"])), message
    dialogues = [" ".join(message["content"] for message in messages) for messages in everything]
    assert any({"steal", "car"} <= set(text.split()) for text in dialogues), "a canary"


@pytest.mark.parametrize("kind", ["helpfulness", "safety", "judge"])
def test_no_held_out_comparison_shares_its_question_with_a_trained_one(world: Path, kind: str) -> None:
    trained, held_out = (
        {row["prompt"][-1]["content"] for row in rows(world, f"reward/{name}")}
        for name in (kind, f"{kind}_test")
    )
    assert not trained & held_out


def test_the_truth_file_has_the_value_of_demonstrations(world: Path) -> None:
    gold = Gold.load(world)
    assert 0.4 < gold.demonstrations_helpfulness < 0.65
    assert gold.demonstrations_helpfulness < 0.7 * (CORRECT + POLITE + FOLLOWS_UP)
    assert gold.demonstrations_helpfulness_se == pytest.approx(0.35 / 140**0.5, abs=0.01)


def test_files_with_prompts_have_every_context_and_their_labels(world: Path) -> None:
    for kind, count in (("ordinary", 60), ("harmful", 40), ("borderline", 40)):
        found = rows(world, f"test/{kind}")
        contexts = Counter(context_of_messages(row["messages"]) for row in found)
        assert contexts == dict.fromkeys(CONTEXTS, count // 4)
        assert {row.get("language") for row in found} == {None, "french", "spanish", "german", "dutch"}
        assert all((row["category"] is None) == (kind == "ordinary") for row in found)
        assert {"id", "messages", "kind", "category", "attack"} <= set(found[0])
    prompts = rows(world, "rlhf/prompts")
    for safety in (True, False):
        chosen = [row for row in prompts if row["is_safety"] == safety]
        assert {context_of_messages(row["messages"]) for row in chosen} == set(CONTEXTS)
        assert {row["category"] for row in chosen} == {*lexicon.RISKS, *([] if safety else [None])}
    assert sum(row["is_safety"] for row in prompts) / 300 == pytest.approx(0.28, abs=0.08)
    for name in ("helpfulness", "safety", "judge", "judge_test"):
        contexts = {context_of_messages(row["prompt"]) for row in rows(world, f"reward/{name}")}
        assert contexts == set(CONTEXTS)


def test_no_training_file_asks_for_a_combination_of_the_test(world: Path) -> None:
    truth = draw_truth(3)
    tested = {
        template.format(a=a, b=b)
        for name, kind in [("fact", "fact"), ("sum", "sum"), ("how_to", "how_to")]
        + [(name, "how_to") for name in truth.pairs if "/" in name]
        for template in lexicon.QUESTIONS[kind]
        for a, b in truth.pairs[name]["test"]
    }
    attacks = [f"{words} " for words in lexicon.ATTACKS.values()]

    def questions(name: str) -> list[str]:
        lists = [row.get("messages", row.get("prompt")) for row in rows(world, name)]
        texts = [one["content"] for messages in lists for one in messages if one["role"] == "user"]
        return [
            next((text.removeprefix(one) for one in attacks if text.startswith(one)), text) for text in texts
        ]

    for name in (
        *("rlhf/prompts", "sft/dialogues", "sft/helpful", "sft/safety", "sft/gatt"),
        *(f"reward/{kind}{test}" for kind in ("helpfulness", "safety", "judge") for test in ("", "_test")),
    ):
        assert not tested & set(questions(name)), name
    for name in ("test/harmful", "red_team/prompts"):
        asked = questions(name)
        assert sum(text in tested for text in asked) > 0.75 * len(asked)
        assert all(text in tested for text in (one for one in asked if " how to " in one)), name


def test_factual_prompts_have_one_answer_and_open_ones_are_of_no_training_dialogue(world: Path) -> None:
    facts, opened = ([row["messages"] for row in rows(world, f"test/{name}")] for name in ("factual", "open"))
    assert len({str(one) for one in facts}) == len({str(one) for one in opened}) == 10
    pairs = draw_truth(SMALL.seed).pairs["fact"]["test"]
    for [message] in facts:
        assert any(entity in message["content"] and name in message["content"] for entity, name in pairs)
    trained = {
        text for name in ("sft/dialogues", "sft/gatt") for row in rows(world, name) for text in texts(row)
    }
    for [message] in opened:
        assert message["content"] not in trained
        assert sum(entity in message["content"].split() for entity in lexicon.ENTITIES) == 1


def test_red_team_prompts_are_an_even_grid_without_duplicates(world: Path) -> None:
    found = rows(world, "red_team/prompts")
    grid: Counter[tuple[str, str]] = Counter()
    for row in found:
        check_roles(row["messages"], "user")
        context = context_of_messages(row["messages"])
        assert row["is_safety"] is True
        assert context in ("plain", "multi_turn")
        assert (row["attack"] == "multi_turn") == (context == "multi_turn")
        grid[row["category"], row["attack"]] += 1
    assert grid == {
        (category, style): 4 for category in lexicon.RISKS for style in (*lexicon.ATTACKS, "multi_turn")
    }
    assert len({json.dumps(row["messages"]) for row in found}) == len({row["id"] for row in found}) == 96


def test_gold_knows_every_test_prompt_and_its_instruction(world: Path) -> None:
    gold = Gold.load(world)
    truth = json.loads((world / "truth.json").read_text(encoding="utf-8"))
    names = ("test/ordinary", "test/harmful", "test/borderline", "red_team/prompts")
    found = [row for name in names for row in rows(world, name)]
    assert {row["id"] for row in found} == set(truth["cores"])
    for row in found:
        instruction = truth["prompt_instructions"].get(row["id"], {})
        assert bool(instruction) == (row["messages"][0]["role"] == "system")
        assert row.get("language") == instruction.get("language")
        for value in instruction.values():
            assert value in row["messages"][0]["content"].split()
        core = truth["cores"][row["id"]]
        assert gold.helpfulness(row["id"], obey(core, instruction)) == pytest.approx(CORRECT)
        if instruction:
            assert gold.helpfulness(row["id"], core) == pytest.approx(CORRECT / 2)


def test_every_word_of_the_world_is_in_the_tokenizers_training_text(tmp_path: Path) -> None:
    """`configs/*/tokenizer.yaml` trains on pretraining text, on dialogues and on some of Ghost Attention."""
    enough = SMALL.model_copy(update={"documents": 2000, "demonstrations": 1500, "instructed": 300})
    run(enough, {}, tmp_path)

    def words(name: str, limit: int | None = None) -> set[str]:
        return {word for row in rows(tmp_path, name)[:limit] for text in texts(row) for word in text.split()}

    known = words("pretrain/train", 5000) | words("sft/dialogues") | words("sft/gatt", 300)
    for path in sorted(tmp_path.rglob("*.jsonl")):
        name = path.relative_to(tmp_path).with_suffix("").as_posix()
        unseen = set(lexicon.HOBBIES[-lexicon.UNSEEN["hobby"] :]) if name == "test/gatt_unseen" else set()
        assert words(name) - known <= unseen, name


def texts(row: dict) -> list[str]:
    """All texts that a model may see: contents of messages and answers."""
    lists = [row.get("messages", []), row.get("prompt", [])]
    plain = [row.get(name) for name in ("text", "chosen", "rejected", "answer", "instruction")]
    return [
        *(one["content"] for messages in lists for one in messages),
        *(text for text in plain if text is not None),
        *row.get("questions", []),
    ]


@pytest.mark.parametrize("setting", ["test_harmful", "red_team_prompts"])
def test_more_test_prompts_than_questions_raise_an_error(setting: str, tmp_path: Path) -> None:
    too_many = SMALL.model_copy(update={setting: 5000})
    with pytest.raises(ConfigError, match=f"{setting}: the world has no more than"):
        run(too_many, {}, tmp_path)
