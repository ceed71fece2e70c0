"""Reading of CSV and text files, and splitting."""

import csv
import hashlib
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.corpus import Corpus, read_csv, read_text, split_indices
from engine.data.file_scan import MAX_LINE_CHARACTERS
from engine.data.lines import Line
from engine.data.speakers import merge_key, normalize_speaker
from engine.errors import CorpusError

LONG = "a sentence long enough to be kept"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus") / "file.csv"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, text_column="dialog", speaker_column="char", min_characters=20):
    return read_csv(path, text_column, speaker_column, min_characters)


def refusal(path, **options):
    with pytest.raises(CorpusError) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


class TestRealDialogues:
    def test_rows_lines_and_speakers(self, lotr_csv):
        corpus = read(lotr_csv)
        assert corpus.num_rows == 2390
        assert len(corpus.lines) == 1644
        assert len({line.speaker for line in corpus.lines}) == 81
        assert (corpus.encoding, corpus.separator) == ("UTF-8", "comma")
        assert corpus.sha256 == hashlib.sha256(lotr_csv.read_bytes()).hexdigest()

    def test_lines_are_stripped_and_long_enough(self, lotr_csv):
        for line in read(lotr_csv).lines:
            assert line.text == " ".join(line.text.split())
            assert len(line.text) > 20
            assert line.speaker == line.speaker.strip()

    def test_file_order_is_kept(self, lotr_csv):
        first = read(lotr_csv).lines[0]
        assert first.speaker == "DEAGOL"
        assert first.text.startswith("Oh Smeagol Ive got one!")

    def test_splits_have_the_sizes_of_the_notebook(self, lotr_csv):
        assert [len(part) for part in split_indices(len(read(lotr_csv).lines), 1234)] == [1315, 164, 165]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("separator", [";", "\t", " "])
    def test_other_separators_and_encodings_give_the_same_lines(self, lotr_csv, file, encoding, separator):
        with lotr_csv.open(encoding="utf-8", newline="") as source:
            rows = list(csv.reader(source))
        with file.open("w", encoding=encoding, newline="") as copy:
            csv.writer(copy, delimiter=separator).writerows(rows)
        assert read(file).lines == read(lotr_csv).lines


ENCODINGS = [
    ("utf-8", "Théoden said: “go – now”, and they went", "UTF-8"),
    ("utf-8", "Theoden said: go, now, and they all went", "UTF-8"),
    ("utf-8-sig", "Théoden said: “go – now”, and they went", "UTF-8 with BOM"),
    ("latin-1", "Théoden said: go, now, and they all went", "Latin-1"),
    ("cp1252", "Théoden said: “go – now”, and they went", "Windows-1252"),
]


@pytest.mark.parametrize(("encoding", "text", "name"), ENCODINGS)
class TestEncodings:
    def test_csv_file_is_decoded_from_its_bytes(self, file, encoding, text, name):
        corpus = read(write(file, f'char,dialog\nÉOMER,"{text}"\n'.encode(encoding)))
        assert corpus.lines == (Line(text, "ÉOMER"),)
        # Only the bytes matter: the É of the speaker is not ASCII, even where the text is.
        assert corpus.encoding == name

    def test_plain_text_is_decoded_from_its_bytes(self, file, encoding, text, name):
        corpus = read_text(write(file, f"{text}\n".encode(encoding)), 20)
        assert corpus.lines == (Line(text),)
        assert corpus.encoding == name
        assert corpus.separator == "none"


