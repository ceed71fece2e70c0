"""Reading of CSV and text files in any dialect and encoding, what is refused, scenes, clean-up, and splitting."""

import csv
import hashlib
import io
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.arrays import CHUNK_SIZE, permute_lines
from engine.data.corpus import (
    MAX_LINE_CHARACTERS,
    Corpus,
    Line,
    make_lines,
    read_corpus,
    repair_dialogue,
    split_indices,
)
from engine.data.dataset import load_dataset
from engine.data.speakers import JOINED, normalize_speaker
from engine.errors import CorpusError
from tests.support.files import write_sparse_file

LONG = "a sentence long enough to be kept"
ENCODINGS = {
    "utf-8": ("UTF-8", "Théoden"),
    "utf-8-sig": ("UTF-8", "Théoden"),
    "latin-1": ("Windows-1252", "Théoden"),
    "cp1252": ("Windows-1252", "“Théoden”"),
}  # detected name of each encoding, and a speaker whose name makes the encoding unambiguous
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
LINE_ENDS = ["\n", "\r\n", "\r"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus") / "file.csv"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **values):
    return read_corpus(DataConfig(str(path), **values))


def read_text(path, min_characters):
    return read(path, corpus_format="text", min_characters=min_characters)


def refusal(path, **options):
    with pytest.raises(CorpusError) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_film_dialogues_have_their_rows_lines_and_speakers(lotr_csv):
    corpus = read(lotr_csv)
    assert (corpus.num_rows, len(corpus.lines), len({line.speaker for line in corpus.lines})) == (2390, 1644, 81)
    assert (corpus.encoding, corpus.separator) == ("UTF-8", "comma")
    assert corpus.sha256 == hashlib.sha256(lotr_csv.read_bytes()).hexdigest()
    assert corpus.lines[0].speaker == "DEAGOL"
    assert corpus.lines[0].text.startswith("Oh Smeagol Ive got one!")
    splits_of_the_notebook = [1315, 164, 165]
    assert [len(part) for part in split_indices(len(corpus.lines), 1234)] == splits_of_the_notebook


@pytest.mark.parametrize("speaker_column", ["char", "dialog"])
def test_without_a_column_of_its_own_the_speaker_is_empty(file, speaker_column):
    assert [*read(write(file, f"dialog\n{LONG}\n"), speaker_column=speaker_column).lines] == [Line(LONG, "")]


def test_only_longer_lines_are_kept(file):
    write(file, "dialog\n" + "\n".join("x" * n for n in (19, 20, 21, 22)) + "\n")
    assert [len(line.text) for line in read(file).lines] == [21, 22]
    assert read(file).num_rows == len(read(file, min_characters=0).lines) == 4


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"), (b"\xef\xbb\xbf\r\n \n", "is empty"), ("char,dialog\n", "has no rows"),
            (f",char,words\n0,SAM,{LONG}\n", "no text column 'dialog', or several; its columns: char, words"),
            (f"text,Line\nSAM,{LONG}\n", "no text column 'dialog', or several; its columns: text, Line"),
            (f"char;dialog,,\nSAM;{LONG},,\n", "'dialog', or several; its columns: char;dialog"),  # cut at commas
            (f"First Citizen:\n{LONG}\n", "with --text-column, or read plain text with --text"),
            (f'"char" "dialog"\n"SAM" "{LONG}" "" ""\n', "line 2 has 4 fields, but the header has 2"),
            (f'{{"text": "{LONG}"}}\n{{"text": \n', "line 2 is no JSON object"), ("{}\n{}\n", "its columns: none"),
            (f"dialog\n1,{LONG}\n", "put quotes around a text that contains a comma or a line end, or use --text"),
            (f"id,char,dialog\n0,SAM,Come on, {LONG}\n1,SAM,{LONG}\n", "line 2 has 4 fields, but the header has 3"),
            (f'id,char,dialog\n0,SAM,"{LONG},\r\n\r\n{LONG}"\n\n1,SAM\n', "line 6 has 2 fields, but the header has 3"),
            ("id,char,dialog\n" + f"0,SAM,{LONG}\n" * 1500 + f"0,SAM,Come on, {LONG}\n", "line 1502 has 4 fields"),
            ("dialog\nshort\nalso short\n", "none of the 2 lines is longer than 20"),
            ("char,dialog\nSAM,Well, I never thought of that, said he\n", "is not a regular CSV"),
            (f"dialog\n{LONG}\0\n", "is UTF-16 or a binary file"), (f"dialog\n{LONG}\n".encode("utf-16"), "is UTF-16"),
            (f"dialog\n{LONG}\n".encode("utf-16-le"), "is UTF-16"), (bytes(range(1, 256)) * 20, "binary"),
            ("dialog\n" + "x" * (MAX_LINE_CHARACTERS + 1), "line 2: field larger than"),
            ('dialog\n"' + ("x" * 1000 + "\n") * 1001 + '"\n', "line 2: field larger than"),
            (f"dialog,{'a' * 100_000},{'b,' * 10_000}\n{LONG}\n", "line 2 has 1 fields"),
            (f'char,"words\n"\nSAM,{LONG}\n', "no text column 'dialog'"),
            *((f'char,dialog\nSAM,"{LONG}\n"\nSAM,"{LONG}{end}', "line 4: unexpected end of data; close its quotes")
              for end in ("", "\n", f"\nSAM,{LONG}\n" * 2000)),
        ],
        ids=lambda value: ascii(value[:30]),
    )  # fmt: skip
    def test_what_is_no_table_of_texts_is_refused_with_its_fault(self, file, content, message):
        assert message in refusal(write(file, content))
        assert len(refusal(file)) < 2_000

    def test_what_is_no_file_is_refused(self, tmp_path):
        for name, message in (
            ("none.csv", "does not exist"),
            ("", "cannot be read: it is a folder"),
            ("x" * 300, "cannot be read"),
            ("/dev/null", "cannot be read: not a regular file"),
        ):
            assert message in refusal(tmp_path / name)

    def test_a_file_that_is_too_large_is_refused_before_it_takes_memory(self, tmp_path):
        write_sparse_file(tmp_path / "large.csv")
        tracemalloc.start()
        try:
            assert "larger than the limit of 1,000,000,000 bytes" in refusal(tmp_path / "large.csv")
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_undecodable_bytes_are_refused_in_any_block(self, file):
        first = b"char,dialog\nSAM,a long line with a caf\xe9 in it\n"  # is not UTF-8
        write(file, first + f"SAM,{LONG}\n".encode() * 60_000 + b"SAM,\x93a long line with quotes\x94\n")
        assert read(file).encoding == "Windows-1252"
        write(file, file.read_bytes() + b"SAM,\x81 is defined in no encoding\n")
        assert "is not UTF-8, Latin-1 or Windows-1252; save it as UTF-8" in refusal(file)


