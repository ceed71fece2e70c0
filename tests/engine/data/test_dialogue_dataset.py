"""Dialogue mode: the cast, and the sequence of speakers, texts and `<eos>`."""

import csv
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.dataset import load_dataset, summarize_dataset
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import EOS_ID
from engine.errors import CorpusError

Row = tuple[str, str, str]
"""Speaker, text and film of a row."""
TOKENIZERS = ["words", "whitespace", "characters", "bpe"]
FILES = ("corpus", "valid_corpus", "test_corpus")
OTHER = [("SAM", "go on", "One"), ("FRODO", "no", "One")]


def write_rows(path, rows, columns=("char", "dialog", "movie")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def load(folder, train, valid=OTHER, test=OTHER, earlier=None, **values):
    """Load a dialogue with given splits."""
    splits = zip(FILES, (train, valid, test), strict=True)
    paths = {name: write_rows(folder / f"{name}.csv", rows) for name, rows in splits}
    defaults = {"mode": "dialogue", "min_characters": -1, "min_count": 1, "min_speaker_lines": 1}
    return load_dataset(DataConfig(**{**paths, **defaults, **values}), earlier)


def decode(dataset, ids):
    """Return the text of tokens one by one: a speaker as "NAME:", the end of a line as "/"."""
    names = {EOS_ID: "/"} | {dataset.tokenizer.speaker_id(name): f"{name}:" for name in dataset.tokenizer.cast}
    return " ".join(names.get(id, dataset.tokenizer.tokens[id]) for id in ids.tolist())


SCENES: list[Row] = [
    ("Sam", "Go on, now.", "One"),
    ("FRODO ", "No!", "One"),
    ("SAM (V.O.)", "Go on", "Two"),
    ("Merry", "On.", "Two"),
]


class TestSequence:
    def test_a_hand_worked_dialogue(self, tmp_path):
        dataset = load(tmp_path, SCENES)
        words = dataset.tokenizer
        assert words.cast == ("SAM", "FRODO", "MERRY", SOMEONE)
        assert words.tokens == ("<unk>", "<eos>", "go", "on", "now", "no", "SAM: ", "FRODO: ", "MERRY: ", "SOMEONE: ")
        #                                  Sam: go on now /, Frodo: no /, (scene) / Sam: go on /, Merry: on /
        assert dataset.train.tolist() == [6, 2, 3, 4, 1, 7, 5, 1, 1, 6, 2, 3, 1, 8, 3, 1]
        assert words.decode(dataset.train) == "SAM: go on now\nFRODO: no\n\nSAM: go on\nMERRY: on\n"
        assert dataset.train_scene_offsets.tolist() == [0, 8, 16]
        assert dataset.train_lines.offsets.tolist() == [0, 5, 8, 13, 16]
        assert [words.decode(line) for line in dataset.train_lines] == ["go on now", "no", "go on", "on"]
        assert dataset.valid.tolist() == [6, 2, 3, 1, 7, 5, 1]

    @pytest.mark.parametrize("tokenizer", TOKENIZERS)
    def test_the_decoded_split_is_the_script(self, tmp_path, tokenizer):
        dataset = load(tmp_path, SCENES, tokenizer=tokenizer, vocabulary_size=300)
        script = "SAM: Go on, now.\nFRODO: No!\n\nSAM: Go on\nMERRY: On.\n"
        shown = dataset.tokenizer.decode(dataset.train)
        if tokenizer == "words":
            assert shown == "SAM: go on now\nFRODO: no\n\nSAM: go on\nMERRY: on\n"
        else:
            assert shown == script
        assert "".join(dataset.tokenizer.pieces(dataset.train)) == shown


NAMES = ["SAM", "FRODO", "Merry (V.O.)", ""]
TEXTS = st.lists(st.sampled_from(["go", "on", "no", "now", "ring", "é"]), max_size=4).map(" ".join)
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), TEXTS, st.sampled_from("AB")), max_size=40)


def encode_naively(rows, cast_names, max_lines):
    """Return the script of a split, row by row, in the form of `decode`, given names that are canonical."""
    words: list[str] = []
    film_before, length = "", 0
    is_first, pending_scene = True, False
    for speaker, text, film in rows:
        if not text:
            pending_scene |= film != film_before and bool(film_before)
            film_before = film
            continue
        if (film_before and film != film_before) or pending_scene or length == max_lines:
            words += [] if is_first else ["/"]
            length = 0
        film_before, pending_scene = film, False
        words += [f"{speaker if speaker in cast_names else SOMEONE}:", *text.split(), "/"]
        length += 1
        is_first = False
    return " ".join(words)


