"""Bits per character by hand, under different tokenizers, of every character of a text, and of written lines."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.bits_per_character import (
    TEXT_FORMS,
    EncodedText,
    convert_text,
    native_form,
    spelling_bits,
    text_bits_per_character,
    written_text,
)
from engine.analysis.model_comparison import Candidate, compare_models
from engine.analysis.written_bits import lines_with_words, measure_written_bits
from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.bpe import BPETokenizer
from engine.data.tokenizers.characters import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import CorpusError
from engine.models.ngram import KneserNey, Unigram
from engine.models.orthography import OrthographyModel
from engine.models.spelling import SpellingModel
from tests.support.files import sentences, write_csv
from tests.support.models import UniformModel, naive_bits

TEXT = "Gandalf: You shall not pass!\n\nFrodo: “Go back”… 🧙‍♂️ to the Shire?\n  So be  it.\n"
WORDS = WordTokenizer(("<unk>", "<eos>", "the", "king"))
MODES = ("line", "stream")
"""Modes of a text without speakers."""


def open_tokenizers():
    lines = [*TEXT.split("\n"), "the shire and the pass", "so be the shire"] * 3
    return [
        CharacterTokenizer([]),
        CharacterTokenizer(["“", "”"]),
        *(BPETokenizer.train(lines, size) for size in (258, 270, 320)),
    ]


def uniform_byte_log_probs(tokenizer, encoded):
    """Return the scores of a model for which each byte has the probability 1/256, however bytes form tokens."""
    return np.array([-len(tokenizer.token_bytes[id]) * math.log(256) for id in encoded.ids])


def test_uniform_word_model_spells_its_unknown_words():
    """The king, the <unk> <eos>: five tokens of two bits, and the letters of `fool`."""
    spelled = -SpellingModel(["the", "king"]).unknown_log_probs(["fool"])[0] / math.log(2)
    expected = (5 * 2 + spelled) / len("the king the fool\n")
    assert text_bits_per_character(UniformModel(WORDS), "The king -- the FOOL!\n", "line") == pytest.approx(expected)
    assert spelled > 4 * 4  # letters that the vocabulary has not are expensive


def test_stream_mode_of_words_also_counts_the_line_ends():
    """A line end after a word is estimated as .5 / 1, then .5 / 2, then 1.5 / 3; the last one is `<eos>`."""
    text = "the king\nthe king\n"
    tokens = 5 * 2  # four words and the end of the text
    separators = -math.log2(1 / 2) - math.log2(1 / 4) - math.log2(1 - 1.5 / 3)
    encoded = EncodedText(text, WORDS, "stream")
    assert encoded.ids.tolist() == [2, 3, 2, 3, EOS_ID]
    assert encoded.token_bits(np.full(5, -math.log(4))).sum() == pytest.approx(tokens + separators)
    assert EncodedText(text, WORDS, "line").token_bits(np.full(6, -math.log(4))).sum() == pytest.approx(12)
    assert EncodedText("the\n", WORDS, "stream").untokenized_bits.tolist() == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_uniform_bytes_give_the_same_figure_under_every_segmentation(mode):
    """In stream mode, the end of the text is one token more."""
    expected = (len(TEXT.encode()) + (mode == "stream")) * 8 / len(TEXT)
    num_tokens = set()
    for tokenizer in open_tokenizers():
        encoded = EncodedText(TEXT, tokenizer, mode)
        log_probs = uniform_byte_log_probs(tokenizer, encoded)
        assert encoded.bits_per_character(log_probs) == pytest.approx(expected)
        assert encoded.block_bits(log_probs).sum() == pytest.approx(expected * len(TEXT))
        num_tokens.add(len(encoded.ids))
    assert len(num_tokens) == 5


def test_blocks_are_the_same_characters_for_all_tokenizers():
    """Uniform bytes of an ASCII text: all blocks have 8 bits per character, although tokens cross their borders."""
    text = "the shire and the pass, so be it\n" * 30
    for tokenizer in (*open_tokenizers(), WordTokenizer(("<unk>", "<eos>"), "whitespace")):
        encoded = EncodedText(text, tokenizer, "line")
        assert encoded.block_sizes.tolist() == [100] * 9 + [90]
        lengths = np.diff(encoded.end_offsets, prepend=0)
        log_probs = -8 * math.log(2) * lengths + encoded.untokenized_bits * math.log(2)
        assert encoded.block_bits(log_probs) == pytest.approx(8 * encoded.block_sizes)


@pytest.mark.parametrize("mode", [*MODES, "dialogue"])
@pytest.mark.parametrize("name", ["words", "whitespace", "characters", "bpe"])
def test_tokens_are_those_of_the_dataset(tmp_path, name, mode):
    path = tmp_path / "corpus.csv"
    if mode == "dialogue":
        speakers = ["GANDALF", "Sam (V.O.)", "", "A passer-by"]
        lines = [f'{speakers[index % 4]},"{text}",{index // 13}' for index, text in enumerate(sentences(300))]
        path.write_text("\n".join(["char,dialog,movie", *lines, 'GANDALF,"The end: of  it, at LAST!",9']) + "\n")
    else:
        write_csv(path, [*sentences(80), "The end -- of  it, at LAST! (they say so)"])
    dataset = load_dataset(DataConfig(corpus=str(path), tokenizer=name, mode=mode, vocabulary_size=300))
    for split in ("train", "valid", "test"):
        text = convert_text(written_text(dataset, split), native_form(dataset.tokenizer), mode)
        assert EncodedText(text, dataset.tokenizer, mode).ids.tolist() == dataset.get_split(split).tolist()


def test_the_names_of_speakers_without_a_token_are_spelled():
    """Two lines and a scene's end: two speakers, two words and three <eos>, and the letters of `GOLLUM`."""
    tokenizer = WORDS.with_cast(("SAM", "SOMEONE"))
    spelled = -SpellingModel(["SAM", "SOMEONE"]).unknown_log_probs(["GOLLUM"])[0] / math.log(2)
    script = "Sam: the\n\nGollum: king\n"
    encoded = EncodedText(script, tokenizer, "dialogue")
    first = tokenizer.num_text_tokens
    assert encoded.ids.tolist() == [first, 2, EOS_ID, EOS_ID, first + 1, 3, EOS_ID]
    assert encoded.end_offsets.tolist() == [5, 8, 9, 10, 18, 22, 23]
    assert encoded.token_bits(np.full(7, -math.log(2))).sum() == pytest.approx(7 + spelled)
    assert EncodedText("the king\n", tokenizer, "dialogue").ids.tolist() == [first + 1, 2, 3, EOS_ID]


