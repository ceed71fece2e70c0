"""Corpora in any CSV dialect and encoding are read back unchanged."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.corpus import read_csv, read_text
from engine.data.lines import Line

ENCODINGS = {
    "utf-8": ("UTF-8", "Théoden"),
    "utf-8-sig": ("UTF-8 with BOM", "Théoden"),
    "latin-1": ("Latin-1", "Théoden"),
    "cp1252": ("Windows-1252", "“Théoden”"),
}
"""Detected name of each encoding, and a speaker whose name makes the encoding unambiguous."""
LINE_ENDS = ["\n", "\r\n", "\r"]


def cells(encoding: str) -> st.SearchStrategy[str]:
    letters = st.characters(codec=encoding.removesuffix("-sig"), exclude_categories=["Cc", "Cs"])
    return st.text(letters | st.sampled_from("ab é\n\",;\t'\\ "), max_size=30)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "corpus"


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[str, str]], bytes, str]:
    """Generate rows of speaker and utterance, the CSV file with them, and the detected name of its encoding."""
    encoding = draw(st.sampled_from([*ENCODINGS]))
    name, speaker = ENCODINGS[encoding]
    rows = [(speaker, "said so"), *draw(st.lists(st.tuples(cells(encoding), cells(encoding)), max_size=8))]
    file = io.StringIO()
    dialect: dict[str, Any] = {
        "delimiter": draw(st.sampled_from(",;\t ")),
        "lineterminator": draw(st.sampled_from(LINE_ENDS)),
        "quoting": draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_MINIMAL])),
    }
    if dialect["lineterminator"] == "\r":  # Python writes line feeds in cells without quotes otherwise
        dialect["quoting"] = csv.QUOTE_ALL
    columns = draw(st.permutations(["char", "dialog", "movie"]))
    writer = csv.writer(file, **dialect)
    writer.writerow(columns)
    for speaker, text in rows:
        row = {"char": speaker, "dialog": text, "movie": "1"}
        writer.writerow([row[column] for column in columns])
    return rows, file.getvalue().encode(encoding), name


@settings(max_examples=40)
@given(tables())
def test_csv_is_read_back(path: Path, table: tuple[list[tuple[str, str]], bytes, str]) -> None:
    rows, content, name = table
    path.write_bytes(content)
    corpus = read_csv(path, "dialog", "char", 0)
    cleaned = [Line(" ".join(text.split()), speaker.strip()) for speaker, text in rows]
    assert list(corpus.lines) == [line for line in cleaned if line.text]
    assert (corpus.num_rows, corpus.encoding) == (len(rows), name)


@settings(max_examples=40)
@given(st.sampled_from([*ENCODINGS]), st.sampled_from(LINE_ENDS), st.booleans(), st.data())
def test_plain_text_is_read_back(path: Path, encoding: str, line_end: str, ended: bool, data: st.DataObject) -> None:
    name, speaker = ENCODINGS[encoding]
    texts = [f"{speaker} said so", *data.draw(st.lists(cells(encoding), max_size=8))]
    lines = [line for text in texts for line in (text.splitlines() or [""])]
    path.write_bytes((line_end.join(lines) + line_end * ended).encode(encoding))
    corpus = read_text(path, 0)
    cleaned = [" ".join(line.split()) for line in lines]
    assert [line.text for line in corpus.lines] == [line for line in cleaned if line]
    assert corpus.encoding == name
