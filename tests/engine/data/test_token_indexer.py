"""The fast tokenizer of large texts equals the plain tokenizer."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.data import token_indexer
from engine.data.punctuation import COMMA, LINE_END, NONE, SENTENCE_END
from engine.data.token_indexer import TokenIndexer
from engine.data.tokenizers.words import WORD_PATTERN, split_words

SIGNS = st.sampled_from("aZ09'-.,!?… \t\u2028\u00a0\u200bKKİẞΣσßéÉ“”\x1c\x85ﬁǅ日")
LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | SIGNS, max_size=40)
    | st.text(st.sampled_from("ab ."), max_size=60),
    max_size=12,
).map(lambda lines: [" ".join(line.split()) for line in lines])


def join_lines(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def naive_punctuation(line: str, tokenizer: Any) -> list[int]:
    """Return the punctuation class after each token, from the gaps between the tokens."""
    if tokenizer == "whitespace":
        return [NONE] * (len(split_words(line, tokenizer)) - 1) + [LINE_END] * bool(split_words(line, tokenizer))
    gaps = WORD_PATTERN.split(line.lower())[1:]
    marks = [NONE if gap.isspace() else SENTENCE_END if re.search("[.!?…]", gap) else COMMA for gap in gaps]
    return marks[:-1] + [LINE_END] * bool(gaps)


def check(lines: list[str], tokenizer: Any, indexer: TokenIndexer) -> None:
    block = indexer.index_block(join_lines(lines))
    words = [split_words(line, tokenizer) for line in lines]
    assert [indexer.tokens[id] for id in block.ids] == [word for line_words in words for word in line_words]
    assert block.line_lengths.tolist() == [len(line_words) for line_words in words]
    assert block.punctuation.tolist() == [mark for line in lines for mark in naive_punctuation(line, tokenizer)]


@settings(max_examples=300)
@given(st.lists(LINES, min_size=1, max_size=4), st.sampled_from(["words", "whitespace"]))
@example([["300 \u212a, it is \u0130stanbul…"], ["\u03a3\u03a3. odd\u03a3 a"]], "words")
def test_any_text_is_tokenized_like_the_plain_tokenizer(blocks: list[list[str]], tokenizer: Any) -> None:
    indexer = TokenIndexer(tokenizer)
    for lines in blocks:
        check(lines, tokenizer, indexer)
    words = [word for lines in blocks for line in lines for word in split_words(line, tokenizer)]
    assert indexer.tokens == list(dict.fromkeys(words)), "ids are in order of first appearance"


@pytest.mark.parametrize("length", range(1, 40))
def test_words_that_differ_in_one_letter_have_different_ids(length: int) -> None:
    words = ["a" * place + "b" + "a" * (length - place - 1) for place in range(length)] + ["a" * length]
    indexer = TokenIndexer()
    for _ in range(3):
        check([" ".join(words), " ".join(reversed(words))], "words", indexer)
    assert len(indexer.tokens) == length + 1


def test_words_in_the_same_hash_slot_have_different_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two slots for a thousand words, nearly all of them are looked up in the dict."""
    monkeypatch.setattr(token_indexer, "_HASH_SHIFT", np.uint64(63))
    rng = np.random.default_rng(0)
    indexer = TokenIndexer()
    for _ in range(5):
        check([" ".join(f"w{n}" for n in rng.integers(0, 1000, 20)) for _ in range(50)], "words", indexer)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the road goes on", [NONE, NONE, NONE, LINE_END]),
        ("Well, well. Go on!", [COMMA, SENTENCE_END, NONE, LINE_END]),
        ("Sam?Sam", [SENTENCE_END, LINE_END]),
        ("is it , Frodo ... ,no", [NONE, COMMA, SENTENCE_END, LINE_END]),
        ("don't - stop waiting", [COMMA, NONE, LINE_END]),
        ("wait… what", [SENTENCE_END, LINE_END]),
        ("Éowyn", [LINE_END]),
        ("one", [LINE_END]),
        ("...", []),
        ("", []),
    ],
)
def test_punctuation_examples(text: str, expected: list[int]) -> None:
    assert TokenIndexer().index_block(text + "\n").punctuation.tolist() == expected


def test_whitespace_tokenizer_keeps_marks_as_tokens() -> None:
    assert TokenIndexer("whitespace").index_block("no , it was n't . <unk>\n").punctuation.tolist() == [NONE] * 6 + [
        LINE_END
    ]
