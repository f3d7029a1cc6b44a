"""Which files are read, and that they are read completely: names, truncated and hidden files, encodings."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llamita.data.sources import read_dialogues, read_documents
from llamita.errors import DataError

from ..helpers.rows import dialogue, write
from ..helpers.sources import source

ASKED = {"prompt": "hi", "completion": "hello"}


def documents(root: Path, path: str, format: str = "text_rows") -> list[str]:
    return list(read_documents(source(format, path), root))


def compressed(path: Path, content: bytes) -> Path:
    """Writes a file with this content, compressed according to its name."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def test_paths_are_not_glob_patterns(tmp_path: Path) -> None:
    for name in ("data1.jsonl", "data[1].jsonl", "all/x.jsonl", "*/x.jsonl", "my [data]/train*.jsonl"):
        write(tmp_path / name, [{"text": name}])
    write(tmp_path / "what?.txt", ["what?"])
    assert documents(tmp_path, "data[1].jsonl") == ["data[1].jsonl"]
    assert documents(tmp_path, "*") == ["*/x.jsonl"]
    assert documents(tmp_path, "my [data]") == ["my [data]/train*.jsonl"]
    assert documents(tmp_path, "what?.txt", "text") == ["what?"]
    import datasets

    rows = datasets.Dataset.from_list([{"text": "parquet"}])
    rows.to_parquet(str(tmp_path / "my [data]" / "rows.parquet"))
    assert documents(tmp_path, "my [data]/rows.parquet") == ["parquet"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv"])
def test_a_truncated_file_raises_an_error(tmp_path: Path, ending: str, kind: str) -> None:
    rows = [f"{os.urandom(20).hex()}\n\n" if kind == "txt" else f'{{"text": "{n}"}}\n' for n in range(5000)]
    if kind == "csv":
        rows = ["text\n", *(f"{n}\n" for n in range(5000))]
    whole = compressed(tmp_path / f"rows.{kind}.{ending}", "".join(rows).encode()).read_bytes()
    format = "text" if kind == "txt" else "text_rows"
    documents(tmp_path, f"rows.{kind}.{ending}", format)
    for length in (len(whole) // 2, len(whole) - 1):
        (tmp_path / f"cut.{kind}.{ending}").write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"cut.{kind}.{ending}: can't be read: "):
            documents(tmp_path, f"cut.{kind}.{ending}", format)


def test_a_zst_file_may_have_several_frames_but_no_other_content(tmp_path: Path) -> None:
    one, other = (zstandard.compress(f'{{"text": "{text}"}}\n'.encode()) for text in ("one", "other"))
    (tmp_path / "two.jsonl.zst").write_bytes(one + other)
    assert documents(tmp_path, "two.jsonl.zst") == ["one", "other"]
    for name, content in (("cut", one + other[:-3]), ("more", one + b"more")):
        (tmp_path / f"{name}.jsonl.zst").write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}.jsonl.zst: can't be read"):
            documents(tmp_path, f"{name}.jsonl.zst")


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_byte_order_marks_are_removed(tmp_path: Path, ending: str) -> None:
    mark = b"\xef\xbb\xbf"
    row = json.dumps(ASKED).encode()
    compressed(tmp_path / f"rows.jsonl{ending}", mark + row + b"\n" + mark + row)  # two concatenated files
    compressed(tmp_path / f"rows.json{ending}", mark + b"[" + row + b"]")
    compressed(tmp_path / f"lines.json{ending}", mark + row)
    compressed(tmp_path / f"rows.csv{ending}", mark + b"prompt,completion\nhi,hello\n")
    compressed(tmp_path / f"rows.txt{ending}", mark + b"hi")
    expected = dialogue("hi", "hello")
    for name, count in (("rows.jsonl", 2), ("rows.json", 1), ("lines.json", 1), ("rows.csv", 1)):
        read = read_dialogues(source("prompt_completion", name + ending), tmp_path)
        assert read == [expected] * count, name
    assert documents(tmp_path, f"rows.txt{ending}", "text") == ["hi"]


def test_hidden_files_are_skipped_and_skipped_files_are_reported(tmp_path: Path, capsys: Any) -> None:
    for name in ("a.jsonl", ".b.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl", "__MACOSX/c.jsonl", "n.md"):
        write(tmp_path / "set" / name, [{"text": name}])
    assert documents(tmp_path, "set") == ["a.jsonl"]
    output = capsys.readouterr().out
    assert (
        "set: skipped files: .b.jsonl, .ipynb_checkpoints, __MACOSX (hidden); n.md (not a data file)"
        in output
    )
    assert documents(tmp_path, "set/.ipynb_checkpoints/a-checkpoint.jsonl") == [
        ".ipynb_checkpoints/a-checkpoint.jsonl"  # the path itself is the source
    ]
    for name in ("train.jsonl", *(f"test-{n}.jsonl" for n in range(5))):
        write(tmp_path / "split" / name, [{"text": name}])
    assert documents(tmp_path, "split") == ["train.jsonl"]
    assert "test-0.jsonl, test-1.jsonl, test-2.jsonl and 2 more (of another split)" in capsys.readouterr().out


def test_links_are_followed_without_endless_loops(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "disk" / "b.jsonl", [{"text": "b"}])
    write(tmp_path / "set" / "a.jsonl", [{"text": "a"}])
    (tmp_path / "set" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "itself").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "gone.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert documents(tmp_path, "set") == ["a", "b"]
    assert "set: skipped files: gone.jsonl (a broken link)" in capsys.readouterr().out


def test_local_files_need_no_home_folder(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [ASKED])
    code = (
        "import sys; from pathlib import Path; from llamita.settings import Source;"
        "from llamita.data.sources import read_dialogues;"
        "print(read_dialogues([Source(path='rows.jsonl', format='prompt_completion')], Path(sys.argv[1])))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment | {"HOME": "/dev/null/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout


def test_a_git_lfs_pointer_raises_an_error(tmp_path: Path) -> None:
    write(tmp_path / "book.txt", ["version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"])
    with pytest.raises(DataError, match=r"book.txt: a git-lfs pointer instead of the file"):
        documents(tmp_path, "book.txt", "text")


def test_the_error_of_a_long_number_in_an_array_has_a_line(tmp_path: Path) -> None:
    write(tmp_path / "rows.json", ['[{"text": "a"},\n {"text": "b", "n": ' + "1" * 5000 + "}]"])
    with pytest.raises(DataError, match=r"rows.json:2: invalid JSON: a number of more than 4,300 digits"):
        documents(tmp_path, "rows.json")


def test_a_csv_file_may_contain_long_documents(tmp_path: Path) -> None:
    text = "word " * 40_000
    write(tmp_path / "rows.csv", ["text\n", f'"{text}"\n'])
    assert documents(tmp_path, "rows.csv") == [text]


def test_a_csv_file_with_a_repeated_field(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", ["text,text\n", "a,b\n"])
    with pytest.raises(DataError, match=r"rows\.csv:1: the header line contains 'text' twice"):
        documents(tmp_path, "rows.csv")


def test_empty_files_of_a_folder_are_reported(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "parts" / "part-0.jsonl", [{"text": "some"}])
    write(tmp_path / "parts" / "part-1.jsonl", [])
    assert documents(tmp_path, "parts") == ["some"]
    assert capsys.readouterr().out == "parts: skipped files: part-1.jsonl (empty)\n"


def test_a_broken_link_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"rows\.jsonl: broken link; .* at gone\.jsonl"):
        documents(tmp_path, "rows.jsonl")
