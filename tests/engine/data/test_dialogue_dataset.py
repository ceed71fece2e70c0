"""Dialogue mode: the cast, and the script of each split."""

import csv
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.speakers import SOMEONE
from engine.data.summary import summarize_dataset
from engine.data.tokenizers import EOS_ID
from engine.errors import ConfigError, CorpusError

Row = tuple[str, str, str]  # speaker, text and film of a row
FILES = ("corpus", "valid_corpus", "test_corpus")
OTHER = [("SAM", "go on", "One"), ("FRODO", "no", "One")]


def write_rows(path, rows, columns=("char", "dialog", "movie")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def load(folder, train, valid=OTHER, test=OTHER, earlier=None, **values):
    splits = zip(FILES, (train, valid, test), strict=True)
    paths = {name: write_rows(folder / f"{name}.csv", rows) for name, rows in splits}
    defaults = {"mode": "dialogue", "min_characters": -1, "min_count": 1, "min_speaker_lines": 1}
    config = DataConfig(**{**paths, **defaults, "tokenizer": "bpe", "vocabulary_size": 300, **values})
    return load_dataset(config, earlier)


SCENES: list[Row] = [
    ("Sam", "Go on, now.", "One"),
    ("FRODO ", "No!", "One"),
    ("SAM (V.O.)", "Go  on", "Two"),
    ("Merry", "On.", "Two"),
]


@pytest.mark.parametrize("name", ["characters", "bpe"])
def test_a_split_is_a_script_which_eos_ends(tmp_path, name):
    dataset = load(tmp_path, SCENES, tokenizer=name)
    decode = dataset.tokenizer.decode
    assert decode(dataset.train) == "Sam: Go on, now.\nFrodo: No!\n\nSam: Go on\nMerry: On.\n\n"
    assert decode(dataset.valid) == "Sam: go on\nFrodo: no\n\n"
    assert [split.tolist().count(EOS_ID) for split in (dataset.train, dataset.valid, dataset.test)] == [1, 1, 1]
    assert dataset.train[-1] == EOS_ID
    scenes = [dataset.train[start:end] for start, end in pairwise(dataset.train_scene_offsets)]
    assert list(map(decode, scenes)) == ["Sam: Go on, now.\nFrodo: No!\n", "\nSam: Go on\nMerry: On.\n"]
    assert list(map(decode, dataset.train_lines)) == ["Sam: Go on, now.", "Frodo: No!", "Sam: Go on", "Merry: On."]
    said = dataset.train[dataset.scored_mask(dataset.train)]
    assert decode(said) == " Go on, now.\n No!\n Go on\n On.\n"


def test_a_vocabulary_that_cannot_spell_a_script_is_refused(tmp_path):
    for tokenizer in ("words", "whitespace"):
        with pytest.raises(ConfigError, match=f"^mode=dialogue .* tokenizer={tokenizer} cannot spell; use --tokenizer"):
            load_dataset(DataConfig(mode="dialogue", tokenizer=tokenizer))


NAMES = ["SAM", "FRODO", "Merry (V.O.)", ""]
TEXTS = st.lists(st.sampled_from(["go", "on", "no", "now", "ring", "é"]), max_size=4).map(" ".join)
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), TEXTS, st.sampled_from("AB")), max_size=40)


def naive_script(rows, max_lines):
    """Return the script of a split, row by row, given names that are canonical."""
    script, film_before, length = "", "", 0
    pending_scene = False
    for speaker, text, film in rows:
        is_other_film = film != film_before and bool(film_before)
        film_before = film
        if not text:
            pending_scene |= is_other_film
            continue
        if is_other_film or pending_scene or length == max_lines:
            script += "\n" if script else ""
            length = 0
        pending_scene = False
        script += f"{speaker.title() or 'Someone'}: {text}\n"
        length += 1
    return script


