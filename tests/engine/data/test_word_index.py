"""Words as numbers, a block of lines at a time: always what the plain tokenizer makes of each line."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.data import word_index
from engine.data.punctuation import COMMA, LINE, NONE, SENTENCE
from engine.data.vocabulary import WORD, tokenize
from engine.data.word_index import WordIndex

SIGNS = st.sampled_from("aZ09'-.,!?… \t\u2028\u00a0\u200bKKİẞΣσßéÉ“”\x1c\x85ﬁǅ日")
LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | SIGNS, max_size=40)
    | st.text(st.sampled_from("ab ."), max_size=60),
    max_size=12,
).map(lambda lines: [" ".join(line.split()) for line in lines])


def block(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def pauses_by_hand(line: str, tokenizer: Any) -> list[int]:
    """The gaps between the words one by one."""
    if tokenizer == "spaces":
        return [NONE] * (len(tokenize(line, tokenizer)) - 1) + [LINE] * bool(tokenize(line, tokenizer))
    gaps = WORD.split(line.lower())[1:]
    marks = [NONE if gap.isspace() else SENTENCE if re.search("[.!?…]", gap) else COMMA for gap in gaps]
    return marks[:-1] + [LINE] * bool(gaps)


def check(lines: list[str], tokenizer: Any, index: WordIndex) -> None:
    read = index.read(block(lines))
    words = [tokenize(line, tokenizer) for line in lines]
    assert [index.words[number] for number in read.ids] == [word for its in words for word in its]
    assert read.lengths.tolist() == [len(its) for its in words]
    assert read.pauses.tolist() == [pause for line in lines for pause in pauses_by_hand(line, tokenizer)]


@settings(max_examples=300)
@given(st.lists(LINES, min_size=1, max_size=4), st.sampled_from(["words", "spaces"]))
@example([["300 \u212a, it is \u0130stanbul…"], ["\u03a3\u03a3. odd\u03a3 a"]], "words")
def test_any_text_is_indexed_as_the_plain_tokenizer_cuts_it(blocks: list[list[str]], tokenizer: Any) -> None:
    index = WordIndex(tokenizer)
    for lines in blocks:
        check(lines, tokenizer, index)
    words = [word for lines in blocks for line in lines for word in tokenize(line, tokenizer)]
    assert index.words == list(dict.fromkeys(words)), "numbers are in order of first appearance"


@pytest.mark.parametrize("length", range(1, 40))
def test_words_of_any_length_that_differ_in_one_letter_are_told_apart(length: int) -> None:
    words = ["a" * place + "b" + "a" * (length - place - 1) for place in range(length)] + ["a" * length]
    index = WordIndex()
    for _ in range(3):
        check([" ".join(words), " ".join(reversed(words))], "words", index)
    assert len(index.words) == length + 1


def test_words_that_share_a_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two slots for a thousand words nearly all are looked up the slow way."""
    monkeypatch.setattr(word_index, "_SHIFT", np.uint64(63))
    chance = np.random.default_rng(0)
    index = WordIndex()
    for _ in range(5):
        check([" ".join(f"w{n}" for n in chance.integers(0, 1000, 20)) for _ in range(50)], "words", index)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the road goes on", [NONE, NONE, NONE, LINE]),
        ("Well, well. Go on!", [COMMA, SENTENCE, NONE, LINE]),
        ("Sam?Sam", [SENTENCE, LINE]),
        ("is it , Frodo ... ,no", [NONE, COMMA, SENTENCE, LINE]),
        ("don't - stop waiting", [COMMA, NONE, LINE]),
        ("wait… what", [SENTENCE, LINE]),
        ("Éowyn", [LINE]),
        ("one", [LINE]),
        ("...", []),
        ("", []),
    ],
)
def test_pauses_by_hand(text: str, expected: list[int]) -> None:
    assert WordIndex().read(text + "\n").pauses.tolist() == expected


def test_text_cut_into_words_before_has_its_marks_as_words() -> None:
    assert WordIndex("spaces").read("no , it was n't . <unk>\n").pauses.tolist() == [NONE] * 6 + [LINE]
