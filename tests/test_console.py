"""Lines and progress: rate and time left on rank 0, nothing on other ranks."""

from __future__ import annotations

import pytest

from llamita import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves by hand."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_every_ten_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for item in console.track(range(40), "train", unit="steps"):
        clock[0] += 0.5
        assert item is not None
    for _ in console.track(range(30), "test"):
        clock[0] += 0.5
    assert capsys.readouterr().out.splitlines() == [
        "train: 20/40 steps, 2.0 steps/s, 10.0 s left",
        "train: 40/40 steps, 2.0 steps/s",
        "test: 20/30 it, 2.0 it/s, 5.0 s left",
        "test: 30/30 it, 2.0 it/s",
    ]


def test_short_work_is_not_shown(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track(iter([1, 2]), "short")) == [1, 2]
    assert capsys.readouterr().out == ""


def test_unknown_total(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in console.track(iter(range(12)), "read", unit="rows"):
        clock[0] += 1
    assert capsys.readouterr().out.splitlines()[0] == "read: 10 rows, 1.0 rows/s"


def test_slow_work_is_shown_by_the_minute_and_earlier_work_does_not_count_in_the_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in console.track(range(75, 78), "train", 78, unit="steps", done=75):
        clock[0] += 15
    assert capsys.readouterr().out.splitlines() == [
        "train: 76/78 steps, 4.0 steps/min, 30.0 s left",
        "train: 77/78 steps, 4.0 steps/min, 15.0 s left",
        "train: 78/78 steps, 4.0 steps/min",
    ]


def test_other_ranks_are_silent_but_work(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    seen = []
    for item in console.track(range(30), "train"):
        clock[0] += 1
        seen.append(item)
    console.say("hello")
    assert seen == list(range(30))
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "console", console.Console(force_terminal=True, width=100))
    assert list(console.track(range(3), "[INST] train", unit="steps")) == [0, 1, 2]
    out = capsys.readouterr().out
    assert "[INST] train" in out
    assert "3/3" in out
    assert "steps/s" in out


def test_say_leaves_brackets_and_long_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[INST] what [/INST] " + "x" * 300
    console.say(text)
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (8.12, "8.1 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_work_without_items_reports_its_progress(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("sample", 40, "answers") as advance:
        for _ in range(10):
            clock[0] += 2.0
            advance(4)
    with console.progress(None, 40) as advance:
        advance(40)
    assert capsys.readouterr().out.splitlines() == [
        "sample: 20/40 answers, 2.0 answers/s, 10.0 s left",
        "sample: 40/40 answers, 2.0 answers/s",
    ]
