"""`llamita show`: what it prints is what training gets, for every stage that trains on rows."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from llamita import cli
from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.commands import drawing
from llamita.corpus.writing import write_corpus
from llamita.pretrain.settings import PretrainSettings

from ..helpers.chatml import chatml_tokenizer
from ..helpers.material import HELPFULNESS, PRETRAIN, SFT, write_data
from ..helpers.rows import turn, write
from ..helpers.tiny import save_tiny_model

LONG = turn("what is it ?", "again and " * 60)
TWO_TURNS = turn("is it red ?", "it is red") + turn("again ?", "yes")
GHOST = turn("how are you ?", "fine") + turn("and today ?", "fine again")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> list[str]:
    """Data and a model, as arguments of a stage that is run alone."""
    root = tmp_path_factory.mktemp("show")
    data = write_data(root / "data")
    write(data / "dialogues.jsonl", [{"messages": TWO_TURNS}, {"messages": LONG}])
    write(data / "gatt.jsonl", [{"instruction": "be my friend", "messages": GHOST}])
    model = save_tiny_model(root / "base" / "model", tokenizer)
    tokenizer.save_pretrained(str(root / "tokenizer" / "model"))
    return [f"inputs.data={data}", f"inputs.model={model.parent}"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def show(kind: str, settings: dict[str, Any], *arguments: str, code: int = 0) -> str:
    """The lines that `llamita show` prints for a stage's YAML; of an error that one."""
    Path(f"{kind}.yaml").write_text(json.dumps(settings))
    return llamita_show(f"{kind}.yaml", *arguments, code=code)


def llamita_show(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, ["show", *arguments])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_packed_dialogues_with_their_trained_tokens(folders: list[str]) -> None:
    text = show("sft", SFT, *folders)
    rows, ghost = text.split("── Ghost Attention")[0], text.split("── Ghost Attention")[1:]
    assert "1 dialogues: longer than 104 tokens\n⟦…⟧: trained tokens, which the loss counts\n" in rows
    assert "── packed row 1 of 1: 2 dialogues, " in rows
    plain = "<s> [INST] is it red ? [/INST]⟦ it is red </s>⟧<s> [INST] again ? [/INST]⟦ yes </s>⟧\n"
    trained = (
        "<s> [INST] <<SYS>>\nbe my friend\n<</SYS>>\n\nhow are you ? [/INST] fine </s>"
        "<s> [INST] and today ? [/INST]⟦ fine again </s>⟧\n"
    )
    sampled = (
        "<s> [INST] how are you ?\n\nbe my friend [/INST] fine </s>"
        "<s> [INST] and today ?\n\nbe my friend [/INST] fine again </s>\n"
    )
    assert plain in rows
    assert trained in rows
    assert re.search(r"· padding, tokens \d+–103\n", rows)
    assert ghost[0].startswith(", as sampled")
    assert ghost[0].endswith(sampled)
    assert trained in ghost[1]
    assert "dropped, longer than max_length 104: 1 of 3 (33.3%)" in text
    assert re.search(r"\na dialogue +\d+ .* \d+\n", text)
    assert re.search(r"filled: \d+\.\d% of 1 rows of 104 tokens\n", text)


def test_rows_are_counted(folders: list[str], tmp_path: Path) -> None:
    write(tmp_path / "dialogues.jsonl", [{"messages": turn(f"is it {n} ?", "yes " * 30)} for n in range(9)])
    changes = [*folders[1:], f"inputs.data={tmp_path}", "ghost_attention=[]"]
    assert show("sft", SFT, *changes).count("── packed row") == 5
    assert show("sft", SFT, *changes, "--rows", "2").count("── packed row") == 2
    none = show("sft", SFT, *changes, "--rows", "0")
    assert "── packed row" not in none
    assert "── lengths\n" in none


def test_text_of_the_data_can_not_control_the_terminal(folders: list[str], tmp_path: Path) -> None:
    answer = "\x1b[31mred\x07 [bold]x[/bold] \u202eabc :smile:"
    write(tmp_path / "dialogues.jsonl", [{"messages": turn("is it ?", answer)}])
    text = show("sft", SFT, folders[1], f"inputs.data={tmp_path}", "ghost_attention=[]")
    assert r"⟦ \x1b[31mred\x07 [bold]x[/bold] \u202eabc :smile: </s>⟧" in text
    assert "\x1b" not in text


