"""Which sampled answers are trained on."""

from __future__ import annotations

import pytest

from llamita.sampling.usable import is_usable


@pytest.mark.parametrize(
    ("answer", "finished", "usable"),
    [
        ("no", True, True),
        ("no", False, False),
        ("", True, False),
        ("no [INST] yes", True, False),
        ("no [IN", True, True),
    ],
)
def test_truncated_and_empty_answers_and_control_strings_are_unusable(
    answer: str, finished: bool, usable: bool
) -> None:
    assert is_usable(answer, finished, ["[INST]", "</s>"]) is usable
