"""Tests of the script form of a conversation: its text, its tokens, and which of them are utterances."""

from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from engine.data.corpus import make_lines
from engine.data.scripts import (
    Turn,
    encode_speaker,
    encode_turn,
    encode_turns,
    parse_line,
    script_text,
    turn_text,
    utterance_mask,
)
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.data.tokenizers.bpe import BPETokenizer
from engine.data.tokenizers.bytes import CharacterTokenizer
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from tests.support.pretrained import new_sentencepiece

SCENES = [
    [Turn("KING OF THE DEAD", "Who  enters:\tmy domain?"), Turn("O'BRIEN", "")],
    [Turn("GANDALF", "Fly, you fools!\n")],
]
SCRIPT = "King of the Dead: Who enters: my domain?\nO'Brien:\n\nGandalf: Fly, you fools!\n"


def of_qwen2() -> PretrainedTokenizer:
    """Return a tokenizer in which "!" and the line feed after it are one token."""
    vocabulary = {name: id for id, name in enumerate(["<s>", *pre_tokenizers.ByteLevel.alphabet(), "!Ċ", "ĊĊ"])}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[("!", "Ċ"), ("Ċ", "Ċ")]))
    split = pre_tokenizers.Split(Regex(r" ?\w+| ?[^\s\w]+\n*|\s+"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>"])
    assert backend.encode("fools!\n").tokens[-1] == "!Ċ"
    return PretrainedTokenizer(backend.to_str(), len(vocabulary), SpecialTokens(0, 0, (0,), (0,)))


OTHERS = (of_qwen2().for_scripts(), new_sentencepiece().for_scripts())
TOKENIZERS = (CharacterTokenizer([]), BPETokenizer.train([SCRIPT] * 3, 300), *OTHERS)


def scene_tokens(tokenizer: Tokenizer, scenes: Sequence[Sequence[Turn]]) -> list[int]:
    ids: list[int] = []
    for scene in scenes:
        ids += [*(tokenizer.encode("\n").tolist() if ids else []), *encode_turns(tokenizer, scene)]
    return ids


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tokens_of_scenes_are_their_script(tokenizer: Tokenizer) -> None:
    assert script_text(SCENES) == tokenizer.decode(scene_tokens(tokenizer, SCENES)) == SCRIPT


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_mask_selects_the_texts_with_their_line_ends_but_neither_names_nor_empty_lines(tokenizer: Tokenizer) -> None:
    ids = np.array([*scene_tokens(tokenizer, SCENES), EOS_ID], np.int32)
    chosen = tokenizer.decode(ids[utterance_mask(tokenizer, ids)].tolist())
    assert chosen == " Who enters: my domain?\n\n Fly, you fools!\n"
    assert not utterance_mask(tokenizer, ids[:0]).size


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_turn_begins_with_the_tokens_of_its_speaker_and_ends_with_a_line_end(tokenizer: Tokenizer) -> None:
    head, turn = encode_speaker(tokenizer, "GANDALF"), encode_turn(tokenizer, SCENES[1][0])
    assert turn[: len(head)] == head
    assert tokenizer.decode(head) == "Gandalf:"
    assert [id in tokenizer.line_end_ids for id in turn] == [False] * (len(turn) - 1) + [True]
    assert tokenizer.decode(turn[:-1]) == "Gandalf: Fly, you fools!"
    (text,) = tokenizer.encode_lines([" Fly, you fools!\n"])
    assert turn[len(head) :] == tuple(text.tolist())


@pytest.mark.parametrize("turn", [turn for scene in SCENES for turn in scene])
def test_a_line_is_parsed_as_the_turn_that_it_was_written_from(turn: Turn) -> None:
    assert parse_line(turn_text(turn)) == Turn(turn.speaker, " ".join(turn.text.split()))


@pytest.mark.parametrize("line", ["", "\n", "no name", "…: text", f"{'a' * 50}: text"])
def test_a_line_without_a_name_is_no_turn(line: str) -> None:
    assert parse_line(line) is None


def test_scenes_of_a_corpus_call_speakers_by_their_names_and_leave_out_empty_lines() -> None:
    lines = make_lines(["Hm.", "Hi.", "Who?"], ["FRODO", "", "GOLLUM"], [0, 0, 1])
    assert list(lines.scenes()) == [
        [Turn("FRODO", "Hm."), Turn("SOMEONE", "Hi.")],
        [Turn("GOLLUM", "Who?")],
    ]
