"""Copied passages found by the index against exhaustive searches, of tokens and of written words."""

import re
from itertools import chain, combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.memorization import MAX_OCCURRENCES, MIN_PASSAGE_LENGTH, TrainingIndex, occurrence_span
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.corpus import Line
from engine.data.tokenizers import EOS_ID, UNK_ID
from tests.support.files import load_rows
from tests.support.open_models import bpe_tokenizer, character_tokenizer


def search_exhaustively(lines, text, is_copy):
    """Return the places (line, offset) of every run of `text` that is not part of a longer run, by start and stop."""
    runs = {}
    for start, stop in combinations(range(len(text) + 1), 2):
        run = text[start:stop]
        places = [(i, at) for i, line in enumerate(lines) for at in range(len(line)) if line[at:][: len(run)] == run]
        if places and is_copy(run):
            runs[start, stop] = places
    return {
        (start, stop): places
        for (start, stop), places in runs.items()
        if not any(first <= start and stop <= last for first, last in runs.keys() - {(start, stop)})
    }


def are_known_words(run):
    return len(run) >= MIN_PASSAGE_LENGTH and not {EOS_ID, UNK_ID} & set(run)


@st.composite
def lines_and_reply(draw):
    """Draw lines and a reply of few different words, with `<unk>` and `<eos>` rarely, so that many runs match."""
    num_words = draw(st.sampled_from([1, 2, 4]))
    token = st.sampled_from([*range(2, num_words + 2)] * 5 * (6 - num_words) + [UNK_ID, EOS_ID])
    lines = draw(st.lists(st.lists(token, min_size=1, max_size=14), min_size=1, max_size=6))
    copied = st.lists(st.sampled_from(lines), max_size=4).map(lambda copied: list(chain(*copied)))
    # Concatenated lines, because long matches are rare in random tokens; 900,000 is in no line.
    return lines, draw(st.one_of(st.lists(st.one_of(token, st.just(900_000)), min_size=8, max_size=25), copied))


@settings(max_examples=100, deadline=None)
@given(lines_and_reply())
def test_passages_match_an_exhaustive_search(case):
    lines, ids = case
    index = TrainingIndex([np.array(line, np.int32) for line in lines], [Line("")] * len(lines))
    report = index.find_passages(np.array(ids, np.int32), np.array(ids, np.int32) != EOS_ID)
    expected = search_exhaustively(lines, ids, are_known_words)
    assert {
        (passage.start, passage.start + passage.length): [
            (each.line_index, each.offset) for each in passage.occurrences
        ]
        for passage in report.passages
    } == {run: places[:MAX_OCCURRENCES] for run, places in expected.items()}
    assert [passage.num_occurrences for passage in report.passages] == [len(expected[run]) for run in sorted(expected)]
    is_memorized = [any(a <= i < b for a, b in expected) for i in range(len(ids))]
    num_tokens = sum(token != EOS_ID for token in ids)
    assert report.num_words == num_tokens
    expected_fraction = (num_tokens - sum(is_memorized)) / num_tokens if num_tokens else 0
    assert report.novel_fraction == pytest.approx(expected_fraction)


ROWS = [
    ("MILLER", "The gate is shut."),
    ("", "..."),  # no word, so the line is dropped
    ("FERRYMAN", "Tonight the gate is shut and the river is high!"),
    ("STRANGER", "The river is high, my friend"),
    ("MILLER", "So the river is high again"),
]


@pytest.mark.parametrize("tokenizer", ["words", "bpe", "characters"])
@pytest.mark.parametrize("mode", ["line", "stream"])
def test_passages_match_a_hand_calculation(tmp_path, mode, tokenizer):
    data = load_rows(tmp_path, ROWS, mode=mode, tokenizer=tokenizer, vocabulary_size=300)
    text = "my friend the gate is shut and the river is high again tonight"
    tokens = tokenize_with_offsets(text, data.tokenizer, eos_per_line=mode == "line")
    report = TrainingIndex.from_dataset(data).find_copied(tokens)
    assert [(passage.start, passage.length) for passage in report.passages] == [(2, 9), (7, 5)]
    shown = []
    for passage in report.passages:
        (occurrence,) = passage.occurrences
        start, end = occurrence_span(occurrence, passage, data.tokenizer)
        shown.append(f"{occurrence.speaker}: {occurrence.text[:start]}[{occurrence.text[start:end]}]")
    assert shown == [
        "FERRYMAN: Tonight [the gate is shut and the river is high]",
        "MILLER: So [the river is high again]",
    ]
    assert (report.num_words, report.novel_fraction) == (13, pytest.approx(3 / 13))


@pytest.mark.parametrize("space", ["\t", "\N{NO-BREAK SPACE}", " \t "])
@pytest.mark.parametrize("tokenizer", ["words", "bpe", "characters"])
def test_any_white_space_may_separate_the_words_of_a_passage(tmp_path, tokenizer, space):
    data = load_rows(tmp_path, ROWS, tokenizer=tokenizer, vocabulary_size=300)
    text = "the gate is shut and".replace(" ", space)
    report = TrainingIndex.from_dataset(data).find_copied(tokenize_with_offsets(text, data.tokenizer))
    assert [(passage.start, passage.length) for passage in report.passages] == [(0, 5)]


SPLIT = re.compile(r"[A-Za-z]+|\n|[^A-Za-z \n]+")
"""Words, line ends and runs of punctuation of a text without apostrophes."""


def begins_with_a_word(run):
    return run[0].isalpha() and sum(map(str.isalpha, run)) >= MIN_PASSAGE_LENGTH and "\n" not in run


OPEN_TEXTS = st.lists(
    st.sampled_from(["a", "an", "Ana", "ant", ",", "!?", " ", " ", " "]), min_size=1, max_size=40
).map("".join)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([bpe_tokenizer(), character_tokenizer()]),
    st.lists(OPEN_TEXTS, min_size=1, max_size=4),
    st.lists(OPEN_TEXTS, min_size=1, max_size=3).map("\n".join),
)
def test_passages_of_written_words_match_an_exhaustive_search(tokenizer, lines, text):
    text += f" {lines[0]}"  # long matches are rare in random texts
    sources = [Line(line) for line in lines]
    dataset = SimpleNamespace(tokenizer=tokenizer, train_source_lines=sources)
    tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
    report = TrainingIndex.from_dataset(dataset).find_copied(tokens)
    starts, ends = tokens.word_spans
    found = {(int(starts[p.start]), int(ends[p.start + p.length - 1])): p.num_occurrences for p in report.passages}
    spans = [match.span() for match in SPLIT.finditer(text)]
    runs = search_exhaustively([SPLIT.findall(line) for line in lines], SPLIT.findall(text), begins_with_a_word)
    expected = {(spans[first][0], spans[stop - 1][1]): len(places) for (first, stop), places in runs.items()}
    assert found == expected
    for passage, (start, end) in zip(report.passages, found, strict=True):
        for occurrence in passage.occurrences:
            copy = slice(*occurrence_span(occurrence, passage, tokenizer))
            assert SPLIT.findall(lines[occurrence.line_index][copy]) == SPLIT.findall(text[start:end])
    words = [match.span() for match in re.finditer("[A-Za-z]+", text)]
    num_novel = sum(not any(a <= start and end <= b for a, b in expected) for start, end in words)
    assert (report.num_words, report.novel_fraction) == (len(words), num_novel / max(1, len(words)))
