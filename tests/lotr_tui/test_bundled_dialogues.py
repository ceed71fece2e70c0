"""The dialogues that come with lotr-tui: enough text, by hand, and no template."""

import csv
from collections import Counter
from itertools import pairwise

import pytest

from engine.analysis.perplexity import evaluate
from engine.config import DataConfig
from engine.data.corpus import split_indices
from engine.data.dataset import load_dataset
from engine.data.preparation import read_corpus
from engine.data.tokenizers.words import split_words
from engine.models.ngram import KneserNey
from engine.storage.files import assets_dir

PATH = assets_dir() / "dialogues.csv"


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


def test_speakers_alternate(lines):
    changes = sum(one.speaker != other.speaker for one, other in pairwise(lines))
    assert changes > len(lines) / 2


def test_few_lines_are_duplicates(lines, words):
    duplicates = len(lines) - len({tuple(one) for one in words})
    assert duplicates < 0.01 * len(lines)


def test_no_six_words_repeat_often(words):
    runs = Counter(tuple(one[i : i + 6]) for one in words for i in range(len(one) - 5))
    often = {" ".join(run): number for run, number in runs.items() if number > 8}
    assert often == {}


def test_every_line_has_words(words):
    assert all(words)


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_perplexity_is_that_of_real_dialogue(mode):
    dataset = load_dataset(DataConfig(mode=mode))
    assert 700 <= len(dataset.tokenizer) <= 1300
    model = KneserNey(dataset.train, dataset.tokenizer, order=5)
    assert 60 <= evaluate(model, dataset.valid).perplexity <= 130


def test_no_line_is_from_the_films(lotr_csv, words):
    films = {" ".join(split_words(line.text)) for line in read_corpus(DataConfig(corpus=str(lotr_csv))).lines}
    assert not films & {" ".join(one) for one in words}


def test_corpus_can_be_split(lines):
    _, valid, test = split_indices(len(lines), 1234)
    assert len(valid) >= 160
    assert len(test) >= 160