@pytest.mark.parametrize(("separator", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab"), (" ", "space")])
@pytest.mark.parametrize("index", [None, "", "id"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_index_columns_and_line_ends(file, separator, name, index, end):
    rows = [["char", "dialog", "movie"], ["SAM", f"{LONG}, she said; twice", "One"], ["ROSA", f'"{LONG}"', "Two"]]
    if index is not None:
        rows = [[head, *row] for head, row in zip([index, "0", "1"], rows, strict=True)]
    with file.open("w", newline="") as out:
        csv.writer(out, delimiter=separator, lineterminator=end).writerows(rows)
    corpus = read(file)
    assert corpus.separator == name
    assert corpus.num_rows == 2
    assert corpus.lines == (Line(f"{LONG}, she said; twice", "SAM"), Line(f'"{LONG}"', "ROSA"))


def test_unnamed_row_numbers_are_ignored(file):
    content = f'"char" "dialog"\n"1" "SAM" "{LONG}"\n"2" "ROSA" "{LONG} too"\n'
    assert read(write(file, content)).lines == (Line(LONG, "SAM"), Line(f"{LONG} too", "ROSA"))


def test_other_column_names(file):
    write(file, f"who;what was said\nSAM;{LONG}\n")
    corpus = read(file, text_column="what was said", speaker_column="who")
    assert corpus.lines == (Line(LONG, "SAM"),)


def test_the_text_column_decides_between_separators(file):
    assert read(write(file, f"a,b;dialog\nx,y;{LONG}\n")).separator == "semicolon"


def test_no_speaker_column_leaves_speakers_empty(file):
    assert read(write(file, f"dialog\n{LONG}\n")).lines == (Line(LONG, ""),)


def test_the_text_column_is_not_used_as_speaker_column(file):
    assert read(write(file, f"dialog\n{LONG}\n"), speaker_column="dialog").lines == (Line(LONG, ""),)


def test_white_space_is_cleaned_up(file):
    write(file, f'char,dialog\n SAM ,"  {LONG}\u00a0\u00a0on\ntwo\t lines "\n')
    assert read(file).lines == (Line(f"{LONG} on two lines", "SAM"),)


def test_only_longer_lines_are_kept(file):
    write(file, "dialog\n" + "\n".join("x" * n for n in (19, 20, 21, 22)) + "\n")
    assert [len(line.text) for line in read(file).lines] == [21, 22]
    assert read(file).num_rows == 4
    assert len(read(file, min_characters=0).lines) == 4


def test_texts_that_look_like_missing_values_are_kept(file):
    write(file, "char,dialog\nNA,nan\nnull,N/A\n,None\n")
    assert read(file, min_characters=0).lines == (Line("nan", "NA"), Line("N/A", "NULL"), Line("None", ""))


def test_plain_text_has_one_utterance_per_line(file):
    corpus = read_text(write(file, f"{LONG}\r\nshort\r\n\r\n  {LONG}, twice\n"), 20)
    assert corpus.lines == (Line(LONG), Line(f"{LONG}, twice"))
    assert corpus.num_rows == 4


def test_undecodable_bytes_are_refused_in_any_block(file, monkeypatch):
    monkeypatch.setattr("engine.data.file_scan.BLOCK_BYTES", 50)
    beginning = b"char,dialog\nSAM," + b"x" * 60 + b"\nSAM,caf\xe9 "  # the last character is not UTF-8
    first = len(beginning) - 2
    write(file, beginning + b"y" * 60 + b"\nSAM,\x93" + b"z" * 60 + b"\n")
    assert read(file).encoding == "Windows-1252"
    write(file, file.read_bytes() + b"SAM,\x81" + b"z" * 60 + b"\n")
    assert f"is not UTF-8 (byte {first})" in refusal(file)


class TestRefusals:
    def test_a_missing_file_is_refused(self, tmp_path):
        assert "does not exist" in refusal(tmp_path / "none.csv")

    def test_a_folder_is_refused(self, tmp_path):
        assert "is a folder" in refusal(tmp_path)

    def test_a_device_is_refused(self):
        with pytest.raises(CorpusError, match="/dev/null is not a regular file"):
            read_text(Path("/dev/null"), 20)

    def test_a_name_too_long_is_refused(self, tmp_path):
        assert "cannot be read" in refusal(tmp_path / ("x" * 300))

    @pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
    def test_an_empty_file_is_refused(self, file, content):
        assert "is empty" in refusal(write(file, content))
        with pytest.raises(CorpusError, match="is empty"):
            read_text(file, 20)

    def test_a_header_without_rows_is_refused(self, file):
        assert "no rows" in refusal(write(file, "char,dialog\n"))

    def test_error_for_a_missing_column_names_the_columns(self, file):
        message = refusal(write(file, f",char,text\n0,SAM,{LONG}\n"))
        assert "'dialog'" in message
        assert "char, text" in message

    def test_an_unnamed_column_cannot_be_the_text(self, file):
        refusal(write(file, f",char\n{LONG},SAM\n"), text_column="")

    def test_error_does_not_repeat_a_long_first_line(self, file):
        assert len(refusal(write(file, "many words in a row " * 20_000))) < 2_000
        assert len(refusal(write(file, "x" * 500_000 + ",y\n"))) < 2_000

    def test_every_line_too_short(self, file):
        assert "none of the 2 lines is longer than 20" in refusal(write(file, "dialog\nshort\nalso short\n"))

    @pytest.mark.parametrize(
        "rows",
        [
            "SAM,Well, I never thought of that, said he\n",
            f"SAM,{LONG}\nROSA,Well, I never thought of that, said he\n",
            f'SAM,"{LONG}\nROSA,{LONG}\n',
        ],
    )
    def test_text_cut_at_its_commas_or_quotes(self, file, rows):
        assert "is not a regular CSV" in refusal(write(file, "char,dialog\n" + rows))

    def test_one_column_cut_at_its_commas(self, file):
        refusal(write(file, "dialog\nWell, I never thought of that said he\n"))

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            (f"0,SAM,Come on, {LONG}\n1,SAM,{LONG}\n", "line 2 has 4 fields, but the header has 3"),
            (f"0,SAM,{LONG}\n1,SAM,Come on, {LONG}\n", "line 3 has 4 fields, but the header has 3"),
            (f"0,SAM,Come on, {LONG}\n1,SAM,Come on, {LONG}\n", "line 2 has 4 fields, but the header has 3"),
            (f'0,SAM,"{LONG},\r\n\r\n{LONG}"\n\n1,SAM\n', "line 6 has 2 fields, but the header has 3"),
            (f"0,SAM,{LONG},\n1,SAM,{LONG}\n", "line 3 has 3 fields, but the first row has 4"),
            (f"0,SAM,{LONG},\n1,SAM,Come on, {LONG}\n", "line 3 has 4 fields, but the header has 3"),
            (f"0,SAM,{LONG}\n" * 1500 + f"0,SAM,Come on, {LONG}\n", "line 1502 has 4 fields, but the header has 3"),
        ],
    )
    def test_the_first_row_of_another_length_is_named(self, file, rows, problem):
        message = refusal(write(file, "id,char,dialog\n" + rows))
        assert problem in message
        assert "put quotes around a text that contains a comma or a line end, or use --text" in message

    @pytest.mark.parametrize("ending", ["", "\n", f"\nSAM,{LONG}\n" * 2000])
    def test_the_line_of_a_quote_that_is_never_closed_is_named(self, file, ending):
        message = refusal(write(file, f'char,dialog\nSAM,"{LONG}\n{LONG}"\nSAM,"{LONG}{ending}'))
        assert "a quote on line 4 is never closed" in message

    @pytest.mark.parametrize("end", ['"', '"\n', 'SAM,"', f'SAM,{LONG}\nSAM,"\n'])
    def test_a_quote_that_opens_at_the_very_end_is_refused(self, file, end):
        assert "is never closed" in refusal(write(file, f"char,dialog\nSAM,{LONG}\n{end}"))

    def test_nul_bytes_are_refused(self, file):
        assert "NUL" in refusal(write(file, f"dialog\n{LONG}\0\n"))

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
    def test_wide_encodings_are_refused(self, file, encoding):
        refusal(write(file, f"dialog\n{LONG}\n".encode(encoding)))

    def test_an_unknown_encoding_is_refused(self, file):
        assert "is not UTF-8 (byte 7)" in refusal(write(file, b"dialog\n\x81\x8d\xff and so on, and so on\n"))

    def test_a_binary_file_is_refused(self, file):
        assert "binary" in refusal(write(file, bytes(range(1, 256)) * 20))

    def test_a_line_too_long_is_refused(self, file):
        assert "has a line of over" in refusal(write(file, "dialog\n" + "x" * (MAX_LINE_CHARACTERS + 1)))

    def test_an_utterance_too_long_over_many_lines_is_refused(self, file):
        cell = ("x" * 1000 + "\n") * 1001
        assert "has an utterance of" in refusal(write(file, f'dialog\n"{cell}"\n'))


ANY_BYTES = st.binary(max_size=300) | st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode)
MESSY = st.lists(
    st.sampled_from([b",", b";", b"\t", b" ", b'"', b"\n", b"\r", b"\\", b"'", b"\xff", b"\x81", b"\xc3\xa9", b"1"])
    | st.just(LONG.encode()),
    max_size=40,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(
        [b"", b"dialog\n", b"char,dialog\n", b"\xef\xbb\xbfid;char;dialog\r\n", b'"dialog" "char"\r', b'"dialog\n"\n']
    ),
    rest=ANY_BYTES | MESSY,
    min_characters=st.sampled_from([0, 20]),
)
def test_any_bytes_are_read_as_a_corpus_or_refused(file, head, rest, min_characters):
    write(file, head + rest)
    for reader in (lambda: read(file, min_characters=min_characters), lambda: read_text(file, min_characters)):
        try:
            corpus = reader()
        except CorpusError:
            continue
        assert isinstance(corpus, Corpus)
        assert corpus.lines
        assert len(corpus.lines) <= corpus.num_rows
        assert all(len(line.text) > min_characters for line in corpus.lines)


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from('\n",;\t '), max_size=50)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12),
    separator=st.sampled_from(",;\t "),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_output_of_csv_writer_is_read_back(file, rows, separator, encoding):
    with file.open("w", encoding=encoding, newline="") as out:
        writer = csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL)
        writer.writerows([("char", "dialog"), *rows])
    texts = [(re.sub(r"\s+", " ", text).strip(), normalize_speaker(speaker).name) for speaker, text in rows]
    expected = [(text, merge_key(speaker)) for text, speaker in texts if text]
    if expected:
        lines = read(file, min_characters=0).lines
        assert [(line.text, merge_key(line.speaker)) for line in lines] == expected
    else:
        refusal(file, min_characters=0)


