"""Token scores match the evaluation of a text, and those of a word are the sums over its tokens."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import token_scores
from engine.analysis.bits_per_character import count_character_bits
from engine.analysis.labelled_lines import LINE_END
from engine.analysis.perplexity import evaluate, token_log_probs
from engine.analysis.token_scores import TokenScores, score_chunks
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.generation.generate import NUM_TOP_TOKENS, TokenEvent, generate
from engine.generation.settings import SamplerSettings
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
    for chunk in score_chunks(model, tokens):
        scores.add_chunk(chunk)
    return scores


KNESER_NEY = KneserNey(TRAINING_IDS, VOCABULARY, 3)


@pytest.mark.parametrize("model", [KNESER_NEY, TokenByTokenModel(make_lstm())], ids=["Kneser-Ney", "LSTM"])
def test_scores_match_the_evaluation(model):
    text = " ".join(VOCABULARY.tokens[i] for i in TRAINING_IDS[:300] if i != EOS_ID) + " ."
    words = tokenize_with_offsets(text, VOCABULARY)
    scores = score_all(model, words)
    assert scores.is_complete
    assert scores.summarize().evaluation == evaluate(model, words.ids)
    np.testing.assert_allclose(scores.bits, -token_log_probs(model, words.ids) / math.log(2), rtol=0, atol=1e-9)


def test_a_sentence_has_a_perplexity_once_all_its_tokens_are_scored():
    model = make_lstm()
    words = tokenize_with_offsets("The lamp was lit. Gandalf! " + "we walked all night " * 4, VOCABULARY)
    log_probs = token_log_probs(TokenByTokenModel(model), words.ids)
    scores = TokenScores(words, VOCABULARY)
    assert scores.summarize() is None
    assert np.isnan(scores.sentence_perplexities()).all()
    scores.add_chunk(next(score_chunks(model, words)))
    expected = [math.exp(-log_probs[:4].mean()), math.exp(-log_probs[4]), math.nan]
    np.testing.assert_allclose(scores.sentence_perplexities(), expected, rtol=1e-6)
    assert (scores.num_scored, scores.is_complete) == (16, False)
    assert [scores.token_score(index) is None for index in (15, 16, -1)] == [False, True, True]
    summary = scores.summarize()
    assert (summary.num_unknown, summary.evaluation.unk_rate) == (1, 1 / 16)
    known = log_probs[:16][words.ids[:16] != UNK_ID]
    assert summary.known_perplexity == pytest.approx(math.exp(-known.mean()), rel=1e-6)


def test_token_scores_match_the_events_of_generation():
    model = make_lstm()
    prompt = VOCABULARY.encode_words(["the", "lamp"]).tolist()
    events = generate(model, prompt, SamplerSettings(temperature=1.0), 5)
    token_events = [event for event in events if isinstance(event, TokenEvent)]
    words = tokenize_with_offsets(" ".join(["the lamp", *(event.text for event in token_events)]), VOCABULARY)
    scores = score_all(model, words)
    assert len(token_events) > 3
    for index, event in enumerate(token_events, start=2):
        score = scores.token_score(index)
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
    assert actual.characters.bits == pytest.approx(expected.characters.bits)  # sums of other chunks
    assert actual.characters.num_characters == expected.characters.num_characters
    assert all(actual.token_score(index) == expected.token_score(index) for index in range(len(tokens)))


OPEN_TEXT = "The wizard’s staff — “Éowyn” 😀 smiled?!\nWhere is Frodo…\n\n  the tower "
OPEN_TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(list("ab '.\n…é"))), max_size=30
)


def score_by_hand(log_probs, tokens, tokenizer):
    ids = tokens.ids[: len(log_probs)]
    scores, shape = TokenScores(tokens, tokenizer), (len(ids), NUM_TOP_TOKENS)
    texts = [tokens[index] for index in range(len(ids))]
    scores.add_chunk(
        token_scores.ScoredChunk(
            start=0,
            log_probs=np.array(log_probs),
            ranks=np.arange(1, len(ids) + 1, dtype=np.int32),
            top_ids=np.tile(np.arange(10, 10 + len(ids), dtype=np.int32)[:, None], NUM_TOP_TOKENS),
            top_log_probs=np.zeros(shape, np.float32),
            characters=count_character_bits(tokenizer, texts, ids, np.array(log_probs)),
        )
    )
    return scores


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
    assert scores.characters.bits == pytest.approx(scores.bits.sum())
    num_line_ends = sum(end - start for start, end in (m.span() for m in LINE_END.finditer(text)))
    num_ends = len(LINE_END.findall(text)) if eos_per_line else num_line_ends
    assert scores.characters.num_characters == len(text) - num_line_ends + num_ends


def test_two_models_are_compared_on_the_words_that_both_have_scored():
    tokenizer = character_tokenizer()
    tokens = tokenize_with_offsets("an a an", tokenizer)
    first = score_by_hand([-1.0, -3.0, -1.0, -1.0, -1.0, -1.0, -1.0], tokens, tokenizer)
    second = score_by_hand([-2.0, -1.0, -2.0, -2.0, -1.0], tokens, tokenizer)
    comparison = token_scores.compare_scores(first, second)
    assert (comparison.num_words, comparison.num_better, comparison.num_worse) == (2, 1, 1)
    assert comparison.mean_bits_difference == pytest.approx((-1 + 2) / 2 / math.log(2))
    assert token_scores.compare_scores(first, TokenScores(tokens, tokenizer)) is None