def test_forms_of_a_text():
    text = "The  King,\n\n - \nsaid:\x0bFool’s “Ho”"
    assert convert_text(text, "original") == f"{text}\n"
    assert convert_text(text, "whitespace") == "The King,\n-\nsaid:\nFool’s “Ho”\n"
    assert convert_text(text, "words") == "the king\nsaid\nfool s ho\n"
    assert [convert_text("", form) for form in TEXT_FORMS] == [""] * 3
    script = "GANDALF: The KING.\n\nSAM: Oh: no!"
    assert convert_text(script, "words", "dialogue") == "GANDALF: the king\n\nSAM: oh no\n"
    assert native_form(WORDS) == "words"
    assert native_form(WordTokenizer(("<unk>", "<eos>"), "whitespace")) == "whitespace"
    assert [native_form(tokenizer) for tokenizer in open_tokenizers()] == ["original"] * 5


@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), mode=st.sampled_from([*MODES, "dialogue"]))
def test_any_text_has_finite_bits_and_the_blocks_have_all_of_them(text, mode):
    for tokenizer in (WORDS, WordTokenizer(("<unk>", "<eos>", "a"), "whitespace"), CharacterTokenizer(["é"])):
        tokenizer = tokenizer.with_cast(("A", "SOMEONE")) if mode == "dialogue" else tokenizer
        converted = convert_text(text, native_form(tokenizer), mode)
        if not converted:
            continue
        encoded = EncodedText(converted, tokenizer, mode)
        log_probs = np.full(len(encoded.ids), -1.5)
        bits = encoded.token_bits(log_probs)
        assert np.isfinite(bits).all()
        assert encoded.end_offsets[-1] == encoded.num_characters == encoded.block_sizes.sum()
        assert encoded.block_bits(log_probs).sum() == pytest.approx(bits.sum())


