"""Completion of the last word of a prompt."""

import time

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.next_tokens import NextTokenPreview
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ReplyMode
from lotr_tui.session.word_completion import WordCompleter
from tests.support.app import VOCABULARY, make_decoder
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model


def complete(model: NumpyLSTM, text: str, draft: str = "", reply_mode: ReplyMode = "continue") -> str:
    """Complete `text` after the bars were shown for `draft`."""
    session_model = SessionModel("test", "", model)
    preview = NextTokenPreview(session_model)
    preview.read(session_model, Conversation(0), draft, reply_mode, None)
    return WordCompleter(preview).complete(model, text)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("the win", "ter"),
        ("The WIN", "ter"),
        ("a\nwin", "ter"),
        ("(win", "ter"),
        ("w", ""),  # one letter is too few
        ("winter", ""),
        ("winx", ""),
        ("win ", ""),
        ("win,", ""),
        ("☺", ""),
        ("", ""),
        ("<un", ""),
    ],
)
def test_last_word_is_completed(text: str, rest: str) -> None:
    assert complete(make_decoder(), text) == rest


def test_a_word_is_completed_before_its_forms_with_an_apostrophe() -> None:
    model = open_model(WordTokenizer((UNK, EOS, "bilbo's", "bilbo")))
    assert complete(model, "Bil") == "bo"
    assert complete(model, "Bilbo") == ""


def test_without_probabilities_the_first_word_of_the_corpus_is_taken() -> None:
    assert next(token for token in VOCABULARY.tokens if token.startswith("th")) == "think"
    assert complete(make_decoder(), "bilbo th") == "ink"


@pytest.mark.parametrize("reply_mode", ["continue", "reply"])
@pytest.mark.parametrize("before", ["", "bilbo", "in the", "we walked with"])
def test_most_probable_word_after_the_typed_words_is_taken(before: str, reply_mode: ReplyMode) -> None:
    model = make_decoder(5)
    ids = VOCABULARY.encode(before).tolist()
    state = model.start()
    log_probs, state = model.advance(state, VOCABULARY.token_to_id[EOS])
    for id in ids:
        log_probs, state = model.advance(state, id)
    words = [token for token in VOCABULARY.tokens if token.startswith("th")]
    expected = max(words, key=lambda word: log_probs[VOCABULARY.token_to_id[word]])
    assert complete(model, f"{before} th", f"{before} t", reply_mode) == expected[2:]


def complete_with(words: tuple[str, ...], log_probs: list[float], text: str) -> str:
    """Complete `text` with words of these log-probabilities."""
    model = make_decoder()
    model.tokenizer = WordTokenizer((UNK, EOS, *words))
    preview = NextTokenPreview(SessionModel("test", "", model))
    preview.log_probs_in_draft = lambda *_: np.array([0, 0, *log_probs], np.float32)  # type: ignore[method-assign]
    return WordCompleter(preview).complete(model, text)


def test_complete_word_is_left_alone_unless_a_longer_one_is_more_probable() -> None:
    assert complete_with(("he", "hello"), [-1, -2], "he") == ""
    assert complete_with(("he", "hello"), [-2, -1], "he") == "llo"
    assert complete_with(("he", "hello"), [-1, -2], "hel") == "lo"


def test_preview_of_another_model_is_not_used() -> None:
    session_model = SessionModel("test", "", make_decoder())
    preview = NextTokenPreview(session_model)
    preview.read(session_model, Conversation(0), "bilbo t", "continue", None)
    assert preview.log_probs_in_draft(session_model.model, [VOCABULARY.token_to_id["bilbo"]]) is not None
    assert preview.log_probs_in_draft(make_decoder(1), [VOCABULARY.token_to_id["bilbo"]]) is None
    assert preview.log_probs_in_draft(session_model.model, [VOCABULARY.token_to_id["frodo"]]) is None


def test_completion_in_a_large_vocabulary_takes_less_than_a_key_press() -> None:
    words = [f"{a}{b}{c}{n}" for a in "abcde" for b in "abcdefghij" for c in "klmnopqrst" for n in range(100)]
    model = make_decoder()
    model.tokenizer = WordTokenizer((UNK, EOS, *words))
    preview = NextTokenPreview(SessionModel("test", "", model))
    preview.log_probs_in_draft = lambda *_: np.zeros(len(model.tokenizer), np.float32)  # type: ignore[method-assign]
    completer = WordCompleter(preview)
    completer.complete(model, "ab")  # sorts the words once
    durations = []
    for _ in range(20):
        started = time.perf_counter()
        assert completer.complete(model, "bad " * 200 + "ab")
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.005


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("The wiz", "ard"),  # " wizard" is one token
        ("The wizar", "d"),
        ("The wizard", ""),
        ("The wizard w", ""),  # one letter is too few
        ("The \n wiz", "ard"),
        ("", ""),
        ("The ", ""),
        ("ale …", ""),
    ],
)
def test_word_of_an_open_vocabulary_is_completed_token_by_token(text: str, rest: str) -> None:
    tokenizer = bpe_tokenizer()
    model = open_model(tokenizer)
    model.weights["output.bias"][tokenizer.token_to_id[" wizard"]] = 20
    assert complete(model, text) == rest


def test_completion_ends_before_an_apostrophe_and_gives_up_on_an_endless_word() -> None:
    tokenizer = character_tokenizer()
    model = open_model(tokenizer)
    model.weights["output.bias"][tokenizer.token_to_id["'"]] = 20
    assert complete(model, "the wizard") == ""
    model.weights["output.bias"][tokenizer.token_to_id["e"]] = 30
    assert complete(model, "the wizard") == ""


@pytest.mark.parametrize("word", ["wizard", "tower", "winter", "pony"])
def test_completion_of_an_open_vocabulary_is_the_likeliest_continuation(word: str) -> None:
    """Compare with the greedy continuation of a character model, which has one token for each character."""
    tokenizer = character_tokenizer()
    model = open_model(tokenizer, 3)
    ids = tokenizer.encode(f"the {word}").tolist()
    state = model.start()
    for id in (EOS_ID, *ids):
        log_probs, state = model.advance(state, id)
    expected = ""
    while (text := tokenizer.tokens[int(np.argmax(log_probs))]).isalnum() and len(expected) < 24:
        expected += text
        log_probs, state = model.advance(state, int(np.argmax(log_probs)))
    assert complete(model, f"the {word}") == (expected if len(expected) < 24 else "")
