"""`lotr-tui data speech`."""

from pathlib import Path

import pytest

from lotr_tui.cli.main import cli


def test_the_file_is_beside_the_text_and_its_path_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "novel.txt").write_text("“The road is long and cold,” said Ivo.\n")
    cli(["data", "speech", str(tmp_path / "novel.txt")], standalone_mode=False)
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'novel-speech.txt'}\n"
    assert printed.err == "quotations of 4 words or more: 1\n"
    assert (tmp_path / "novel-speech.txt").read_text() == "The road is long and cold\n"
