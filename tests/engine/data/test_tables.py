"""The same dialogues in every form that people have: CSV, TSV, of R, lines of JSON, and screenplays."""

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.corpus import check_columns, detect_format, names_speakers, read_corpus
from engine.errors import ColumnError, CorpusError

ROWS = [
    ("THREEPIO", 'They shut down the "main" reactor; we are lost.'),
    ("LUKE", "I am not going, uncle: never."),
    ("R2-D2", "Beep, boop!"),
    ("LUKE", "Use it, then."),
    ("THREEPIO", "Oh my dear."),
]


def of_r(separator, rows, *, quote=lambda text: '"' + text.replace('"', '\\"') + '"'):
    """Return a table as `write.table` writes it: quoted, with row names that have no column in the header."""
    lines = [["character", "dialogue"], *([str(n), *row] for n, row in enumerate(rows, 1))]
    return "".join(separator.join(map(quote, line)) + "\n" for line in lines)


def of_python(separator, rows, columns=("Speaker", "Text")):
    file = io.StringIO()
    csv.writer(file, delimiter=separator).writerows([columns, *rows])
    return file.getvalue()


def json_lines(rows):
    return "".join(json.dumps({"n": n, "who": who, "quote": text}) + "\n" for n, (who, text) in enumerate(rows))


def fountain(rows):
    speeches = (f"{who} (CONT'D)\n(beeping)\n{text}\n\nHE walks off.\n\n" for who, text in rows)
    return "Title: A\nAuthor: B\n\nINT. SHIP - DAY\n\nA door opens.\n\n" + "".join(speeches)


FORMS = {
    "r.csv": lambda rows: of_r(" ", rows),
    "r-tab.tsv": lambda rows: of_r("\t", rows),
    "r-numbered.csv": lambda rows: of_r(" ", rows).replace('"character"', '"" "character"', 1),
    "r-comma.csv": lambda rows: of_r(",", rows),
    "comma.csv": lambda rows: of_python(",", rows),
    "semicolon.csv": lambda rows: of_python(";", rows, ("NAME", "Utterance")),
    "tab.tsv": lambda rows: of_python("\t", rows, ("char", "line")),
    "lines.jsonl": json_lines,
    "play.fountain": fountain,
}


def read(path, content, **values):
    path.write_text(content)
    config = DataConfig(str(path), detect_format(str(path)), min_characters=0, **values)
    return [(line.speaker, line.text) for line in read_corpus(config).lines]


@pytest.mark.parametrize("name", FORMS)
def test_rows_are_the_same_lines_in_every_form(tmp_path, name):
    content = FORMS[name](ROWS)
    for mode in ("line", "dialogue"):
        assert read(tmp_path / name, content, mode=mode, tokenizer="words") == ROWS
    assert names_speakers(str(tmp_path / name))


CELLS = st.text("ab é,;.\t'\"", min_size=1, max_size=12).map(lambda text: " ".join(f"x{text}".split()))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["LUKE", "MON MOTHMA"]), CELLS), min_size=1, max_size=8))
def test_any_rows_are_the_same_lines_in_every_form(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("forms")
    rows.insert(0, ROWS[0])  # without a letter after a quotation mark, the backslash before it could be a text's
    for name, form in FORMS.items():
        assert read(folder / name, form(rows)) == rows, name


def test_a_text_file_is_what_its_beginning_shows(tmp_path):
    for content, expected in (
        (of_r(" ", ROWS), "csv"),
        (json_lines(ROWS), "csv"),
        (fountain(ROWS), "text"),
        ("Text\nA line.\n", "text"),
        ('"Well," he said, "we go."\nA line.\n', "text"),
    ):
        (tmp_path / "a.txt").write_text(content)
        assert detect_format(str(tmp_path / "a.txt")) == expected, content
    assert detect_format(str(tmp_path / "missing.txt")) == "text"


def test_columns_that_are_not_clear_are_shown_with_their_first_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("n,person,words\n1,LUKE,Never.\n2,BEN,Use it.\n")
    config = DataConfig(str(path), mode="dialogue")
    for setting, column in (("text_column", "words"), ("speaker_column", "person")):
        with pytest.raises(
            ColumnError, match=f"its columns: n, person, words.*--{setting.replace('_', '-')}"
        ) as caught:
            check_columns(config)
        assert caught.value.setting == setting
        assert caught.value.answers[0] == ("n: 1 · 2", "n")
        config = replace(config, **{setting: column})
    check_columns(config)


def test_the_usual_columns_stand_for_the_default_ones_only(tmp_path):
    content = "char,character,dialog,text\nA,B,C,D\n"
    assert read(tmp_path / "a.csv", content) == [("A", "C")]
    assert read(tmp_path / "a.csv", content, text_column="text", speaker_column="character") == [("B", "D")]
    with pytest.raises(CorpusError, match="has no text column 'words'"):
        read(tmp_path / "a.csv", content, text_column="words")
    with pytest.raises(CorpusError, match=r"has no speaker column 'person'.*or leave the option out"):
        read(tmp_path / "a.csv", content, speaker_column="person", mode="line")


SCREENPLAY = """
FADE IN:

EXT. MOOR - NIGHT

The wind howls. A figure
appears.

                    HAMLET (V.O.)
          (slowly
          turning)
     To be, or *not* [[check]] to be:
     that is (beat) the question.

CUT TO:

@McDuff ^
Turn, _hell-hound_!

/* cut
HAMLET
Never said.
*/

.CASTLE

THE DOOR OPENS

HAMLET
~Words, words.

McDUFF
leaves.

HAMLET (CONT'D)
Words!
"""


def test_a_screenplay_keeps_speeches_and_scenes_only(tmp_path):
    (tmp_path / "a.txt").write_text(SCREENPLAY)
    lines = read_corpus(DataConfig(str(tmp_path / "a.txt"), "text", min_characters=0)).lines
    assert [(line.speaker, line.text) for line in lines] == [
        ("HAMLET", "To be, or not to be: that is the question."),
        ("MCDUFF", "Turn, hell-hound!"),
        ("HAMLET", "Words, words."),
        ("HAMLET", "Words!"),
    ]
    assert lines.scene_ids.tolist() == [0, 0, 1, 1]


def test_names_above_speeches_without_scenes_are_speakers_in_dialogue_mode_only(tmp_path):
    play = "ROMEO\nBut soft!\nWhat light?\n\nJULIET\nAy me!\n\nROMEO\nShe speaks.\n"
    lines = read(tmp_path / "a.txt", play, mode="dialogue", tokenizer="bpe")
    assert lines == [("ROMEO", "But soft! What light?"), ("JULIET", "Ay me!"), ("ROMEO", "She speaks.")]
    assert read(tmp_path / "a.txt", play)[0] == ("", "ROMEO")  # as a song may have, above its verses
