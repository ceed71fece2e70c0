"""Lines that figures start with, places in them, what is looked at, and how they are continued."""

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.attention_line import strongest_earlier
from lotr_tui.learn.example_line import find_example
from lotr_tui.learn.line_continuation import continue_line
from lotr_tui.learn.line_place import LinePlace, find_place

TOKENIZER = WordTokenizer(("<unk>", "<eos>", "der", "alte", "ring", "liegt", "im", "see"))
LINES = ["Der Ring", "Der neue Ring liegt im See", "Der alte Ring liegt im See", "Im See liegt der alte Ring"]


@pytest.mark.parametrize(
    ("default", "options", "example"),
    [
        ("Der Ring", {}, "Der Ring"),
        ("The ring", {"start_words": 5}, "Der alte Ring liegt im"),
        ("The ring", {}, "Der alte Ring liegt im See"),
        ("Der Ring", {"is_suitable": lambda line: line.startswith("Im")}, LINES[3]),
        ("Der Ring", {"is_suitable": lambda line: False}, "Der Ring"),
    ],
)
def test_default_is_replaced_by_a_line_of_known_words_that_the_chapter_can_use(default, options, example):
    assert find_example(default, LINES, TOKENIZER, **options) == example


WORDS = WordTokenizer(("<unk>", "<eos>", "the", "ring"))


@pytest.mark.parametrize(
    ("cursor", "place"),
    [
        (0, LinePlace((), 2, "The")),
        (2, LinePlace((), 2, "The")),
        (3, LinePlace((2,), 0, "old")),  # on the space after a word is the place of the next one
        (4, LinePlace((2,), 0, "old")),
        (9, LinePlace((2, 0), 3, "ring")),
        (13, LinePlace((2, 0, 3), None, "")),
    ],
)
def test_place_is_the_word_on_the_cursor_or_the_next_one(cursor, place):
    assert find_place(WORDS, "The old, ring!", cursor) == place


def test_start_and_the_word_itself_do_not_count():
    weights = np.array([0.5, 0.03, 0.07, 0.4], np.float32)
    assert strongest_earlier(weights) == (2, pytest.approx(0.07))


@pytest.mark.parametrize("line", ["Frodo has the Ring, and Sam has the", ""])
def test_continuation_takes_the_most_likely_word_each_time(line):
    model = load_model(assets_dir() / "class" / "lstm").model
    tokenizer = model.tokenizer
    state = model.start()
    for token in [EOS_ID, *tokenizer.encode(line).tolist()]:
        log_probs, state = model.advance(state, token)
    likely = np.argsort(-log_probs)[:5].tolist()
    words = []
    while len(words) < 6:
        log_probs[UNK_ID] = -np.inf
        token = int(log_probs.argmax())
        words.append("¶" if token == EOS_ID else tokenizer.tokens[token])
        if token == EOS_ID:
            break
        log_probs, state = model.advance(state, token)
    continuation = continue_line(model, line, 6)
    assert continuation.text == " ".join(words)
    first = continuation.next_tokens
    names = {"<unk>": "rare word", "<eos>": "end of line"}
    assert [name for name, _ in first] == [names.get(tokenizer.tokens[id], tokenizer.tokens[id]) for id in likely]
