"""Copied passages of models whose tokens are parts of words: whole written words, against an exhaustive search."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis import memorization
from engine.analysis.memorization import TrainingIndex, occurrence_span
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.lines import Line
from engine.data.tokenizers.base import Tokenizer
from engine.errors import CorpusError
from tests.support.datasets import load_rows
from tests.support.open_models import bpe_tokenizer, character_tokenizer

SPLIT = re.compile(r"[A-Za-z]+|\n|[^A-Za-z \n]+")
"""Words, line ends and runs of punctuation of a text without apostrophes."""


def search_written_words(lines: Sequence[str], text: str) -> dict[tuple[int, int], int]:
    """Return the number of occurrences of every run that is not part of a longer run, by character span.

    A run begins with a word.
    """
    spans = [match.span() for match in SPLIT.finditer(text)]
    training = [[match[0] for match in SPLIT.finditer(line)] for line in lines]
    runs: dict[tuple[int, int], int] = {}
    for first in range(len(spans)):
        for stop in range(first + 1, len(spans) + 1):
            run = [text[start:end] for start, end in spans[first:stop]]
            if (
                run[0].isalpha()
                and sum(word.isalpha() for word in run) >= memorization.MIN_PASSAGE_LENGTH
                and "\n" not in "".join(run)
            ):
                count = sum(line[i : i + len(run)] == run for line in training for i in range(len(line)))
                if count:
                    runs[spans[first][0], spans[stop - 1][1]] = count
    return {
        (start, end): count
        for (start, end), count in runs.items()
        if not any((a, b) != (start, end) and a <= start and end <= b for a, b in runs)
    }


OPEN_TEXTS = st.lists(
    st.sampled_from(["a", "an", "Ana", "ant", ",", "!?", " ", " ", " "]), min_size=1, max_size=40
).map("".join)


@pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
def test_passages_of_written_words_match_an_exhaustive_search(tokenizer: Tokenizer) -> None:
    @given(st.lists(OPEN_TEXTS, min_size=1, max_size=4), st.lists(OPEN_TEXTS, min_size=1, max_size=3).map("\n".join))
    @settings(max_examples=100, deadline=None)
    def check(lines: list[str], text: str) -> None:
        text += f" {lines[0]}"  # long matches are rare in random texts
        sources = [Line(line) for line in lines]
        dataset = SimpleNamespace(tokenizer=tokenizer, train_source_lines=sources)
        tokens = tokenize_with_offsets(text, tokenizer, eos_per_line=True)
        report = TrainingIndex.from_dataset(dataset).find_copied(tokens)  # type: ignore[arg-type]
        starts, ends = tokens.word_spans
        found = {(int(starts[p.start]), int(ends[p.start + p.length - 1])): p.num_occurrences for p in report.passages}
        expected = search_written_words(lines, text)
        assert found == expected
        for passage, (start, end) in zip(report.passages, found, strict=True):
            for occurrence in passage.occurrences:
                copy = slice(*occurrence_span(occurrence, passage, tokenizer))
                assert SPLIT.findall(lines[occurrence.line_index][copy]) == SPLIT.findall(text[start:end])
        words = [match.span() for match in re.finditer("[A-Za-z]+", text)]
        num_novel = sum(not any(a <= start and end <= b for a, b in expected) for start, end in words)
        assert (report.num_words, report.num_novel_words) == (len(words), num_novel)

    check()


@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
@pytest.mark.parametrize("mode", ["line", "stream"])
def test_passages_of_an_open_vocabulary_match_a_hand_calculation(tmp_path: Path, tokenizer: str, mode: str) -> None:
    rows = [
        ("MILLER", "The gates are shut! , What?"),  # the corpus reader repairs the comma
        ("FERRYMAN", "Tonight the gates are shut, and the river is high!"),
    ]
    data = load_rows(tmp_path, rows, mode=mode, tokenizer=tokenizer, vocabulary_size=300)
    index = TrainingIndex.from_dataset(data)

    def copied(text: str) -> list[tuple[str, int, list[str]]]:
        tokens = tokenize_with_offsets(text, data.tokenizer, eos_per_line=mode == "line")
        starts, ends = tokens.word_spans
        found = []
        for passage in index.find_copied(tokens).passages:
            spans = [(o, occurrence_span(o, passage, data.tokenizer)) for o in passage.occurrences]
            shown = [f"{o.speaker}: {o.text[:start]}[{o.text[start:end]}]{o.text[end:]}" for o, (start, end) in spans]
            copy = text[starts[passage.start] : ends[passage.start + passage.length - 1]]
            found.append((copy, passage.num_words, shown))
        return found

    # "ates" ends like "gates", and "riverside" begins like "river", but neither is the same word.
    assert copied("ates are shut, and the riverside is high") == [
        ("are shut, and the", 4, ["FERRYMAN: Tonight the gates [are shut, and the] river is high!"])
    ]
    assert copied("are shut, and the\nriver is high!") == [
        ("are shut, and the", 4, ["FERRYMAN: Tonight the gates [are shut, and the] river is high!"])
    ]
    assert copied("the gates are shut!") == [
        ("the gates are shut", 4, ["FERRYMAN: Tonight [the gates are shut], and the river is high!"])
    ]
    assert copied("The gates are shut! What?") == [
        ("The gates are shut! What?", 5, ["MILLER: [The gates are shut! What?]"])
    ]
    assert copied("gates are shut,") == []


def test_the_limit_of_an_open_vocabulary_counts_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_rows(tmp_path, [("", "one two, three"), ("", "four five")], tokenizer="characters")
    monkeypatch.setattr(memorization, "MAX_INDEXED_WORDS", 6)
    TrainingIndex.from_dataset(data)
    monkeypatch.setattr(memorization, "MAX_INDEXED_WORDS", 5)
    with pytest.raises(CorpusError, match="has 6 words or more"):
        TrainingIndex.from_dataset(data)
