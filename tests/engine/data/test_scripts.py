"""Scripts: whose lines they are, their form and their tokens; names of speakers in any spelling, and lookup."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from engine.config import DataConfig
from engine.data import scripts, speakers
from engine.data.corpus import MAX_LINE_CHARACTERS, Line, make_lines, read_corpus
from engine.data.tokenizers import EOS_ID, BPETokenizer, CharacterTokenizer, Tokenizer
from engine.errors import CorpusError, InvalidInputError
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
        [("", "a preface", 0), ("SAM", "One and told him: more", 0), ("FRODO", "Two", 1), ("FRODO", "who speaks", 2),
         ("FRODO", "Three", 2)],
    ),
    "names on lines of their own": (
        "Sam:\nI say\nNote: this is no name,\nnor is\nThis:\n\nFrodo:\nWell.\n\nThat is another paragraph.\n\n\n"
        "Sam:\nA new scene.\n\n" + "Frodo:\nYes.\n\n" * 40,
        [("SAM", "I say Note: this is no name, nor is This:", 0), ("FRODO", "Well.", 0),
         ("FRODO", "That is another paragraph.", 0), ("SAM", "A new scene.", 1)],
    ),
    "an empty line after every speech": (
        "SAM: One\n\nFRODO: Two\n\n\nSAM: Three\n\nFRODO: Four\n",
        [("SAM", "One", 0), ("FRODO", "Two", 0), ("SAM", "Three", 1), ("FRODO", "Four", 1)],
    ),
    "names in capitals": (
        "SAM: One\nFrodo: not a speaker\nFRODO: Two\n" + "SAM: More\nFRODO: More\n" * 6,
        [("SAM", "One Frodo: not a speaker", 0), ("FRODO", "Two", 0)],
    ),
    "small letters": ("sam: hello\nfrodo b: hi\n", [("SAM", "hello", 0), ("FRODO B", "hi", 0)]),
    "a title": ("GANDALF: Hello\nCAPT. JACK: Stop\n", [("GANDALF", "Hello", 0), ("CAPT JACK", "Stop", 0)]),
    "more colons": ("SAM: Well: FRODO: go\nFRODO: Sam: no\n", [("SAM", "Well: FRODO: go", 0), ("FRODO", "Sam: no", 0)]),
}  # fmt: skip


class TestStyles:
    @pytest.mark.parametrize("style", STYLES)
    def test_a_script_is_read_in_the_style_of_its_writer(self, tmp_path, style):
        script, expected = STYLES[style]
        assert read_lines(tmp_path / "a.txt", script)[: len(expected)] == expected

    @pytest.mark.parametrize("text", ["no name\n" * 30, "Note: this\n" + "prose\n" * 30, "truth: go\n" + "x\n" * 9])
    def test_a_text_without_speakers_is_refused(self, tmp_path, text):
        with pytest.raises(CorpusError, match=r"a\.txt has no speakers.*'NAME: text'.*--mode line"):
            read(tmp_path / "a.txt", text)

    def test_an_utterance_too_long_is_refused(self, tmp_path):
        line = "x" * 99_999 + "\n"
        with pytest.raises(CorpusError, match=r"has an utterance of 2,.* characters; shorten it"):
            read(tmp_path / "a.txt", "SAM: hello\nSAM:\n" + line * (3 * MAX_LINE_CHARACTERS // len(line)))


WORDS = st.lists(st.sampled_from(["go", "Sam", "and", "no.", "why?", "it,"]), min_size=1, max_size=6).map(" ".join)


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
ODD_NAMES = st.sampled_from(["SAM", LONG_NAME, "राम", "ÉOWYN", "O'BRIEN"])
SCENES_WITH_ODD_NAMES = st.lists(
    st.lists(
        st.builds(scripts.Turn, ODD_NAMES, WORDS | st.just("Sam: no")),
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


def test_a_line_is_parsed_as_the_turn_that_it_was_written_from_and_one_without_a_name_is_no_turn():
    for turn in chain(*SCENES):
        assert scripts.parse_line(scripts.turn_text(turn)) == scripts.Turn(turn.speaker, " ".join(turn.text.split()))
    for line in ("", "\n", "no name", "…: text", f"{'a' * 50}: text"):
        assert scripts.parse_line(line) is None


def test_scenes_of_a_corpus_call_speakers_by_their_names_and_leave_out_empty_lines() -> None:
    lines = make_lines(["Hm.", "Hi.", "Who?"], ["FRODO", "", "GOLLUM"], [0, 0, 1])
    assert list(lines.scenes()) == [
        [scripts.Turn("FRODO", "Hm."), scripts.Turn("SOMEONE", "Hi.")],
        [scripts.Turn("GOLLUM", "Who?")],
    ]


CAST = ("GANDALF", "FRODO", "URUK-HAI", "KING OF THE DEAD", speakers.SOMEONE)
SPELLINGS = {
    "GANDALF": ["Gandalf", "\u00a0 GANDALF \u00a0"], "OLD MAN": ["  Old\t\n man "],
    "GOLLUM": ["(GOLLUM", "GOLLUM)", "(Gollum)", "[gollum]"], "MERRY AND PIPPIN": ["MERRY and PIPPIN"],
    "MRS BRACEGIRDLE": ["Mrs. Bracegirdle"], "O'BRIEN": ["O’Brien"], "ÉOMER": ["Éomer", "E\u0301omer"],
    "SOLDIER 1": ["SOLDIER #1:"], "SAM FRODO": ["SAM, FRODO"],
    "SAM": ["\x1b[31mSAM\x1b[0m", "[bold red]Sam[/bold red]", "<i>Sam</i>", "\u202eS\u200bam\x07\0"],
    "": ["", " \u00a0\t", "((()", "..."],
}  # fmt: skip
RESEMBLE_A_MARK = ["VOICE", "VOICE OVER", "OFF", "THE VOICE", "MAN'S VOICE", "OFFICER", "VOLDEMORT"]


PARTS = ["GANDALF", "sam", "voice", "over", "V.O.", "OFF", "(", ")", "[", "]", "-", "'", "&", ".", "/", "\x1b[1m"]


ANY_NAMES = st.text(max_size=60) | st.lists(st.sampled_from(PARTS), max_size=8).map(" ".join)


class TestSpeakers:
    @pytest.mark.parametrize(("name", "spellings"), [*SPELLINGS.items(), *((name, [name]) for name in RESEMBLE_A_MARK)])
    def test_a_name_becomes_canonical(self, name, spellings):
        for raw in spellings:
            assert speakers.normalize_speaker(raw) == name, ascii(raw)

    @pytest.mark.parametrize("form", ["Saruman {}", "SARUMAN ({})", "SARUMAN, {}", "SARUMAN - {} ", "Saruman [{}]"])
    def test_a_voice_over_is_left_out_in_any_spelling(self, form):
        for mark in ("VOICE OVER", "voiceover", "Voice-Over", "V.O.", "V.O", "VO", "v/o"):
            assert speakers.normalize_speaker(form.format(mark)) == "SARUMAN"

    def test_marks_and_remarks_beside_a_name_are_left_out(self):
        for mark in ("(O.S.)", "OFF", "OFF-SCREEN", "(CONT'D)", "CONT’D", "V.O. CONT'D", "(softly)"):
            assert speakers.normalize_speaker(f"SAM {mark}") == "SAM"

    def test_a_name_that_is_too_long_is_none(self):
        assert speakers.normalize_speaker("x" * speakers.MAX_NAME_CHARACTERS) == "X" * speakers.MAX_NAME_CHARACTERS
        assert speakers.normalize_speaker("x" * (speakers.MAX_NAME_CHARACTERS + 1)) == ""
        assert speakers.normalize_speaker(f"SAM ({'x' * 100})") == "SAM"
        assert speakers.normalize_speaker(f"SAM{' ' * 10_000}") == "SAM"
        assert speakers.normalize_speaker("[a]" * 300_000) == ""

    @given(ANY_NAMES)
    def test_any_text_gives_a_plain_name_that_is_its_own_canonical_form(self, raw):
        name = speakers.normalize_speaker(raw)
        assert name == " ".join(name.split())
        assert name.isprintable()
        assert not set(name) & set(":,<>[](){}")
        assert len(name) <= speakers.MAX_NAME_CHARACTERS
        assert speakers.normalize_speaker(name) == name
        assert unicodedata.is_normalized("NFKC", name)

    @given(st.text("([{<", max_size=450))
    def test_open_brackets_hide_no_name(self, raw):
        assert speakers.normalize_speaker(raw + "sam") == "SAM"

    @pytest.mark.parametrize(
        "shown",
        ["King of the Dead", "The King", "Uruk-Hai", "Eowyn/Merry", "O'Brien", "Man's Voice", "King Richard III", ""],
    )
    def test_a_name_is_displayed_with_capitals(self, shown):
        assert speakers.display_name(shown.upper()) == shown
        assert speakers.normalize_speaker(shown) == shown.upper()

    @pytest.mark.parametrize(
        ("name", "typed"),
        [
            ("GANDALF", ["GANDALF", "gandalf", " Gandalf (V.O.)", "GAN DALF", "Gan-dalf"]),
            ("KING OF THE DEAD", ["King of the dead"]),
            ("URUK-HAI", ["uruk hai"]),
            (speakers.SOMEONE, ["someone"]),
        ],
    )
    def test_a_speaker_is_found_whatever_case_marks_spaces_and_hyphens_are_typed(self, name, typed):
        assert {speakers.find_speaker(each, CAST) for each in typed} == {name}
        assert len({each.translate(speakers.JOINED) for each in typed if each.isupper()}) <= 1

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("gandolf", r"speaker 'gandolf' is not in the cast .*; did you mean GANDALF\?$"),
            ("Žižek", r"use one of GANDALF, FRODO, URUK-HAI, KING OF THE DEAD, SOMEONE$"),
            ("\x1b", "is not a name; use one of GANDALF"),
            ("x" * 10_000, "is not a name; use one of GANDALF"),
        ],
        ids=lambda value: ascii(value[:20]),
    )
    def test_an_unknown_speaker_is_refused_with_the_nearest_names(self, name, message):
        with pytest.raises(InvalidInputError, match=message) as caught:
            speakers.find_speaker(name, CAST)
        assert len(str(caught.value)) < 200

    def test_gandalf_answers_or_else_the_first_who_is_no_stranger(self):
        assert speakers.first_to_answer(("STRANGER", "SAM", "GANDALF", "SOMEONE")) == "GANDALF"
        assert speakers.first_to_answer(("STRANGER", "ROMEO", "SOMEONE")) == "ROMEO"
        assert speakers.first_to_answer(("STRANGER", "SOMEONE")) == "STRANGER"
