"""Lines of a script with the names of their speakers, and the tokens that a model reads of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.labelled_lines import encode_script, labelled_lines, read_label
from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.turns import Turn, encode_turns
from tests.support.app import VOCABULARY
from tests.support.dialogues import CAST
from tests.support.open_models import bpe_tokenizer, character_tokenizer

TOKENIZERS = [
    VOCABULARY.with_cast(CAST),
    bpe_tokenizer().with_cast(CAST),
    character_tokenizer().with_cast(CAST),
]
ALL_TOKENIZERS = pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["words", "bpe", "characters"])
SAID = st.lists(st.sampled_from(["the", "tower", "lit!", "we", "éowyn", "it's", "ring?"]), min_size=1, max_size=6)
TURNS = st.lists(st.builds(Turn, st.sampled_from(CAST), SAID.map(" ".join)), min_size=1, max_size=6)
SCRIPTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(list("GANDLFgandlf: \n\n.'"))), max_size=80
)


def read_ids(tokens: TokenizedText) -> list[int]:
    """Return the ids that a model reads: the tokens, and before each line the speaker."""
    pairs = zip(tokens.line_speakers.tolist(), tokens.ids.tolist(), strict=True)
    return [id for speaker, token in pairs for id in ((speaker, token) if speaker >= 0 else (token,))]


@pytest.mark.parametrize(
    ("line", "speaker", "length"),
    [
        ("GANDALF: you shall not pass", "GANDALF", 8),
        ("gandalf: hello", "GANDALF", 8),
        ("Gandalf (V.O.): hello", "GANDALF", 15),
        ("FRODO:", "FRODO", 6),
        ("MAN ON WALL: who goes there", "SOMEONE", 12),
        ("Gandalf:hello", "", 0),
        ("he said: hello", "", 0),
        ("Look: a tower", "", 0),
        ("the time is 12:30", "", 0),
        (": hello", "", 0),
        ("", "", 0),
        ("A" * 10_000 + ": hello", "", 0),
        ("[bold]GANDALF[/]: hello", "GANDALF", 17),
    ],
)
def test_a_line_begins_with_a_name_of_the_cast_or_in_capitals(line: str, speaker: str, length: int) -> None:
    assert read_label(line, CAST) == (speaker, length)


def test_lines_have_the_places_of_their_names_and_texts() -> None:
    text = "  GANDALF:  hello there \n\nno name\r\nFRODO:"
    lines = list(labelled_lines(text, CAST))
    assert [(line.speaker, text[line.text_start : line.text_end]) for line in lines] == [
        ("GANDALF", "hello there"),
        ("", ""),
        ("", "no name"),
        ("FRODO", ""),
    ]
    assert [text[line.start : line.text_start] for line in lines] == ["GANDALF:  ", "", "", "FRODO:"]
    assert [line.is_blank for line in lines] == [False, True, False, False]
    assert [text[line.end : line.next_start] for line in lines] == ["\n", "\n", "\r\n", ""]


@given(TURNS)
@ALL_TOKENIZERS
def test_a_script_is_read_as_its_turns(tokenizer: Tokenizer, turns: list[Turn]) -> None:
    script = "".join(f"{turn.speaker}: {turn.text}\n" for turn in turns)
    assert read_ids(tokenize_with_offsets(script, tokenizer)) == list(encode_turns(tokenizer, turns))


@ALL_TOKENIZERS
def test_a_line_without_a_name_is_said_by_someone(tokenizer: Tokenizer) -> None:
    expected = encode_turns(tokenizer, [Turn("GANDALF", "the tower"), Turn("SOMEONE", "was lit")])
    assert read_ids(tokenize_with_offsets("GANDALF: the tower\nwas lit\n", tokenizer)) == list(expected)


@ALL_TOKENIZERS
def test_empty_lines_between_two_lines_end_a_scene(tokenizer: Tokenizer) -> None:
    first, second = (encode_turns(tokenizer, [turn]) for turn in (Turn("GANDALF", "the"), Turn("FRODO", "tower")))
    tokens = tokenize_with_offsets("\n\nGANDALF: the\n\n \nFRODO: tower\n\n", tokenizer)
    assert read_ids(tokens) == [*first, EOS_ID, *second]


@ALL_TOKENIZERS
def test_speakers_are_no_words(tokenizer: Tokenizer) -> None:
    text = "GANDALF: the tower\nMAN ON WALL: we walked"
    tokens = tokenize_with_offsets(text, tokenizer)
    assert [tokens.word(index) for index in range(tokens.num_words)] == ["the", "tower", "\n", "we", "walked"]
    assert tokens.has_letters.tolist() == [True, True, False, True, True]
    assert [text[start:end] for start, end in tokens.label_spans] == ["GANDALF: ", "MAN ON WALL: "]
    assert tokens.skipped_texts() == []
    names = [tokenizer.cast[(tokens.speaker_of(int(i)) or 0) - tokenizer.num_text_tokens] for i in tokens.word_starts]
    assert names == ["GANDALF"] * 3 + ["SOMEONE"] * 2


@given(SCRIPTS)
@ALL_TOKENIZERS
def test_any_text_has_its_tokens_in_order_and_outside_the_labels(tokenizer: Tokenizer, text: str) -> None:
    script = encode_script(text, tokenizer)
    assert len(script.ids) == len(script.line_speakers) == len(script.start_offsets)
    assert np.all(script.ids < tokenizer.num_text_tokens)
    assert np.all(np.diff(script.start_offsets) >= 0)
    assert np.all((script.line_speakers == -1) | (script.line_speakers >= tokenizer.num_text_tokens))
    for start, end in script.label_spans.tolist():
        assert not np.any((script.start_offsets < end) & (script.end_offsets > start))
    if len(script.ids):
        assert script.line_speakers[0] >= 0


@ALL_TOKENIZERS
def test_tokens_after_another_speaker_are_not_shared(tokenizer: Tokenizer) -> None:
    first = tokenize_with_offsets("GANDALF: the\nFRODO: tower was", tokenizer)
    other = tokenize_with_offsets("GANDALF: the\nGOLLUM: tower was", tokenizer)
    longer = tokenize_with_offsets("GANDALF: the\nFRODO: tower was lit", tokenizer)
    assert first.num_shared(other) == 1 + first.ids.tolist().index(EOS_ID)
    assert first.num_shared(longer) == len(first)


def test_a_tokenizer_without_a_cast_reads_names_as_words() -> None:
    tokens = tokenize_with_offsets("TOWER: we walked\n", VOCABULARY, eos_per_line=True)
    assert [tokens.word(index) for index in range(tokens.num_words)] == ["TOWER", "we", "walked", "\n"]
    assert not tokens.has_speakers
    assert tokens.speaker_of(1) is None
