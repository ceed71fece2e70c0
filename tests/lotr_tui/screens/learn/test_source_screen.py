"""Code of a chapter: folded lines keep their text, their indent and their numbers."""

import pytest

from lotr_tui.learn.source_code import SourceExcerpt, SourceLink, read_source
from lotr_tui.screens.learn.source_screen import number_lines


@pytest.mark.parametrize("width", [56, 76, 116])
def test_lines_fit_the_width_and_keep_their_text(width: int) -> None:
    excerpt = read_source(SourceLink("engine/models/ngram.py", "KneserNey"))
    rows = number_lines(excerpt, width).plain.split("\n")
    assert all(len(row) <= width for row in rows)
    lines: list[tuple[int, str]] = []
    for row in rows:
        number, text = row[:4].strip(), row[5:]
        if number:
            lines.append((int(number), text))
        else:
            lines[-1] = lines[-1][0], f"{lines[-1][1]} {text.strip()}"
    source = excerpt.text.splitlines()
    assert [number for number, _ in lines] == [*range(excerpt.first_line, excerpt.first_line + len(source))]
    assert [text.split() for _, text in lines if len(text) < width - 10] == [
        line.split() for line in source if len(line) < width - 10
    ]
    assert ["".join(text.split()) for _, text in lines] == ["".join(line.split()) for line in source]


def test_word_that_is_longer_than_the_width_is_cut() -> None:
    rows = number_lines(SourceExcerpt(f"    x = {'a' * 50}", 9), 30).plain.split("\n")
    assert rows[0].startswith(" 9      x =")
    assert "".join("".join(row[4:].split()) for row in rows) == "x=" + "a" * 50
