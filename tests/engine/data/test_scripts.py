"""Scripts: which lines of a text have a name and whose lines the others are; their form, and their tokens."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from engine.config import DataConfig
from engine.data import scripts
from engine.data.corpus import MAX_LINE_CHARACTERS, Line, make_lines, read_corpus
from engine.data.tokenizers import EOS_ID, BPETokenizer, CharacterTokenizer, Tokenizer
from engine.errors import CorpusError
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from tests.support.pretrained import new_sentencepiece


def read(path, content):
    path.write_text(content)
    return read_corpus(DataConfig(str(path), "text", mode="dialogue", min_characters=0))


def read_lines(path, content):
    """Return the speaker, the text and the scene of each utterance of a script."""
    lines = read(path, content).lines
    scenes = lines.scene_ids.tolist()
    return [(line.speaker, line.text, scene) for line, scene in zip(lines, scenes, strict=True)]


NAMES = (
    "GANDALF|(Gollum|Gandalf (V.O.)|SAM [to Frodo, softly]|GANDALF V.O.|King of the Dead|Eowyn/Merry|Merry & Pippin|"
    "Mrs. Bracegirdle|Soldier 2|1st Orc|Uruk-Hai|O’Brien|Éomer|甘道夫|CAPT. JACK|Prof. Oak|Messrs. Oak & Ash|"
    "BOB (to Sam: quietly)|राम|E\N{COMBINING ACUTE ACCENT}owyn"
)
LINES_WITHOUT_A_NAME = (
    'Look, Frodo: a light|He was gone. Frodo: come|Is it you? Sam: yes|"Sam: come", he said|Come at 12:30|12: a number|'
    "see http://example.org|Sam:come|: nothing|no colon|This Is A Title Of Far Too Many Words: yes|---: yes||"
    f"{'A' * 41}: yes|{'A' * 10_000}: yes"
)


class TestNames:
    @pytest.mark.parametrize("name", NAMES.split("|"))
    def test_a_name_begins_a_line_and_ends_at_a_colon(self, name):
        for line in (f"{name}: You shall not pass", f"{name}:", f"{name} : No"):
            found = scripts.split_name(line)
            assert found.name == name
            assert found.case <= scripts.NameCase.TITLE

    @pytest.mark.parametrize("line", LINES_WITHOUT_A_NAME.split("|"), ids=lambda line: line[:50])
    def test_other_lines_have_no_name(self, line):
        assert scripts.split_name(line) is None


STYLES = {
    "names before their text": (
        "a preface\nSAM: One\nand told him: more\n\nFRODO:\nTwo\n\nwho speaks\nFRODO (V.O.): Three\n",
        [
            ("", "a preface", 0),
            ("SAM", "One and told him: more", 0),
            ("FRODO", "Two", 1),
            ("FRODO", "who speaks", 2),
            ("FRODO", "Three", 2),
        ],
    ),
    "names on lines of their own": (
        "Sam:\nI say\nNote: this is no name,\nnor is\nThis:\n\nFrodo:\nWell.\n\nThat is another paragraph.\n\n\n"
        "Sam:\nA new scene.\n\n" + "Frodo:\nYes.\n\n" * 40,
        [
            ("SAM", "I say Note: this is no name, nor is This:", 0),
            ("FRODO", "Well.", 0),
            ("FRODO", "That is another paragraph.", 0),
            ("SAM", "A new scene.", 1),
        ],
    ),
    "an empty line after every speech": (
        "SAM: One\n\nFRODO: Two\n\n\nSAM: Three\n\nFRODO: Four\n",
        [("SAM", "One", 0), ("FRODO", "Two", 0), ("SAM", "Three", 1), ("FRODO", "Four", 1)],
    ),
    "names in capitals": (
        "SAM: One\nFrodo: not a speaker\nFRODO: Two\n" + "SAM: More\nFRODO: More\n" * 6,
        [("SAM", "One Frodo: not a speaker", 0), ("FRODO", "Two", 0)],
    ),
    "a chat in small letters": ("sam: hello\nfrodo b: hi\n", [("SAM", "hello", 0), ("FRODO B", "hi", 0)]),
    "a title": (
        "GANDALF: Hello\nCAPT. JACK: Stop\n",
        [("GANDALF", "Hello", 0), ("CAPT JACK", "Stop", 0)],
    ),
    "more colons": (
        "SAM: Listen: FRODO: go\nFRODO: Sam: no\n",
        [("SAM", "Listen: FRODO: go", 0), ("FRODO", "Sam: no", 0)],
    ),
}


class TestStyles:
    @pytest.mark.parametrize("style", STYLES)
    def test_a_script_is_read_in_the_style_of_its_writer(self, tmp_path, style):
        script, expected = STYLES[style]
        assert read_lines(tmp_path / "a.txt", script)[: len(expected)] == expected

    @pytest.mark.parametrize(
        "text", ["no names at all\n" * 30, "Note: this\n" + "and prose follows\n" * 30, "the truth: go\n" + "x\n" * 9]
    )
    def test_a_text_without_speakers_is_refused(self, tmp_path, text):
        with pytest.raises(CorpusError, match=r"a\.txt has no speakers.*'NAME: text'.*--mode line"):
            read(tmp_path / "a.txt", text)

    def test_an_utterance_too_long_is_refused(self, tmp_path):
        line = "x" * 99_999 + "\n"
        with pytest.raises(CorpusError, match=r"has an utterance of 2,.* characters; shorten it"):
            read(tmp_path / "a.txt", "SAM: hello\nSAM:\n" + line * (3 * MAX_LINE_CHARACTERS // len(line)))


WORDS = st.lists(st.sampled_from(["go", "now", "Sam", "and", "no.", "why?", "it,"]), min_size=1, max_size=6).map(
    " ".join
)


@settings(max_examples=40)
@given(
    scenes=st.lists(
        st.lists(st.tuples(st.sampled_from(["SAM", "FRODO", "KING OF MEN"]), WORDS), min_size=2, max_size=6),
        min_size=1,
        max_size=5,
    ),
    wrapped=st.booleans(),
)
def test_a_written_script_is_read_back(tmp_path_factory, scenes, wrapped):
    separator = "\n" if wrapped else " "
    script = "\n".join("".join(f"{name}: {text.replace(' ', separator)}\n" for name, text in scene) for scene in scenes)
    lines = read_lines(tmp_path_factory.mktemp("script") / "a.txt", script)
    assert lines == [(name, text, index) for index, scene in enumerate(scenes) for name, text in scene]


LONG_NAME = "A CAPTAIN OF THE MEN OF THE WEST"  # eight words
SCENES_WITH_ODD_NAMES = st.lists(
    st.lists(
        st.builds(
            scripts.Turn, st.sampled_from(["SAM", LONG_NAME, "राम", "ÉOWYN", "O'BRIEN"]), WORDS | st.just("Sam: no")
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=4,
).filter(lambda scenes: len(scenes) < 2 or len(scenes) < 0.8 * sum(map(len, scenes)))


@given(SCENES_WITH_ODD_NAMES)
def test_scenes_survive_writing_and_reading(scenes):
    assert scripts.read_scenes(scripts.script_text(scenes)) == scenes


def test_scenes_of_one_turn_are_the_speeches_of_one():
    """Other programs separate speeches by empty lines, and the text does not say who wrote it."""
    turns = [scripts.Turn("SAM", "One"), scripts.Turn(LONG_NAME, "Two"), scripts.Turn("SAM", "Three")]
    assert scripts.read_scenes(scripts.script_text([[turn] for turn in turns])) == [turns]


def test_a_decomposed_letter_is_part_of_a_name():
    script = "E\N{COMBINING ACUTE ACCENT}owyn: No\nSAM: Yes\n"
    assert scripts.read_scenes(script) == [[scripts.Turn("ÉOWYN", "No"), scripts.Turn("SAM", "Yes")]]


@pytest.mark.parametrize("script", ["", "\n", " \n\n"])
def test_an_empty_script_has_no_scenes(script):
    assert scripts.read_scenes(script) == []


class TestRealScripts:
    def test_the_speeches_of_shakespeare(self, lotr_csv):
        """Compare with a reader of this very file: its speeches are blocks of a name and lines."""
        path = lotr_csv.parent / "tinyshakespeare.txt"
        if not path.is_file():
            pytest.skip("needs tinyshakespeare.txt beside the dialogues")
        blocks = [block for block in path.read_text().split("\n\n") if block.strip()]
        expected, speaker = [], ""
        for speech in (block.strip("\n").split("\n") for block in blocks):
            if re.fullmatch(r"[A-Z][A-Za-z '-]*:", speech[0]):
                speaker = " ".join(speech.pop(0)[:-1].upper().split())
            else:
                assert speech[0] == "Senators, &C:"  # a comma is no part of a name
            expected += [Line(" ".join(" ".join(speech).split()), speaker)] if speech else []
        config = DataConfig(str(path), "text", mode="dialogue", min_characters=-1)
        corpus = read_corpus(config)
        assert len(corpus.lines) > 7000
        assert [*corpus.lines] == expected


def test_scenes_of_a_script_have_canonical_names():
    script = "(dawn)\n\nGANDALF (V.O.): You shall\n  not pass!\nSam: Oh: no\n\nGANDALF: Go\n"
    someone = [[scripts.Turn("SOMEONE", "(dawn)")]]
    assert scripts.read_scenes(script) == [
        *someone,
        [scripts.Turn("GANDALF", "You shall not pass!"), scripts.Turn("SAM", "Oh: no")],
        [scripts.Turn("GANDALF", "Go")],
    ]
    assert scripts.read_scenes("It was\n\na dark night.") == [
        [scripts.Turn("SOMEONE", "It was"), scripts.Turn("SOMEONE", "a dark night.")]
    ]


SCENES = [
    [scripts.Turn("KING OF THE DEAD", "Who  enters:\tmy domain?"), scripts.Turn("O'BRIEN", "")],
    [scripts.Turn("GANDALF", "Fly, you fools!\n")],
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


def scene_tokens(tokenizer: Tokenizer, scenes: Sequence[Sequence[scripts.Turn]]) -> list[int]:
    ids: list[int] = []
    for scene in scenes:
        ids += [*(tokenizer.encode("\n").tolist() if ids else []), *scripts.encode_turns(tokenizer, scene)]
    return ids


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tokens_of_scenes_are_their_script(tokenizer: Tokenizer) -> None:
    assert scripts.script_text(SCENES) == tokenizer.decode(scene_tokens(tokenizer, SCENES)) == SCRIPT


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_mask_selects_the_texts_with_their_line_ends_but_neither_names_nor_empty_lines(tokenizer: Tokenizer) -> None:
    ids = np.array([*scene_tokens(tokenizer, SCENES), EOS_ID], np.int32)
    chosen = tokenizer.decode(ids[scripts.utterance_mask(tokenizer, ids)].tolist())
    assert chosen == " Who enters: my domain?\n\n Fly, you fools!\n"
    assert not scripts.utterance_mask(tokenizer, ids[:0]).size


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_turn_begins_with_the_tokens_of_its_speaker_and_ends_with_a_line_end(tokenizer: Tokenizer) -> None:
    head, turn = scripts.encode_speaker(tokenizer, "GANDALF"), scripts.encode_turn(tokenizer, SCENES[1][0])
    assert turn[: len(head)] == head
    assert tokenizer.decode(head) == "Gandalf:"
    assert [id in tokenizer.line_end_ids for id in turn] == [False] * (len(turn) - 1) + [True]
    assert tokenizer.decode(turn[:-1]) == "Gandalf: Fly, you fools!"
    (text,) = tokenizer.encode_lines([" Fly, you fools!\n"])
    assert turn[len(head) :] == tuple(text.tolist())


@pytest.mark.parametrize("turn", [turn for scene in SCENES for turn in scene])
def test_a_line_is_parsed_as_the_turn_that_it_was_written_from(turn: scripts.Turn) -> None:
    assert scripts.parse_line(scripts.turn_text(turn)) == scripts.Turn(turn.speaker, " ".join(turn.text.split()))


@pytest.mark.parametrize("line", ["", "\n", "no name", "…: text", f"{'a' * 50}: text"])
def test_a_line_without_a_name_is_no_turn(line: str) -> None:
    assert scripts.parse_line(line) is None


def test_scenes_of_a_corpus_call_speakers_by_their_names_and_leave_out_empty_lines() -> None:
    lines = make_lines(["Hm.", "Hi.", "Who?"], ["FRODO", "", "GOLLUM"], [0, 0, 1])
    assert list(lines.scenes()) == [
        [scripts.Turn("FRODO", "Hm."), scripts.Turn("SOMEONE", "Hi.")],
        [scripts.Turn("GOLLUM", "Who?")],
    ]
