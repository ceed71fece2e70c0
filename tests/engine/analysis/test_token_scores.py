"""The lens: words where they were written, and figures that are those of evaluation."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis import token_scores
from engine.analysis.perplexity import evaluate, token_log_probs
from engine.analysis.token_scores import Reading, compare, read, read_file, split
from engine.config import ModelConfig
from engine.data.dataset import encode_lines, join_lines
from engine.data.lines import Line
from engine.data.vocabulary import EOS, EOS_ID, UNK, UNK_ID, Vocabulary, spans, tokenize
from engine.errors import CorpusError
from engine.generation.generate import TokenEvent, stream
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel, LogProbs, State
from engine.models.cache import Cache, CacheSettings
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder, weight_shapes

WORDS = tokenize("the lamp was lit in high tower before winter came down from north we walked all night")
VOCABULARY = Vocabulary((UNK, EOS, *WORDS))
TRAINING = np.random.default_rng(3).integers(0, len(VOCABULARY), 800).astype(np.int32)

# Whatever may stand in a text, what is special to the tokenizers and to sentences more often than elsewhere.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(list("aBz9' .!?…\"\n\r\t\x1b\u2028İKſΣ'“”)"))), max_size=60)


def decoder(seed: int = 0) -> Decoder:
    config = ModelConfig(embedding_size=10, hidden_size=10)
    random = np.random.default_rng(seed)
    shapes = weight_shapes(config, len(VOCABULARY))
    return Decoder(
        config, VOCABULARY, {name: random.normal(0, 0.8, shape).astype(np.float32) for name, shape in shapes.items()}
    )


class WordByWord:
    """A model without a faster way to read a text, so that evaluation too reads it word by word."""

    def __init__(self, model: LanguageModel) -> None:
        self.vocabulary = model.vocabulary
        self._model = model

    def start(self) -> State:
        return self._model.start()

    def advance(self, state: State, token: int) -> tuple[LogProbs, State]:
        return self._model.advance(state, token)


def whole(model: LanguageModel, words: token_scores.Words) -> Reading:
    reading = Reading(words, model.vocabulary)
    for piece in read(model, words.ids):
        reading.add(piece)
    return reading


# Words and where they stand


@given(TEXTS, st.sampled_from(["words", "spaces"]))
def test_spans_are_the_tokenizers_words(text: str, tokenizer: str) -> None:
    found = list(spans(text, tokenizer))  # type: ignore[arg-type]
    assert [word for _, _, word in found] == tokenize(text, tokenizer)  # type: ignore[arg-type]
    before = 0
    for start, end, word in found:
        assert before <= start < end <= len(text)
        before = end
        # What stands there is that word and no other.
        assert tokenize(text[start:end], tokenizer)[0] == word  # type: ignore[arg-type]


@given(TEXTS, st.sampled_from(["words", "spaces"]), st.booleans())
def test_every_word_is_in_one_sentence_and_in_order(text: str, tokenizer: str, line_ends: bool) -> None:
    words = split(text, Vocabulary(VOCABULARY.words, tokenizer), line_ends=line_ends)  # type: ignore[arg-type]
    pieces = [words.sentence(number) for number in range(len(words.sentences))]
    assert [index for first, last in pieces for index in range(first, last)] == list(range(len(words)))
    assert all(words.sentence_of(index) == n for n, (first, last) in enumerate(pieces) for index in range(first, last))
    assert (words.starts[1:] >= words.ends[:-1]).all()


@given(TEXTS, st.sampled_from(["words", "spaces"]))
def test_with_line_ends_a_text_is_what_line_mode_makes_of_its_lines(text: str, tokenizer: str) -> None:
    vocabulary = Vocabulary(VOCABULARY.words, tokenizer)  # type: ignore[arg-type]
    words = split(text + "\n", vocabulary, line_ends=True)
    lines = encode_lines([Line(line) for line in (text + "\n").splitlines()], vocabulary)
    expected = join_lines(lines, "line") if lines else []
    assert words.ids.tolist() == list(expected)


def test_a_text_as_it_was_written() -> None:
    text = "The LAMP, was lit!\n\n  Gandalf came..."
    words = split(text, VOCABULARY)
    assert [words[index] for index in range(len(words))] == ["The", "LAMP", "was", "lit", "Gandalf", "came"]
    assert [VOCABULARY.words[i] for i in words.ids] == ["the", "lamp", "was", "lit", UNK, "came"]
    assert words.unknown.tolist() == [False, False, False, False, True, False]
    assert [words.sentence(n) for n in range(2)] == [(0, 4), (4, 6)]


def test_an_end_of_line_belongs_to_the_sentence_it_ends() -> None:
    words = split("the lamp. was lit. \r\n\r\nwinter came\nnight", VOCABULARY, line_ends=True)
    assert [words.ids[first:last].tolist() for first, last in (words.sentence(n) for n in range(4))] == [
        VOCABULARY.encode(["the", "lamp"]).tolist(),
        [*VOCABULARY.encode(["was", "lit"]).tolist(), EOS_ID],
        [*VOCABULARY.encode(["winter", "came"]).tolist(), EOS_ID],
        VOCABULARY.encode(["night"]).tolist(),
    ]
    assert words[4] == "\r\n"


@pytest.mark.parametrize(
    ("text", "sentences"),
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
def test_where_sentences_end(text: str, sentences: int) -> None:
    assert len(split(text, VOCABULARY).sentences) == sentences


def test_a_word_before_whose_dot_there_is_no_space_stays_whole_between_spaces() -> None:
    words = split("The end. of <unk> Inc . now", Vocabulary((UNK, EOS, "of"), "spaces"))
    assert [words[index] for index in range(len(words))] == ["The", "end.", "of", "<unk>", "Inc", ".", "now"]
    assert words.sentences.tolist() == [0, 2, 6]
    assert words.ids.tolist() == [0, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("text", ["." * 1_000_000 + "x", "!'" * 500_000 + "x", "\n" * 1_000_000, ". " * 500_000])
def test_a_megabyte_of_marks_takes_no_square_of_time(text: str) -> None:
    assert len(split(text, VOCABULARY, line_ends=True).sentences) <= 2


# What a model makes of them


def models() -> list[LanguageModel]:
    kneser_ney = KneserNey(TRAINING, VOCABULARY, 3)
    return [
        kneser_ney,
        WordByWord(decoder()),
        WordByWord(Mixture([decoder(), kneser_ney], [0.6, 0.4])),
        WordByWord(Cache(decoder(), CacheSettings(window=20, share=0.3))),
    ]


@pytest.mark.parametrize("number", range(4))
def test_figures_are_those_of_evaluation(number: int) -> None:
    model = models()[number]
    text = " ".join(VOCABULARY.words[i] for i in TRAINING[:700] if i != EOS_ID) + " ."
    words = split(text, VOCABULARY)
    reading = whole(model, words)
    expected = evaluate(model, words.ids)
    summary = reading.summary()
    assert reading.complete
    assert summary is not None
    assert summary.evaluation.perplexity == pytest.approx(expected.perplexity, rel=1e-9)
    assert summary.evaluation == expected
    np.testing.assert_allclose(reading.scores, token_log_probs(model, words.ids), rtol=0, atol=1e-9)
    np.testing.assert_allclose(reading.bits, -token_log_probs(model, words.ids) / math.log(2), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [decoder(), Mixture([decoder(), decoder(1)], [0.6, 0.4]), Cache(decoder(), CacheSettings(window=20, share=0.3))],
    ids=["decoder", "mixture", "cache"],
)
def test_a_faster_way_to_evaluate_gives_the_same_but_for_rounding(model: LanguageModel) -> None:
    words = split(" ".join(WORDS * 50), VOCABULARY)
    np.testing.assert_allclose(whole(model, words).scores, token_log_probs(model, words.ids), rtol=0, atol=5e-6)


def test_by_sentence_and_without_unknown_words() -> None:
    model = decoder()
    words = split("The lamp was lit. Gandalf came down, winter! Xyz?", VOCABULARY)
    scores = token_log_probs(WordByWord(model), words.ids)
    reading = whole(model, words)
    expected = [math.exp(-scores[:4].mean()), math.exp(-scores[4:8].mean()), math.exp(-scores[8])]
    np.testing.assert_allclose(reading.by_sentence(), expected, rtol=1e-9)
    summary = reading.summary()
    assert summary is not None
    assert summary.unknown == 2
    assert summary.evaluation.unk_rate == pytest.approx(2 / 9)
    assert summary.known_perplexity == pytest.approx(math.exp(-scores[words.ids != UNK_ID].mean()), rel=1e-9)


def test_a_sentence_counts_once_it_was_read_to_its_end() -> None:
    model = decoder()
    words = split("The lamp was lit. We walked all night.", VOCABULARY)
    reading = Reading(words, VOCABULARY)
    assert reading.summary() is None
    assert np.isnan(reading.by_sentence()).all()
    piece = next(iter(read(model, words.ids[:6])))
    reading.add(piece)
    assert np.isfinite(reading.by_sentence()).tolist() == [True, False]
    assert (reading.done, reading.complete) == (6, False)
    assert reading.guess(5) is not None
    assert reading.guess(6) is None
    assert reading.guess(-1) is None


def test_only_unknown_words_have_no_perplexity_without_them() -> None:
    summary = whole(decoder(), split("xyz Gandalf", VOCABULARY)).summary()
    assert summary is not None
    assert summary.known_perplexity is None
    assert summary.evaluation.unk_rate == 1


def test_a_guess_is_what_drawing_that_word_reports() -> None:
    model = decoder()
    prompt = VOCABULARY.encode(["the", "lamp"]).tolist()
    drawn = [e for e in stream(model, prompt, SamplerSettings(temperature=1.0), 5) if isinstance(e, TokenEvent)]
    words = split(" ".join(["the lamp", *(event.text for event in drawn)]), VOCABULARY)
    reading = whole(model, words)
    assert len(drawn) > 3
    for index, event in enumerate(drawn, start=2):
        guess = reading.guess(index)
        assert guess is not None
        assert guess.bits == -event.logprob / math.log(2)
        assert guess.prob == math.exp(event.logprob)
        assert guess.rank == event.rank
        assert guess.likeliest == event.top


def test_pieces_are_small_at_first_and_cover_the_text_once() -> None:
    ids = np.resize(TRAINING, 2000)
    pieces = list(read(KneserNey(TRAINING, VOCABULARY, 2), ids))
    assert len(pieces[0].scores) == token_scores.FIRST_CHUNK
    assert max(len(piece.scores) for piece in pieces) == token_scores.CHUNK
    ends = np.cumsum([len(piece.scores) for piece in pieces])
    assert [piece.begin for piece in pieces] == [0, *ends[:-1]]
    assert ends[-1] == len(ids)


def test_it_stops_when_asked_within_a_piece() -> None:
    class Counting(WordByWord):
        read = 0

        def advance(self, state: State, token: int) -> tuple[LogProbs, State]:
            self.read += 1
            return super().advance(state, token)

    model = Counting(decoder())
    assert len(list(read(model, TRAINING, lambda: model.read > 100))) == 2  # of 16 and 32
    assert model.read == 101
    assert list(read(model, TRAINING[:0])) == []


def test_what_a_text_shares_with_the_one_before_is_known_at_once() -> None:
    model = decoder()
    before = whole(model, split("The lamp was lit in winter.", VOCABULARY))
    words = split("the lamp was, lit from the north", VOCABULARY)
    reading = Reading(words, VOCABULARY, before)
    assert reading.done == 4
    assert reading.guess(3) == whole(model, words).guess(3)
    assert np.isnan(reading.scores[4:]).all()
    for piece in read(model, words.ids):
        reading.add(piece)
    np.testing.assert_array_equal(reading.scores, whole(model, words).scores)


def test_a_text_without_words_has_no_sentences() -> None:
    assert Reading(split("… ! —", VOCABULARY), VOCABULARY).by_sentence().tolist() == []


def test_two_models_are_compared_on_what_both_have_read() -> None:
    words = split("The lamp was lit.", VOCABULARY)
    first, second = Reading(words, VOCABULARY), Reading(words, VOCABULARY)
    assert compare(first, second) is None

    def piece(probs: list[float]) -> token_scores.Piece:
        none = np.zeros((len(probs), token_scores.ALTERNATIVES))
        return token_scores.Piece(
            0, np.log(probs), np.ones(len(probs), np.int32), none.astype(np.int32), none.astype(np.float32)
        )

    first.add(piece([0.5, 0.25, 0.5, 0.1]))
    second.add(piece([0.25, 0.5, 0.125]))
    comparison = compare(first, second)
    assert comparison is not None
    assert (comparison.words, comparison.better, comparison.worse) == (3, 2, 1)
    assert comparison.bits == pytest.approx((1 - 1 + 2) / 3)


# Files


def test_a_file_is_read_with_or_without_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Frodo, œuvre\r\n".encode("utf-8-sig"))
    assert read_file(tmp_path / "a.txt") == "Frodo, œuvre\r\n"
    (tmp_path / "empty.txt").write_bytes(b"")
    assert read_file(tmp_path / "empty.txt") == ""


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.txt", None, "does not exist"),
        ("nul\0.txt", None, "does not exist"),
        ("x" * 300, None, "cannot be read"),
        ("binary", b"a\0b", "NUL bytes"),
        ("latin.txt", "Königin".encode("latin-1"), "not UTF-8 (byte 1)"),
        ("long.txt", b"a" * (token_scores.MOST_BYTES + 1), "at most 4 are read"),
    ],
)
def test_files_that_are_no_text_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as error:
        read_file(tmp_path / name)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is a folder"):
        read_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="not a regular file"):
        read_file(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_file(Path("~nobody-of-that-name/x.txt"))