@settings(max_examples=40)
@given(rows=ROWS, max_lines=st.integers(1, 7), min_lines=st.integers(1, 4))
def test_any_dialogue_is_encoded_as_a_naive_writer_does(tmp_path_factory, rows, max_lines, min_lines):
    rows = [("SAM", "go", "A")] * min_lines + rows
    plain = [(name.removesuffix(" (V.O.)").upper(), text, film) for name, text, film in rows]
    counts = Counter(name for name, text, _ in plain if text and name)
    options = {"tokenizer": "whitespace", "scene_lines": max_lines, "min_speaker_lines": min_lines}
    dataset = load(tmp_path_factory.mktemp("dialogue"), rows, **options)
    names = dataset.tokenizer.cast
    assert set(names) == {*(name for name, count in counts.items() if count >= min_lines), SOMEONE}
    assert [counts[name] for name in names[:-1]] == sorted((counts[name] for name in names[:-1]), reverse=True)
    script = encode_naively(plain, names, max_lines)
    assert decode(dataset, dataset.train) == script
    assert script.count("/ /") == len(dataset.train_scene_offsets) - 2
    for start, end in zip(dataset.train_scene_offsets, dataset.train_scene_offsets[1:], strict=False):
        assert (dataset.train[start] == EOS_ID) == (start > 0)
        assert dataset.train[end - 1] == EOS_ID
    texts = [dataset.tokenizer.decode(ids) for ids in dataset.train_lines]
    assert texts == [line.text for line in dataset.train_source_lines] == [text for _, text, _ in rows if text]


def test_the_film_dialogues_have_their_lines_words_and_cast(lotr_csv):
    dataset = load_dataset(DataConfig(str(lotr_csv), mode="dialogue", split="scenes", min_characters=-1))
    summary = summarize_dataset(dataset)
    assert sum(part.num_tokens for part in summary.splits.values()) == summary.num_tokens == 25_242
    assert [part.num_lines for part in summary.splits.values()] == [1903, 240, 240]
    assert len(summary.cast) == 28
    assert dataset.tokenizer.cast[:3] == ("FRODO", "GANDALF", "SAM")


class TestCast:
    def test_equally_frequent_speakers_are_in_file_order(self, tmp_path):
        rows = [(name, "go", "One") for name in ("PIPPIN", "MERRY", "BILBO", "MERRY", "BILBO")]
        assert load(tmp_path, rows).tokenizer.cast == ("MERRY", "BILBO", "PIPPIN", SOMEONE)

    def test_only_the_training_split_counts(self, tmp_path):
        dataset = load(tmp_path, SCENES, valid=[("BILBO", "go", "One")] * 9)
        assert "BILBO" not in dataset.tokenizer.cast
        assert decode(dataset, dataset.valid[:3]) == "SOMEONE: go /"

    @pytest.mark.parametrize("tokenizer", TOKENIZERS)
    def test_the_cast_of_an_earlier_run_is_kept(self, tmp_path, tokenizer):
        values = {"tokenizer": tokenizer, "vocabulary_size": 300}
        first = load(tmp_path, SCENES, **values).tokenizer
        earlier = first.with_cast(["GOLLUM", "SA M", SOMEONE])
        again = load(tmp_path, SCENES, earlier=earlier, min_speaker_lines=50, **values)
        assert again.tokenizer == earlier
        assert decode(again, again.train).startswith("SA M: ")
        assert again.tokenizer.speaker_id("GOLLUM") not in again.train
        with pytest.raises(CorpusError, match="no speaker has 50 lines"):
            load(tmp_path, SCENES, earlier=first.with_cast(()), min_speaker_lines=50, **values)

    def test_too_large_a_cast_is_refused_with_the_remedy(self, tmp_path):
        rows = [(f"SOLDIER {number}", "go on", "One") for number in range(10_000)]
        message = "has 10,001 speakers .* a model has 10,000 at most; raise --set min_speaker_lines=N"
        with pytest.raises(CorpusError, match=message):
            load(tmp_path, rows)


REMEDY = "with --speaker-column, or use --mode line"
ONE_SPEAKER = [("SAM", "go on", "One")] * 30


@pytest.mark.parametrize(
    ("columns", "rows", "speaker_column", "message"),
    [
        (("who", "dialog"), ONE_SPEAKER, "char", rf"no column 'char' of .* columns: who, dialog, movie;.*{REMEDY}"),
        (("char", "dialog"), ONE_SPEAKER, "dialog", f"'dialog' of the texts cannot.*{REMEDY}"),
        (("char", "dialog"), [(" ", "go on", "One")] * 30, "char", f"names no speakers.*{REMEDY}"),
        (
            ("char", "dialog"),
            [(f"S{number % 10}", "go on", "One") for number in range(30)],
            "char",
            r"no speaker has 10 lines in the training split: S\d has most, \d; .*min_speaker_lines=N",
        ),
    ],
)
def test_a_table_without_speakers_is_refused_with_the_remedy(tmp_path, columns, rows, speaker_column, message):
    path = write_rows(tmp_path / "a.csv", rows, (*columns, "movie"))
    values = {"speaker_column": speaker_column, "min_characters": -1}
    with pytest.raises(CorpusError, match=message):
        load_dataset(DataConfig(path, mode="dialogue", **values))
    load_dataset(DataConfig(path, mode="line", min_count=1, **values))
