"""Complete words that can come next, against the enumeration of all token sequences."""

import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.data.tokenizers import EOS, EOS_ID, ByteTokenizer, WordTokenizer
from engine.generation import complete_words
from engine.generation.complete_words import CompleteWordSearch, end_word, open_word, word_around
from engine.generation.generate import TextInProgress, prefill, sampling_probs
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs
from tests.support.models import UniformModel
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model

DEPTH = 4  # tokens of the sequences that are enumerated
WORD = re.compile(r" *([a-z]+|[,;.$])")  # first word of an enumerated text, in which `$` is `<eos>`
PLAIN = SamplerSettings(temperature=1.0)


class TinyTokenizer(ByteTokenizer):
    """A tokenizer of a few given tokens, which cannot encode."""

    name = "characters"

    def encode(self, text):
        raise NotImplementedError

    def to_json(self):
        raise NotImplementedError


SPACED = TinyTokenizer([b"a", b"b", b"ab", b" a", b" b", b" ba", b","])
"""Tokenizer whose words have at most as many tokens as letters."""
UNAMBIGUOUS = TinyTokenizer([b"a", b"b", b",", b";", b"."])  # tokenizer in which each word has one token sequence
MIN_PROB = 0.04


class TableModel:
    """A model whose distribution depends on the last two tokens, with random logits."""

    def __init__(self, tokenizer, seed, scale=1.0):
        self.tokenizer = tokenizer
        self.seed, self.scale = seed, scale
        self.num_advances = 0
        self._rows: dict[tuple[int, ...], LogProbs] = {}

    def start(self):
        return ()

    def advance(self, state, token):
        self.num_advances += 1
        state = (*state, token)[-2:]
        if state not in self._rows:
            logits = np.random.default_rng([self.seed, *state]).normal(0, self.scale, len(self.tokenizer))
            self._rows[state] = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return self._rows[state], state


def enumerate_words(model, sampler, history, *, is_first_token=False):
    """Return both probabilities of each word, and of all unfinished words, from all texts of `DEPTH` tokens."""
    words: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    unfinished = [0.0, 0.0]
    spelled = [token.decode().replace("\n", "$") for token in model.tokenizer.token_bytes]

    def extend(state, ids, text, model_prob, sampling_prob):
        match = WORD.match(text)
        if match and (match.end() < len(text) or match[1] in ",;.$"):
            words[match[1].replace("$", EOS)][0] += model_prob
            words[match[1].replace("$", EOS)][1] += sampling_prob
        elif len(ids) == DEPTH:
            unfinished[0] += model_prob
            unfinished[1] += sampling_prob
        else:
            is_first = is_first_token and not ids
            whole = TextInProgress(model, [*history, *ids], sampler, state=state, is_first_token=is_first)
            probs = sampling_probs([whole])[0]
            for id, log_prob in enumerate(state.log_probs.tolist()):
                after = prefill(model, [id], state)
                extend(after, [*ids, id], text + spelled[id], model_prob * np.exp(log_prob), sampling_prob * probs[id])

    extend(prefill(model, history), [], "", 1.0, 1.0)
    return {text: (probs[0], probs[1]) for text, probs in words.items()}, (unfinished[0], unfinished[1])


def new_search(model, history=(), *, is_first_token=False):
    state = prefill(model, history)
    return CompleteWordSearch(TextInProgress(model, history, PLAIN, state=state, is_first_token=is_first_token))


def last(results):
    *_, result = results
    return result


def probs_of(result):
    return {each.text: (each.model_prob, each.sampling_prob) for each in result.candidates}


SAMPLERS = [
    PLAIN, SamplerSettings(temperature=0.5), SamplerSettings(temperature=2.0, top_k=4),
    SamplerSettings(temperature=0.8, top_p=0.8), SamplerSettings(temperature=1.0, min_p=0.3),
    SamplerSettings(temperature=0.7, repetition_penalty=1.5), SamplerSettings(temperature=0.0),
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS, ids=SamplerSettings.describe)
def test_probabilities_match_the_enumeration(sampler):
    """Words of at most three letters have at most three tokens, so the enumeration has all their sequences."""
    model, history = TableModel(SPACED, 3), [4, 7]  # a word and a comma
    for is_first_token in (False, True):
        expected, unfinished = enumerate_words(model, sampler, history, is_first_token=is_first_token)
        result = last(new_search(model, history, is_first_token=is_first_token).search(sampler, 10**6, 2e-5))
        actual = probs_of(result)
        short = {text: probs for text, probs in expected.items() if len(text) < DEPTH and max(probs) > 1e-3}
        assert len(short) > 10
        for text, probs in short.items():
            assert actual[text] == pytest.approx(probs, rel=0.02, abs=1e-5), text
        totals = np.sum(list(actual.values()), axis=0)
        assert (totals < 1 + 1e-6).all()
        assert (totals > 0.99 - np.array(unfinished)).all()


