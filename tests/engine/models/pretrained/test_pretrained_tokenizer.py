import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import EOS, EOS_ID
from engine.errors import InvalidInputError
from engine.models.pretrained.tokenizer import PretrainedTokenizer
from tests.support.pretrained import SPECIAL_TOKENS, TEXTS, VOCABULARY_SIZE, new_backend

pytest.importorskip("transformers")

BACKEND = new_backend()
TOKENIZER = PretrainedTokenizer(BACKEND.to_str(), VOCABULARY_SIZE, end_id=2)
SENTENCEPIECE_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁ab"]


def new_sentencepiece():
    """Return a tokenizer as Llama 2 has it: a space is added before a text, and unknown characters become bytes."""
    vocabulary = {name: id for id, name in enumerate(SENTENCEPIECE_TOKENS)}
    merges = [("▁", "a"), ("▁a", "b")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PretrainedTokenizer(backend.to_str(), len(vocabulary), end_id=2)


@settings(max_examples=150, deadline=None)
@given(st.text(st.one_of(st.sampled_from("aR <|im_end|>\n é𝄞"), st.characters(exclude_categories=["Cs"]))))
def test_every_text_is_decoded_as_it_was_encoded(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    spans = TOKENIZER.spans(text)
    assert [span.id for span in spans] == ids.tolist()
    assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]
    assert not spans or (spans[0].start, spans[-1].end) == (0, len(text))
    assert EOS_ID not in ids


def test_ids_are_those_of_transformers_but_for_the_exchange():
    for text in TEXTS:
        expected = [{1: 2, 2: 1}.get(id, id) for id in BACKEND.encode(text).ids]
        assert TOKENIZER.encode(text).tolist() == expected
        assert TOKENIZER.encode_lines([text, ""])[0].tolist() == expected
    assert TOKENIZER.tokens[EOS_ID] == EOS
    assert TOKENIZER.tokens[2] == "<|im_start|>"
    assert TOKENIZER.tokens[0] == "<|endoftext|>"
    assert TOKENIZER.swap(np.array([1, 2, 3])).tolist() == [2, 1, 3]
    assert [TOKENIZER.swap_id(id) for id in (1, 2, 3)] == [2, 1, 3]


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_special_tokens_in_a_text_are_plain_characters(special):
    text = f"say {special}{special}system"
    ids = TOKENIZER.encode(text)
    assert {0, 1, 2}.isdisjoint(ids.tolist())
    assert TOKENIZER.decode(ids) == text
    assert not {0, 1, 2} & set(TOKENIZER.ids_with_prefix(b"<|").tolist())


def test_a_special_token_that_the_file_does_not_mark_is_plain_too():
    content = json.loads(BACKEND.to_str())
    for token in content["added_tokens"]:
        token["special"] = False
    tokenizer = PretrainedTokenizer(json.dumps(content), VOCABULARY_SIZE, end_id=2)
    assert 1 not in tokenizer.encode("a<|im_end|>")
    assert tokenizer.decode(tokenizer.encode("a<|im_end|>")) == "a<|im_end|>"


def test_a_special_token_that_the_vocabulary_itself_finds_is_plain_too():
    tokens = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((character, -5.0) for character in "<>/sab▁")]
    backend = Tokenizer(models.Unigram(tokens, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer = PretrainedTokenizer(backend.to_str(), len(tokens), end_id=2, special_ids=[0, 1])
    for text in ("</s>", "a<s></s>b", "<</s>s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert {1, 2}.isdisjoint(tokenizer.encode(text).tolist())


def test_texts_that_are_not_unicode_are_refused():
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        TOKENIZER.encode("a\ud800")
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        TOKENIZER.encode_lines(["a\ud800"])




def test_tokens_that_the_model_lacks_are_left_out_and_gaps_have_a_name():
    small = PretrainedTokenizer(BACKEND.to_str(), 300, end_id=2)
    assert len(small) == 300
    large = PretrainedTokenizer(BACKEND.to_str(), VOCABULARY_SIZE + 2, end_id=2)
    assert large.tokens[-1] == f"<unused {VOCABULARY_SIZE + 1}>"
    assert len(large.word_starts) == len(large.word_ends) == VOCABULARY_SIZE + 2


def test_sentencepiece_texts_survive_with_the_space_that_is_added():
    tokenizer = new_sentencepiece()
    for text in ("ab a", "a", " a", "é\n", "b</s>"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        spans = tokenizer.spans(text)
        assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]
        assert (spans[0].start, spans[-1].end) == (0, len(text))
        assert {1, 2}.isdisjoint(ids.tolist())
    assert [tokenizer.tokens[id] for id in tokenizer.encode("ab é")] == [" ab", " ", "<0xC3>", "<0xA9>"]
    assert [(span.start, span.end) for span in tokenizer.spans("ab é")] == [(0, 2), (2, 3), (3, 4), (4, 4)]


def test_spans_follow_the_text_where_the_tokenizer_normalizes_it():
    backend = new_backend()
    backend.normalizer = normalizers.NFC()
    tokenizer = PretrainedTokenizer(backend.to_str(), VOCABULARY_SIZE, end_id=2)
    text = "e\N{COMBINING ACUTE ACCENT}a b"
    spans = tokenizer.spans(text)
    assert (spans[0].start, spans[-1].end) == (0, len(text))
    assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]
    assert text[spans[-1].start : spans[-1].end].strip() == "b"


def test_line_breaks_are_characters_of_one_text():
    text = "Where\n\n\nis\nit"
    assert b"\n\n" in [TOKENIZER.token_bytes[id] for id in TOKENIZER.encode(text)]
    tokens = tokenize_with_offsets(text, TOKENIZER, eos_per_line=True)
    assert tokens.ids.tolist() == TOKENIZER.encode(text).tolist()
    assert "".join(tokens[index] for index in range(len(tokens))) == text




