"""Datasets: splits, vocabulary, `<eos>`, the summary, and in dialogue mode the cast and the scripts."""

import csv
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.corpus import make_lines
from engine.data.dataset import load_dataset
from engine.data.speakers import SOMEONE
from engine.data.summary import summarize_dataset, summarize_speakers
from engine.data.tokenizers import EOS_ID, UNK_ID, split_words
from engine.errors import ConfigError, CorpusError
from tests.support.references import word_tokenizer


def load(path, **values):
    return load_dataset(DataConfig(corpus=str(path), **values))


def text_file(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


class TestRealDialogues:
    def test_line_mode_has_an_eos_after_every_line_and_stream_mode_one_at_the_end(self, lotr_csv):
        line, stream = load(lotr_csv, mode="line"), load(lotr_csv, mode="stream")
        assert [int(np.sum(ids == EOS_ID)) for ids in (line.train, line.valid, line.test)] == [1315, 164, 165]
        lengths = [len(split_words(each.text)) for each in line.splits.train]
        ends = np.flatnonzero(line.train == EOS_ID)
        assert ends.tolist() == (np.cumsum(lengths) + np.arange(len(lengths))).tolist()
        for ids in (stream.train, stream.valid, stream.test):
            assert np.flatnonzero(ids == EOS_ID).tolist() == [len(ids) - 1]
        assert line.tokenizer == stream.tokenizer
        assert line.train[line.train != EOS_ID].tolist() == stream.train[:-1].tolist()

    def test_summary_counts_the_real_dialogues(self, lotr_csv):
        dataset = load(lotr_csv)
        words = [int(np.sum(ids != EOS_ID)) for ids in (dataset.train, dataset.valid, dataset.test)]
        assert words == [19_021, 2_226, 2_368]
        assert len(dataset.tokenizer) == 879
        summary = summarize_dataset(dataset)
        assert (summary.num_rows, summary.num_lines, summary.num_tokens) == (2390, 1644, 23_615)
        assert (summary.speakers[0].name, summary.speakers[0].num_lines) == ("GANDALF", 168)
        unk_rates = {name: round(part.unk_rate, 3) for name, part in summary.splits.items()}
        assert unk_rates == {"train": 0.130, "valid": 0.182, "test": 0.170}


class TestGivenSplit:
    """A corpus with separate files for the splits, as Penn Treebank."""

    def load_three_files(self, tmp_path, last="c b"):
        train = text_file(tmp_path / "train.txt", ["a b", "mr. <unk> sold b $ N", "c"])
        valid = text_file(tmp_path / "valid.txt", ["b a zzz"])
        test = text_file(tmp_path / "test.txt", ["a", "", last])
        files = {"corpus_format": "text", "valid_corpus": str(valid), "test_corpus": str(test)}
        return load(train, **files, tokenizer="whitespace", min_characters=0, min_count=1)

    def test_every_line_and_word_in_order(self, tmp_path):
        dataset = self.load_three_files(tmp_path)
        words = dataset.tokenizer
        assert words.decode(dataset.train) == "a b\nmr. <unk> sold b $ N\nc\n"
        assert words.decode(dataset.valid) == "b a <unk>\n"
        assert words.decode(dataset.test) == "a\nc b\n"
        assert set(words.tokens) == {"<unk>", "<eos>", "a", "b", "c", "mr.", "sold", "$", "N"}

    def test_a_missing_file_is_named(self, small_csv, tmp_path):
        for name in ("valid_corpus", "test_corpus"):
            with pytest.raises(ConfigError, match="valid_corpus and test_corpus belong together"):
                load(small_csv, **{name: str(small_csv)})
        with pytest.raises(CorpusError, match=r"nowhere\.csv does not exist"):
            load(small_csv, valid_corpus=str(small_csv), test_corpus=str(tmp_path / "nowhere.csv"))

    def test_penn_treebank_has_its_published_sizes(self, lotr_csv):
        folder = lotr_csv.parent / "ptb"
        if not folder.is_dir():
            pytest.skip("needs the Penn Treebank beside the dialogues")
        train, valid, test = (str(folder / f"ptb.{name}.txt") for name in ("train", "valid", "test"))
        files = {"corpus_format": "text", "valid_corpus": valid, "test_corpus": test}
        dataset = load(train, **files, tokenizer="whitespace", min_characters=0, min_count=1)
        assert len(dataset.tokenizer) == 10_000
        assert [len(dataset.train), len(dataset.valid), len(dataset.test)] == [929_589, 73_760, 82_430]
        assert np.sum(dataset.train != EOS_ID) == 887_521


class TestVocabulary:
    def test_vocabulary_is_built_from_the_training_split_only(self, small_csv):
        dataset = load(small_csv, min_count=1)
        training = [word for line in dataset.splits.train for word in split_words(line.text)]
        assert dataset.tokenizer == word_tokenizer(training, 1)
        assert UNK_ID not in dataset.train

    def test_a_split_without_words_is_an_error(self, tmp_path):
        lines = ["the old mill is the old mill is the old mill"] * 14 + ["... ... ... ... ... ... ..."] * 6
        path = text_file(tmp_path / "a.txt", lines)
        refused = []
        for seed in range(30):
            try:
                dataset = load(path, corpus_format="text", split_seed=seed)
            except CorpusError as error:
                refused.append(str(error))
            else:
                assert np.any(dataset.valid != EOS_ID)
                assert np.any(dataset.test != EOS_ID)
        assert 0 < len(refused) < 30
        assert all("has no word" in message for message in refused)

    def test_a_corpus_of_rare_words_is_an_error(self, tmp_path):
        path = text_file(tmp_path / "a.txt", [f"word{i}a word{i}b word{i}c word{i}d" for i in range(20)])
        with pytest.raises(CorpusError, match=r"a\.txt: 0 words occur 3 times or more"):
            load(path, corpus_format="text")
        assert len(load(path, corpus_format="text", min_count=1).tokenizer) == 2 + 16 * 4

    @pytest.mark.parametrize(("text", "is_read"), [("вы видели пони", False), ("Ωμέγα abc", False), ("déjà vu", True)])
    def test_a_text_of_letters_that_the_tokenizer_skips_is_refused(self, tmp_path, text, is_read):
        path = text_file(tmp_path / "corpus.txt", [f"{text} 1 2 3"] * 300)
        if not is_read:
            with pytest.raises(CorpusError, match=r"are not a to z .*, and the words tokenizer reads no others"):
                load(path, corpus_format="text", min_characters=0)
        tokenizer = "words" if is_read else "whitespace"
        assert len(load(path, corpus_format="text", min_characters=0, tokenizer=tokenizer).tokenizer) > 3

    @pytest.mark.parametrize("tokenizer", ["words", "whitespace"])
    def test_endless_words_are_never_part_of_the_vocabulary(self, tmp_path, tokenizer):
        path = text_file(tmp_path / "corpus.txt", [f"the longest {'a' * 1000} and {'b' * 1001} words"] * 50)
        tokens = load(path, corpus_format="text", tokenizer=tokenizer).tokenizer.tokens
        assert tokens == ("<unk>", "<eos>", "the", "longest", "a" * 1000, "and", "words")

    @pytest.mark.slow
    def test_a_vocabulary_of_over_a_million_words_is_refused_with_the_remedy(self, tmp_path):
        words = (" ".join(f"w{number}" for number in range(start, start + 10)) for start in range(0, 1_300_000, 10))
        path = text_file(tmp_path / "corpus.txt", words)
        with pytest.raises(CorpusError, match=r"has 1 to 999,998; use .* --set min_count"):
            load(path, corpus_format="text", min_count=1)


Row = tuple[str, str, str]  # speaker, text and film of a row
FILES = ("corpus", "valid_corpus", "test_corpus")
OTHER = [("SAM", "go on", "One"), ("FRODO", "no", "One")]


def write_rows(path, rows, columns=("char", "dialog", "movie")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return str(path)


def load_dialogue(folder, train, valid=OTHER, test=OTHER, earlier=None, **values):
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
    dataset = load_dialogue(tmp_path, SCENES, tokenizer=name)
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
    dataset = load_dialogue(tmp_path_factory.mktemp("dialogue"), rows, tokenizer="characters", **options)
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
        assert load_dialogue(tmp_path, rows).cast == ("MERRY", "BILBO", "PIPPIN", SOMEONE)

    def test_only_the_training_split_counts_and_others_keep_their_names(self, tmp_path):
        dataset = load_dialogue(tmp_path, SCENES, valid=[("BILBO", "go", "One")] * 9)
        assert "BILBO" not in dataset.cast
        assert dataset.tokenizer.decode(dataset.valid).startswith("Bilbo: go\n")

    def test_the_vocabulary_of_an_earlier_run_is_kept(self, tmp_path):
        first = load_dialogue(tmp_path, SCENES)
        again = load_dialogue(tmp_path, OTHER * 3, earlier=first.tokenizer)
        assert again.tokenizer == first.tokenizer
        assert again.cast == ("SAM", "FRODO", SOMEONE)

    def test_too_large_a_cast_is_refused_with_the_remedy(self, tmp_path):
        rows = [(f"SOLDIER {number}", "go on", "One") for number in range(10_000)]
        message = "has 10,000 speakers .* a cast has 9,999 at most; raise --set min_speaker_lines=N"
        with pytest.raises(CorpusError, match=message):
            load_dialogue(tmp_path, rows)


REMEDY = "with --speaker-column, or use --mode line"
MANY = r"no speaker has 10 lines in the training split: S\d has most, \d; .*min_speaker_lines=N"


@pytest.mark.parametrize(
    ("first_column", "speakers", "speaker_column", "message"),
    [
        ("whom", ["SAM"], "char", rf"no speaker column 'char'.* columns: whom, dialog, movie;.*{REMEDY}"),
        ("char", ["SAM"], "dialog", f"no speaker column 'dialog'.*{REMEDY}"),
        ("char", [" "], "char", f"it names none; .*{REMEDY}"),
        ("char", [f"S{number}" for number in range(10)], "char", MANY),
    ],
)
def test_a_table_without_speakers_is_refused_with_the_remedy(tmp_path, first_column, speakers, speaker_column, message):
    rows = [(speaker, "go on", "One") for speaker in speakers * (30 // len(speakers))]
    path = write_rows(tmp_path / "a.csv", rows, (first_column, "dialog", "movie"))
    values = {"speaker_column": speaker_column, "min_characters": -1}
    with pytest.raises(CorpusError, match=message):
        load_dataset(DataConfig(path, mode="dialogue", tokenizer="bpe", **values))
    load_dataset(DataConfig(path, mode="line", min_count=1, **values))


COUNTED_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["", "SAM", "FRODO", "MERRY"]),
        st.sampled_from(["", "go", "go on, now!", "it's 12 ... -- yes'", ", no"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=40)
@given(COUNTED_ROWS)
def test_counts_equal_those_of_a_naive_reader(rows):
    names, texts, starts = zip(*rows, strict=True)
    corpus = make_lines(list(texts), names, np.cumsum(starts).tolist())
    speakers = summarize_speakers(corpus)
    lines: Counter[str] = Counter()
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    before = ""
    for name, text, start in rows:
        before = "" if start else before
        if before and name:
            pairs[before, name] += 1
        if name:
            lines[name] += 1
            words[name] += len(split_words(text))
        before = name
    assert [each.num_lines for each in speakers] == sorted(lines.values(), reverse=True)
    for each in speakers:
        following = Counter({second: count for (first, second), count in pairs.items() if first == each.name})
        assert (each.num_lines, each.num_words) == (lines[each.name], words[each.name])
        assert each.num_followed == following.total()
        assert sorted((count for _, count in each.next_speakers), reverse=True) == [c for _, c in each.next_speakers]
        assert [count for _, count in each.next_speakers] == [count for _, count in following.most_common(3)]
        assert all(following[name] == count for name, count in each.next_speakers)
