"""Dialogue mode: the cast, and the sequence of speakers, texts and `<eos>`."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.memorization import TrainingIndex
from engine.config import DataConfig
from engine.data import cast
from engine.data.dataset import Dataset, load_dataset, summarize_dataset
from engine.data.punctuation import LINE_END, NONE
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import EOS_ID, TokenIds
from engine.data.tokenizers.words import split_words
from engine.errors import CorpusError

Row = tuple[str, str, str]
"""Speaker, text and film of a row."""
TOKENIZERS = ["words", "whitespace", "characters", "bpe"]
FILES = ("corpus", "valid_corpus", "test_corpus")
OTHER = [("SAM", "go on", "One"), ("FRODO", "no", "One")]


def write_rows(path: Path, rows: list[Row], columns: tuple[str, ...] = ("char", "dialog", "movie")) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def load(folder: Path, train: list[Row], valid: list[Row] = OTHER, test: list[Row] = OTHER, **values: Any) -> Dataset:
    """Load a dialogue with given splits."""
    splits = zip(FILES, (train, valid, test), strict=True)
    paths = {name: write_rows(folder / f"{name}.csv", rows) for name, rows in splits}
    defaults = {"mode": "dialogue", "min_characters": -1, "min_count": 1, "min_speaker_lines": 1}
    return load_dataset(DataConfig(**{**paths, **defaults, **values}))  # type: ignore[arg-type]


def decode(dataset: Dataset, ids: TokenIds) -> str:
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
    def test_a_hand_worked_dialogue(self, tmp_path: Path) -> None:
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

    def test_the_punctuation_after_each_token(self, tmp_path: Path) -> None:
        punctuation = load(tmp_path, SCENES).train_punctuation.tolist()
        none, end, comma = NONE, LINE_END, 1
        assert punctuation[:9] == [none, none, comma, end, end, none, end, end, end]
        assert punctuation[9:] == [none, none, end, end, none, end, end]

    @pytest.mark.parametrize("tokenizer", TOKENIZERS)
    def test_the_decoded_split_is_the_script(self, tmp_path: Path, tokenizer: str) -> None:
        dataset = load(tmp_path, SCENES, tokenizer=tokenizer, vocabulary_size=300)
        script = "SAM: Go on, now.\nFRODO: No!\n\nSAM: Go on\nMERRY: On.\n"
        shown = dataset.tokenizer.decode(dataset.train)
        if tokenizer == "words":
            assert shown == "SAM: go on now\nFRODO: no\n\nSAM: go on\nMERRY: on\n"
        else:
            assert shown == script
        assert "".join(dataset.tokenizer.pieces(dataset.train)) == shown

    def test_lines_without_text_are_left_out_before_they_get_tokens(self, tmp_path: Path) -> None:
        rows = [
            ("SAM", "", "One"),
            ("SAM", "go", "One"),
            ("FRODO", " ", "One"),
            ("MERRY", "...", "Two"),
            ("SAM", "on", "Two"),
        ]
        dataset = load(tmp_path, rows)
        assert decode(dataset, dataset.train) == "SAM: go / / SAM: on /"
        assert [line.text for line in dataset.splits.train] == ["go", "on"]
        assert dataset.tokenizer.cast == ("SAM", SOMEONE)
        with_characters = load(tmp_path, rows, tokenizer="characters")
        assert decode(with_characters, with_characters.train) == "SAM: g o / / MERRY: . . . / SAM: o n /"

    def test_a_scene_of_which_all_lines_are_left_out_has_no_token(self, tmp_path: Path) -> None:
        rows = [("SAM", "go", "One"), ("FRODO", "...", "Two"), ("SAM", "on", "Three")]
        dataset = load(tmp_path, rows)
        assert decode(dataset, dataset.train) == "SAM: go / / SAM: on /"
        assert len(dataset.train_scene_offsets) == 3

    def test_a_scene_of_one_line(self, tmp_path: Path) -> None:
        dataset = load(tmp_path, [("SAM", "go", "One")], [("FRODO", "go", "One")], [("SAM", "go", "One")])
        assert decode(dataset, dataset.train) == "SAM: go /"
        assert dataset.train_scene_offsets.tolist() == [0, 3]
        assert decode(dataset, dataset.valid) == "SOMEONE: go /"

    def test_memorization_finds_texts_without_speakers(self, tmp_path: Path) -> None:
        rows = [("FRODO", "no", "One"), ("SAM", "now go on and on and no more of it", "Two"), *SCENES]
        dataset = load(tmp_path, rows)
        assert [line.text for line in dataset.train_source_lines] == [text for _, text, _ in rows]
        ids = dataset.tokenizer.encode("on and on and no more of it now")
        (passage,) = TrainingIndex.from_dataset(dataset).find_passages(ids).passages
        assert passage.num_words == 8
        assert [(found.line_index, found.offset) for found in passage.occurrences] == [(1, 2)]


NAMES = ["SAM", "FRODO", "GAN DALF", "GANDALF", "Merry (V.O.)", ""]
TEXTS = st.lists(st.sampled_from(["go", "on", "no", "now", "ring", "é"]), max_size=4).map(" ".join)
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), TEXTS, st.sampled_from("AB")), max_size=40)


def encode_naively(rows: list[Row], cast_names: tuple[str, ...], max_lines: int) -> str:
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


@settings(max_examples=60)
@given(rows=ROWS, max_lines=st.integers(1, 7), min_lines=st.integers(1, 4))
def test_any_dialogue_is_encoded_as_a_naive_writer_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], max_lines: int, min_lines: int
) -> None:
    rows = [("SAM", "go", "A")] * min_lines + rows
    spellings = Counter(name for name, text, _ in [*rows, *OTHER, *OTHER] if text and "GAN" in name)
    gandalf = max(["GANDALF", "GAN DALF"], key=lambda name: spellings[name])
    tied = spellings["GANDALF"] == spellings["GAN DALF"]
    canonical = {"Merry (V.O.)": "MERRY", "GAN DALF": gandalf, "GANDALF": gandalf}
    plain = [(canonical.get(name, name), text, film) for name, text, film in rows]
    counts = Counter(name for name, text, _ in plain if text and name)
    expected_cast = {name for name, count in counts.items() if count >= min_lines}
    folder = tmp_path_factory.mktemp("dialogue")
    options: dict[str, Any] = {"tokenizer": "whitespace", "scene_lines": max_lines, "min_speaker_lines": min_lines}
    dataset = load(folder, rows, **options)
    names = dataset.tokenizer.cast
    assert names[-1] == SOMEONE
    assert [counts[name] for name in names[:-1]] == sorted((counts[name] for name in names[:-1]), reverse=True) or tied
    if tied:
        other = {"GANDALF": "GAN DALF", "GAN DALF": "GANDALF"}[gandalf]
        canonical = {gandalf: other} if gandalf not in names else {}
        plain = [(canonical.get(name, name), text, film) for name, text, film in plain]
    else:
        assert set(names) == {*expected_cast, SOMEONE}
    script = encode_naively(plain, names, max_lines)
    assert decode(dataset, dataset.train) == script
    assert script.count("/ /") == len(dataset.train_scene_offsets) - 2
    for start, end in zip(dataset.train_scene_offsets, dataset.train_scene_offsets[1:], strict=False):
        assert (dataset.train[start] == EOS_ID) == (start > 0)
        assert dataset.train[end - 1] == EOS_ID
    texts = [dataset.tokenizer.decode(ids) for ids in dataset.train_lines]
    assert texts == [line.text for line in dataset.train_source_lines] == [text for _, text, _ in rows if text]


class TestRealDialogues:
    @pytest.fixture(scope="class")
    def config(self, lotr_csv: Path) -> DataConfig:
        return DataConfig(str(lotr_csv), mode="dialogue", split="scenes", min_characters=-1)

    def test_the_cast_has_the_speakers_of_ten_lines_in_train(self, config: DataConfig) -> None:
        dataset = load_dataset(config)
        counts = Counter(line.speaker for line in dataset.splits.train)
        names = dataset.tokenizer.cast
        assert set(names[:-1]) == {name for name, count in counts.items() if count >= 10}
        assert [counts[name] for name in names[:-1]] == sorted((counts[name] for name in names[:-1]), reverse=True)
        assert names[:3] == ("FRODO", "GANDALF", "SAM")

    @pytest.mark.parametrize("tokenizer", TOKENIZERS)
    def test_every_split_decodes_to_its_script(self, config: DataConfig, tokenizer: str) -> None:
        dataset = load_dataset(replace(config, tokenizer=tokenizer))  # type: ignore[arg-type]
        known = set(dataset.tokenizer.tokens)
        for name, lines in {"train": dataset.splits.train, "valid": dataset.splits.valid}.items():
            script = cast.script_text(lines, dataset.tokenizer.cast).split("\n")
            decoded = dataset.tokenizer.decode(dataset.get_split(name)).split("\n")
            if not dataset.tokenizer.is_open:
                split = split_words if tokenizer == "words" else lambda text: text.split()  # type: ignore[assignment]
                rows = [row.partition(": ") for row in script]
                words = [[word if word in known else "<unk>" for word in split(text)] for _, _, text in rows]
                script = [f"{row[0]}{row[1]}{' '.join(part)}" for row, part in zip(rows, words, strict=True)]
            assert decoded == script

    def test_all_tokenizers_have_the_same_split_and_cast(self, config: DataConfig) -> None:
        datasets = [load_dataset(replace(config, tokenizer=name)) for name in TOKENIZERS]  # type: ignore[arg-type]
        assert len({dataset.tokenizer.cast for dataset in datasets}) == 1
        words, _, characters, _ = datasets
        repaired = [line.text for line in characters.splits.valid]
        assert len(repaired) == len(words.splits.valid)
        assert characters.splits.valid.scene_ids.tolist() == words.splits.valid.scene_ids.tolist()

    def test_a_split_by_lines_has_the_notebooks_lines_in_file_order(self, lotr_csv: Path) -> None:
        line = load_dataset(DataConfig(str(lotr_csv)))
        dialogue = load_dataset(DataConfig(str(lotr_csv), mode="dialogue"))
        for name in ("train", "valid", "test"):
            lines, others = getattr(line.splits, name), getattr(dialogue.splits, name)
            assert Counter(each.text for each in lines) == Counter(each.text for each in others)
            assert others.scene_ids.tolist() == sorted(others.scene_ids.tolist())
        assert dialogue.tokenizer.with_cast(()) == line.tokenizer

    def test_summary_counts_texts_only(self, config: DataConfig) -> None:
        summary = summarize_dataset(load_dataset(config))
        assert sum(part.num_tokens for part in summary.splits.values()) == summary.num_tokens == 25_242
        assert [part.num_lines for part in summary.splits.values()] == [1903, 240, 240]
        assert len(summary.cast) == 28


class TestCast:
    def test_speakers_of_few_lines_are_someone(self, tmp_path: Path) -> None:
        dataset = load(tmp_path, [*SCENES, ("Someone", "go", "Two"), ("", "no", "Two")], min_speaker_lines=2)
        assert dataset.tokenizer.cast == ("SAM", SOMEONE)
        assert decode(dataset, dataset.train).endswith("SOMEONE: on / SOMEONE: go / SOMEONE: no /")

    def test_equally_frequent_speakers_are_in_file_order(self, tmp_path: Path) -> None:
        rows = [(name, "go", "One") for name in ("PIPPIN", "MERRY", "BILBO", "MERRY", "BILBO")]
        assert load(tmp_path, rows).tokenizer.cast == ("MERRY", "BILBO", "PIPPIN", SOMEONE)

    def test_only_the_training_split_counts(self, tmp_path: Path) -> None:
        dataset = load(tmp_path, SCENES, valid=[("BILBO", "go", "One")] * 9)
        assert "BILBO" not in dataset.tokenizer.cast
        assert decode(dataset, dataset.valid[:3]) == "SOMEONE: go /"

    @pytest.mark.parametrize("tokenizer", TOKENIZERS)
    def test_the_cast_of_an_earlier_run_is_kept(self, tmp_path: Path, tokenizer: str) -> None:
        dataset = load(tmp_path, SCENES, tokenizer=tokenizer, vocabulary_size=300)
        config = DataConfig(
            **{name: str(tmp_path / f"{name}.csv") for name in FILES},
            mode="dialogue",
            min_characters=-1,
            min_count=1,
            min_speaker_lines=50,
            tokenizer=tokenizer,  # type: ignore[arg-type]
            vocabulary_size=300,
        )
        earlier = dataset.tokenizer.with_cast(["GOLLUM", "SA M", SOMEONE])
        again = load_dataset(config, earlier)
        assert again.tokenizer == earlier
        assert decode(again, again.train).startswith("SA M: ")
        assert again.tokenizer.speaker_id("GOLLUM") not in again.train
        with pytest.raises(CorpusError, match="no speaker has 50 lines"):
            load_dataset(config, dataset.tokenizer.with_cast(()))

    def test_other_modes_have_no_cast(self, tmp_path: Path) -> None:
        dataset = load(tmp_path, SCENES, tokenizer="characters")
        config = DataConfig(str(tmp_path / "corpus.csv"), tokenizer="characters", mode="line", min_characters=0)
        config = replace(config, valid_corpus=config.corpus, test_corpus=config.corpus)
        line = load_dataset(config, dataset.tokenizer)
        assert line.tokenizer.cast == ()
        assert line.tokenizer == dataset.tokenizer.with_cast(())
        assert len(line.train_scene_offsets) == 0

    def test_a_cast_of_thousands(self, tmp_path: Path) -> None:
        rows = [(f"SOLDIER {number}", "go on", "One") for number in range(5000)]
        dataset = load(tmp_path, rows)
        assert len(dataset.tokenizer.cast) == 5001
        assert dataset.train[::4].tolist()[:19] == [*range(4, 23)]  # after every scene of 20 lines, one more `<eos>`
        assert len(summarize_dataset(dataset).speakers) == 5002

    def test_too_large_a_cast_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cast, "MAX_CAST_SIZE", 3)
        with pytest.raises(
            CorpusError, match=r"has 4 speakers .* a model has 3 at most; raise --set min_speaker_lines=N"
        ):
            load(tmp_path, SCENES)

    @pytest.mark.parametrize(
        ("name", "canonical"),
        [
            ("[red]Sam[/red]", "SAM"),
            ("\x1b[2JSam", "SAM"),
            ("<b>Sam</b>", "SAM"),
            ("x" * 10_000, SOMEONE),
            (":", SOMEONE),
        ],
    )
    def test_hostile_names(self, tmp_path: Path, name: str, canonical: str) -> None:
        dataset = load(tmp_path, [("FRODO", "go", "One")] * 19 + [(name, "on", "One")])
        assert decode(dataset, dataset.train).endswith(f" FRODO: go / {canonical}: on /")


class TestCorporaWithoutSpeakers:
    def check(self, path: str, message: str, **values: Any) -> None:
        with pytest.raises(CorpusError, match=message) as caught:
            load_dataset(DataConfig(path, mode="dialogue", min_characters=-1, **values))
        assert len(str(caught.value).splitlines()) == 1
        load_dataset(DataConfig(path, mode="line", min_count=1, min_characters=-1, **values))

    REMEDY = "with --speaker-column, or use --mode line"

    def test_a_missing_column_is_named_with_the_remedy(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "a.csv", [("SAM", "go on", "One")] * 30, ("who", "dialog", "movie"))
        self.check(path, f"has no column 'char' of speakers.*its columns: who, dialog, movie;.*{self.REMEDY}")
        self.check(path, f"has no column '' of speakers.*{self.REMEDY}", speaker_column="")

    def test_the_column_of_the_texts_cannot_be_that_of_the_speakers(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "a.csv", [("SAM", "go on", "One")] * 30)
        self.check(path, f"'dialog' of the texts cannot.*{self.REMEDY}", speaker_column="dialog")

    def test_two_columns_of_the_same_name_are_ambiguous(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "a.csv", [("SAM", "go on", "One")] * 30, ("char", "dialog", "char"))
        self.check(path, "has 2 columns 'char', and dialogue mode needs one; rename the others")
        path = write_rows(tmp_path / "b.csv", [("go on", "SAM", "One")] * 30, ("dialog", "char", "dialog"))
        self.check(path, "has 2 columns 'dialog'")

    def test_a_column_without_names(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "a.csv", [(" ", "go on", "One")] * 30)
        self.check(path, f"names no speakers.*{self.REMEDY}")

    def test_only_rare_speakers(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "a.csv", [(f"S{number % 10}", "go on", "One") for number in range(30)])
        self.check(path, r"no speaker has 10 lines in the training split: S\d has most, \d; .*min_speaker_lines=N")

    def test_a_plain_text_without_names(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("it was a dark and stormy night\n" * 30)
        self.check(str(path), "has no speakers.*'NAME: text'.*or --mode line", corpus_format="text")


def test_the_bundled_dialogues_have_a_cast() -> None:
    dataset = load_dataset(DataConfig(mode="dialogue", split="scenes"))
    assert len(dataset.tokenizer.cast) > 3
    lengths = np.diff(dataset.train_scene_offsets)
    assert len(lengths) > 10
    assert lengths.sum() == len(dataset.train)