@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 2), temperature=st.floats(0.3, 2), count=st.integers(1, 12))
@settings(max_examples=25)
def test_the_likeliest_words_are_found(seed, scale, temperature, count):
    model, sampler = TableModel(UNAMBIGUOUS, seed, scale), SamplerSettings(temperature=temperature)
    everything, unfinished = enumerate_words(model, sampler, [])
    bounds = sorted((max(probs) for probs in everything.values()), reverse=True)
    assume(max(unfinished) < MIN_PROB and not any(abs(each - MIN_PROB) < 1e-6 for each in bounds))
    result = last(new_search(model).search(sampler, count, MIN_PROB))
    found = sorted((max(probs) for probs in probs_of(result).values()), reverse=True)
    assert found == pytest.approx([each for each in bounds if each >= MIN_PROB][:count], rel=1e-4)
    assert result.candidates == tuple(sorted(result.candidates, key=lambda each: -each.sampling_prob))


def test_the_search_of_a_word_ends_with_no_likely_word_a_repeated_letter_or_a_cancellation():
    even = UniformModel(TinyTokenizer([*(f" {letter}x".encode() for letter in "abcdefghijklmnopqrstuvwxyz"), b","]))
    search = new_search(even)
    assert not last(search.search(PLAIN, 40, 0.2, min_words=0)).candidates
    assert len(last(search.search(PLAIN, 40, 0.2, min_words=5)).candidates) >= 5
    model = ScriptedModel(UNAMBIGUOUS, [UNAMBIGUOUS.tokens.index("a")])
    endless = last(new_search(model).search(SamplerSettings(temperature=0), 40, 0.005))
    assert endless.is_final
    assert all(len(each.text) <= complete_words.MAX_WORD_TOKENS + 1 for each in endless.candidates)
    calls = iter([False, False, True])
    results = list(new_search(TableModel(SPACED, 2)).search(PLAIN, 10**6, 1e-5, cancelled=lambda: next(calls)))
    assert [result.is_final for result in results] == [False, False]


def test_other_settings_need_no_new_distributions():
    model = TableModel(SPACED, 8)
    search = new_search(model)
    last(search.search(SamplerSettings(temperature=2.0), 40, 0.002))
    num_advances = model.num_advances
    for sampler in SAMPLERS:
        known = last(search.search(sampler, 40, 0.01, runs_model=False))
        if known.is_final:
            assert known == last(new_search(TableModel(SPACED, 8)).search(sampler, 40, 0.01))
    assert last(search.search(SAMPLERS[1], 40, 0.01, runs_model=False)).is_final
    assert model.num_advances == num_advances
    assert not last(new_search(model).search(PLAIN, 40, 0.001, runs_model=False)).is_final


class ScriptedModel(UniformModel):
    """A model that predicts the given tokens, one after the other, with certainty, and then always the last one."""

    def __init__(self, tokenizer, ids):
        super().__init__(tokenizer)
        self.ids = ids

    def start(self):
        return -1

    def advance(self, state, token):
        log_probs = np.full(len(self.tokenizer), -100, np.float32)
        log_probs[self.ids[min(state + 1, len(self.ids) - 1)]] = 0
        return log_probs, state + 1


@pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Éowyn, and wizards", ["Éowyn", ",", "and", "wizards", EOS]),
        ("don't - 1954.", ["don't", "-", "1954", ".", EOS]),
        ("“No”  yes", ["“", "No", "”", "yes", EOS]),
        ("a\nb 👩‍🚒", ["a", "<0x0A>", "b"]),
    ],
)
def test_words_of_natural_text(tokenizer, text, words):
    """The words come one after the other, and the tokens of a word lead to the next one."""
    model = ScriptedModel(tokenizer, [*tokenizer.encode(text).tolist(), EOS_ID])
    ids, found = list[int](), list[str]()
    while len(found) < len(words):
        (word,) = last(new_search(model, ids).search(PLAIN, 40, 0.005)).candidates
        assert (word.model_prob, word.sampling_prob) == pytest.approx((1, 1))
        found.append(word.text)
        end = len(ids) + len(word.ids)
        assert {word_around(tokenizer, model.ids, index) for index in range(len(ids), end)} == {word.text}
        ids += word.ids
    assert found == words


OPEN_WORDS = {"the wiz": "wiz", "the wizard’s": "wizard’s", "the ": "", "Ring?": "", "a\n": "", "“Éo": "Éo", "": ""}


@pytest.mark.parametrize(("text", "expected"), OPEN_WORDS.items())
@pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
def test_open_word_at_the_end_of_a_text(tokenizer, text, expected):
    assert open_word(tokenizer, tokenizer.encode(text).tolist()).decode() == expected


def test_after_a_complete_word_another_one_starts():
    tokenizer = bpe_tokenizer()
    model = open_model(tokenizer)
    word = tokenizer.encode(" wiz").tolist()
    state = prefill(model, word)
    text = TextInProgress(model, word, PLAIN, state=state)
    end_word(text)
    probs = np.exp(text.state.log_probs.astype(np.float64))
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    assert not probs[~tokenizer.word_starts].any()
    raw = np.exp(state.log_probs.astype(np.float64))
    starts = tokenizer.word_starts
    assert probs[starts] == pytest.approx(raw[starts] / raw[starts].sum(), rel=1e-4)
    closed = UniformModel(WordTokenizer(("<unk>", "<eos>", "he")))
    for other, ids in ((model, tokenizer.encode(",").tolist()), (closed, [2])):
        text = TextInProgress(other, ids, PLAIN, state=state)
        end_word(text)
        assert text.state is state
