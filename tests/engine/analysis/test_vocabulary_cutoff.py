"""Tests of vocabularies by cut-off, against naive counting."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.vocabulary_cutoff import VocabularyCutoffs
from engine.data.tokenizers.base import UNK_ID
from engine.data.tokenizers.words import WordTokenizer

lines = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=8).map(" ".join), max_size=12)


@given(train=lines, held_out=lines, cutoff=st.integers(1, 9))
def test_sizes_and_unknown_rates_are_those_of_counting(train, held_out, cutoff):
    cutoffs = VocabularyCutoffs(train, held_out)
    counts = Counter(" ".join(train).split())
    kept = {word for word, count in counts.items() if count >= cutoff}
    words = " ".join(held_out).split()
    assert cutoffs.vocabulary_size(cutoff) == len(kept)
    assert cutoffs.unknown_rate(cutoff) == (sum(word not in kept for word in words) / len(words) if words else 0)


@given(train=lines, cutoff=st.integers(1, 5))
def test_tokenizer_is_the_one_of_a_training_with_this_cutoff(train, cutoff):
    tokenizer = VocabularyCutoffs(train, []).tokenizer(cutoff)
    assert tokenizer == WordTokenizer.from_words(" ".join(train).split(), cutoff)


