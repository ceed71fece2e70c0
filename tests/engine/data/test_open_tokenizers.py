"""Open vocabularies: characters and byte pairs, which encode any text exactly as it is written."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.tokenizers import EOS, EOS_ID, BPETokenizer, CharacterTokenizer
from engine.errors import InvalidInputError, RunError

LINES = [
    "The wizard said that the ring is not safe, and the wizards laughed.",
    "Théoden said: “The wizard is late!”",
    "Then the king and the wizard said nothing at all.",
]
BPE = BPETokenizer.train(LINES * 5, 300)
CHARACTERS = CharacterTokenizer.from_lines(LINES, 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TOKENIZERS = st.sampled_from([BPE, CHARACTERS])
ODD_TEXTS = [
    *["", " ", "\x00\x1b[2J\r\n\t", "👨‍👩‍👧‍👦 🇳🇿 e\u0301", "مرحبا \u202eabc\u202c", "<eos><unk><0x0A>", "\ufeff中文。"],
    'don\'t -- "stop"  two  spaces ',
]


@given(TOKENIZERS, TEXT | st.sampled_from(ODD_TEXTS))
def test_any_text_is_encoded_as_written(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids.tolist()) == text
    assert EOS_ID not in ids
    assert tokenizer.unknown_spans(text) == []
    spans = tokenizer.spans(text)
    assert [span.id for span in spans] == ids.tolist()
    assert "".join(text[span.start : span.end] for span in spans) == text
    assert all(first.end == second.start for first, second in pairwise(spans))
    lines = [text, "The wizard", text]
    assert [line.tolist() for line in tokenizer.encode_lines(lines)] == [tokenizer.encode(x).tolist() for x in lines]


@given(TOKENIZERS, st.lists(st.integers(0, 10**6), max_size=30))
def test_pieces_join_to_the_text_and_hold_whole_characters(tokenizer, numbers):
    ids = [number % len(tokenizer) for number in numbers]
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == b"".join(tokenizer.token_bytes[id] for id in ids).decode(errors="replace")


def test_line_ends_are_decoded_as_line_feeds():
    for tokenizer in (BPE, CHARACTERS):
        ids = [*tokenizer.encode("The king").tolist(), EOS_ID, *tokenizer.encode("and").tolist()]
        assert tokenizer.decode(ids) == "The king\nand"
        assert tokenizer.tokens[EOS_ID] == EOS
        assert tokenizer.unk_id is None


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS])
def test_a_lone_surrogate_is_refused_with_its_place(tokenizer):
    for encode in (tokenizer.encode, tokenizer.spans, lambda text: tokenizer.encode_lines(["fine", text])):
        with pytest.raises(InvalidInputError, match=r"character 4 is a lone surrogate \(U\+DC80\);"):
            encode("The\udc80")


def test_words_start_at_spaces_and_punctuation_but_not_inside_words():
    tokenizer = CharacterTokenizer.from_lines(["é"], 1)
    starts = {token: bool(start) for token, start in zip(tokenizer.tokens, tokenizer.word_starts, strict=True)}
    assert all(starts[token] for token in (" ", ",", ".", '"', "-", EOS))
    assert not any(starts[token] for token in ("a", "Z", "0", "'", "é", "<0xC3>"))


class TestBPE:
    @staticmethod
    def learn_naively(words, num_merges):
        """Learn merges from words without spaces by counting all pairs again after every merge."""
        counts = Counter(words)
        parts = {word: list(word) for word in counts}
        merges = []
        for _ in range(num_merges):
            pairs = Counter[tuple[str, str]]()
            for word, count in counts.items():
                for pair in pairwise(parts[word]):
                    pairs[pair] += count
            best = max(pairs, key=lambda pair: pairs[pair])
            merges.append(best)
            for word in counts:
                parts[word] = TestBPE.merge(parts[word], best)
        return merges

    @staticmethod
    def merge(parts, pair):
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == pair:
                merged[-1] += part
            else:
                merged.append(part)
        return merged

    def test_merges_are_those_of_a_naive_implementation(self):
        # Distinct counts, so that no two pairs tie.
        words = ["abc"] * 16 + ["abd"] * 8 + ["cab"] * 4 + ["dd"] * 2
        tokenizer = BPETokenizer.train(words, 257 + 3)
        assert list(tokenizer.merges) == self.learn_naively(words, 3)

    @given(st.text("thewizardns", min_size=1, max_size=12))
    def test_words_are_split_by_applying_the_merges_in_order(self, word):
        parts = list(word)
        for pair in BPE.merges:
            parts = self.merge(parts, pair)
        assert [BPE.tokens[id] for id in BPE.encode(word)] == parts

    def test_a_long_text_without_a_space_is_encoded_in_linear_time(self):
        text = "a" * 300_000 + "☺" * 1000
        assert BPE.decode(BPE.encode(text).tolist()) == text

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda content: content | {"version": "9.0"}, "its version differs"),
            (lambda content: content | {"pre_tokenizer": None}, "its pre_tokenizer differs"),
            (lambda content: with_merges(content, [["q", "zz"]]), "impossible merge of 'q' and 'zz'"),
            (lambda content: with_merges(content, [["a", "b", "c"]]), "not a tokenizer of byte pairs"),
            (lambda content: with_merges(content, [[1, 2]]), "impossible merge of 1 and 2"),
            (lambda content: with_merges(content, content["model"]["merges"][:-1]), "its vocabulary differs"),
        ],
    )
    def test_a_damaged_file_is_refused_with_its_fault(self, change, message):
        content = json.dumps(change(json.loads(BPE.to_json())))
        with pytest.raises(RunError, match=r"run/tokenizer\.json") as caught:
            BPETokenizer.from_json(content, "run/tokenizer.json")
        assert message in str(caught.value)

    @given(st.text(max_size=20) | st.sampled_from(["[]", "null", "{}", "[" * 100_000]))
    def test_other_content_is_refused(self, content):
        with pytest.raises(RunError, match="is not a tokenizer of byte pairs"):
            BPETokenizer.from_json(content, "file")


CHARACTER_FILE = '{"type": "characters", "version": 1, "characters": [%s]}'


class TestCharacters:
    def test_ascii_characters_are_bytes_and_known_others_are_one_token(self):
        tokens = [CHARACTERS.tokens[id] for id in CHARACTERS.encode("aé“☺")]
        assert tokens == ["a", "é", "“", "<0xE2>", "<0x98>", "<0xBA>"]

    def test_rare_and_invisible_characters_are_not_part_of_the_vocabulary(self):
        tokenizer = CharacterTokenizer.from_lines(["éé☺\u202e\u202e", "é"], 2)
        assert tokenizer.characters == ("é",)

    @pytest.mark.parametrize(
        "content",
        [
            *((CHARACTER_FILE % "").replace(*change) for change in (("1", "2"), ('"characters", ', '"bpe", '))),
            *("[]", CHARACTER_FILE % '"é", "é"', CHARACTER_FILE % '"a"', CHARACTER_FILE % '"\\u202e"'),
            *(CHARACTER_FILE % '"\\ud800"', CHARACTER_FILE % '"éé"', CHARACTER_FILE % '], "more": [1'),
        ],
    )
    def test_a_damaged_file_is_refused(self, content):
        with pytest.raises(RunError, match=r"run/tokenizer\.json"):
            CharacterTokenizer.from_json(content, "run/tokenizer.json")


def with_merges(content, merges):
    return content | {"model": content["model"] | {"merges": merges}}