MESSY = st.lists(
    st.sampled_from([b",", b";", b"\t", b" ", b'"', b"\n", b"\r", b"\\", b"'", b"\xff", b"\x81", b"\xc3\xa9", b"1"])
    | st.just(LONG.encode()),
    max_size=40,
).map(b"".join)
HEADERS = [b"", b"dialog\n", b"char,dialog\n", b"\xef\xbb\xbfid;char;dialog\r\n", b'"dialog" "char"\r', b'"dialog\n"\n']


@given(head=st.sampled_from(HEADERS), rest=st.binary(max_size=300) | MESSY, min_characters=st.sampled_from([0, 20]))
def test_any_bytes_are_read_as_a_corpus_or_refused(file, head, rest, min_characters):
    write(file, head + rest)
    for reader in (lambda: read(file, min_characters=min_characters), lambda: read_text(file, min_characters)):
        try:
            corpus = reader()
        except CorpusError:
            continue
        assert isinstance(corpus, Corpus)
        assert 0 < len(corpus.lines) <= corpus.num_rows
        assert all(len(line.text) > min_characters for line in corpus.lines)


def cells(encoding):
    letters = st.characters(codec=encoding.removesuffix("-sig"), exclude_categories=["Cc", "Cs"])
    return st.text(letters | st.sampled_from("ab é\n\",;\t'\\ "), max_size=30)


@st.composite
def tables(draw):
    """Generate rows of speaker and utterance, the CSV file with them, and the detected name of its encoding."""
    encoding = draw(st.sampled_from([*ENCODINGS]))
    name, speaker = ENCODINGS[encoding]
    rows = [(speaker, "said so"), *draw(st.lists(st.tuples(cells(encoding), cells(encoding)), max_size=8))]
    dialect = {
        "delimiter": draw(st.sampled_from([*SEPARATORS])),
        "lineterminator": draw(st.sampled_from(LINE_ENDS)),
        "quoting": draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_MINIMAL])),
    }
    if dialect["lineterminator"] == "\r":  # Python writes line feeds in cells without quotes otherwise
        dialect["quoting"] = csv.QUOTE_ALL
    columns = draw(st.permutations(["char", "dialog", "movie"]))
    file = io.StringIO()
    writer = csv.writer(file, **dialect)
    writer.writerow(columns)
    for speaker, text in rows:
        row = {"char": speaker, "dialog": text, "movie": "1"}
        writer.writerow([row[column] for column in columns])
    return rows, file.getvalue().encode(encoding), name, SEPARATORS[dialect["delimiter"]]