def test_trained_tokens_are_green_on_a_terminal(folders: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for no_colour in (False, True):
        file = io.StringIO()
        terminal = Console(
            file=file, force_terminal=True, color_system="standard", no_color=no_colour, width=80
        )
        monkeypatch.setattr(drawing, "console", terminal)
        show("sft", SFT, *folders, "ghost_attention=[]")
        assert ("\x1b[1;32m it is red </s>\x1b[0m" in file.getvalue()) is not no_colour
        assert ("⟦ it is red </s>⟧" in re.sub(r"\x1b\[\d*m", "", file.getvalue())) is no_colour


def test_dialogues_of_rejection_sampling(folders: list[str]) -> None:
    settings = {
        **{name: SFT[name] for name in ("dialogues", "ghost_attention", "max_length")},
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "prompts_per_round": 2,
        "selection_repeats": 3,
        "max_new_tokens": 8,
        "trainer": {"max_steps": 1},
    }
    text = show("rejection", settings, *folders)
    assert "⟦ it is red </s>⟧" in text
    assert "added to these dialogues (repetitions of each: 3)" in text


def test_prompts_of_context_distillation(folders: list[str], tmp_path: Path) -> None:
    system = {"role": "system", "content": "you are my friend"}
    rows = [
        {"messages": [system, *turn("is it red ?")], "is_safety": True, "category": "illicit"},
        {"messages": turn("is it fine ?"), "is_safety": True},
        {"messages": turn("hello"), "is_safety": False},
    ]
    write(tmp_path / "prompts.jsonl", rows)
    settings = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "preprompts": {
            "templates": ["be {adjective} ."],
            "adjectives": ["fine"],
            "answer_templates": {"illicit": "it is not my friend ."},
        },
        "max_new_tokens": 8,
    }
    text = show("distillation", settings, folders[1], f"inputs.data={tmp_path}", "inputs.safety=.")
    first, second, lengths = text.split("── ")[1:]
    assert first.startswith("prompt 1 of 2: category illicit, attack none\n· original\n<s> [INST] <<SYS>>\n")
    user = "\n<</SYS>>\n\nis it red ? [/INST]\n"
    # "you" after a space is another token than at the start of a line
    added = "· generic\n<s> [INST] <<SYS>>\n⟦be fine . you⟧ are my friend"
    assert added + user in first
    assert "\n⟦be fine . it is not my friend . you⟧ are my friend" + user in first
    assert "· generic\n<s> [INST]⟦ <<SYS>>\nbe fine .\n<</SYS>>\n\nis⟧ it fine ? [/INST]\n" in second
    assert "tailored" not in second
    assert re.search(r"\ntailored +\d+", lengths)


def test_pairs_of_a_reward_model(folders: list[str]) -> None:
    text = show("reward", HELPFULNESS, *folders, "--rows", "2")
    first, second = text.split("── ")[1:3]
    assert first.startswith(
        "pair 1 of 64: rating significantly_better, margin 1.00\n· prompt\n<s> [INST] what"
    )
    assert re.search(r"\n· chosen, \d+ tokens\n⟦ ?thanks my friend⟧ </s>\n", first)
    assert re.search(r"\n· rejected, \d+ tokens\n⟦ ?bolo⟧ </s>\n", first)
    assert second.startswith("pair 2 of 64: rating better, margin 0.67\n")
    assert "pairs: 64 to train, 24 held out\n" in text
    assert "dropped, longer than max_length 96: 0 of 88 (0.0%)\n" in text
    short = show("reward", HELPFULNESS, *folders, "--rows", "1", "max_length=15", "truncate_prompts=true")
    assert re.search(r"prompt truncated: [1-9]\d* of 88", short)


def test_pairs_with_evasions(folders: list[str], tmp_path: Path) -> None:
    write(tmp_path / "refusals" / "answers.jsonl", [{"answer": "bolo", "refusal": True}])
    evasions = {
        "dialogues": [{"path": "dialogues.jsonl", "format": "messages"}],
        "answers": [{"path": "answers.jsonl", "format": "labelled_answers"}],
        "count": 1,
        "held_out": 1,
    }
    settings = HELPFULNESS | {"evasions": evasions, "max_length": 128, "truncate_prompts": True}
    text = show("reward", settings, *folders, f"inputs.refusals={tmp_path / 'refusals'}")
    assert "pairs: 65 to train, 25 held out\n" in text


