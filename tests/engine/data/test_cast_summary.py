"""Counts of speakers, and of who speaks after whom."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.cast_summary import summarize_cast
from engine.data.lines import LineStore
from engine.data.tokenizers.words import split_words

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["", "SAM", "FRODO", "MERRY"]),
        st.sampled_from(["", "go", "go on, now!", "it's 12 ... -- yes'", ", no"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=40)
@given(ROWS)
def test_counts_equal_those_of_a_naive_reader(rows):
    store = LineStore()
    store.add([text for _, text, _ in rows], [name for name, _, _ in rows], np.array([start for _, _, start in rows]))
    summary = summarize_cast(store.lines())
    lines: Counter[str] = Counter()
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    before, num_scenes = "", 0
    for index, (name, text, start) in enumerate(rows):
        before = "" if start else before
        num_scenes += start or index == 0
        if before and name:
            pairs[before, name] += 1
        if name:
            lines[name] += 1
            words[name] += len(split_words(text))
        before = name
    assert summary.num_scenes == num_scenes
    assert [each.num_lines for each in summary.speakers] == sorted(lines.values(), reverse=True)
    for each in summary.speakers:
        following = Counter({second: count for (first, second), count in pairs.items() if first == each.name})
        assert (each.num_lines, each.num_words) == (lines[each.name], words[each.name])
        assert each.num_followed == following.total()
        assert sorted((count for _, count in each.next_speakers), reverse=True) == [c for _, c in each.next_speakers]
        assert [count for _, count in each.next_speakers] == [count for _, count in following.most_common(3)]
        assert all(following[name] == count for name, count in each.next_speakers)
    assert {(pair.speaker, pair.next_speaker): pair.count for pair in summary.pairs} == pairs
