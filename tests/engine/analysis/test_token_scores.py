"""Token scores match the evaluation of a text, and those of a word are the sums over its tokens."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.evaluation import evaluate, summarize_log_probs
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import LINE_END, tokenize_with_offsets
from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.base import score_sequence
from engine.models.ngram import KneserNey
from tests.support.app import VOCABULARY
from tests.support.dialogues import dialogue_model
from tests.support.models import ParallelReader, TokenByTokenModel, random_lstm
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model

WORDS = VOCABULARY.tokens[2:19]
TRAINING_IDS = np.random.default_rng(3).integers(0, len(VOCABULARY), 800).astype(np.int32)


def make_lstm(seed=0):
    return random_lstm(ModelConfig(embedding_size=10, hidden_size=10), VOCABULARY, seed, scale=0.8)


def score_all(model, tokens):
    scores = TokenScores(tokens, model.tokenizer)
    for _ in scores.read(model):
        pass
    return scores


KNESER_NEY = KneserNey(TRAINING_IDS, VOCABULARY, 3)


@pytest.mark.parametrize("model", [KNESER_NEY, TokenByTokenModel(make_lstm())], ids=["Kneser-Ney", "LSTM"])
def test_scores_match_the_evaluation(model):
    text = " ".join(VOCABULARY.tokens[i] for i in TRAINING_IDS[:300] if i != EOS_ID) + " ."
    words = tokenize_with_offsets(text, VOCABULARY)
    scores = score_all(model, words)
    assert scores.is_complete
    assert summarize_log_probs(scores.log_probs, words.ids) == evaluate(model, words.ids)
    np.testing.assert_allclose(scores.bits, -score_sequence(model, words.ids) / math.log(2), rtol=0, atol=1e-9)


def test_a_sentence_has_a_perplexity_once_all_its_tokens_are_scored():
    model = make_lstm()
    words = tokenize_with_offsets("The lamp was lit. Gandalf! " + "we walked all night " * 4, VOCABULARY)
    log_probs = score_sequence(TokenByTokenModel(model), words.ids)
    scores = TokenScores(words, VOCABULARY)
    assert np.isnan(scores.sentence_perplexities()).all()
    assert next(scores.read(TokenByTokenModel(model))) == 16
    expected = [math.exp(-log_probs[:4].mean()), math.exp(-log_probs[4]), math.nan]
    np.testing.assert_allclose(scores.sentence_perplexities(), expected, rtol=1e-6)
    assert (scores.num_scored, scores.is_complete) == (16, False)
    assert [scores.word_score(index) is None for index in (15, 16, -1)] == [False, True, True]


def test_token_scores_match_the_events_of_generation():
    model = make_lstm()
    prompt = VOCABULARY.encode("the lamp").tolist()
    events = generate(TextInProgress(model, prompt, SamplerSettings(temperature=1.0), 5))
    token_events = [event for event in events if isinstance(event, TokenEvent)]
    words = tokenize_with_offsets(" ".join(["the lamp", *(event.text for event in token_events)]), VOCABULARY)
    scores = score_all(TokenByTokenModel(model), words)
    assert len(token_events) > 3
    for index, event in enumerate(token_events, start=2):
        score = scores.word_score(index)
        assert score.bits == -event.logprob / math.log(2)
        assert score.model_prob == math.exp(event.logprob)
        assert score.rank == event.rank
        assert score.top_tokens == event.top_tokens


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (make_lstm(), " ".join(WORDS * 25)),
        (dialogue_model(), "GANDALF: we walked all night\nFRODO: was the tower lit\nthe lamp\n" * 40),
    ],
    ids=["text", "script"],
)
def test_a_model_that_reads_chunks_at_once_has_the_same_scores(model, text):
    parallel = ParallelReader(model)
    tokens = tokenize_with_offsets(text, model.tokenizer)
    actual, expected = score_all(parallel, tokens), score_all(TokenByTokenModel(model), tokens)
    assert len(tokens) > 256
    assert parallel.num_passes == math.ceil(len(tokens) / 512)
    assert actual.is_complete
    np.testing.assert_array_equal(actual.log_probs, expected.log_probs)
    assert actual.bits_per_character == expected.bits_per_character
    assert all(actual.word_score(index) == expected.word_score(index) for index in range(tokens.num_words))


OPEN_TEXT = "The wizard’s staff — “Éowyn” 😀 smiled?!\nWhere is Frodo…\n\n  the tower "
OPEN_TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(list("ab '.\n…é"))), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([open_model(bpe_tokenizer()), open_model(character_tokenizer())]),
    st.one_of(st.just(OPEN_TEXT), OPEN_TEXTS),
    st.booleans(),
)
def test_words_and_sentences_add_up_to_the_text(model, text, eos_per_line):
    tokens = tokenize_with_offsets(text, model.tokenizer, eos_per_line=eos_per_line)
    scores = score_all(model, tokens)
    assert scores.is_complete
    assert scores.num_scored_words == tokens.num_words
    assert scores.word_bits.sum() == pytest.approx(scores.bits.sum())
    for index, bits in enumerate(scores.word_bits):
        word = scores.word_score(index)
        assert word.bits == pytest.approx(bits) == sum(part for _, part in word.parts)
        assert word.bits == pytest.approx(scores.bits_of_word(index))
        assert "".join(text for text, _ in word.parts).lstrip(" ") in (tokens.word(index), "")
    sizes = np.diff(tokens.word_starts[tokens.sentence_starts], append=len(tokens))
    assert (np.log2(scores.sentence_perplexities()) * sizes).sum() == pytest.approx(scores.bits.sum())
    num_line_ends = sum(end - start for start, end in (m.span() for m in LINE_END.finditer(text)))
    num_ends = len(LINE_END.findall(text)) if eos_per_line else num_line_ends
    if num_characters := len(text) - num_line_ends + num_ends:
        assert scores.bits_per_character == pytest.approx(scores.bits.sum() / num_characters)