def test_documents_without_and_with_token_shards(folders: list[str], tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(str(tmp_path / "tokenizer" / "model"))
    inputs = [folders[0], f"inputs.tokenizer={tmp_path / 'tokenizer'}"]
    text = show("pretrain", PRETRAIN, *inputs, "--rows", "3")
    assert text.startswith("No token shards yet: tokenizing the first 10,000 rows of each source.")
    assert text.count("── row ") == 3
    assert re.search(r"· document 2, tokens \d+–\d+\n<s>⟦ the color of \w+ is \w+ \.</s>⟧\n", text)
    assert re.search(r"· document 1, tokens 0–\d+\n[^⟦\n]", text)  # nothing predicts a row's first token
    assert re.search(r"\na document +\d+", text)
    assert "100 documents, " in text


def test_shards_that_the_stage_has_written_are_read(
    folders: list[str], tmp_path: Path, tokenizer: Any
) -> None:
    tokenizer.save_pretrained(str(tmp_path / "tokenizer" / "model"))
    settings = PretrainSettings.model_validate_json(json.dumps(PRETRAIN))
    data = Path(folders[0].removeprefix("inputs.data="))
    for folder in ("out.partial", "out"):  # a run that is under way, and a finished one
        shards, journal = tmp_path / folder / "shards", tmp_path / f"{folder}.journal"
        write_corpus(settings, settings.seed, tokenizer, root=data, folder=shards, journal=journal)
        inputs = [folders[0], f"inputs.tokenizer={tmp_path / 'tokenizer'}", "output=out"]
        text = show("pretrain", PRETRAIN, *inputs, "--rows", "1")
        assert text.startswith("⟦…⟧: trained tokens")
        assert "100 documents, " in text
        shutil.rmtree(tmp_path / folder)


def test_another_chat_template_and_its_replacement(folders: list[str], tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "smol" / "model", chatml_tokenizer())
    write(tmp_path / "dialogues.jsonl", [{"messages": turn("hello", "hello friend")}])
    inputs = [f"inputs.model={model.parent}", f"inputs.data={tmp_path}", "ghost_attention=[]"]
    own = show("sft", SFT, *inputs)
    assert "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n⟦hello friend<|im_end|>⟧" in own
    llama2 = show("sft", SFT, *inputs, "chat_format=llama2")
    assert "[INST] hello [/INST]⟦ hello friend <|im_end|>⟧" in llama2


# ------------------------------------------------------------------------------------------- which stage

PIPELINE = """\
name: tiny
stages:
  - {name: words, stage: tokenizer, config: tokenizer.yaml, inputs: {data: data}}
  - {name: base, stage: pretrain, config: pretrain.yaml, inputs: {tokenizer: words, data: data}}
  - {name: chat, stage: sft, config: sft.yaml, inputs: {model: base, data: data}}
  - {name: judge, stage: reward, config: reward.yaml, inputs: {model: chat, data: data}}
"""


@pytest.fixture
def project(tmp_path: Path, tokenizer: Any) -> Path:
    """A pipeline whose data exists and whose tokenizer does not have a chat template."""
    write_data(tmp_path / "data")
    for name, settings in (("pretrain", PRETRAIN), ("sft", SFT), ("reward", HELPFULNESS)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(settings))
    documents = {"documents": [{"path": "documents.jsonl", "format": "text_rows"}], "vocab_size": 420}
    (tmp_path / "tokenizer.yaml").write_text(json.dumps(documents))
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    return tmp_path


def test_a_stage_of_a_pipeline_before_its_model_exists(project: Path, tokenizer: Any) -> None:
    error = llamita_show("pipeline.yaml", "judge", code=2)
    assert "runs/tiny/words: no tokenizer yet; run the pipeline with --until words first" in error
    tokenizer.save_pretrained(str(project / "runs" / "tiny" / "words" / "model"))
    assert "pair 1 of 64" in llamita_show("pipeline.yaml", "judge", "--rows", "1")
    shorter = llamita_show("pipeline.yaml", "chat", "chat.max_length=90", "--rows", "1")
    assert "rows of 90 tokens" in shorter
    plain = tokenizer.chat_template
    tokenizer.chat_template = None
    tokenizer.save_pretrained(str(project / "runs" / "tiny" / "words" / "model"))
    tokenizer.chat_template = plain
    (project / "runs" / "tiny" / "words" / "model" / "chat_template.jinja").unlink(missing_ok=True)
    assert "no chat template" in llamita_show("pipeline.yaml", "judge", code=1)
    llama2 = llamita_show("pipeline.yaml", "judge", "chat.chat_format=llama2", "--rows", "1")
    assert "<s> [INST] what is" in llama2  # the chat model will have the template of Llama 2
    assert plain == CHAT_TEMPLATE


def test_what_is_missing_is_named(project: Path) -> None:
    assert "no stage given; add one of base, chat, judge" in llamita_show("pipeline.yaml", code=2)
    assert "no stage 'chta'; did you mean 'chat'?" in llamita_show("pipeline.yaml", "chta", code=2)
    assert "words: stage 'tokenizer' has no training rows" in llamita_show("pipeline.yaml", "words", code=2)
    assert "add inputs.model=FOLDER" in llamita_show("sft.yaml", "inputs.data=data", code=2)
    assert "inputs.data: no such folder" in llamita_show("sft.yaml", "inputs.data=nowhere", code=2)
    assert "max_length" in llamita_show("sft.yaml", "max_length=x", code=2)
    text = PIPELINE.replace(
        "inputs: {tokenizer: words, data: data}", "inputs: {tokenizer: words, data: made}"
    )
    (project / "pipeline.yaml").write_text(text.replace("stages:", "stages:\n  - {name: made, stage: world}"))
    error = llamita_show("pipeline.yaml", "base", code=2)
    assert "stage 'base' reads" in error
    assert "type `llamita run pipeline.yaml --until made` first" in error
