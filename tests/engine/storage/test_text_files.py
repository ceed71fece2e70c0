"""Reading of text files that the user names."""

import os
from pathlib import Path

import pytest

from engine.errors import CorpusError
from engine.storage.text_files import MAX_TEXT_FILE_BYTES, read_text_file


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Frodo, œuvre\r\n".encode("utf-8-sig"))
    assert read_text_file(tmp_path / "a.txt") == "Frodo, œuvre\r\n"
    (tmp_path / "empty.txt").write_bytes(b"")
    assert read_text_file(tmp_path / "empty.txt") == ""


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.txt", None, "does not exist"),
        ("nul\0.txt", None, "does not exist"),
        ("x" * 300, None, "cannot be read"),
        ("binary", b"a\0b", "NUL bytes"),
        ("latin.txt", "Königin".encode("latin-1"), "not UTF-8 (byte 1)"),
        ("long.txt", b"a" * (MAX_TEXT_FILE_BYTES + 1), "the limit is 4 MB"),
    ],
)
def test_files_that_are_not_text_are_rejected_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as error:
        read_text_file(tmp_path / name)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_pipes_and_unknown_home_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is a folder"):
        read_text_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="not a regular file"):
        read_text_file(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_text_file(Path("~nobody-of-that-name/x.txt"))
