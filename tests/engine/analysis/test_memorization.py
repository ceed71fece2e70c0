"""Copied passages found by the index against an exhaustive search."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import memorization
from engine.analysis.memorization import MAX_OCCURRENCES, Occurrence, Passage, TrainingIndex, occurrence_span
from engine.config import DataConfig
from engine.data.dataset import Dataset, load_dataset
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS_ID, UNK_ID, TokenIds
from tests.support.datasets import load_rows

ANONYMOUS_LINE = Line("")
Matches = dict[tuple[int, int], list[tuple[int, int]]]
"""Line index and offset of every occurrence, by start and end of the passage."""


def to_ids(ids: Sequence[int]) -> TokenIds:
    return np.array(ids, np.int32)


def make_index(lines: Sequence[Sequence[int]]) -> TrainingIndex:
    return TrainingIndex([to_ids(line) for line in lines], [ANONYMOUS_LINE] * len(lines))


def search_exhaustively(lines: Sequence[Sequence[int]], ids: Sequence[int]) -> Matches:
    """Return the occurrences of every run of `ids` that is not part of a longer run."""
    matches: Matches = {}
    for start in range(len(ids)):
        for stop in range(start + memorization.MIN_PASSAGE_LENGTH, len(ids) + 1):
            run = list(ids[start:stop])
            if EOS_ID in run or UNK_ID in run:
                continue
            positions = [
                (line_index, offset)
                for line_index, line in enumerate(lines)
                for offset in range(len(line))
                if list(line[offset : offset + len(run)]) == run
            ]
            if positions:
                matches[start, stop] = positions
    return {
        (start, stop): positions
        for (start, stop), positions in matches.items()
        if not any((a, b) != (start, stop) and a <= start and stop <= b for a, b in matches)
    }


def to_matches(report: memorization.MemorizationReport) -> Matches:
    return {
        (passage.start, passage.start + passage.length): [
            (occurrence.line_index, occurrence.offset) for occurrence in passage.occurrences
        ]
        for passage in report.passages
    }


def texts(num_words: int) -> st.SearchStrategy[tuple[list[list[int]], list[int]]]:
    """Generate lines and a reply of few different words, with `<unk>` and `<eos>` rarely, so that many runs match."""
    token = st.sampled_from([*range(2, num_words + 2)] * 5 * (6 - num_words) + [UNK_ID, EOS_ID])
    lines = st.lists(st.lists(token, min_size=1, max_size=14), min_size=1, max_size=6)
    return lines.flatmap(
        lambda lines: st.tuples(
            st.just(lines),
            st.one_of(
                st.lists(token, min_size=8, max_size=25),
                # Concatenated lines, because long matches are rare in random tokens.
                st.lists(st.sampled_from(lines), max_size=4).map(
                    lambda copied: [token for line in copied for token in line]
                ),
            ),
        )
    )


@pytest.mark.parametrize("num_words", [1, 2, 4])
def test_passages_match_an_exhaustive_search(num_words: int) -> None:
    @given(texts(num_words))
    @settings(max_examples=150, deadline=None)
    def check(case: tuple[list[list[int]], list[int]]) -> None:
        lines, ids = case
        report, expected = make_index(lines).find_passages(ids), search_exhaustively(lines, ids)
        assert to_matches(report) == {run: positions[:MAX_OCCURRENCES] for run, positions in expected.items()}
        assert [passage.num_occurrences for passage in report.passages] == [
            len(expected[run]) for run in sorted(expected)
        ]
        starts = [passage.start for passage in report.passages]
        assert starts == sorted(starts)
        is_memorized = [any(a <= i < b for a, b in expected) for i in range(len(ids))]
        assert report.memorized_mask.tolist() == is_memorized
        num_tokens = sum(token != EOS_ID for token in ids)
        assert report.num_words == num_tokens
        expected_fraction = (num_tokens - sum(is_memorized)) / num_tokens if num_tokens else 0
        assert report.novel_fraction == pytest.approx(expected_fraction)

    check()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 70))
def test_suffixes_are_sorted_to_the_requested_depth(ids: list[int], depth: int) -> None:
    order = memorization.build_suffix_array(to_ids(ids), depth).tolist()
    assert sorted(order) == list(range(len(ids)))
    prefixes = [ids[start : start + depth] for start in order]
    assert prefixes == sorted(prefixes)


# --- hand-written examples ------------------------------------------------------------------------------------


def encode(data: Dataset, text: str) -> TokenIds:
    return data.tokenizer.encode(text)


ROWS = [
    ("MILLER", "The gate is shut."),
    ("", "..."),  # no word, so the line is dropped
    ("FERRYMAN", "Tonight the gate is shut and the river is high!"),
    ("STRANGER", "The river is high, my friend"),
    ("MILLER", "So the river is high again"),
]


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_passages_match_a_hand_calculation(tmp_path: Path, mode: str) -> None:
    data = load_rows(tmp_path, ROWS, mode=mode)
    ids = encode(data, "my friend the gate is shut and the river is high again tonight")
    report = TrainingIndex.from_dataset(data).find_passages(ids)
    ferryman = Occurrence(1, 1, "Tonight the gate is shut and the river is high!", "FERRYMAN")
    miller = Occurrence(3, 1, "So the river is high again", "MILLER")
    assert report.passages == (Passage(2, 9, 9, 1, (ferryman,)), Passage(7, 5, 5, 1, (miller,)))
    assert report.memorized_mask.tolist() == [False] * 2 + [True] * 10 + [False]
    assert report.num_words == 13
    assert report.novel_fraction == pytest.approx(3 / 13)


def test_occurrences_are_in_the_order_of_the_training_text(tmp_path: Path) -> None:
    data = load_rows(tmp_path, ROWS)
    report = TrainingIndex.from_dataset(data).find_passages(encode(data, "the river is high"))
    (passage,) = report.passages
    assert (passage.start, passage.length, passage.num_occurrences) == (0, 4, 3)
    assert [(occurrence.line_index, occurrence.offset, occurrence.speaker) for occurrence in passage.occurrences] == [
        (1, 6, "FERRYMAN"),
        (2, 0, "STRANGER"),
        (3, 1, "MILLER"),
    ]
    assert report.novel_fraction == 0


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_passages_do_not_cross_line_ends(tmp_path: Path, mode: str) -> None:
    data = load_rows(tmp_path, [("", "one two three"), ("", "four five six")], mode=mode)
    index = TrainingIndex.from_dataset(data)
    ids = encode(data, "one two three four five six")
    assert index.find_passages(ids).passages == ()
    assert index.find_passages(np.insert(ids, 3, EOS_ID)).passages == ()
    assert index.find_passages(ids).novel_fraction == 1


def test_unk_is_never_part_of_a_passage(tmp_path: Path) -> None:
    lines = [("", "the door of the hidden house is open")] * 2 + [("", "the door of the green house is open")]
    data = load_rows(tmp_path, lines, min_count=2)
    ids = data.train_lines[2]
    assert ids.tolist().count(UNK_ID) == 1
    report = TrainingIndex.from_dataset(data).find_passages(ids)
    assert [(passage.start, passage.length) for passage in report.passages] == [(0, 4)]
    assert report.novel_fraction == 4 / 8  # "green" is unknown, and only three words follow


def test_overlapping_passages_are_all_found() -> None:
    index = make_index([[2, 3, 4, 5, 6], [5, 6, 7, 8], [4, 5, 6, 7]])
    report = index.find_passages([9, 2, 3, 4, 5, 6, 7, 8, 9])
    assert [(passage.start, passage.length) for passage in report.passages] == [(1, 5), (3, 4), (4, 4)]


def test_short_and_empty_texts_have_no_passages() -> None:
    index = make_index([[2, 3, 4, 5]])
    for ids in ([], [EOS_ID], [2, 3, 4], [EOS_ID, EOS_ID]):
        report = index.find_passages(ids)
        assert report.passages == ()
        assert not report.memorized_mask.any()
    assert index.find_passages([]).novel_fraction == 0
    assert index.find_passages([EOS_ID]).novel_fraction == 0
    assert index.find_passages([2, 3, 4]).novel_fraction == 1


def test_tokens_outside_the_training_text_are_not_matched() -> None:
    index = make_index([[2, 3, 4, 5]])
    (passage,) = index.find_passages([900_000, 2, 3, 4, 5, 900_000]).passages
    assert (passage.start, passage.length) == (1, 4)


def test_a_missing_source_line_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 lines but 2 sources"):
        TrainingIndex([to_ids([2, 3])], [ANONYMOUS_LINE, ANONYMOUS_LINE])


# --- large texts ----------------------------------------------------------------------------------------------


def test_lines_of_the_bundled_dialogues_are_found() -> None:
    data = load_dataset(DataConfig())
    index = TrainingIndex.from_dataset(data)
    sources = [line for line in data.splits.train if len(data.tokenizer.encode(line.text))]
    for line_index in range(0, len(data.train_lines), 40):
        ids = data.train_lines[line_index]
        if UNK_ID in ids or len(ids) < memorization.MIN_PASSAGE_LENGTH:
            continue
        (passage,) = index.find_passages(ids).passages
        assert passage.length == len(ids)
        first = passage.occurrences[0]
        assert first.offset + len(ids) <= len(data.train_lines[first.line_index])
        if passage.num_occurrences <= MAX_OCCURRENCES:
            assert line_index in {occurrence.line_index for occurrence in passage.occurrences}
        for occurrence in passage.occurrences:
            source = sources[occurrence.line_index]
            assert (occurrence.text, occurrence.speaker) == (source.text, source.speaker)
            start, end = occurrence_span(occurrence, passage, data.tokenizer)
            assert data.tokenizer.encode(occurrence.text[start:end]).tolist() == ids.tolist()


def test_a_line_is_found_among_a_million_tokens() -> None:
    ids = np.minimum(np.random.default_rng(0).zipf(1.3, 1_000_000), 9_000).astype(np.int32) + 1
    lines = np.split(ids, np.arange(22, len(ids), 22))
    report = TrainingIndex(lines, [ANONYMOUS_LINE] * len(lines)).find_passages(lines[500])
    assert report.novel_fraction == 0
    assert any(occurrence.line_index == 500 for passage in report.passages for occurrence in passage.occurrences)
