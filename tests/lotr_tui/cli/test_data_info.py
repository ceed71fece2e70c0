"""`lotr-tui data info`: the speakers of a corpus, its scenes, and dialogue mode."""

import csv
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.support.commands import json_output
from tests.support.files import write_csv

Command = Callable[..., CompletedProcess[str]]

SCRIPT = "SAM: the old mill\nFRODO (V.O.): the old road, Sam\nSAM: the old mill\nMerry: on\n\n" * 40


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "play.txt"
    path.write_text(SCRIPT)
    return path


def refusal(result: CompletedProcess[str]) -> str:
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


class TestJson:
    def test_speakers_scenes_pairs_and_marks(self, command: Command, script: Path) -> None:
        row = json_output(command("data", "info", script, "--mode", "dialogue", "--json"))
        assert (row["mode"], row["split"], row["num_lines"], row["num_scenes"]) == ("dialogue", "scenes", 160, 40)
        assert row["cast"] == ["SAM", "FRODO", "MERRY", "SOMEONE"]
        assert row["speakers"][1] == {
            "name": "FRODO",
            "num_lines": 40,
            "num_words": 160,
            "num_followed": 40,
            "next_speakers": [["SAM", 40]],
        }
        assert row["speaker_pairs"][0] == {"speaker": "SAM", "next_speaker": "FRODO", "count": 40}
        assert row["marks"] == [["VOICE OVER", 40]]

    def test_other_modes_merge_the_names_but_have_no_cast(self, command: Command, lotr_csv: Path) -> None:
        row = json_output(command("data", "info", lotr_csv, "--json"))
        assert row["cast"] == []
        counts = dict(map(tuple, row["speaker_line_counts"]))
        assert counts["GANDALF"] == 168
        assert not any("VOICE" in name and name != "VOICE" for name in counts)

    def test_pairs_of_the_film_dialogues_equal_those_of_a_naive_reader(self, command: Command, lotr_csv: Path) -> None:
        options = ("--mode", "dialogue", "--set", "scene_lines=1000000", "--split", "lines")
        row = json_output(command("data", "info", lotr_csv, *options, "--json"))

        def name(raw: str) -> str:
            plain = re.sub(r"[()\u00a0 -]+", "", raw).upper()
            return plain.removesuffix("VOICE").removesuffix("VOICEOVER") or plain

        with lotr_csv.open(encoding="utf-8", newline="") as file:
            rows = [line for line in csv.DictReader(file) if line["dialog"].strip()]
        pairs = Counter(
            (name(first["char"]), name(second["char"]))
            for first, second in pairwise(rows)
            if first["movie"] == second["movie"]
        )
        found = row["speaker_pairs"]
        assert [pair["count"] for pair in found] == [count for _, count in pairs.most_common(len(found))]
        assert all(pairs[pair["speaker"], pair["next_speaker"]] == pair["count"] for pair in found)

    def test_settings_of_the_data_can_be_changed(self, command: Command, script: Path) -> None:
        settings = ("--set", "scene_lines=2", "--set", "min_speaker_lines=40", "--mode", "dialogue")
        row = json_output(command("data", "info", script, *settings, "--json"))
        assert (row["num_scenes"], row["cast"]) == (80, ["SAM", "SOMEONE"])


