"""Tokenizers in Hugging Face's format: the same ids as ours for any text."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

from engine.data.tokenizers import EOS_ID, Tokenizer, WordTokenizer
from engine.models.pretrained.tokenizer import to_hugging_face
from tests.support.open_models import LINES, bpe_tokenizer, character_tokenizer

WORDS = ("the", "ring", "i", "k", "ss", "it's", "'", "2", "eos", "unk")
NON_SPACES = (*WORDS, "The", "Ring!", "é", "☺", "K", "İ", "<b>", "<eos>x")
TOKENIZERS: dict[str, Tokenizer] = {
    "bpe": bpe_tokenizer(),
    "characters": character_tokenizer(),
    "words": WordTokenizer(("<unk>", "<eos>", *WORDS)),
    "whitespace": WordTokenizer(("<unk>", "<eos>", *NON_SPACES), "whitespace"),
}
CONVERTED = {name: to_hugging_face(tokenizer) for name, tokenizer in TOKENIZERS.items()}

characters = st.characters(exclude_categories=("Cs",))
"""All characters but lone surrogates, which Hugging Face's tokenizers refuse."""
SPACES = [" ", "  ", "\n", "\t", "\u00ad", "\0", "\u2028", "Ġ"]
parts = st.sampled_from([*NON_SPACES, *LINES, *SPACES, "<eos>", "<unk>", "<0x61>"])
texts = st.lists(st.one_of(parts, st.text(characters, max_size=4))).map("".join)


def encode(name, text):
    return CONVERTED[name].encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40)
@given(text=texts)
def test_ids_equal_ours_for_any_text(name, text):
    assert encode(name, text) == TOKENIZERS[name].encode(text).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "whitespace"])
def test_every_character_of_unicode_is_read_as_ours_reads_it(name):
    all_characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for text in (f"the{character}ring" for character in all_characters if unicodedata.category(character)[0] in "CZ"):
        if unicodedata.category(text[3]) not in ("Co", "Cn"):
            assert encode(name, text) == TOKENIZERS[name].encode(text).tolist(), ascii(text)
    for start in range(0, len(all_characters), 10_000):
        for separator in ("", " the "):
            text = separator.join(all_characters[start : start + 10_000])
            assert encode(name, text) == TOKENIZERS[name].encode(text).tolist(), f"from {start:x}"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_are_read_in_a_text_where_they_are_asked_for(name):
    tokenizer = TOKENIZERS[name]
    converted = HuggingFaceTokenizer.from_str(CONVERTED[name].to_str())  # which does not store encode_special_tokens
    expected = [EOS_ID, *tokenizer.encode("the").tolist(), EOS_ID]
    assert converted.encode("<eos>the<eos>", add_special_tokens=False).ids == expected


@pytest.mark.parametrize("name", ["bpe", "characters"])
@settings(max_examples=40)
@given(text=texts)
def test_the_ids_of_an_open_vocabulary_are_decoded_to_the_text(name, text):
    assert CONVERTED[name].decode(TOKENIZERS[name].encode(text).tolist()) == text