class TestFormats:
    @settings(max_examples=40)
    @given(tables())
    def test_csv_of_any_dialect_is_read_back(self, file, table):
        rows, content, name, separator = table
        corpus = read(write(file, content), min_characters=0)
        cleaned = [(" ".join(text.split()), normalize_speaker(speaker).translate(JOINED)) for speaker, text in rows]
        read_lines = [(line.text, line.speaker.translate(JOINED)) for line in corpus.lines]
        assert read_lines == [line for line in cleaned if line[0]]
        assert (corpus.num_rows, corpus.encoding, corpus.separator) == (len(rows), name, separator)

    @settings(max_examples=40)
    @given(st.sampled_from([*ENCODINGS]), st.sampled_from(LINE_ENDS), st.booleans(), st.data())
    def test_plain_text_is_read_back(self, file, encoding, line_end, ended, data):
        name, speaker = ENCODINGS[encoding]
        texts = [f"{speaker} said so", *data.draw(st.lists(cells(encoding), max_size=8))]
        lines = [line for text in texts for line in (text.splitlines() or [""])]
        corpus = read_text(write(file, (line_end.join(lines) + line_end * ended).encode(encoding)), 0)
        cleaned = [" ".join(line.split()) for line in lines]
        assert [line.text for line in corpus.lines] == [line for line in cleaned if line]
        assert (corpus.encoding, corpus.separator) == (name, "none")

    @pytest.mark.parametrize("line_end", LINE_ENDS)
    def test_files_of_several_blocks_with_any_line_end_are_read(self, file, line_end):
        texts = [f"a line that is long enough, number {number}" for number in range(30_000)]
        write(file, "".join(text + line_end for text in texts))
        assert [line.text for line in read_text(file, 20).lines] == texts
        write(file, "".join(f'"{text}"{line_end}' for text in ["dialog", *texts]))
        assert [line.text for line in read(file).lines] == texts

    @pytest.mark.parametrize(
        "content",
        [
            f'char,dialog\nLUKE,"{LONG}, \\"never\\""\nLEIA,"{LONG}"\n',  # a backslash before quotes
            f'char,dialog,\nLUKE,"{LONG}, ""never""",\nLEIA,{LONG},\n',
            f';char;dialog\n0;LUKE;{LONG}, "never"\n1;LEIA;{LONG}\n',
        ],
    )
    def test_tables_of_other_programs_are_read(self, file, content):
        assert [*read(write(file, content)).lines] == [Line(f'{LONG}, "never"', "LUKE"), Line(LONG, "LEIA")]

    def test_names_that_differ_in_spaces_and_hyphens_are_the_most_frequent_one(self, file):
        names = ["GAN DALF", "URUK-HAI", "GANDALF", "GANDALF", "URUK HAI"]
        write(file, "char,dialog\n" + "".join(f"{name},{LONG}\n" for name in names))
        assert [line.speaker for line in read(file).lines] == ["GANDALF", "URUK-HAI", "GANDALF", "GANDALF", "URUK-HAI"]


@given(st.integers(0, 200), st.integers(0, 2**63 - 1), st.sampled_from([0.01, 0.1, 0.3]))
def test_splits_by_lines_contain_every_line_once_in_shuffled_order(num_lines, seed, held_out):
    shuffled = list(range(num_lines))
    random.Random(seed).shuffle(shuffled)
    ends = [int((1 - 2 * held_out) * num_lines), int((1 - held_out) * num_lines)]
    expected = [shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] :]]
    if not all(expected):
        with pytest.raises(CorpusError, match=f"{num_lines} usable lines .* at least 6 are needed"):
            split_indices(num_lines, seed, "lines", held_out)
        return
    assert [part.tolist() for part in split_indices(num_lines, seed, "lines", held_out)] == expected