def test_an_empty_text_is_an_error():
    for text in ("", "... !\n\n"):
        for mode in MODES:
            with pytest.raises(CorpusError, match=r"^the text has no words to score; use a longer text$"):
                text_bits_per_character(UniformModel(WORDS), text, mode)


def test_unk_in_the_text_itself_needs_no_spelling():
    """Penn Treebank writes its rare words as <unk>."""
    tokenizer = WordTokenizer(("<unk>", "<eos>", "the"), "whitespace")
    king = spelling_bits(tokenizer, ["king"])[0]
    assert spelling_bits(tokenizer, ["<unk>", "king", "<unk>"]).tolist() == [0, king, 0]
    assert spelling_bits(tokenizer, []).tolist() == []
    assert EncodedText("<unk> the\n", tokenizer, "line").untokenized_bits.tolist() == [0, 0, 0]


TRAIN = ["The road goes on.", "Where is the road, then?", "The lamp is lit."]
LINES = ["The lamp is on?", "Where: the MINE of Moria."]


def test_model_of_words_pays_for_spelling_and_writing():
    tokenizer = WordTokenizer.from_words([word for line in TRAIN for word in line.lower().strip(".?").split()], 1)
    ids = np.array([id for line in TRAIN for id in [*tokenizer.encode(line), EOS_ID]], np.int32)
    model, orthography = KneserNey(ids, tokenizer, 3), OrthographyModel(TRAIN, "words")
    result = measure_written_bits(model, "line", LINES, orthography)
    read = [id for line in LINES for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    spelling = SpellingModel(tokenizer.tokens[2:])
    expected = naive_bits(model, read) - spelling.unknown_log_probs(["mine", "of", "moria"]).sum() / math.log(2)
    assert result.token_bits == pytest.approx(expected, rel=1e-5)
    assert result.orthography_bits == pytest.approx(sum(orthography.bits(line) for line in LINES))
    assert result.num_characters == sum(map(len, LINES)) + 2
    total = (result.token_bits + result.orthography_bits) / result.num_characters
    assert result.bits_per_character == pytest.approx(total)
    # `lotr-tui eval` states the bits of the words per character of the lower-case words.
    (comparison,) = compare_models([Candidate("words", model, "line", "\n".join(LINES))])
    assert result.token_bits / comparison.num_characters == pytest.approx(comparison.scores[0].bits_per_character)


def test_speaker_of_a_dialogue_is_given():
    tokenizer = CharacterTokenizer.from_lines(TRAIN, 1).with_cast(("BILBO", "SOMEONE"))
    speaker = tokenizer.speaker_id("SOMEONE")
    train = [id for line in TRAIN for id in [speaker, *tokenizer.encode(line).tolist(), EOS_ID]]
    model = Unigram(np.array(train, np.int32), tokenizer)
    result = measure_written_bits(model, "dialogue", LINES, None)
    text_ids = [id for line in LINES for id in [*tokenizer.encode(line).tolist(), EOS_ID]]
    assert result.token_bits == pytest.approx(naive_bits(model, text_ids), rel=1e-5)
    assert result.num_characters == sum(map(len, LINES)) + 2  # a colon in a line is not the end of a name


def test_lines_without_a_word_are_left_out():
    lines = ["", "...", "a", "¿?", "No."]
    assert list(lines_with_words(lines, "words")) == ["a", "No."]
    assert list(lines_with_words(lines, "whitespace")) == lines[1:]
