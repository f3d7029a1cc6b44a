"""Which comparisons are training pairs, held out, mixed in or skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamita.chat_format.encoding import encode_answer, encode_prompt
from llamita.data import row_files
from llamita.data.held_out import opening
from llamita.data.intake import Intake
from llamita.errors import DataError
from llamita.reward import pairs as pairs_module
from llamita.reward.loss import margin
from llamita.reward.pairs import Pair, encode_pairs, safety_label
from llamita.reward.settings import RewardSettings
from llamita.training.settings import TrainedSettings

from ..helpers.reward import read_pairs
from ..helpers.rows import turn, write
from ..helpers.sources import source_setting


def row(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": turn(prompt), "chosen": "thanks my friend", "rejected": "bolo", **more}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    labelled = {"chosen_safe": False, "rejected_safe": False}
    write(tmp_path / "train.jsonl", [row(f"is it {n // 2} ?", **labelled) for n in range(180)])
    write(tmp_path / "test.jsonl", [row(f"is it {n} ?") for n in (3, 3, 7, 1000)])
    ordinary = [row(f"what is {n} ?") for n in range(200)]
    ordinary[0] = row("what is 0 ?", chosen_safe=None, rejected_safe=False)
    write(tmp_path / "ordinary.jsonl", [*ordinary, row("is it 1000 ?")])
    return tmp_path


def settings(**changes: Any) -> RewardSettings:
    chosen = {
        "kind": "safety",
        "comparisons": source_setting("train", "comparison"),
        "held_out": 0 if "test" in changes else 20,
        "max_length": 64,
    }
    return RewardSettings.model_validate(chosen | changes)


def openings(pairs: list[Pair]) -> set[str]:
    return {opening(pair.comparison) for pair in pairs}


def test_a_pair_is_the_chat_format_up_to_each_answers_eos(data: Path, tokenizer: Any) -> None:
    first = read_pairs(settings(), data, tokenizer)[0][0]
    prompt = encode_prompt(tokenizer, first.comparison.prompt)
    assert first.chosen_ids == prompt + encode_answer(tokenizer, "thanks my friend")
    assert first.rejected_ids == prompt + encode_answer(tokenizer, "bolo")
    assert first.chosen_ids[-1] == first.rejected_ids[-1] == tokenizer.eos_token_id


def test_held_out_prompts_are_never_trained(data: Path, tokenizer: Any) -> None:
    pairs, held_out, counts = read_pairs(settings(), data, tokenizer)
    assert not openings(pairs) & openings(held_out)
    assert (len(pairs), len(held_out)) == (160, 20)
    assert counts == {
        "train_pairs": 160,
        "mixed_pairs": 0,
        "evasion_pairs": 0,
        "truncated_prompts": 0,
        **Intake().metrics(),
    }
    assert openings(held_out) != openings(read_pairs(settings(seed=1), data, tokenizer)[1])


def test_prompts_of_test_sources_are_never_trained_not_even_in_the_mix(
    data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(
        test=source_setting("test", "comparison"),
        mix=source_setting("ordinary", "comparison"),
        mix_share=0.5,
        max_length=64,
    )
    pairs, held_out, counts = read_pairs(chosen, data, tokenizer)
    assert len(held_out) == 4
    assert not openings(pairs) & openings(held_out)
    assert counts["train_pairs"] == len(pairs) == 2 * (180 - 4)
    assert counts["skipped"] == {"its prompt is held out": 5}
    assert "5 comparisons skipped: its prompt is held out" in capsys.readouterr().out


@pytest.mark.parametrize(("share", "expected"), [(0.1, 18), (0.5, 160), (0.9, 201)])
def test_the_mix_is_a_share_of_all_pairs_and_labelled_safe(
    data: Path, tokenizer: Any, share: float, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = settings(mix=source_setting("ordinary", "comparison"), mix_share=share)
    pairs, _, counts = read_pairs(mixed, data, tokenizer)
    ordinary = [pair.comparison for pair in pairs if "what is" in pair.comparison.prompt[-1]["content"]]
    ordinary += [pair.comparison for pair in pairs if "is it 1000 " in pair.comparison.prompt[-1]["content"]]
    assert counts["mixed_pairs"] == len(ordinary) == expected
    assert counts["train_pairs"] == len(pairs) == 160 + expected
    unlabelled = [one for one in ordinary if one.prompt[-1]["content"] != "what is 0 ?"]
    assert all(one.chosen_safe and one.rejected_safe for one in unlabelled)
    if share == 0.9:  # more than there are
        assert "mix: only 201 comparisons; a share of 0.9 needs 1,440" in capsys.readouterr().out
        (known,) = [one for one in ordinary if one not in unlabelled]
        assert (known.chosen_safe, known.rejected_safe) == (True, False), "an existing label is not changed"
    assert not any(pair.comparison.chosen_safe for pair in pairs[:160])
    again = read_pairs(mixed, data, tokenizer)[0]
    assert again == pairs


def test_long_pairs_are_skipped_and_counted(
    data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    long, empty = row("is it 500 ?", chosen="yes " * 80), row("is it 501 ?", chosen=" ")
    write(data / "more.jsonl", [long, row("is it 600 ?", rejected="red " * 80), empty, row("is it 700 ?")])
    sources = source_setting("train", "comparison") + source_setting("more", "comparison")
    test = source_setting("test", "comparison") + source_setting("more", "comparison")
    pairs, held_out, counts = read_pairs(settings(comparisons=sources, test=test), data, tokenizer)
    assert all(len(ids) <= 64 for pair in pairs + held_out for ids in (pair.chosen_ids, pair.rejected_ids))
    assert len(held_out) == 5
    assert counts["skipped"] == {
        "empty message": 2,  # of either source
        "its prompt is held out": 7,
        "longer than 64 tokens": 2,  # held-out ones
    }
    output = capsys.readouterr().out
    assert "2 comparisons skipped: longer than 64 tokens" in output
    assert "comparisons skipped: empty message" not in output  # the reader has reported it


def test_a_pair_of_exactly_max_length_is_not_skipped(data: Path, tokenizer: Any) -> None:
    first = read_pairs(settings(), data, tokenizer)[0][0]
    write(data / "one.jsonl", [row(first.comparison.prompt[0]["content"]), row("fine ?")])
    for length, left in ((len(first.chosen_ids), 1), (len(first.chosen_ids) - 1, 0)):
        chosen = settings(
            comparisons=[source_setting("one", "comparison")[0] | {"limit": 1}],
            test=source_setting("test", "comparison"),
            max_length=length,
        )
        if left:
            assert len(read_pairs(chosen, data, tokenizer)[0]) == left
        else:
            with pytest.raises(DataError, match="no training pair is left"):
                read_pairs(chosen, data, tokenizer)


def test_long_prompts_are_truncated_from_the_left_and_counted(
    data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read_pairs(settings(), data, tokenizer)[0][0]
    write(
        data / "one.jsonl",
        [row("is it 500 ?", chosen="yes my friend yes"), row("is it 501 ?", rejected="red " * 80)],
    )
    answers = [encode_answer(tokenizer, text) for text in ("yes my friend yes", "bolo")]
    length = max(map(len, answers)) + 3
    chosen = settings(
        comparisons=source_setting("one", "comparison"),
        test=source_setting("test", "comparison"),
        max_length=length,
        truncate_prompts=True,
    )
    (pair,), held_out, counts = read_pairs(chosen, data, tokenizer)
    prompt = encode_prompt(tokenizer, pair.comparison.prompt)
    assert len(prompt) > 3, "a premise"
    assert [pair.chosen_ids, pair.rejected_ids] == [prompt[-3:] + answer for answer in answers]
    assert pair.prompt_truncated
    assert not whole.prompt_truncated
    assert counts["skipped"] == {f"longer than {length} tokens": 1}, "no prompt makes room for such an answer"
    assert counts["truncated_prompts"] == 1 + sum(one.prompt_truncated for one in held_out) == 5
    assert f"5 prompts truncated: the pair is longer than {length} tokens" in capsys.readouterr().out


def test_the_rows_of_training_are_those_of_the_pairs(data: Path, tokenizer: Any, tmp_path: Path) -> None:
    chosen = settings(mix=source_setting("ordinary", "comparison"), mix_share=0.5, margin="large")
    pairs, held_out, _ = pairs_module.read_pairs(chosen, data, tokenizer, folder=tmp_path / "rows")
    for rows in (pairs, held_out):
        for number in (0, 7, -1):
            pair, row = rows[number], rows.rows[number % len(rows)]
            assert (row["chosen_ids"], row["rejected_ids"]) == (pair.chosen_ids, pair.rejected_ids)
            assert row["margin"] == margin(pair.comparison.rating, "large")
            labels = [safety_label(pair.comparison.chosen_safe), safety_label(pair.comparison.rejected_safe)]
            np.testing.assert_equal([row["chosen_safe"], row["rejected_safe"]], labels)
        assert set(rows.rows.column_names) == {*pairs_module.TRAINED}
        assert rows.lengths.T.tolist() == [[len(one.chosen_ids), len(one.rejected_ids)] for one in rows]
        assert all(Path(file["filename"]).is_relative_to(tmp_path / "rows") for file in rows.rows.cache_files)


def test_a_part_of_pairs_is_mapped_as_well(data: Path, tokenizer: Any, tmp_path: Path) -> None:
    _, pairs, _ = pairs_module.read_pairs(settings(), data, tokenizer, folder=tmp_path / "rows")
    chosen = np.arange(len(pairs)) % 3 == 1
    part = pairs.part(chosen)
    assert list(part) == [pair for pair, wanted in zip(pairs, chosen, strict=True) if wanted]
    assert part.lengths.tolist() == pairs.lengths[:, chosen].tolist()
    assert part.rows.to_list() == pairs.rows.select(np.flatnonzero(chosen)).to_list()
    assert not len(pairs.part(~np.ones(len(pairs), dtype=bool)))


def test_a_killed_stage_tokenizes_the_other_pairs(
    data: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "BATCH_ROWS", 20)
    monkeypatch.setattr(row_files, "PART_BATCHES", 2)

    def tokenized(stop: int | None = None, **changes: Any) -> tuple[int, Any]:
        """Number of tokenized comparisons, and the pairs."""
        count = 0

        def spy(tokenizer: Any, rows: Sequence[Any], *given: Any, **named: Any) -> Any:
            nonlocal count
            count += len(rows)
            if count == stop:
                raise KeyboardInterrupt
            return encode_pairs(tokenizer, rows, *given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairs_module, "encode_pairs", spy)
            intake = Intake()
            found = pairs_module.read_pairs(
                settings(**changes), data, tokenizer, folder=tmp_path / "rows", intake=intake
            )
        return count, ([list(rows) for rows in found[:2]], found[2], intake.skipped)

    with pytest.raises(KeyboardInterrupt):
        tokenized(160)
    count, first = tokenized()
    assert count == 180 - 120
    assert first[0] == [*read_pairs(settings(), data, tokenizer)[:2]]
    assert tokenized() == (0, first), "complete files are only opened"
    count, other = tokenized(max_length=48)
    assert count == 180, "pairs of other settings are not used"
    assert other[1] == read_pairs(settings(max_length=48), data, tokenizer)[2]


def test_the_files_of_pairs_depend_on_every_setting_that_pairs_depend_on() -> None:
    """A new setting of the stage has to be added on either side."""
    own = RewardSettings.model_fields.keys() - TrainedSettings.model_fields.keys()
    assert own - {"kind", "safety_loss_weight", "max_bad_rows"} == pairs_module.ROW_SETTINGS - {"seed"}


def test_no_training_pair_is_left(data: Path, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no training pair is left"):
        read_pairs(settings(held_out=180), data, tokenizer)
    with pytest.raises(DataError, match="no training pair is left"):
        read_pairs(settings(max_length=4), data, tokenizer)


def test_safety_labels() -> None:
    assert (safety_label(True), safety_label(False)) == (1.0, 0.0)
    assert math.isnan(safety_label(None))


def test_invalid_settings() -> None:
    both = {"test": source_setting("test", "comparison"), "held_out": 5}
    mix = {"kind": "helpfulness", "mix": source_setting("ordinary", "comparison")}
    for changes, message in (
        (both, "held_out: `test` already names held-out comparisons"),
        ({"held_out": 0}, "held_out: no comparisons to test with"),
        (mix, "are only for kind 'safety'"),
        ({"kind": "helpfulness", "safety_loss_weight": 1.0}, "are only for kind 'safety'"),
        (mix | {"kind": "general"}, "are only for kind 'safety'"),
        ({"margin": "huge"}, "small"),
        ({"mix_share": 1.0}, "less than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**changes)


def test_the_error_says_that_all_pairs_are_held_out(data: Path, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"no training pair is left \(.*180 of 180 held out\)"):
        read_pairs(settings(held_out=10_000), data, tokenizer)
