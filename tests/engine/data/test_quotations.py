"""Speech found between quotation marks."""

import pytest

from engine.data.tales import find_quotations, write_speech
from engine.errors import InvalidInputError


@pytest.mark.parametrize(
    ("paragraph", "quotations"),
    [
        ("“Where are you going?” asked the smith.", ["Where are you going?"]),
        ('"I am going to the sea," said Ivo, "and I am late."', ["I am going to the sea", "and I am late."]),
        ("“We shall see about that.", ["We shall see about that."]),
        ("He read “The Wreck” aloud.", []),
        ("‘I’ve never been to the king’s hall,’ he said.", ["I’ve never been to the king’s hall"]),
        ("She said—‘come in out of the rain’—and shut the door.", ["come in out of the rain"]),
        ("“He said, ‘stay at home,’ and so I stay.”", ["He said, ‘stay at home,’ and so I stay."]),
        ("It’s the smiths’ road, and the miller’s.", []),
    ],
)
def test_speech_is_what_stands_between_quotation_marks(paragraph, quotations):
    assert find_quotations(paragraph) == quotations


def test_every_quotation_becomes_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(
        "“One two three four,” he said, “five six seven eight.”\r\n\r\n“A b c d”\n".encode()
    )
    assert write_speech(tmp_path / "a.txt", tmp_path / "b.txt") == 3
    assert (tmp_path / "b.txt").read_text() == "One two three four\nfive six seven eight.\nA b c d\n"


def test_bad_files_are_refused(tmp_path):
    text, silent = tmp_path / "a.txt", tmp_path / "silent.txt"
    text.write_text("“One two three four,” he said.\n")
    silent.write_text("Nobody said a word.\n")
    for source, output, message in (
        (silent, tmp_path / "out.txt", "contains no speech of 4 words"),
        (tmp_path / "nowhere.txt", text, "does not exist"),
        (text, text, "is the text itself"),
        (text, tmp_path / "no" / "out.txt", "folder that does not exist"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            write_speech(source, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "silent.txt"]
