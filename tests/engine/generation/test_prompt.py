"""Prompts: what is refused, open vocabularies that continue inside a word, and the text that each token adds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID, UNK_ID, BPETokenizer, CharacterTokenizer, WordTokenizer
from engine.errors import PromptError
from engine.generation.generate import (
    MAX_REREAD_TOKENS,
    TextInProgress,
    TokenEvent,
    encode_prompt,
    force_token,
    generate,
    last_word_start,
    prefill,
    prefill_prompt,
)
from engine.generation.settings import SamplerSettings
from tests.support.models import random_lstm
from tests.support.sampling import id_vocabulary

LINES = ["The wizard and the wizards wished for wine.", "A wise wizard was there, with the wind."]
BPE = BPETokenizer.train(LINES * 5, 300)
CHARACTERS = CharacterTokenizer.from_lines(LINES, 1)
CONFIG = ModelConfig(embedding_size=8, hidden_size=8)
MODEL = random_lstm(CONFIG, BPE, seed=1, scale=0.5)
MODEL_OF_CHARACTERS = random_lstm(CONFIG, CHARACTERS, seed=3, scale=0.2)
SETTINGS = SamplerSettings(max_tokens=12, temperature=1.0)
PROMPTS = st.sampled_from(["The wiz", "The wizard", "The w", "The wizard ", "with the wi", "☺", "The, ", "wizards'"])


def test_prompt_is_tokenized_and_its_unknown_words_and_characters_are_listed():
    tokenizer = WordTokenizer(("<unk>", "<eos>", "bilbo", "is", "don't"))
    text = "Bilbo, XYZZY is: don't... xyzzy ☺ “plugh” … мир! ☺"
    prompt = encode_prompt(text, tokenizer)
    assert prompt.ids == (2, UNK_ID, 3, 4, UNK_ID, UNK_ID)
    assert prompt.unknown_tokens == ("xyzzy", "☺", "plugh", "мир")
    assert prompt.text == text
    assert encode_prompt("is", tokenizer).unknown_tokens == ()


EMPTY = "the prompt is empty and has no word; type something first"
NO_WORD = "prompt '%s' has no word; type at least one"
UNREADABLE = "the model cannot read %s, and 2 more; type words of the letters a to z, digits and apostrophes"
UNKNOWN = "the model knows none of the prompt's words: %s; use other words"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", EMPTY), ("\n\t ", EMPTY), ("?!…", NO_WORD % "?!…"), ("." * 41, NO_WORD % ("." * 40 + "…")),
        ("☺ мир! да но то бы ты", UNREADABLE % "☺, мир, да, но, то"), ("<unk> <eos>", UNKNOWN % "unk, eos"),
        (f"one two three two four five six {'x' * 41}", UNKNOWN % "one, two, three, four, five, and 2 more"),
        (f"{'x' * 41} {'y' * 40}", UNKNOWN % f"{'x' * 40}…, {'y' * 40}"),
    ],
)  # fmt: skip
def test_a_prompt_without_a_known_word_is_refused(text, message):
    with pytest.raises(PromptError) as caught:
        encode_prompt(text, id_vocabulary(5))
    assert str(caught.value) == message


def continuation_log_prob(ids, last_ids):
    """Return the log-probability of `ids`, or of its beginning followed by any one of `last_ids`."""
    log_probs, state = MODEL.advance(MODEL.start(), EOS_ID)
    total = 0.0
    for id in ids:
        total += float(log_probs[id])
        log_probs, state = MODEL.advance(state, id)
    return total + float(np.log(np.exp(log_probs[last_ids].astype(np.float64)).sum()))


@settings(max_examples=40)
@given(PROMPTS, st.integers(0, 1000))
def test_the_prompt_and_the_pieces_are_the_text_of_all_tokens(prompt, seed):
    ids = encode_prompt(prompt, BPE).ids
    state = prefill_prompt(MODEL, ids)
    read = ids[: len(ids) - state.num_reread_tokens]
    events = [event for event in generate(TextInProgress(MODEL, ids, SETTINGS, seed)) if isinstance(event, TokenEvent)]
    generated = [*read, *(event.id for event in events)]
    text = prompt + "".join(event.piece for event in events)
    assert BPE.decode(generated).startswith(text)
    assert len(BPE.decode(generated)) - len(text) <= 1  # bytes of an incomplete character at the end


@given(PROMPTS)
def test_a_reopened_word_is_completed_by_a_longer_token_that_begins_with_it(prompt):
    ids = list(encode_prompt(prompt, BPE).ids)
    state = prefill_prompt(MODEL, ids)
    probs = np.exp(state.log_probs.astype(np.float64))
    assert probs.sum() == pytest.approx(1, abs=1e-4)
    if state.num_reread_tokens:
        rest = BPE.decode(ids[-state.num_reread_tokens :])
        assert state.num_reread_characters == len(rest)
        possible = [id for id, token in enumerate(BPE.tokens) if token.startswith(rest) and token != rest]
        assert set(np.flatnonzero(probs > 0)) == set(possible)
    else:
        assert np.array_equal(state.log_probs, prefill(MODEL, ids).log_probs)


def test_the_most_probable_end_of_the_prompt_is_chosen():
    for prompt in ("The wiz", "The wi", "The w", "A wise wiza", "wiz", "The zar", "Ther"):
        ids = list(encode_prompt(prompt, BPE).ids)
        start = max(index for index, id in enumerate(ids) if BPE.word_starts[id] or index == 0)
        assert last_word_start(BPE, ids) == start
        everything = np.arange(len(BPE))
        candidates = {0: continuation_log_prob(ids, everything)}
        for index in range(start, len(ids)):
            rest = BPE.decode(ids[index:])
            longer = [id for id, token in enumerate(BPE.tokens) if token.startswith(rest) and token != rest]
            if longer:
                candidates[len(ids) - index] = continuation_log_prob(ids[:index], np.array(longer))
        best = max(candidates, key=lambda length: candidates[length])
        assert prefill_prompt(MODEL, ids).num_reread_tokens == best


def test_a_prompt_ends_inside_a_word_of_an_open_vocabulary_only():
    letter, space = (BPE.tokens.index(text) for text in "w ")
    long_word = [space, *[letter] * (MAX_REREAD_TOKENS + 36)]
    for ids, start in (([], 0), ([letter, EOS_ID], 2), ([letter, space], 1), (long_word, 37)):
        assert last_word_start(BPE, ids) == start
    assert last_word_start(id_vocabulary(5), [2, 3]) == 2
    assert np.array_equal(prefill_prompt(MODEL, []).log_probs, prefill(MODEL, []).log_probs)


@pytest.mark.parametrize(("likely", "piece", "num_reread"), [([" wizard"], "ard", 2), ([" wi", "zar"], "ar", 1)])
def test_a_probable_longer_token_continues_the_prompt_inside_the_word(likely, piece, num_reread):
    bias = np.zeros(len(BPE), np.float32)
    bias[[BPE.tokens.index(token) for token in likely]] = 30
    model = type(MODEL)(CONFIG, BPE, dict(MODEL.weights) | {"output.bias": bias})
    ids = encode_prompt("The wiz", BPE).ids
    state = prefill_prompt(model, ids)
    assert state.num_reread_tokens == num_reread
    text = TextInProgress(model, ids, SETTINGS)
    assert text.ids == [*ids[:-num_reread]]
    first = next(generate(text))
    assert (first.text, first.piece) == (likely[-1], piece)
    assert text.ids == [*ids[:-num_reread], first.id]


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_every_token_of_an_open_vocabulary_can_be_sampled(seed):
    model = random_lstm(CONFIG, CHARACTERS, seed=2, scale=0.1)
    first = CHARACTERS.tokens.index("<0x00>")
    assert first == 0  # the id of <unk> in a closed vocabulary
    bias = np.zeros(len(CHARACTERS), np.float32)
    bias[first] = 50
    likely = type(model)(CONFIG, CHARACTERS, {**model.weights, "output.bias": bias})
    events = list(generate(TextInProgress(likely, CHARACTERS.encode("a").tolist(), SETTINGS, seed)))
    assert len(events) == SETTINGS.max_tokens + 1
    assert all(event.id == 0 for event in events if isinstance(event, TokenEvent))
    assert force_token(TextInProgress(likely, [5], SETTINGS, state=prefill(likely, [5])), 0).sampling_prob > 0.9


def test_pieces_show_whole_characters_only():
    text = TextInProgress(MODEL_OF_CHARACTERS, [5], SETTINGS, state=prefill(MODEL_OF_CHARACTERS, [5]))
    assert [force_token(text, id).piece for id in CHARACTERS.encode("☺").tolist()] == ["", "", "☺"]
