"""The dialogues that come with lotr-tui: enough text, by hand, and no template."""

import csv
import math
from collections import Counter
from itertools import pairwise

import pytest

from engine.analysis.perplexity import evaluate
from engine.config import DataConfig
from engine.data.build import read_corpus
from engine.data.corpus import split_indices
from engine.data.dataset import load_dataset
from engine.data.tokenizers.words import split_words
from engine.models.ngram import KneserNey
from engine.storage.files import assets_dir

PATH = assets_dir() / "dialogues.csv"
CAST = (
    "GANDALF", "FRODO", "SAM", "GOLLUM", "ARAGORN", "LEGOLAS", "GIMLI", "BILBO",
    "MERRY", "PIPPIN", "BOROMIR", "GALADRIEL", "ELROND", "EOWYN", "TREEBEARD", "SARUMAN",
)  # fmt: skip
EVERYDAY_PHRASES = {
    "and be done with it", "what did you tell him", "to tell you the truth", "i don't want to go",
    "used to say there was", "to say there was something", "going to look after you", "to get out of the",
    "for a very long time", "i don't want to leave", "i'm sorry i didn't mean", "you come and go as",
    "come and go as you", "and go as you please", "i know what it is", "do you want to know", "will be the end of",
    "i don't know why i", "in the hands of a", "we need to know where", "get out of my way", "i don't want to be",
    "i did not look for", "carry it for a while", "want to keep it i", "i don't think i'll be",
}  # fmt: skip
"""Runs of five words that these dialogues share with the films."""


@pytest.fixture(scope="module")
def lines():
    return read_corpus(DataConfig()).lines


@pytest.fixture(scope="module")
def words(lines):
    return [split_words(line.text) for line in lines]


def test_columns_match_the_documented_ones():
    with PATH.open(encoding="ascii", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["", "char", "dialog", "movie"]
    assert {len(row) for row in rows} == {4}
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(len(rows) - 1)]
    assert all(cell.strip() for row in rows[1:] for cell in row)


def test_columns_match_the_real_file(lotr_csv):
    with PATH.open(encoding="utf-8") as ours, lotr_csv.open(encoding="utf-8") as real:
        assert ours.readline() == real.readline()


def test_file_is_ascii():
    content = PATH.read_bytes()
    assert content.isascii()
    assert not set(content) & (set(range(32)) - set(b"\r\n"))


def test_corpus_is_long_enough(lines, words):
    assert len(lines) >= 1600
    assert sum(map(len, words)) >= 20_000


def test_there_are_many_speakers(lines):
    assert len({line.speaker for line in lines}) >= 25


@pytest.mark.parametrize("name", CAST)
def test_each_of_the_cast_has_many_lines(lines, name):
    assert sum(line.speaker == name for line in lines) >= 120


def test_visitors_greet_ask_for_the_ring_and_thank(lines):
    said = [set(split_words(line.text)) for line in lines if line.speaker == "STRANGER"]
    assert all(sum(word in words for words in said) >= 20 for word in ("hello", "ring", "thanks"))


def test_members_of_the_cast_have_voices_of_their_own(lines):
    """A unigram model of each speaker tells whose held-out lines are whose far more often than by chance."""
    counts = {name: Counter() for name in CAST}
    spoken = [line for line in lines if line.speaker in CAST]
    for index, line in enumerate(spoken):
        if index % 5:
            counts[line.speaker].update(split_words(line.text))
    totals, size = {name: sum(count.values()) for name, count in counts.items()}, len(set().union(*counts.values()))

    def score(name, text):
        return sum(math.log((counts[name][word] + 0.3) / (totals[name] + 0.3 * size)) for word in split_words(text))

    held_out = spoken[::5]
    hits = sum(max(CAST, key=lambda name, line=line: score(name, line.text)) == line.speaker for line in held_out)
    assert hits > 0.3 * len(held_out)  # 1 / 16 by chance


def test_speakers_alternate(lines):
    changes = sum(one.speaker != other.speaker for one, other in pairwise(lines))
    assert changes > len(lines) / 2


def test_few_lines_are_duplicates(lines, words):
    duplicates = len(lines) - len({tuple(one) for one in words})
    assert duplicates < 0.01 * len(lines)


def test_no_six_words_repeat_often(lines):
    """Different visitors may ask the same."""
    words = [split_words(line.text) for line in lines if line.speaker != "STRANGER"]
    runs = Counter(tuple(one[i : i + 6]) for one in words for i in range(len(one) - 5))
    often = {" ".join(run): number for run, number in runs.items() if number > 8}
    assert often == {}


def test_every_line_has_words(words):
    assert all(words)


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_perplexity_is_that_of_real_dialogue(mode):
    dataset = load_dataset(DataConfig(mode=mode))
    assert 1500 <= len(dataset.tokenizer) <= 3000
    model = KneserNey(dataset.train, dataset.tokenizer, order=5)
    assert 80 <= evaluate(model, dataset.valid).perplexity <= 180


def test_no_line_is_from_the_films(lotr_csv, words):
    films = {" ".join(split_words(line.text)) for line in read_corpus(DataConfig(corpus=str(lotr_csv))).lines}
    assert not films & {" ".join(one) for one in words}


def test_no_five_words_in_a_row_are_from_the_films_but_for_everyday_phrases(lotr_csv, words):
    film_lines = [split_words(line.text) for line in read_corpus(DataConfig(corpus=str(lotr_csv))).lines]
    films = {" ".join(one[i : i + 5]) for one in film_lines for i in range(len(one) - 4)}
    ours = {" ".join(one[i : i + 5]) for one in words for i in range(len(one) - 4)}
    assert films & ours <= EVERYDAY_PHRASES


def test_corpus_can_be_split(lines):
    _, valid, test = split_indices(len(lines), 1234)
    assert len(valid) >= 160
    assert len(test) >= 160
