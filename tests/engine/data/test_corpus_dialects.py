"""Corpora in any CSV dialect and encoding are read back unchanged."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.corpus import Corpus, read_csv, read_text
from engine.data.lines import Line
from engine.data.speakers import merge_key, normalize_speaker
from engine.errors import CorpusError

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
    cleaned = [(" ".join(text.split()), merge_key(normalize_speaker(speaker).name)) for speaker, text in rows]
    assert [(line.text, merge_key(line.speaker)) for line in corpus.lines] == [line for line in cleaned if line[0]]
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


# Dialects of other programs, imitated by hand

LINES = (
    Line("Did you hear that? They've shut down the main reactor.", "THREEPIO"),
    Line('He said "no", and then "never again"!', "LUKE"),
    Line("A line about nothing; and about a lamp", "OBI WAN"),
)


def read_lines(path: Path, content: str, text_column: str = "dialogue", speaker_column: str = "character") -> Corpus:
    path.write_bytes(content.encode())
    return read_csv(path, text_column, speaker_column, 20)


def r_table(separator: str = " ", row_names: bool = True, end: str = "\n") -> str:
    """Return what R's `write.table` writes: quotes are escaped by a backslash, and row names have no header."""
    rows = [(line.speaker, line.text.replace('"', '\\"')) for line in LINES]
    numbered = [(str(number), *row) if row_names else row for number, row in enumerate(rows, 1)]
    table = [("character", "dialogue"), *numbered]
    return "".join(separator.join(f'"{cell}"' for cell in row) + end for row in table)


@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
@pytest.mark.parametrize("row_names", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_r_are_read(path: Path, separator: str, row_names: bool, end: str) -> None:
    corpus = read_lines(path, r_table(separator, row_names, end))
    assert tuple(corpus.lines) == LINES
    assert corpus.num_rows == 3


def test_row_names_without_quotes_are_read_from_a_table_with_tabs(path: Path) -> None:
    rows = "".join(f"{number}\t{line.speaker}\t{line.text}\n" for number, line in enumerate(LINES[::2]))
    assert tuple(read_lines(path, "character\tdialogue\n" + rows).lines) == LINES[::2]


def test_an_escaped_quote_far_down_in_the_file_is_found(path: Path) -> None:
    many = '"1" "LUKE" "a line without any quotes in it"\n' * 40_000
    corpus = read_lines(path, r_table() + many + '"2" "LEIA" "He said \\"maybe\\" to all of them"\n')
    assert corpus.lines[-1] == Line('He said "maybe" to all of them', "LEIA")
    assert corpus.num_rows == 40_004


def test_a_backslash_is_an_ordinary_character_where_quotes_are_doubled(path: Path) -> None:
    content = 'character,dialogue\nSAM,"the folder C:\\"\n"TOM","a \\""quoted\\"" name, in C:\\new"\n'
    expected = (Line("the folder C:\\", "SAM"), Line('a \\"quoted\\" name, in C:\\new', "TOM"))
    path.write_bytes(content.encode())
    assert tuple(read_csv(path, "dialogue", "character", 0).lines) == expected


PADDED = (
    Line("I should've known that you would be here, Professor McGonagall.", "DUMBLEDORE"),
    Line("Good evening, Professor, sir. Are the rumors true?", "MCGONAGALL"),
    Line('He said "yes, it is", and left', "HAGRID"),
)


@pytest.mark.parametrize("row_padding", [",,,,", ",", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_semicolons_with_the_commas_of_a_spreadsheet_are_read(path: Path, row_padding: str, end: str) -> None:
    header = f"Character;Sentence,,,,{end}"
    rows = "".join(f"{line.speaker};{line.text}{row_padding}{end}" for line in PADDED[:2])
    corpus = read_lines(path, header + rows, "Sentence", "Character")
    assert tuple(corpus.lines) == PADDED[:2]
    assert corpus.separator == "semicolon"


def test_lines_that_a_spreadsheet_cut_at_their_commas_are_read(path: Path) -> None:
    """Import the lines as a table with commas and save it again, as a spreadsheet does."""
    original = io.StringIO()
    table = [("Character", "Sentence"), *((line.speaker, line.text) for line in PADDED)]
    csv.writer(original, delimiter=";").writerows(table)
    cells = list(csv.reader(original.getvalue().splitlines()))
    saved = io.StringIO()
    csv.writer(saved).writerows([*row, *[""] * (5 - len(row))] for row in cells)
    corpus = read_lines(path, saved.getvalue(), "Sentence", "Character")
    assert tuple(corpus.lines) == PADDED


def test_the_columns_before_the_commas_of_a_spreadsheet_are_named_in_the_error(path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no column 'dialog'; its columns: Character, Sentence\. Name one"):
        read_lines(path, "Character;Sentence,,,,\nHarry;a line that is long enough,,,,\n", "dialog")


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("header_padding", [0, 1, 3])
@pytest.mark.parametrize("row_padding", [0, 1, 3])
def test_constant_separators_at_the_ends_of_lines_are_ignored(
    path: Path, separator: str, header_padding: int, row_padding: int
) -> None:
    table = [(("id", "character", "dialogue"), header_padding)]
    table += [
        ((str(n), line.speaker, f'"{line.text}"'.replace('"no"', '""no""')), row_padding)
        for n, line in enumerate(LINES[::2])
    ]
    content = "".join(separator.join([*cells, *[""] * padding]) + "\n" for cells, padding in table)
    content = content.replace("OBI WAN", '"OBI WAN"')
    assert tuple(read_lines(path, content).lines) == LINES[::2]


def test_a_column_without_a_name_is_no_constant_separator(path: Path) -> None:
    content = "character,dialogue,,\nSAM,a line that is long enough,1,x\nSAM,a line that is long too,2,y\n"
    assert len(read_lines(path, content).lines) == 2


@pytest.mark.parametrize("line_end", ["\r", "\r\n", "\n"])
def test_long_files_with_any_line_end_are_read(path: Path, line_end: str) -> None:
    texts = [f"a line that is long enough, number {number}" for number in range(60_000)]
    path.write_bytes("".join(text + line_end for text in texts).encode())
    corpus = read_text(path, 20)
    assert corpus.num_rows == 60_000
    assert [line.text for line in corpus.lines] == texts
    path.write_bytes("".join(f'"{text}"{line_end}' for text in ["dialog", *texts]).encode())
    corpus = read_csv(path, "dialog", "char", 20)
    assert corpus.num_rows == 60_000
    assert [line.text for line in corpus.lines] == texts
