"""The dialogues that come with lotr-tui: enough text, by hand, no template, and nothing from the films."""

from collections import Counter
from itertools import pairwise

import pytest

from engine.analysis.evaluation import evaluate
from engine.config import DataConfig
from engine.data.corpus import read_corpus
from engine.data.dataset import load_dataset
from engine.data.tokenizers import split_words
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


def runs_of(lines, length):
    """Return how often each run of `length` words occurs in tokenized lines."""
    return Counter(" ".join(line[i : i + length]) for line in lines for i in range(len(line) - length + 1))


@pytest.fixture(scope="module")
def lines():
    return read_corpus(DataConfig()).lines


@pytest.fixture(scope="module")
def words(lines):
    return [split_words(line.text) for line in lines]


def test_speakers_alternate_and_few_lines_or_runs_of_words_repeat(lines, words):
    counts = Counter(line.speaker for line in lines)
    assert sum(map(len, words)) >= 20_000
    assert min(counts[name] for name in CAST) >= 120
    assert sum(one.speaker != other.speaker for one, other in pairwise(lines)) > len(lines) / 2
    assert all(words)
    assert len(lines) - len(set(map(tuple, words))) < 0.01 * len(lines)
    assert PATH.read_text(encoding="utf-8").isascii()
    own = [split_words(line.text) for line in lines if line.speaker != "STRANGER"]  # visitors may ask the same
    assert [run for run, count in runs_of(own, 6).items() if count > 8] == []


def test_perplexity_is_that_of_real_dialogue():
    dataset = load_dataset(DataConfig())
    assert 1500 <= len(dataset.tokenizer) <= 3000
    assert 80 <= evaluate(KneserNey(dataset.train, dataset.tokenizer, order=5), dataset.valid).perplexity <= 180


def test_nothing_but_everyday_phrases_is_from_the_films(lotr_csv, words):
    films = [split_words(line.text) for line in read_corpus(DataConfig(corpus=str(lotr_csv))).lines]
    assert not set(map(tuple, films)) & set(map(tuple, words))
    assert runs_of(films, 5).keys() & runs_of(words, 5).keys() <= EVERYDAY_PHRASES
    with PATH.open(encoding="utf-8") as ours, lotr_csv.open(encoding="utf-8") as real:
        assert ours.readline() == real.readline()
