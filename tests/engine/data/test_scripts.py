"""Plain texts with speakers: which lines have a name, and whose lines the others are."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import DataConfig
from engine.data.build import read_corpus
from engine.data.corpus import Corpus, read_script
from engine.data.file_scan import MAX_LINE_CHARACTERS
from engine.data.lines import Line
from engine.data.scenes import SceneRules
from engine.data.scripts import NamedLine, detect_style, split_name
from engine.errors import CorpusError


def read(path: Path, content: str) -> Corpus:
    path.write_text(content)
    return read_script(path, 0, scenes=SceneRules(block_lines=None))


def read_lines(path: Path, content: str) -> list[tuple[str, str, int]]:
    """Return the speaker, the text and the scene of each utterance of a script."""
    lines = read(path, content).lines
    scenes = lines.scene_ids.tolist()
    return [(line.speaker, line.text, scene) for line, scene in zip(lines, scenes, strict=True)]


class TestNames:
    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("GANDALF: You shall not pass", "GANDALF"),
            ("GANDALF:", "GANDALF"),
            ("GANDALF : No", "GANDALF"),
            ("(Gollum: My precious", "(Gollum"),
            ("Gandalf (V.O.): No", "Gandalf (V.O.)"),
            ("SAM [to Frodo, softly]: Come", "SAM [to Frodo, softly]"),
            ("GANDALF V.O.: No", "GANDALF V.O."),
            ("King of the Dead: No", "King of the Dead"),
            ("Eowyn/Merry: No", "Eowyn/Merry"),
            ("Merry & Pippin: No", "Merry & Pippin"),
            ("Mrs. Bracegirdle: No", "Mrs. Bracegirdle"),
            ("Soldier 2: No", "Soldier 2"),
            ("1st Orc: No", "1st Orc"),
            ("Uruk-Hai: No", "Uruk-Hai"),
            ("O’Brien: No", "O’Brien"),
            ("Éomer: No", "Éomer"),
            ("甘道夫: 不行", "甘道夫"),
        ],
    )
    def test_a_name_begins_a_line_and_ends_at_a_colon(self, line: str, name: str) -> None:
        found = split_name(line)
        assert found is not None
        assert found.name == name
        assert found.case in ("upper", "title")

    @pytest.mark.parametrize(
        "line",
        [
            "Look, Frodo: a light",
            "He was gone. Frodo: come",
            "Is it you? Sam: yes",
            '"Sam: come", he said',
            "Come at 12:30",
            "12: a number",
            "see http://example.org",
            "Sam:come",
            ": nothing",
            "no colon",
            "This Is A Title Of Far Too Many Words: yes",
            f"{'A' * 41}: yes",
            f"{'A' * 10_000}: yes",
            "---: yes",
            "(softly): yes, yes" + "(" * 200,
            "",
        ],
    )
    def test_other_lines_have_no_name(self, line: str) -> None:
        found = split_name(line)
        assert found is None or found.name == "(softly)"

    @pytest.mark.parametrize("line", ["and then he said to me: go", "I told Sam: go", "note: go", "Nay, speak: go"])
    def test_the_middle_of_a_sentence_is_no_name_of_a_script(self, tmp_path: Path, line: str) -> None:
        assert read_lines(tmp_path / "a.txt", f"Sam: I was there\n{line}\nFrodo: no\nSam: yes\n") == [
            ("SAM", f"I was there {line}", 0),
            ("FRODO", "no", 0),
            ("SAM", "yes", 0),
        ]

    def test_a_colon_later_in_the_line_belongs_to_the_text(self, tmp_path: Path) -> None:
        script = "SAM: Listen: FRODO: go\nFRODO: Sam: no\n"
        assert read_lines(tmp_path / "a.txt", script) == [("SAM", "Listen: FRODO: go", 0), ("FRODO", "Sam: no", 0)]

    @given(st.text(st.sampled_from("Aa.:( )[]-'é1,\u00a0"), max_size=40))
    def test_a_name_and_its_text_are_the_line(self, line: str) -> None:
        text = " ".join(line.split())
        found = split_name(text)
        if found is not None:
            assert re.sub(r"\s", "", f"{found.name}:{found.text}") == re.sub(r"\s", "", text)
            assert isinstance(found, NamedLine)


class TestStyles:
    def test_names_before_their_text(self, tmp_path: Path) -> None:
        script = "a preface\nSAM: One\nand more\n\nFRODO:\nTwo\n\nwho speaks\nFRODO (V.O.): Three\n"
        assert read_lines(tmp_path / "a.txt", script) == [
            ("", "a preface", 0),
            ("SAM", "One and more", 0),
            ("FRODO", "Two", 1),
            ("FRODO", "who speaks", 2),
            ("FRODO", "Three", 2),
        ]

    def test_names_on_lines_of_their_own(self, tmp_path: Path) -> None:
        script = (
            "Sam:\nI say\nNote: this is no name,\nnor is\nThis:\n\nFrodo:\nWell.\n\nThat is another paragraph.\n\n\n"
            "Sam:\nA new scene.\n\n" + "Frodo:\nYes.\n\n" * 40
        )
        assert read_lines(tmp_path / "a.txt", script)[:4] == [
            ("SAM", "I say Note: this is no name, nor is This:", 0),
            ("FRODO", "Well.", 0),
            ("FRODO", "That is another paragraph.", 0),
            ("SAM", "A new scene.", 1),
        ]

    def test_empty_lines_between_all_speeches_end_no_scene(self, tmp_path: Path) -> None:
        script = "SAM: One\n\nFRODO: Two\n\n\nSAM: Three\n\nFRODO: Four\n"
        assert [scene for _, _, scene in read_lines(tmp_path / "a.txt", script)] == [0, 0, 1, 1]

    def test_names_in_capitals_leave_other_names_to_the_text(self, tmp_path: Path) -> None:
        script = "SAM: One\nFrodo: not a speaker\nFRODO: Two\n" + "SAM: More\nFRODO: More\n" * 6
        lines = read_lines(tmp_path / "a.txt", script)
        assert lines[:2] == [("SAM", "One Frodo: not a speaker", 0), ("FRODO", "Two", 0)]

    def test_a_chat_can_have_small_letters(self, tmp_path: Path) -> None:
        assert read_lines(tmp_path / "a.txt", "sam: hello\nfrodo b: hi\nsam: bye\n") == [
            ("SAM", "hello", 0),
            ("FRODO B", "hi", 0),
            ("SAM", "bye", 0),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "no names at all\n" * 30,
            "Note: this\n" + "and prose follows\n" * 30,
            "the truth is: go\nand: so\n" + "x\n" * 9,
        ],
    )
    def test_a_text_without_speakers_is_refused(self, tmp_path: Path, text: str) -> None:
        assert detect_style(text.splitlines()) is None
        with pytest.raises(CorpusError, match=r"a\.txt has no speakers.*'NAME: text'.*--mode line"):
            read(tmp_path / "a.txt", text)

    def test_a_scene_of_one_line(self, tmp_path: Path) -> None:
        assert read_lines(tmp_path / "a.txt", "SAM: Hello") == [("SAM", "Hello", 0)]

    def test_blocks_of_the_file_change_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = "".join(f"SAM: word {number}\nmore {number}\nFRODO: word\n\n" for number in range(50))
        whole = read_lines(tmp_path / "a.txt", script)
        monkeypatch.setattr("engine.data.file_scan.BLOCK_BYTES", 25)
        assert read_lines(tmp_path / "a.txt", script) == whole
        assert whole[2:4] == [("SAM", "word 1 more 1", 1), ("FRODO", "word", 1)]

    def test_an_utterance_too_long_is_refused(self, tmp_path: Path) -> None:
        line = "x" * 99_999 + "\n"
        with pytest.raises(CorpusError, match=r"has an utterance of 1,0.*; the maximum is 1,000,000"):
            read(tmp_path / "a.txt", "SAM: hello\nSAM:\n" + line * (3 * MAX_LINE_CHARACTERS // len(line)))


WORDS = st.lists(st.sampled_from(["go", "now", "Sam", "and", "no.", "why?", "it,"]), min_size=1, max_size=6).map(
    " ".join
)


@given(
    scenes=st.lists(
        st.lists(st.tuples(st.sampled_from(["SAM", "FRODO", "KING OF MEN"]), WORDS), min_size=2, max_size=6),
        min_size=1,
        max_size=5,
    ),
    wrapped=st.booleans(),
)
def test_a_written_script_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, scenes: list[list[tuple[str, str]]], wrapped: bool
) -> None:
    separator = "\n" if wrapped else " "
    script = "\n".join("".join(f"{name}: {text.replace(' ', separator)}\n" for name, text in scene) for scene in scenes)
    lines = read_lines(tmp_path_factory.mktemp("script") / "a.txt", script)
    assert lines == [(name, text, index) for index, scene in enumerate(scenes) for name, text in scene]


class TestRealScripts:
    def test_the_speeches_of_shakespeare(self, lotr_csv: Path) -> None:
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
        assert corpus.lines == expected

    @pytest.mark.parametrize("name", ["train", "valid", "test"])
    def test_the_scenes_of_the_films(self, lotr_csv: Path, name: str) -> None:
        path = lotr_csv.parent / "scenes" / f"{name}.txt"
        if not path.is_file():
            pytest.skip("needs the scene files beside the dialogues")
        blocks = [block.split("\n") for block in path.read_text().rstrip("\n").split("\n\n")]
        corpus = read_corpus(DataConfig(str(path), "text", mode="dialogue", min_characters=-1))
        assert [line.text for line in corpus.lines] == [line.split(": ", 1)[1] for block in blocks for line in block]
        assert corpus.lines.scene_ids.tolist() == [index for index, block in enumerate(blocks) for _ in block]
        marked = sum(bool(re.match(r"[^:]* Voice.?[Oo]ver:", line)) for block in blocks for line in block)
        assert dict(corpus.marks).get("VOICE OVER", 0) == marked
        assert not any("(" in line.speaker or "VOICE-OVER" in line.speaker for line in corpus.lines)