@settings(max_examples=40)
@given(rows=ROWS, max_lines=st.integers(1, 7), min_lines=st.integers(1, 4))
def test_any_dialogue_is_encoded_as_a_naive_writer_does(tmp_path_factory, rows, max_lines, min_lines):
    rows = [("SAM", "go", "A")] * min_lines + rows
    plain = [(name.removesuffix(" (V.O.)").upper(), text, film) for name, text, film in rows]
    counts = Counter(name for name, text, _ in plain if text and name)
    options = {"scene_lines": max_lines, "min_speaker_lines": min_lines, "min_count": 1}
    dataset = load(tmp_path_factory.mktemp("dialogue"), rows, tokenizer="characters", **options)
    names = dataset.cast
    assert set(names) == {*(name for name, count in counts.items() if count >= min_lines), SOMEONE}
    assert [counts[name] for name in names[:-1]] == sorted((counts[name] for name in names[:-1]), reverse=True)
    script = naive_script(plain, max_lines)
    assert dataset.tokenizer.decode(dataset.train[:-1]) == script
    assert script.count("\n\n") == len(dataset.train_scene_offsets) - 2
    for start, end in pairwise(dataset.train_scene_offsets):
        scene = dataset.tokenizer.decode(dataset.train[start:end])
        assert scene.startswith("\n") == (start > 0)
        assert "\n\n" not in scene
        assert scene.endswith("\n")
    lines = [dataset.tokenizer.decode(ids) for ids in dataset.train_lines]
    assert lines == list(filter(None, script.split("\n")))
    assert [line.text for line in dataset.train_source_lines] == [text for _, text, _ in rows if text]


def test_the_film_dialogues_have_their_lines_and_cast(lotr_csv):
    config = DataConfig(str(lotr_csv), mode="dialogue", tokenizer="bpe", split="scenes", min_characters=-1)
    summary = summarize_dataset(load_dataset(config))
    assert [part.num_lines for part in summary.splits.values()] == [1903, 240, 240]
    assert len(summary.cast) == 28
    assert summary.cast[:3] == ("FRODO", "GANDALF", "SAM")


class TestCast:
    def test_equally_frequent_speakers_are_in_file_order(self, tmp_path):
        rows = [(name, "go", "One") for name in ("PIPPIN", "MERRY", "BILBO", "MERRY", "BILBO")]
        assert load(tmp_path, rows).cast == ("MERRY", "BILBO", "PIPPIN", SOMEONE)

    def test_only_the_training_split_counts_and_others_keep_their_names(self, tmp_path):
        dataset = load(tmp_path, SCENES, valid=[("BILBO", "go", "One")] * 9)
        assert "BILBO" not in dataset.cast
        assert dataset.tokenizer.decode(dataset.valid).startswith("Bilbo: go\n")

    def test_the_vocabulary_of_an_earlier_run_is_kept(self, tmp_path):
        first = load(tmp_path, SCENES)
        again = load(tmp_path, OTHER * 3, earlier=first.tokenizer)
        assert again.tokenizer == first.tokenizer
        assert again.cast == ("SAM", "FRODO", SOMEONE)

    def test_too_large_a_cast_is_refused_with_the_remedy(self, tmp_path):
        rows = [(f"SOLDIER {number}", "go on", "One") for number in range(10_000)]
        message = "has 10,000 speakers .* a cast has 9,999 at most; raise --set min_speaker_lines=N"
        with pytest.raises(CorpusError, match=message):
            load(tmp_path, rows)


REMEDY = "with --speaker-column, or use --mode line"
ONE_SPEAKER = [("SAM", "go on", "One")] * 30


@pytest.mark.parametrize(
    ("columns", "rows", "speaker_column", "message"),
    [
        (("who", "dialog"), ONE_SPEAKER, "char", rf"no column 'char' of .* columns: who, dialog, movie;.*{REMEDY}"),
        (
            ("char", "dialog"),
            ONE_SPEAKER,
            "dialog",
            f"no column 'dialog' of speakers beside .*{REMEDY}",
        ),
        (("char", "dialog"), [(" ", "go on", "One")] * 30, "char", f"it names none; .*{REMEDY}"),
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
        load_dataset(DataConfig(path, mode="dialogue", tokenizer="bpe", **values))
    load_dataset(DataConfig(path, mode="line", min_count=1, **values))