def info_in_terminal(columns: int, *arguments: str) -> str:
    """Return what `data info` prints in a terminal of some columns."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "lotr_tui", "data", "info", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "0"},  # 0: the size of the terminal counts
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            part = os.read(controller, 65_536)
        except OSError:  # the terminal was closed
            break
        if not part:
            break
        output += part
    os.close(controller)
    assert process.wait() == 0
    return output.decode().replace("\r\n", "\n")


class TestTable:
    def test_the_cast_and_who_speaks_next(self, command: Command, script: Path) -> None:
        shown = command("data", "info", script, "--mode", "dialogue").stdout
        assert re.search(r"^scenes +40, of 20 lines or fewer", shown, re.MULTILINE)
        assert re.search(r"^speakers +3, of whom 3 with at least 10 lines in train are the cast", shown, re.MULTILINE)
        assert re.search(r"^marks +VOICE OVER 40", shown, re.MULTILINE)
        assert re.search(r"^who follows +Frodo after Sam 40, ", shown, re.MULTILINE)
        assert re.search(r"^Sam +80 +240 +Frodo 50, Merry 50", shown, re.MULTILINE)
        assert re.search(r"^Frodo +40 +160 +Sam 100", shown, re.MULTILINE)
        assert re.search(r"^vocabulary .* and 4 speakers", shown, re.MULTILINE)
        assert "longer than" not in shown

    def test_speakers_outside_the_cast_share_a_row(self, command: Command, script: Path) -> None:
        shown = command("data", "info", script, "--mode", "dialogue", "--set", "min_speaker_lines=40").stdout
        assert re.search(r"^2 others +80 +200", shown, re.MULTILINE)

    @pytest.mark.parametrize("columns", [80, 60])
    def test_every_line_fits_a_narrow_terminal(self, tmp_path: Path, columns: int) -> None:
        path = tmp_path / "play.txt"
        names = ["THE KING OF THE DEAD MEN OF DUNHARROW"[:37], "SOLDIERS IN MINAS TIRITH", "SAM"]
        path.write_text("".join(f"{name}: the old mill and the road\n" for name in names) * 40)
        shown = info_in_terminal(columns, str(path), "--mode", "dialogue")
        assert max(map(len, shown.split("\n"))) <= columns
        assert "Sam" in shown
        assert "who speaks next" in shown

    def test_a_long_cast_is_cut(self, command: Command, tmp_path: Path) -> None:
        lines = "".join(f"SOLDIER {number}: the old mill\n" for number in range(300))
        (tmp_path / "play.txt").write_text(lines * 2)
        shown = command("data", "info", "play.txt", "--mode", "dialogue", "--set", "min_speaker_lines=1").stdout
        assert len(re.findall(r"^Soldier \d+ +2 +6", shown, re.MULTILINE)) == 30
        assert re.search(r"^270 others +540 +1,620", shown, re.MULTILINE)

    def test_a_corpus_without_speakers_has_no_table_of_them(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("the old mill is the old mill\n" * 40)
        assert "who speaks next" not in command("data", "info", "a.txt").stdout


class TestBadInput:
    def test_a_table_without_speakers(self, command: Command, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", ["the old mill is the old mill"] * 120, columns=("who", "dialog"))
        message = refusal(command("data", "info", "a.csv", "--mode", "dialogue"))
        assert "no column 'char' of speakers" in message
        assert "its columns: who, dialog" in message
        assert "--speaker-column, or use --mode line" in message
        done = command("data", "info", "a.csv", "--mode", "dialogue", "--speaker-column", "who")
        assert (done.returncode, done.stderr) == (0, "")

    def test_two_columns_of_the_same_name(self, command: Command, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", ["the old mill"] * 60)
        path = tmp_path / "b.csv"
        path.write_text("char,dialog,char\n" + "SAM,the old mill is old,SAM\n" * 60)
        assert "has 2 columns 'char'" in refusal(command("data", "info", path, "--mode", "dialogue"))

    def test_a_text_without_names(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("the old mill\n" * 60)
        assert "'NAME: text'" in refusal(command("data", "info", "a.txt", "--mode", "dialogue"))

    @pytest.mark.parametrize("name", ["\x1b[2JSam", "[red]Sam[/red]", "\u202eSam", "<b>Sam</b>"])
    def test_names_with_control_characters_and_markup(self, command: Command, tmp_path: Path, name: str) -> None:
        rows = f"{name},{'the old mill ' * 10}\nFRODO,the old road\n" * 60
        (tmp_path / "a.csv").write_text("char,dialog\n" + rows)
        shown = command("data", "info", "a.csv", "--mode", "dialogue").stdout
        assert re.search(r"^Sam +60 +1,800", shown, re.MULTILINE)
        assert not set("\x1b\u202e") & set(shown)

    def test_an_unknown_setting_is_refused(self, command: Command, script: Path) -> None:
        assert "did you mean scene_lines" in refusal(command("data", "info", script, "--set", "scene_line=3"))


def test_a_name_of_ten_thousand_letters_is_nobody(command: Command, tmp_path: Path) -> None:
    rows: list[Any] = [f"{'x' * 10_000},the old mill is the old mill\n", "SAM,the old mill is the old mill\n"] * 30
    (tmp_path / "a.csv").write_text("char,dialog\n" + "".join(rows))
    row = json.loads(command("data", "info", "a.csv", "--mode", "dialogue", "--json").stdout)
    assert row["cast"] == ["SAM", "SOMEONE"]
    assert row["speaker_line_counts"] == [["SAM", 30]]
