"""`data info`, `data speech` and `tokenize`: speakers, scenes, splits and vocabularies."""

import io
import re
from dataclasses import replace

import pytest

from engine.config import DataConfig
from lotr_tui.cli.main import ask_for_columns
from tests.support.commands import json_output
from tests.support.files import sentences, write_csv
from tests.support.open_models import bpe_tokenizer, write_open_run

SCRIPT = "SAM: the old mill\nFRODO (V.O.): the old road, Sam\nSAM: the old mill\nMerry: on\n\n" * 40
DIALOGUE = ("--mode", "dialogue")


@pytest.fixture
def info(lotr):
    """Return a function that runs `data info --json`."""
    return lambda *arguments: json_output(lotr("data", "info", *arguments, "--json"))


@pytest.fixture
def script(tmp_path):
    (tmp_path / "play.txt").write_text(SCRIPT)
    return tmp_path / "play.txt"


class TestInfo:
    def test_speakers_and_scenes(self, info, script):
        row = info(script, *DIALOGUE)
        assert (row["mode"], row["split"], row["num_lines"], row["num_scenes"]) == ("dialogue", "scenes", 160, 40)
        assert row["cast"] == ["SAM", "FRODO", "MERRY", "SOMEONE"]
        frodo = {"name": "FRODO", "num_lines": 40, "num_words": 160, "num_followed": 40}
        assert row["speakers"][1] == frodo | {"next_speakers": [["SAM", 40]]}
        changed = info(script, "--set", "scene_lines=2", "--set", "min_speaker_lines=40", *DIALOGUE)
        assert (changed["num_scenes"], changed["cast"]) == (80, ["SAM", "SOMEONE"])

    def test_counts_of_the_real_dialogues_are_printed(self, info, lotr, lotr_csv):
        row = info(lotr_csv)
        assert (row["encoding"], row["separator"], row["split_seed"]) == ("UTF-8", "comma", 1234)
        shown = lotr("data", "info", lotr_csv).stdout
        assert all(text in shown for text in ("2,390", "1,644", "23,615", "879"))
        assert re.search(r"Gandalf +168 +3,311 +Gandalf 24, Pippin 10", shown)
        assert re.search(r"valid +164 +2,226 +18\.2 %", shown)
        assert "longer than 20 characters; --set min_characters=0 keeps shorter ones" in shown

    def test_table_of_the_cast_and_who_speaks_next(self, lotr, script):
        shown = lotr("data", "info", script, *DIALOGUE).stdout
        for row in (
            r"scenes +40, of 20 lines or fewer",
            r"speakers +3, of whom 3 with at least 10 lines in train are the cast",
            r"Sam +80 +240 +Frodo 50, Merry 50",
            r"Frodo +40 +160 +Sam 100",
        ):
            assert re.search(f"^{row}", shown, re.MULTILINE), row
        shown = lotr("data", "info", script, *DIALOGUE, "--set", "min_speaker_lines=40").stdout
        assert re.search(r"^2 others +80 +200", shown, re.MULTILINE)

    def test_plain_text_is_told_by_name_and_a_column_means_csv(self, info, lotr, tmp_path):
        (tmp_path / "a.txt").write_text("\n".join(sentences(60)))
        row = info("a.txt")
        assert (row["separator"], row["num_lines"]) == ("none", 60)
        assert "who speaks next" not in lotr("data", "info", "a.txt").stdout
        write_csv(tmp_path / "b.txt", sentences(60), columns=("whom", "what"))
        row = info("b.txt", "--text-column", "what")
        assert (row["separator"], row["num_lines"], row["speakers"]) == ("comma", 60, [])

    def test_a_terminal_is_asked_for_columns_that_are_not_clear(self, tmp_path, monkeypatch, capsys):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        (tmp_path / "a.csv").write_text("n,person,words\n1,LUKE,Never.\n2,BEN,Use \x1b[2Jit.\n" + "3,LUKE,Well.\n" * 9)
        data = DataConfig(str(tmp_path / "a.csv"), mode="dialogue")
        monkeypatch.setattr("sys.stdin", Terminal("7\n3\n2\n"))
        assert ask_for_columns(data) == data  # its questions would go into a file
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        assert ask_for_columns(data) == replace(data, text_column="words", speaker_column="person")
        shown = capsys.readouterr().err
        assert "  3  words: Never. · Use �[2Jit. · Well.\n" in shown
        assert "  2  person: LUKE · BEN · LUKE\n" in shown

    @pytest.mark.parametrize("name", ["\x1b[2JSam", "[red]Sam[/red]", "\u202eSam"])
    def test_control_characters_and_markup_of_the_corpus_are_not_printed(self, lotr, tmp_path, name):
        rows = f"{name},{'the old mill ' * 10}\nFRODO,the old road\n" * 60
        (tmp_path / "a.csv").write_text("char,dialog\n" + rows)
        shown = lotr("data", "info", "a.csv", *DIALOGUE).stdout
        assert re.search(r"^Sam +60 +1,800", shown, re.MULTILINE)
        assert not set("\x1b\u202e") & set(shown)


def test_speech_is_written_beside_the_text_and_its_path_is_printed(lotr, tmp_path):
    (tmp_path / "novel.txt").write_text("“The road is long and cold,” said Ivo.\n")
    done = lotr("data", "speech", tmp_path / "novel.txt")
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'novel-speech.txt'}\n", "quotations of 4 words or more: 1\n")
    assert (tmp_path / "novel-speech.txt").read_text() == "The road is long and cold\n"


class TestTokenize:
    @pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
    def test_the_tokens_of_an_open_vocabulary_hold_the_whole_text(self, lotr, tokenizer):
        text = "Théoden's  ☺ wizards\nlaughed."
        report = json_output(lotr("tokenize", text, "--tokenizer", tokenizer, "--json"))
        assert (report["tokenizer"], report["unknown"], report["characters"]) == (tokenizer, [], len(text))
        assert "".join(token["text"] for token in report["tokens"]) == text
        assert all(text[token["start"] :].startswith(token["text"]) for token in report["tokens"])
        piped = json_output(lotr("tokenize", "-", "--tokenizer", tokenizer, "--json", stdin=text.encode()))
        assert piped["tokens"] == report["tokens"]

    def test_a_closed_vocabulary_names_what_it_does_not_know(self, lotr):
        marked, tokens, summary = lotr("tokenize", "Where is Xyzzy?", "--tokenizer", "words").stdout.splitlines()
        assert marked == "Where is Xyzzy?"
        assert tokens.startswith("where:")
        assert "<unk>:0" in tokens
        assert "unknown: xyzzy" in summary.lower()

    def test_the_run_may_be_the_default_model_or_an_epoch(self, lotr, tmp_path):
        assert lotr("tokenize", "the road").stdout.endswith(", run lstm\n")
        run = write_open_run(tmp_path / "run", bpe_tokenizer())
        assert lotr("tokenize", "the road", "--run", f"{run}@1").stdout.endswith(f", run {run}@1\n")

    def test_control_characters_do_not_reach_the_terminal(self, lotr, tmp_path):
        run = write_open_run(tmp_path / "run", bpe_tokenizer())
        process = lotr("tokenize", "a\x1b[2Jb \u202e", "--run", run)
        assert process.returncode == 0
        assert not set("\x1b\u202e") & set(process.stdout)
