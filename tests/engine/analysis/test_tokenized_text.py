"""Tokens, words, sentences and speakers of a text with their places and scores, and vocabularies by cut-off."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.analysis.activations import find_lstm, record_activations
from engine.analysis.evaluation import evaluate, summarize_log_probs
from engine.analysis.memorization import TrainingIndex
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import LINE_END, VocabularyCutoffs, read_label, tokenize_with_offsets
from engine.config import ModelConfig
from engine.data.dataset import concatenate_lines
from engine.data.scripts import Turn, encode_turns, utterance_mask
from engine.data.tokenizers import EOS_ID, WordTokenizer, split_words
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.base import score_sequence
from engine.models.ngram import KneserNey
from tests.support.app import VOCABULARY
from tests.support.dialogues import CAST, dialogue_model
from tests.support.files import load_rows
from tests.support.models import ParallelReader, TokenByTokenModel, random_lstm
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.references import word_tokenizer

OPEN_TOKENIZERS = st.sampled_from([bpe_tokenizer(), character_tokenizer()])
CLOSED_TOKENIZERS = st.sampled_from([WordTokenizer(VOCABULARY.tokens, name) for name in ("words", "whitespace")])

# Any characters, but most often the ones with a special meaning for tokenizers and sentence ends.
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("aBz9' .!?…\"\n\r\t\x1b\u2028İKſΣ'“”)’_—")
TEXTS = st.text(CHARACTERS, max_size=60)


LINES = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=8).map(" ".join), max_size=12)


class TestPlaces:
    @given(TEXTS, CLOSED_TOKENIZERS, st.booleans())
    def test_spans_and_sentences_of_words_match_the_tokenizer(self, text, tokenizer, eos_per_line):
        spans, words = tokenizer.spans(text), split_words(text, tokenizer.name)
        assert [span.id for span in spans] == tokenizer.encode(text).tolist()
        previous_end = 0
        for (start, end, _), word in zip(spans, words, strict=True):
            assert previous_end <= start < end <= len(text)
            previous_end = end
            assert split_words(text[start:end], tokenizer.name)[0] == word
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=eos_per_line)
        sentences = [tokens.sentence_span(index) for index in range(len(tokens.sentence_starts))]
        assert [index for first, last in sentences for index in range(first, last)] == list(range(len(tokens)))
        assert all(tokens.sentence_index(index) == i for i, span in enumerate(sentences) for index in range(*span))
        assert (tokens.start_offsets[1:] >= tokens.end_offsets[:-1]).all()

    def test_characters_that_the_tokenizer_cannot_read_are_reported(self):
        words = tokenize_with_offsets("the lamp ☺ was мир, ☺ lit", VOCABULARY)
        assert [words[index] for index in range(len(words))] == ["the", "lamp", "was", "lit"]
        assert words.skipped_texts() == ["☺", "мир"]
        assert [words.text[start:end] for start, end in words.skipped_spans] == ["☺", "мир", "☺"]
        assert tokenize_with_offsets("☺ мир", WordTokenizer(VOCABULARY.tokens, "whitespace")).skipped_texts() == []

    @pytest.mark.parametrize(
        ("text", "num_sentences"),
        [
            ("the lamp. was lit", 2), ('"the lamp!" was lit', 2), ("the lamp … was", 2), ("the lamp\nwas", 2), ("", 0),
            (" .!? \n", 0),
        ],
    )  # fmt: skip
    def test_sentences_end_at_punctuation_and_line_ends(self, text, num_sentences):
        assert len(tokenize_with_offsets(text, VOCABULARY).sentence_starts) == num_sentences

    @given(TEXTS, OPEN_TOKENIZERS, st.booleans())
    def test_tokens_words_and_sentences_cover_the_text_exactly(self, text, tokenizer, eos_per_line):
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=eos_per_line)
        assert "".join(tokens[index] for index in range(len(tokens))) == text
        assert (tokens.start_offsets[1:] == tokens.end_offsets[:-1]).all()
        word_tokens = list(zip(tokens.word_starts.tolist(), tokens.word_ends.tolist(), strict=True))
        assert [token for start, end in word_tokens for token in range(start, end)] == list(range(len(tokens)))
        assert all(tokens.word_index(token) == i for i, span in enumerate(word_tokens) for token in range(*span))
        # A word begins and ends with whole characters, and leaves out only the spaces before it.
        position = 0
        for start, end in zip(*map(np.ndarray.tolist, tokens.word_spans), strict=True):
            assert start < end
            assert not text[position:start].strip(" ")
            position = end
        assert position == len(text)
        sentences = [tokens.sentence_span(index) for index in range(len(tokens.sentence_starts))]
        assert [word for first, last in sentences for word in range(first, last)] == list(range(tokens.num_words))

    @given(TEXTS, OPEN_TOKENIZERS)
    def test_the_ids_are_those_of_training(self, text, tokenizer):
        lines = LINE_END.split(text)
        expected = concatenate_lines([tokenizer.encode(line) for line in lines], "line")[:-1]
        assert tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist() == expected.tolist()
        stream = "\n".join(lines)
        encoded = tokenizer.encode_lines([f"{line}\n" for line in lines[:-1]] + [lines[-1]])
        assert tokenize_with_offsets(stream, tokenizer).ids.tolist() == np.concatenate(encoded).tolist()

    @pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
    def test_words_of_an_open_vocabulary_match_a_hand_written_split(self, tokenizer):
        text = "The wizard's staff, “Éowyn” said…\n\n  'Tis 3.5 half-elves; snake_case?! 😀 é’s \nthe end  "
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        expected = [
            *["The", "wizard's", "staff", ",", "“", "Éowyn", "”", "said", "…", "\n", "\n"],
            *["'Tis", "3", ".", "5", "half", "-", "elves", ";", "snake", "_", "case", "?!", "😀", "é’s", "\n"],
            *["the", "end", "  "],
        ]
        assert [tokens.word(index) for index in range(tokens.num_words)] == expected
        assert [word for word, is_word in zip(expected, tokens.counts_as_word, strict=True) if is_word] == [
            *["The", "wizard's", "staff", "Éowyn", "said", "'Tis", "3", "5", "half", "elves", "snake", "case", "é’s"],
            *["the", "end"],
        ]
        assert not tokens.unknown_mask.any()
        sentences = [tokens.sentence_span(index) for index in range(len(tokens.sentence_starts))]
        assert [expected[first] for first, _ in sentences] == ["The", "'Tis", "😀", "the"]

    @given(train=LINES, held_out=LINES, cutoff=st.integers(1, 9))
    def test_a_vocabulary_with_a_cutoff_is_that_of_counting(self, train, held_out, cutoff):
        cutoffs = VocabularyCutoffs(train, held_out)
        counts = Counter(" ".join(train).split())
        kept = {word for word, count in counts.items() if count >= cutoff}
        words = " ".join(held_out).split()
        assert cutoffs.vocabulary_size(cutoff) == len(kept)
        assert cutoffs.unknown_rate(cutoff) == (sum(word not in kept for word in words) / len(words) if words else 0)
        assert cutoffs.tokenizer(cutoff) == word_tokenizer(" ".join(train).split(), cutoff)


TOKENIZERS = [bpe_tokenizer(), character_tokenizer()]
ALL_TOKENIZERS = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bpe", "characters"])
SAID = st.lists(st.sampled_from(["the", "tower", "lit!", "we", "éowyn", "it's", "ring?"]), min_size=1, max_size=6)
TURNS = st.lists(st.builds(Turn, st.sampled_from(CAST), SAID.map(" ".join)), min_size=1, max_size=6)
SCRIPTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("GANDLFgandlf: \n\n.'"), max_size=80)


@pytest.mark.parametrize(
    ("line", "speaker", "length"),
    [
        ("GANDALF: you shall not pass", "GANDALF", 8), ("Gandalf (V.O.): hello", "GANDALF", 15),
        ("MAN ON WALL (off): who goes there", "MAN ON WALL", 18), ("Stranger: hello", "STRANGER", 9),
        ("he said: hello", "", 0), ("Look: a tower", "", 0), ("", "", 0), ("[bold]GANDALF[/]: hello", "GANDALF", 17),
    ],
)  # fmt: skip
def test_a_line_begins_with_a_name_of_the_cast_or_in_capitals(line, speaker, length):
    assert read_label(line, CAST) == (speaker, length)


@given(st.sampled_from(TOKENIZERS), TURNS)
def test_a_script_is_read_as_its_turns(tokenizer, turns):
    script = "".join(f"{turn.speaker}: {turn.text}\n" for turn in turns)
    tokens = tokenize_with_offsets(script, tokenizer, cast=CAST)
    assert tokens.read_ids()[0] == list(encode_turns(tokenizer, turns))
    assert list(tokens.speakers.values()) == [turn.speaker for turn in turns]
    assert tokens.speaker_of(len(tokens) - 1) == turns[-1].speaker
    said = "".join(f"{turn.text}\n" for turn in turns)
    assert "".join(tokens[index] for index in range(len(tokens))) == said


@ALL_TOKENIZERS
def test_a_line_without_a_name_is_said_by_someone_and_empty_lines_end_a_scene(tokenizer):
    expected = encode_turns(tokenizer, [Turn("GANDALF", "the tower"), Turn("SOMEONE", "was lit")])
    assert tokenize_with_offsets("GANDALF: the tower\nwas lit\n", tokenizer, cast=CAST).read_ids()[0] == list(expected)
    alone = tokenize_with_offsets("GANDALF (V.O.):\nthe tower\n\nwas lit\n", tokenizer, cast=CAST)
    assert list(alone.speakers.values()) == ["GANDALF", "SOMEONE"]
    assert "".join(alone[index] for index in range(len(alone))) == "the tower\nwas lit\n"
    first, second = (encode_turns(tokenizer, [turn]) for turn in (Turn("GANDALF", "the"), Turn("FRODO", "tower")))
    tokens = tokenize_with_offsets("\n\nGANDALF: the\n\n \nFRODO: tower\n\n", tokenizer, cast=CAST)
    assert tokens.read_ids()[0] == [*first, *tokenizer.encode("\n").tolist(), *second]


@example(TOKENIZERS[0], "\x80 \x1e")
@given(st.sampled_from(TOKENIZERS), SCRIPTS)
def test_any_text_has_its_tokens_in_order_and_outside_the_labels(tokenizer, text):
    script = tokenize_with_offsets(text, tokenizer, cast=CAST)
    assert np.all(np.diff(script.start_offsets) >= 0)
    assert np.all(script.end_offsets >= script.start_offsets)
    for start, end in script.label_spans.tolist():
        assert not np.any((script.start_offsets < end) & (script.end_offsets > start))
    assert script.heads.keys() == script.speakers.keys()
    assert not len(script.ids) or 0 in script.heads


SCRIPT = "GANDALF: we walked all night\nFRODO: was the tower lit\nthe lamp"
SCRIPT_TURNS = [Turn("GANDALF", "we walked all night"), Turn("FRODO", "was the tower lit"), Turn("SOMEONE", "the lamp")]
MODEL = dialogue_model()
IDS = np.array(encode_turns(MODEL.tokenizer, SCRIPT_TURNS)[:-1], np.int32)
IS_SAID = utterance_mask(MODEL.tokenizer, IDS)


def score(text):
    tokens = tokenize_with_offsets(text, MODEL.tokenizer, cast=CAST)
    scores = TokenScores(tokens, MODEL.tokenizer)
    assert list(scores.read(MODEL))[-1] == len(tokens)
    return scores


def test_each_word_is_predicted_given_its_speaker():
    scores = score(SCRIPT)
    assert scores.is_complete
    np.testing.assert_allclose(scores.log_probs, score_sequence(MODEL, IDS)[IS_SAID], rtol=1e-5)
    num_characters = sum(len(turn.text) + 1 for turn in SCRIPT_TURNS) - 1
    assert scores.bits_per_character == pytest.approx(scores.bits.sum() / num_characters)


def test_another_speaker_changes_the_scores_from_there_on():
    first = score(SCRIPT)
    changed = SCRIPT.replace("FRODO", "GOLLUM")
    tokens = tokenize_with_offsets(changed, MODEL.tokenizer, cast=CAST)
    shared = TokenScores(tokens, MODEL.tokenizer, first)
    assert shared.num_scored == list(tokens.heads)[1]
    fresh = score(changed)
    np.testing.assert_array_equal(fresh.log_probs[: shared.num_scored], first.log_probs[: shared.num_scored])
    assert fresh.log_probs[shared.num_scored] != first.log_probs[shared.num_scored]


def test_activations_are_those_after_the_name():
    lstm, tokens = find_lstm(MODEL), tokenize_with_offsets(SCRIPT, MODEL.tokenizer, cast=CAST)
    [whole] = record_activations(lstm, IDS)
    [layer] = record_activations(lstm, *tokens.read_ids())
    np.testing.assert_array_equal(layer.cell, whole.cell[IS_SAID])
    [without] = record_activations(lstm, tokens.ids)
    assert not np.allclose(layer.cell[0], without.cell[0])


def test_copied_passages_end_at_the_line_and_have_no_names(tmp_path):
    rows = [("GANDALF", "we walked all night"), ("FRODO", "was the tower lit")]
    data = load_rows(tmp_path, rows, mode="dialogue", tokenizer="bpe", min_speaker_lines=1, vocabulary_size=300)
    script = "GOLLUM: we walked all night\nGANDALF: was the tower lit\n"
    report = TrainingIndex.from_dataset(data).find_copied(tokenize_with_offsets(script, data.tokenizer, cast=data.cast))
    found = [(passage.num_words, passage.occurrences[0].speaker) for passage in report.passages]
    assert found == [(4, "GANDALF"), (4, "FRODO")]
    assert (report.num_words, report.novel_fraction) == (8, 0)


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
OPEN_TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(list("ab '.\n…é")), max_size=30)


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
        assert "".join(text for text, _ in word.parts).lstrip(" ") in (tokens.word(index), "")
    sizes = np.diff(tokens.word_starts[tokens.sentence_starts], append=len(tokens))
    assert (np.log2(scores.sentence_perplexities()) * sizes).sum() == pytest.approx(scores.bits.sum())
    num_line_ends = sum(end - start for start, end in (m.span() for m in LINE_END.finditer(text)))
    num_ends = len(LINE_END.findall(text)) if eos_per_line else num_line_ends
    if num_characters := len(text) - num_line_ends + num_ends:
        assert scores.bits_per_character == pytest.approx(scores.bits.sum() / num_characters)
