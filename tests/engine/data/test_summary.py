"""Counts of speakers, and of who speaks after whom."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.corpus import make_lines
from engine.data.summary import count_pairs, summarize_speakers
from engine.data.tokenizers import split_words

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
    names, texts, starts = zip(*rows, strict=True)
    corpus = make_lines(list(texts), names, np.cumsum(starts).tolist())
    found = count_pairs(corpus)
    speakers = summarize_speakers(corpus, found)
    lines: Counter[str] = Counter()
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    before = ""
    for name, text, start in rows:
        before = "" if start else before
        if before and name:
            pairs[before, name] += 1
        if name:
            lines[name] += 1
            words[name] += len(split_words(text))
        before = name
    assert [each.num_lines for each in speakers] == sorted(lines.values(), reverse=True)
    for each in speakers:
        following = Counter({second: count for (first, second), count in pairs.items() if first == each.name})
        assert (each.num_lines, each.num_words) == (lines[each.name], words[each.name])
        assert each.num_followed == following.total()
        assert sorted((count for _, count in each.next_speakers), reverse=True) == [c for _, c in each.next_speakers]
        assert [count for _, count in each.next_speakers] == [count for _, count in following.most_common(3)]
        assert all(following[name] == count for name, count in each.next_speakers)
    assert {(pair.speaker, pair.next_speaker): pair.count for pair in found} == pairs
