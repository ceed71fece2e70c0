"""Token scores: spans of tokens in a text, and scores that match the evaluation of a text."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis import token_scores
from engine.analysis.perplexity import evaluate, token_log_probs
from engine.analysis.token_scores import TokenScores, score_chunks, tokenize_with_offsets
from engine.config import ModelConfig
from engine.data.dataset import concatenate_lines, encode_lines
from engine.data.lines import Line
from engine.data.vocabulary import EOS, EOS_ID, UNK, UNK_ID, TokenizerName, Vocabulary, tokenize
from engine.generation.generate import NUM_TOP_TOKENS, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel, LogProbs, ModelState
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import NumpyLSTM
from tests.support.models import TokenByTokenModel, random_lstm

WORDS = tokenize("the lamp was lit in high tower before winter came down from north we walked all night")
VOCABULARY = Vocabulary((UNK, EOS, *WORDS))
TRAINING_IDS = np.random.default_rng(3).integers(0, len(VOCABULARY), 800).astype(np.int32)

# Any characters, but most often the ones with a special meaning for tokenizers and sentence ends.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(list("aBz9' .!?…\"\n\r\t\x1b\u2028İKſΣ'“”)"))), max_size=60)


def make_lstm(seed: int = 0) -> NumpyLSTM:
    return random_lstm(ModelConfig(embedding_size=10, hidden_size=10), VOCABULARY, seed, scale=0.8)


def score_all(model: LanguageModel, tokens: token_scores.TokenizedText) -> TokenScores:
    scores = TokenScores(tokens, model.vocabulary)
    for chunk in score_chunks(model, tokens.ids):
        scores.add_chunk(chunk)
    return scores


# --- spans ----------------------------------------------------------------------------------------------------


@given(TEXTS, st.sampled_from(["words", "whitespace"]))
def test_spans_match_the_tokenizer(text: str, tokenizer: TokenizerName) -> None:
    spans = list(Vocabulary(VOCABULARY.tokens, tokenizer).token_spans(text))
    assert [word for _, _, word in spans] == tokenize(text, tokenizer)
    previous_end = 0
    for start, end, word in spans:
        assert previous_end <= start < end <= len(text)
        previous_end = end
        assert tokenize(text[start:end], tokenizer)[0] == word


@given(TEXTS, st.sampled_from(["words", "whitespace"]), st.booleans())
def test_every_token_is_in_exactly_one_sentence(text: str, tokenizer: TokenizerName, eos_per_line: bool) -> None:
    vocabulary = Vocabulary(VOCABULARY.tokens, tokenizer)
    words = tokenize_with_offsets(text, vocabulary, eos_per_line=eos_per_line)
    spans = [words.sentence_span(index) for index in range(len(words.sentence_starts))]
    assert [index for first, last in spans for index in range(first, last)] == list(range(len(words)))
    assert all(
        words.sentence_index(index) == sentence
        for sentence, (first, last) in enumerate(spans)
        for index in range(first, last)
    )
    assert (words.start_offsets[1:] >= words.end_offsets[:-1]).all()


@given(TEXTS, st.sampled_from(["words", "whitespace"]))
def test_eos_per_line_matches_the_encoding_of_line_mode(text: str, tokenizer: TokenizerName) -> None:
    vocabulary = Vocabulary(VOCABULARY.tokens, tokenizer)
    words = tokenize_with_offsets(text + "\n", vocabulary, eos_per_line=True)
    lines = encode_lines([Line(line) for line in (text + "\n").splitlines()], vocabulary)
    expected = concatenate_lines(lines, "line") if lines else []
    assert words.ids.tolist() == list(expected)


def test_characters_that_the_tokenizer_cannot_read_are_reported() -> None:
    words = tokenize_with_offsets("the lamp ☺ was мир, ☺ lit", VOCABULARY)
    assert [words[index] for index in range(len(words))] == ["the", "lamp", "was", "lit"]
    assert words.skipped_texts() == ["☺", "мир"]
    assert [words.text[start:end] for start, end in words.skipped_spans] == ["☺", "мир", "☺"]
    assert tokenize_with_offsets("☺ мир", Vocabulary(VOCABULARY.tokens, "whitespace")).skipped_texts() == []


def test_tokens_are_returned_as_written() -> None:
    text = "The LAMP, was lit!\n\n  Gandalf came..."
    words = tokenize_with_offsets(text, VOCABULARY)
    assert [words[index] for index in range(len(words))] == ["The", "LAMP", "was", "lit", "Gandalf", "came"]
    assert [VOCABULARY.tokens[i] for i in words.ids] == ["the", "lamp", "was", "lit", UNK, "came"]
    assert words.unknown_mask.tolist() == [False, False, False, False, True, False]
    assert [words.sentence_span(index) for index in range(2)] == [(0, 4), (4, 6)]


def test_an_eos_belongs_to_the_sentence_it_ends() -> None:
    words = tokenize_with_offsets("the lamp. was lit. \r\n\r\nwinter came\nnight", VOCABULARY, eos_per_line=True)
    spans = [words.sentence_span(index) for index in range(4)]
    assert [words.ids[first:last].tolist() for first, last in spans] == [
        VOCABULARY.encode(["the", "lamp"]).tolist(),
        [*VOCABULARY.encode(["was", "lit"]).tolist(), EOS_ID],
        [*VOCABULARY.encode(["winter", "came"]).tolist(), EOS_ID],
        VOCABULARY.encode(["night"]).tolist(),
    ]
    assert words[4] == "\r\n"


@pytest.mark.parametrize(
    ("text", "num_sentences"),
    [
        ("the lamp. was lit", 2),
        ("3.5 night", 1),
        ("the.lamp", 1),
        ('"the lamp!" was lit', 2),
        ("the lamp … was", 2),
        ("the lamp?!... was", 2),
        ("... the lamp", 1),
        ("the lamp\nwas", 2),
        ("", 0),
        (" .!? \n", 0),
    ],
)
def test_sentences_end_at_punctuation_and_line_ends(text: str, num_sentences: int) -> None:
    assert len(tokenize_with_offsets(text, VOCABULARY).sentence_starts) == num_sentences


def test_the_whitespace_tokenizer_keeps_punctuation_in_words() -> None:
    words = tokenize_with_offsets("The end. of <unk> Inc . now", Vocabulary((UNK, EOS, "of"), "whitespace"))
    assert [words[index] for index in range(len(words))] == ["The", "end.", "of", "<unk>", "Inc", ".", "now"]
    assert words.sentence_starts.tolist() == [0, 2, 6]
    assert words.ids.tolist() == [0, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("text", ["." * 1_000_000 + "x", "!'" * 500_000 + "x", "\n" * 1_000_000, ". " * 500_000])
def test_a_megabyte_of_punctuation_takes_linear_time(text: str) -> None:
    assert len(tokenize_with_offsets(text, VOCABULARY, eos_per_line=True).sentence_starts) <= 2


# --- scores ---------------------------------------------------------------------------------------------------


def make_models() -> list[LanguageModel]:
    kneser_ney = KneserNey(TRAINING_IDS, VOCABULARY, 3)
    return [
        kneser_ney,
        TokenByTokenModel(make_lstm()),
        TokenByTokenModel(Mixture([make_lstm(), kneser_ney], [0.6, 0.4])),
        TokenByTokenModel(NeuralCache(make_lstm(), CacheSettings(window=20, weight=0.3))),
    ]


@pytest.mark.parametrize("index", range(4))
def test_scores_match_the_evaluation(index: int) -> None:
    model = make_models()[index]
    text = " ".join(VOCABULARY.tokens[i] for i in TRAINING_IDS[:700] if i != EOS_ID) + " ."
    words = tokenize_with_offsets(text, VOCABULARY)
    scores = score_all(model, words)
    expected = evaluate(model, words.ids)
    summary = scores.summarize()
    assert scores.is_complete
    assert summary is not None
    assert summary.evaluation.perplexity == pytest.approx(expected.perplexity, rel=1e-9)
    assert summary.evaluation == expected
    np.testing.assert_allclose(scores.log_probs, token_log_probs(model, words.ids), rtol=0, atol=1e-9)
    np.testing.assert_allclose(scores.bits, -token_log_probs(model, words.ids) / math.log(2), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        make_lstm(),
        Mixture([make_lstm(), make_lstm(1)], [0.6, 0.4]),
        NeuralCache(make_lstm(), CacheSettings(window=20, weight=0.3)),
    ],
    ids=["LSTM", "mixture", "cache"],
)
def test_scores_match_the_fast_evaluation_within_rounding(model: LanguageModel) -> None:
    words = tokenize_with_offsets(" ".join(WORDS * 50), VOCABULARY)
    np.testing.assert_allclose(score_all(model, words).log_probs, token_log_probs(model, words.ids), rtol=0, atol=5e-6)


def test_sentence_perplexities_and_perplexity_of_known_words() -> None:
    model = make_lstm()
    words = tokenize_with_offsets("The lamp was lit. Gandalf came down, winter! Xyz?", VOCABULARY)
    log_probs = token_log_probs(TokenByTokenModel(model), words.ids)
    scores = score_all(model, words)
    expected = [math.exp(-log_probs[:4].mean()), math.exp(-log_probs[4:8].mean()), math.exp(-log_probs[8])]
    np.testing.assert_allclose(scores.sentence_perplexities(), expected, rtol=1e-9)
    summary = scores.summarize()
    assert summary is not None
    assert summary.num_unknown == 2
    assert summary.evaluation.unk_rate == pytest.approx(2 / 9)
    assert summary.known_perplexity == pytest.approx(math.exp(-log_probs[words.ids != UNK_ID].mean()), rel=1e-9)


def test_a_sentence_has_a_perplexity_once_all_its_tokens_are_scored() -> None:
    model = make_lstm()
    words = tokenize_with_offsets("The lamp was lit. We walked all night.", VOCABULARY)
    scores = TokenScores(words, VOCABULARY)
    assert scores.summarize() is None
    assert np.isnan(scores.sentence_perplexities()).all()
    scores.add_chunk(next(iter(score_chunks(model, words.ids[:6]))))
    assert np.isfinite(scores.sentence_perplexities()).tolist() == [True, False]
    assert (scores.num_scored, scores.is_complete) == (6, False)
    assert scores.token_score(5) is not None
    assert scores.token_score(6) is None
    assert scores.token_score(-1) is None


def test_known_perplexity_is_none_if_all_words_are_unknown() -> None:
    summary = score_all(make_lstm(), tokenize_with_offsets("xyz Gandalf", VOCABULARY)).summarize()
    assert summary is not None
    assert summary.known_perplexity is None
    assert summary.evaluation.unk_rate == 1


def test_token_scores_match_the_events_of_generation() -> None:
    model = make_lstm()
    prompt = VOCABULARY.encode(["the", "lamp"]).tolist()
    events = generate(model, prompt, SamplerSettings(temperature=1.0), 5)
    token_events = [event for event in events if isinstance(event, TokenEvent)]
    words = tokenize_with_offsets(" ".join(["the lamp", *(event.text for event in token_events)]), VOCABULARY)
    scores = score_all(model, words)
    assert len(token_events) > 3
    for index, event in enumerate(token_events, start=2):
        score = scores.token_score(index)
        assert score is not None
        assert score.bits == -event.logprob / math.log(2)
        assert score.model_prob == math.exp(event.logprob)
        assert score.rank == event.rank
        assert score.top_tokens == event.top_tokens


def test_chunks_grow_and_cover_the_text_once() -> None:
    ids = np.resize(TRAINING_IDS, 2000)
    chunks = list(score_chunks(KneserNey(TRAINING_IDS, VOCABULARY, 2), ids))
    assert len(chunks[0].log_probs) == token_scores.FIRST_CHUNK_SIZE
    assert max(len(chunk.log_probs) for chunk in chunks) == token_scores.MAX_CHUNK_SIZE
    ends = np.cumsum([len(chunk.log_probs) for chunk in chunks])
    assert [chunk.start for chunk in chunks] == [0, *ends[:-1]]
    assert ends[-1] == len(ids)


def test_scoring_stops_within_a_chunk_when_cancelled() -> None:
    class CountingModel(TokenByTokenModel):
        num_read = 0

        def advance(self, state: ModelState, token: int) -> tuple[LogProbs, ModelState]:
            self.num_read += 1
            return super().advance(state, token)

    model = CountingModel(make_lstm())
    assert len(list(score_chunks(model, TRAINING_IDS, lambda: model.num_read > 100))) == 2  # 16 and 32 tokens
    assert model.num_read == 101
    assert list(score_chunks(model, TRAINING_IDS[:0])) == []


def test_scores_of_a_common_prefix_are_reused() -> None:
    model = make_lstm()
    previous = score_all(model, tokenize_with_offsets("The lamp was lit in winter.", VOCABULARY))
    words = tokenize_with_offsets("the lamp was, lit from the north", VOCABULARY)
    scores = TokenScores(words, VOCABULARY, previous)
    assert scores.num_scored == 4
    assert scores.token_score(3) == score_all(model, words).token_score(3)
    assert np.isnan(scores.log_probs[4:]).all()
    for chunk in score_chunks(model, words.ids):
        scores.add_chunk(chunk)
    np.testing.assert_array_equal(scores.log_probs, score_all(model, words).log_probs)


def test_a_text_without_words_has_no_sentence_perplexities() -> None:
    assert TokenScores(tokenize_with_offsets("… ! —", VOCABULARY), VOCABULARY).sentence_perplexities().tolist() == []


def test_two_models_are_compared_on_the_tokens_that_both_have_scored() -> None:
    words = tokenize_with_offsets("The lamp was lit.", VOCABULARY)
    first, second = TokenScores(words, VOCABULARY), TokenScores(words, VOCABULARY)
    assert token_scores.compare_scores(first, second) is None

    def make_chunk(probs: list[float]) -> token_scores.ScoredChunk:
        shape = (len(probs), NUM_TOP_TOKENS)
        return token_scores.ScoredChunk(
            start=0,
            log_probs=np.log(probs),
            ranks=np.ones(len(probs), np.int32),
            top_ids=np.zeros(shape, np.int32),
            top_log_probs=np.zeros(shape, np.float32),
        )

    first.add_chunk(make_chunk([0.5, 0.25, 0.5, 0.1]))
    second.add_chunk(make_chunk([0.25, 0.5, 0.125]))
    comparison = token_scores.compare_scores(first, second)
    assert comparison is not None
    assert (comparison.num_tokens, comparison.num_better, comparison.num_worse) == (3, 2, 1)
    assert comparison.mean_bits_difference == pytest.approx((1 - 1 + 2) / 3)
