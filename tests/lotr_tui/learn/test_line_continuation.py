"""Tests of the continuation of a line, against the most likely token of each distribution."""

import math

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.line_continuation import continue_line


@pytest.mark.parametrize("line", ["Frodo has the Ring, and Sam has the", ""])
def test_continuation_takes_the_most_likely_word_each_time(line: str) -> None:
    model = load_model(assets_dir() / "class" / "lstm").model
    tokenizer = model.tokenizer
    state = model.start()
    for token in [EOS_ID, *tokenizer.encode(line).tolist()]:
        log_probs, state = model.advance(state, token)
    likely = np.argsort(-log_probs)[:5].tolist()
    words: list[str] = []
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


def test_next_words_have_the_probabilities_of_the_model() -> None:
    model = load_model(assets_dir() / "class" / "transformer").model
    ids = model.tokenizer.encode("where is the").tolist()
    state = model.start()
    for token in [EOS_ID, *ids]:
        log_probs, state = model.advance(state, token)
    for name, prob in continue_line(model, "Where is the", 3).next_tokens:
        token = UNK_ID if name == "rare word" else model.tokenizer.token_to_id[name]
        assert prob == pytest.approx(math.exp(log_probs[token]), rel=0.05)


def test_model_of_a_dialogue_finishes_a_word() -> None:
    model = load_model(assets_dir() / "model").model
    continuation = continue_line(model, "You are a wiz", 4)
    assert continuation.text.startswith("ard")


def test_cancelled_continuation_is_short() -> None:
    model = load_model(assets_dir() / "class" / "lstm").model
    assert continue_line(model, "i", 6, lambda: True).text == ""
