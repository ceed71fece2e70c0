"""Passages found by bisection against a search that compares everything with everything."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.memorization import LEAST, PLACES, Memorised, Passage, Place, TrainingIndex, sort_suffixes
from engine.config import DataConfig
from engine.data.dataset import Dataset, prepare
from engine.data.lines import Line
from engine.data.vocabulary import EOS_ID, UNK_ID, Ids

UNNAMED = Line("")
Found = dict[tuple[int, int], list[tuple[int, int]]]


def array(ids: Sequence[int]) -> Ids:
    return np.array(ids, np.int32)


def index_of(lines: Sequence[Sequence[int]]) -> TrainingIndex:
    return TrainingIndex([array(line) for line in lines], [UNNAMED] * len(lines))


def naive(lines: Sequence[Sequence[int]], ids: Sequence[int]) -> Found:
    """Start and stop in `ids` of each run that is in no longer one, and all (line, offset) where it stands."""
    runs: Found = {}
    for start in range(len(ids)):
        for stop in range(start + LEAST, len(ids) + 1):
            run = list(ids[start:stop])
            if EOS_ID in run or UNK_ID in run:
                continue
            places = [
                (number, offset)
                for number, line in enumerate(lines)
                for offset in range(len(line))
                if list(line[offset : offset + len(run)]) == run
            ]
            if places:
                runs[start, stop] = places
    return {
        (start, stop): places
        for (start, stop), places in runs.items()
        if not any((a, b) != (start, stop) and a <= start and stop <= b for a, b in runs)
    }


def flat(found: Memorised) -> Found:
    return {
        (item.start, item.start + item.length): [(place.line, place.offset) for place in item.places]
        for item in found.passages
    }


def texts(words: int) -> st.SearchStrategy[tuple[list[list[int]], list[int]]]:
    """Lines and a reply of few different words, and `<unk>` and `<eos>` seldom, so that much is alike."""
    word = st.sampled_from([*range(2, words + 2)] * 5 * (6 - words) + [UNK_ID, EOS_ID])
    lines = st.lists(st.lists(word, min_size=1, max_size=14), min_size=1, max_size=6)
    return lines.flatmap(
        lambda lines: st.tuples(
            st.just(lines),
            st.one_of(
                st.lists(word, min_size=8, max_size=25),
                # Pieces of the lines one after the other, which chance alone makes too seldom.
                st.lists(st.sampled_from(lines), max_size=4).map(
                    lambda pieces: [token for piece in pieces for token in piece]
                ),
            ),
        )
    )


@pytest.mark.parametrize("words", [1, 2, 4])
def test_all_passages_and_only_those(words: int) -> None:
    @given(texts(words))
    @settings(max_examples=150, deadline=None)
    def check(case: tuple[list[list[int]], list[int]]) -> None:
        lines, ids = case
        found, expected = index_of(lines).find(ids), naive(lines, ids)
        assert flat(found) == {run: places[:PLACES] for run, places in expected.items()}
        assert [item.occurrences for item in found.passages] == [len(expected[run]) for run in sorted(expected)]
        assert [item.start for item in found.passages] == sorted(item.start for item in found.passages)
        inside = [any(a <= i < b for a, b in expected) for i in range(len(ids))]
        assert found.known.tolist() == inside
        words = sum(token != EOS_ID for token in ids)
        assert found.words == words
        assert found.new == pytest.approx((words - sum(inside)) / words if words else 0)

    check()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 70))
def test_suffixes_are_sorted_as_deep_as_asked(ids: list[int], depth: int) -> None:
    order = sort_suffixes(array(ids), depth).tolist()
    assert sorted(order) == list(range(len(ids)))
    begins = [ids[start : start + depth] for start in order]
    assert begins == sorted(begins)


# --- by hand --------------------------------------------------------------------------------------------------


def dataset(tmp_path: Path, lines: Sequence[tuple[str, str]], **values: object) -> Dataset:
    """A dataset whose training split is just these speakers and lines, in order."""
    for name, rows in (("train", lines), ("valid", [("X", "one more line")]), ("test", [("X", "one more line")])):
        text = "".join(f'{speaker},"{line}"\n' for speaker, line in rows)
        (tmp_path / f"{name}.csv").write_text("char,dialog\n" + text)
    paths = {
        "corpus": str(tmp_path / "train.csv"),
        "valid_corpus": str(tmp_path / "valid.csv"),
        "test_corpus": str(tmp_path / "test.csv"),
    }
    return prepare(DataConfig(**{**paths, "min_characters": 0, "min_count": 1, **values}))  # type: ignore[arg-type]


def encode(data: Dataset, text: str) -> Ids:
    return data.vocabulary.encode(data.vocabulary.tokenize(text))


ROAD = [
    ("MILLER", "The gate is shut."),
    ("", "..."),  # has no word, so no ids
    ("FERRYMAN", "Tonight the gate is shut and the river is high!"),
    ("STRANGER", "The river is high, my friend"),
    ("MILLER", "So the river is high again"),
]


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_a_reply_worked_out_by_hand(tmp_path: Path, mode: str) -> None:
    data = dataset(tmp_path, ROAD, mode=mode)
    ids = encode(data, "my friend the gate is shut and the river is high again tonight")
    found = TrainingIndex.of(data).find(ids)
    ferryman = Place(1, 1, "Tonight the gate is shut and the river is high!", "FERRYMAN")
    miller = Place(3, 1, "So the river is high again", "MILLER")
    assert found.passages == (Passage(2, 9, 1, (ferryman,)), Passage(7, 5, 1, (miller,)))
    assert found.known.tolist() == [False] * 2 + [True] * 10 + [False]
    assert found.words == 13
    assert found.new == pytest.approx(3 / 13)


def test_everywhere_it_stands_in_the_order_of_the_text(tmp_path: Path) -> None:
    data = dataset(tmp_path, ROAD)
    found = TrainingIndex.of(data).find(encode(data, "the river is high"))
    (passage,) = found.passages
    assert (passage.start, passage.length, passage.occurrences) == (0, 4, 3)
    assert [(place.line, place.offset, place.speaker) for place in passage.places] == [
        (1, 6, "FERRYMAN"),
        (2, 0, "STRANGER"),
        (3, 1, "MILLER"),
    ]
    assert found.new == 0


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_the_end_of_one_line_and_the_begin_of_the_next_are_no_passage(tmp_path: Path, mode: str) -> None:
    data = dataset(tmp_path, [("", "one two three"), ("", "four five six")], mode=mode)
    index = TrainingIndex.of(data)
    words = encode(data, "one two three four five six")
    assert index.find(words).passages == ()
    assert index.find(np.insert(words, 3, EOS_ID)).passages == ()
    assert index.find(words).new == 1


def test_unknown_words_are_never_known(tmp_path: Path) -> None:
    lines = [("", "the door of the hidden house is open")] * 2 + [("", "the door of the green house is open")]
    data = dataset(tmp_path, lines, min_count=2)
    ids = data.train_lines[2]
    assert ids.tolist().count(UNK_ID) == 1
    found = TrainingIndex.of(data).find(ids)
    assert [(item.start, item.length) for item in found.passages] == [(0, 4)]
    assert found.new == 4 / 8  # "green", and behind it three words alone


def test_a_position_tells_its_longest_passage() -> None:
    index = index_of([[2, 3, 4, 5, 6], [5, 6, 7, 8], [4, 5, 6, 7]])
    found = index.find([9, 2, 3, 4, 5, 6, 7, 8, 9])
    assert [(item.start, item.length) for item in found.passages] == [(1, 5), (3, 4), (4, 4)]
    starts = [item and item.start for item in map(found.at, range(9))]
    assert starts == [None, 1, 1, 1, 1, 1, 3, 4, None]


def test_nothing_to_look_up() -> None:
    index = index_of([[2, 3, 4, 5]])
    for ids in ([], [EOS_ID], [2, 3, 4], [EOS_ID, EOS_ID]):
        found = index.find(ids)
        assert found.passages == ()
        assert not found.known.any()
    assert index.find([]).new == 0
    assert index.find([EOS_ID]).new == 0
    assert index.find([2, 3, 4]).new == 1


def test_words_the_training_text_lacks_are_found_nowhere() -> None:
    index = index_of([[2, 3, 4, 5]])
    (passage,) = index.find([900_000, 2, 3, 4, 5, 900_000]).passages
    assert (passage.start, passage.length) == (1, 4)


def test_lines_and_their_sources_belong_together() -> None:
    with pytest.raises(ValueError, match="1 lines of 2 sources"):
        TrainingIndex([array([2, 3])], [UNNAMED, UNNAMED])


# --- real texts -----------------------------------------------------------------------------------------------


def test_every_line_of_the_bundled_dialogues_is_found_where_it_stands() -> None:
    data = prepare(DataConfig())
    index = TrainingIndex.of(data)
    sources = [line for line in data.split.train if data.vocabulary.tokenize(line.text)]
    for number in range(0, len(data.train_lines), 40):
        ids = data.train_lines[number]
        if UNK_ID in ids or len(ids) < LEAST:
            continue
        (passage,) = index.find(ids).passages
        assert passage.length == len(ids)
        first = passage.places[0]
        assert first.offset + len(ids) <= len(data.train_lines[first.line])
        if passage.occurrences <= PLACES:
            assert number in {place.line for place in passage.places}
        for place in passage.places:
            assert (place.text, place.speaker) == (sources[place.line].text, sources[place.line].speaker)
            words = data.vocabulary.tokenize(place.text)[place.offset : place.offset + len(ids)]
            assert data.vocabulary.encode(words).tolist() == ids.tolist()


def test_a_line_is_found_among_a_million_words() -> None:
    chance = np.random.default_rng(0)
    text = np.minimum(chance.zipf(1.3, 1_000_000), 9_000).astype(np.int32) + 1
    lines = np.split(text, np.arange(22, len(text), 22))
    found = TrainingIndex(lines, [UNNAMED] * len(lines)).find(lines[500])
    assert found.new == 0
    assert any(place.line == 500 for passage in found.passages for place in passage.places)
