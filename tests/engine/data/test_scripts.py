"""Plain texts with speakers: which lines have a name, and whose lines the others are."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.corpus import MAX_LINE_CHARACTERS, Line, read_corpus
from engine.data.scripts import Turn, read_scenes, split_name
from engine.errors import CorpusError


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
    "Mrs. Bracegirdle|Soldier 2|1st Orc|Uruk-Hai|O’Brien|Éomer|甘道夫"
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
            found = split_name(line)
            assert found.name == name
            assert found.case in ("upper", "title")

    @pytest.mark.parametrize("line", LINES_WITHOUT_A_NAME.split("|"), ids=lambda line: line[:50])
    def test_other_lines_have_no_name(self, line):
        assert split_name(line) is None


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
    someone = [[Turn("SOMEONE", "(dawn)")]]
    assert read_scenes(script) == [
        *someone,
        [Turn("GANDALF", "You shall not pass!"), Turn("SAM", "Oh: no")],
        [Turn("GANDALF", "Go")],
    ]
    assert read_scenes("It was\n\na dark night.") == [[Turn("SOMEONE", "It was"), Turn("SOMEONE", "a dark night.")]]