@given(st.integers(1, 3000), st.integers(0, 2**32), st.sampled_from([0.01, 0.1, 0.3]))
def test_splits_by_scenes_hold_out_whole_blocks_in_file_order(num_lines, seed, held_out):
    if num_lines <= 40:  # two blocks
        with pytest.raises(CorpusError, match="at least 60 are needed"):
            split_indices(num_lines, seed, "scenes", held_out)
        return
    blocks = list(range(-(-num_lines // 20)))
    random.Random(seed).shuffle(blocks)
    size = max(1, int(held_out * len(blocks)))
    held = set(blocks[:size]), set(blocks[size : 2 * size])
    train, valid, test = (part.tolist() for part in split_indices(num_lines, seed, "scenes", held_out))
    assert valid == [line for line in range(num_lines) if line // 20 in held[0]]
    assert test == [line for line in range(num_lines) if line // 20 in held[1]]
    assert train == [line for line in range(num_lines) if line // 20 not in held[0] | held[1]]


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.sampled_from("AAAAB"), st.sampled_from([LONG, LONG, LONG, "short"])), min_size=1),
    max_lines=st.integers(1, 12),
    split=st.sampled_from(["lines", "scenes"]),
)
def test_scenes_end_at_sections_blocks_and_after_their_maximum_length(file, rows, max_lines, split):
    write(file, "dialog,movie\n" + "".join(f"{text},{film}\n" for film, text in [("A", LONG), *rows]))
    expected, scene, length, num_lines, changed, film_before = [], -1, 0, 0, True, "A"
    for film, text in [("A", LONG), *rows]:
        changed, film_before = changed or film != film_before, film
        if text == LONG:
            if changed or length == max_lines or (split == "scenes" and num_lines % 20 == 0):
                scene, length = scene + 1, 0
            expected.append(scene)
            length, num_lines, changed = length + 1, num_lines + 1, False
    assert read(file, scene_lines=max_lines, split=split).lines.scene_ids.tolist() == expected


TABLE = "dialog,movie,act\nabc,One,1\nabc,One ,1\nabc,Two,1\nabc,Two,2\nabc,One,2\n"


@pytest.mark.parametrize(
    ("content", "values", "expected"),
    [
        (TABLE, {}, [0, 0, 1, 1, 2]),
        (TABLE, {"scene_column": "act"}, [0, 0, 0, 1, 1]),
        (TABLE, {"scene_column": ""}, [0] * 5),
        ('dialog,char\nabc,A\n"",A\nabc,A\n', {}, [0, 0]),
        ("abc\nabc\n\n  \nabc\n\nabc\nabc\n", {"corpus_format": "text"}, [0, 0, 1, 2, 2]),
    ],
)
def test_scenes_of_a_table_or_text(tmp_path, content, values, expected):
    corpus = read(write(tmp_path / "a.csv", content), **{"min_characters": 0, **values})
    assert corpus.lines.scene_ids.tolist() == expected


def test_every_file_starts_a_scene(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("abc abc\nabc abc\n")
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    config = DataConfig(
        paths[0], "text", valid_corpus=paths[1], test_corpus=paths[2], min_characters=0, min_count=1, split="scenes"
    )
    splits = load_dataset(config).splits
    assert [part.scene_ids.tolist() for part in (splits.train, splits.valid, splits.test)] == [[0, 0], [1, 1], [2, 2]]


TEXT = st.text("ab .,!?'\"", max_size=20).map(lambda text: " ".join(text.split()))


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("Fear no darkness to your death! , What are you?", "Fear no darkness to your death! What are you?"),
        ("I know your face., Eowyn. Eowyn. ,Gandalf?", "I know your face. Eowyn. Eowyn. Gandalf?"),
        (", Show yourself.", "Show yourself."),
        ("Because' , it's my birthday", "Because', it's my birthday"),
        ("Arrghh!,,", "Arrghh!"),
        ('"Go!", he said, and "Stay!" , too.', '"Go!", he said, and "Stay!" too.'),
        ("Yes, 3, and 1,000 more, Mr. Frodo.", "Yes, 3, and 1,000 more, Mr. Frodo."),
    ],
)
def test_marks_of_removed_stage_directions_are_repaired(line, repaired):
    assert repair_dialogue(line) == repaired


@given(TEXT)
def test_a_repaired_line_has_no_loose_comma_and_keeps_everything_else(text):
    repaired = repair_dialogue(text)
    assert " ," not in repaired
    assert repaired == " ".join(repaired.split())
    assert repair_dialogue(repaired) == repaired
    assert repaired.replace(",", "").replace(" ", "") == text.replace(",", "").replace(" ", "")


def test_no_line_of_the_film_dialogues_keeps_a_loose_comma(lotr_csv):
    raw, repaired = read(lotr_csv).lines, read(lotr_csv, tokenizer="bpe").lines
    assert sum(" ," in line.text for line in raw) > 200
    assert not any(" ," in line.text or line.text.startswith(",") for line in repaired)


def test_chosen_lines_keep_their_speakers():
    lines = make_lines(["the green barrels", "", "seven lanterns, é"], ["", "SAM", "FRODO"])
    assert [*lines.take(np.array([2, 0]))] == [Line("seven lanterns, é", "FRODO"), Line("the green barrels")]


@pytest.mark.parametrize("shift", [0, 7, 1_500_000, -1])
def test_permuted_lines_of_a_long_text_are_rolled_like_numpy_roll(shift):
    rng = np.random.default_rng(0)
    offsets = np.concatenate(([0], np.cumsum(rng.integers(0, 500, 6000))))
    text = np.arange(int(offsets[-1]) + 1)  # the last token is after all lines
    assert len(text) > CHUNK_SIZE
    order = rng.permutation(6000)
    permuted = np.concatenate([*(text[offsets[line] : offsets[line + 1]] for line in order), text[-1:]])
    assert np.array_equal(permute_lines(text, offsets, order, shift), np.roll(permuted, shift))
