"""Tables without a terminal, in a narrow one and in one of no width, and JSON that every parser reads."""

import fcntl
import io
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from lotr_tui.cli.console import make_fitting_table, to_json
from tests.support.commands import json_output
from tests.support.files import KNOWN_WORDS, write_run

LONG_NAME = "a-run-with-a-name-that-is-longer-than-any-terminal-" + "x" * 40
UNUSABLE_COLUMNS = ["0", "1", "-5", "many"]


@pytest.fixture
def own_text(tmp_path):
    """Return the path of a text that the untrained run can score, longer than a line of any terminal."""
    path = tmp_path / "own.txt"
    path.write_text("\n".join([" ".join(KNOWN_WORDS * 30), *(" ".join(KNOWN_WORDS) for _ in range(30))]))
    return path


def run_in_terminal(arguments, columns, environment):
    """Run a command in a terminal of a given width, and return what it prints."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "lotr_tui", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    ) as process:
        os.close(follower)
        output = b""
        try:
            while chunk := os.read(leader, 65_536):
                output += chunk
        except OSError:  # the end of the output on Linux
            pass
        assert process.wait(60) == 0, output
    os.close(leader)
    return output.decode()


class TestWidth:
    def test_long_names_are_intact_and_one_row_is_one_line(self, command, home):
        names = [f"{LONG_NAME}-1", f"{LONG_NAME}-2"]
        for name in names:
            write_run(home / "runs" / name)
        lines = command("runs", COLUMNS="60").stdout.splitlines()
        assert len(lines) == 3
        assert sorted(line.split()[0] for line in lines[1:]) == names

    @pytest.mark.parametrize("columns", UNUSABLE_COLUMNS)
    def test_unusable_columns_change_nothing(self, command, home, own_text, columns):
        write_run(home / "runs" / "r")
        for arguments in (["runs"], ["status", "r"], ["eval", "r", "--text", own_text], ["data", "info", own_text]):
            expected = command(*arguments).stdout
            assert len(expected.splitlines()) > 1
            assert command(*arguments, COLUMNS=columns).stdout == expected

    def test_names_are_folded_in_a_narrow_terminal(self, home, environment):
        write_run(home / "runs" / LONG_NAME)
        shown = run_in_terminal(["runs"], 60, environment(home, COLUMNS="", TERM="dumb"))
        lines = shown.splitlines()
        assert max(map(len, lines)) <= 60
        assert "".join(line.split()[0] for line in lines[1:]) == LONG_NAME

    def test_terminal_without_a_size_shows_all(self, home, environment):
        write_run(home / "runs" / "r")
        shown = run_in_terminal(["runs"], 0, environment(home, COLUMNS="0", TERM="dumb"))
        assert "crashed" in shown


@pytest.mark.parametrize(("width", "num_numbers"), [(20, 1), (60, 2), (66, 3), (80, 4), (90, 5)])
def test_narrow_table_leaves_out_the_last_numbers_instead_of_folding_words(width, num_numbers):
    numbers = ["12.345", "12.34-12.56", "1,234,567.8", "1,000,000", "24.7 %"]
    rows = [["fellowship", "characters", *numbers], ["f" * 30, "bpe, stream", *numbers]]
    headings = ["bits/char", "95 % CI", "perplexity", "tokens", "rare"]
    console = Console(width=width, file=io.StringIO())
    console.print(make_fitting_table(width, ["run", "tokenizer"], headings, rows))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    if width > 20:
        assert lines[0].split()[:2] == ["run", "tokenizer"]
        assert lines[1].split() == " ".join(["fellowship", "characters", *numbers[:num_numbers]]).split()
        assert "".join(line.split()[0] for line in lines[2:]) == "f" * 30
    else:
        assert numbers[0] in "".join(lines)
        assert numbers[1] not in "".join(lines)


class TestJson:
    def test_lone_surrogates_and_infinite_numbers_are_replaced(self):
        value = {"a\udcff": ["\ud83d\ude00", float("nan"), (float("inf"), 1.5)], "b": None}
        text = to_json(value)
        assert text.isascii()
        assert json.loads(text) == {"a\ufffd": ["\ufffd\ufffd", None, [None, 1.5]], "b": None}
        assert json.loads(to_json("😀 \\udcff é")) == "😀 \\udcff é"

    def test_argument_that_is_not_utf8_gives_valid_json(self, command, untrained_run):
        record = json_output(command("generate", "the \udcff road", "--run", untrained_run, "--json"))
        assert record["prompt"] == "the \ufffd road"

    def test_run_name_that_is_not_utf8_gives_valid_json(self, command, home):
        run = write_run(home / "runs" / "r")
        shutil.move(run, home / "runs" / os.fsdecode(b"bad\xff"))
        (listed,) = json_output(command("runs", "--json"))
        assert listed["name"] == "bad\ufffd"
        assert json_output(command("runs", "show", "bad\udcff"))["name"] == "bad\ufffd"
        assert json_output(command("status", "bad\ufffd", "--json"))["run"] == "bad\ufffd"