@given(st.integers(0, 200), st.integers(0, 2**63 - 1))
def test_splits_contain_every_line_once_in_shuffled_order(lines, seed):
    if lines < 6:
        with pytest.raises(CorpusError, match=f"{lines} usable lines"):
            split_indices(lines, seed)
        return
    parts = [part.tolist() for part in split_indices(lines, seed)]
    shuffled = list(range(lines))
    random.Random(seed).shuffle(shuffled)
    assert [*parts[0], *parts[1], *parts[2]] == shuffled
    assert len(parts[0]) == int(0.8 * lines)
    assert len(parts[0]) + len(parts[1]) == int(0.9 * lines)


def test_other_seeds_give_other_splits():
    assert split_indices(100, 1)[0].tolist() != split_indices(100, 2)[0].tolist()


class TestSplitByScenes:
    """The split into blocks of 20 lines, as design.md defines it."""

    @given(st.integers(60, 3000), st.integers(0, 2**32), st.sampled_from([0.01, 0.1, 0.3]))
    def test_blocks_are_held_out_whole_and_in_file_order(self, num_lines, seed, held_out):
        train, valid, test = (part.tolist() for part in split_indices(num_lines, seed, "scenes", held_out))
        assert sorted(train + valid + test) == list(range(num_lines))
        assert all(part == sorted(part) for part in (train, valid, test))
        blocks = [{line // 20 for line in part} for part in (train, valid, test)]
        assert sum(map(len, blocks)) == -(-num_lines // 20)
        assert len(blocks[1]) == len(blocks[2]) == max(1, int(held_out * -(-num_lines // 20)))

    def test_validation_is_the_first_tenth_of_the_shuffled_blocks(self):
        blocks = list(range(10))
        random.Random(5).shuffle(blocks)
        _, valid, test = split_indices(195, 5, "scenes")
        assert {line // 20 for line in valid.tolist()} == {blocks[0]}
        assert {line // 20 for line in test.tolist()} == {blocks[1]}

    def test_too_few_lines_are_refused(self):
        with pytest.raises(CorpusError, match="at least 60 are needed"):
            split_indices(40, 0, "scenes")

    def test_blocks_of_the_film_dialogues_are_those_of_the_scene_files(self, lotr_csv):
        lines = read(lotr_csv, min_characters=-1).lines
        parts = split_indices(len(lines), 1234, "scenes")
        for name, part in zip(("train", "valid", "test"), parts, strict=True):
            file = " ".join((lotr_csv.parent / "scenes" / f"{name}.txt").read_text(encoding="utf-8").split())
            # Some rows were left out of the files; blocks of a wrong order would have a tenth of the lines in common.
            assert sum(lines[int(index)].text in file for index in part) > 0.9 * len(part)


def test_a_held_out_fraction_sets_the_size_of_validation_and_test():
    assert [len(part) for part in split_indices(1000, 0, "lines", 0.01)] == [980, 10, 10]
    assert [len(part) for part in split_indices(1315, 0)] == [1052, 131, 132]
