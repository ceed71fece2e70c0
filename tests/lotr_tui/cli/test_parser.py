"""Help texts, and what wrong commands, options and numbers are answered."""

import re

import pytest

from lotr_tui.cli.main import cli
from tests.support.commands import json_output
from tests.support.files import KNOWN_WORDS

COMMANDS = [
    *((), ("train",), ("attach",), ("status",), ("stop",), ("generate",), ("eval",), ("ablate",)),
    ("search",),
    *(("locate",), ("data",), ("data", "info"), ("data", "fetch")),
    *(("runs",), ("runs", "show"), ("runs", "rm"), ("runs", "rename"), ("runs", "export"), ("runs", "compact")),
]


class TestHelp:
    @pytest.mark.parametrize("columns", [80, 120])
    @pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
    def test_help_has_no_types_of_python_and_fits_the_width(self, command, name, columns):
        done = command(*name, "--help", COLUMNS=str(columns))
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0].startswith(" ".join(["Usage: lotr-tui", *name, "[OPTIONS]"]))
        assert max(map(len, lines)) <= columns
        assert not re.search(r"<(bool|str|int|float|path)|range|\[\[|\{|TEXT\b|INTEGER|PATH\b", done.stdout)
        assert "--help" in done.stdout

    def test_all_commands_are_listed(self, command):
        shown = command("--help").stdout
        listed = re.findall(r"^  ([a-z]+) ", shown.partition("Commands:")[2].partition("\n\n")[0], re.MULTILINE)
        registered = [item.callback.__name__ if item.name is None else item.name for item in cli.registered_commands]
        assert sorted(listed) == sorted([*registered, *(group.name for group in cli.registered_groups)])

    @pytest.mark.parametrize("columns", ["0", "1", "-5", "many", ""])
    def test_unusable_columns_are_ignored(self, command, columns):
        shown = command("generate", "--help", COLUMNS=columns).stdout
        assert "--repetition-penalty X" in shown

    def test_optional_and_required_arguments_differ(self, command):
        assert command("status", "--help").stdout.startswith("Usage: lotr-tui status [OPTIONS] [RUN]\n")
        assert command("runs", "show", "--help").stdout.startswith("Usage: lotr-tui runs show [OPTIONS] RUN\n")
        assert command("eval", "--help").stdout.startswith("Usage: lotr-tui eval [OPTIONS] [RUN...]\n")

    def test_group_without_a_command_shows_its_help(self, command):
        done = command("data")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == command("data", "--help").stdout


class TestUnknownCommand:
    @pytest.mark.parametrize(
        ("arguments", "suggestion"),
        [
            (["trian"], "lotr-tui train"),
            (["gen"], "lotr-tui generate"),
            (["evaluate"], "lotr-tui eval"),
            (["run"], "lotr-tui runs"),
            (["help"], "lotr-tui --help"),
            (["version"], "lotr-tui --version"),
            (["runs", "sho"], "lotr-tui runs show"),
            (["data", "inf"], "lotr-tui data info"),
        ],
    )
    def test_near_command_is_suggested(self, refused, arguments, suggestion):
        assert refused(*arguments) == f"lotr-tui: unknown command '{arguments[-1]}'; did you mean `{suggestion}`?"

    @pytest.mark.parametrize("name", ["foo", "chat", "x", "Frodo"])
    def test_commands_are_listed_if_none_is_near(self, refused, name):
        line = refused(name)
        assert line.startswith(f"lotr-tui: unknown command '{name}'; the commands are train, attach, status, ")
        assert "did you mean" not in line

    def test_text_is_taken_for_a_prompt(self, refused):
        assert refused("hello world").endswith("to continue a text, use: lotr-tui generate 'hello world'")


class TestUsageErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["runs", "show"], "RUN is missing; see `lotr-tui runs show --help`"),
            (["data", "info"], "FILE is missing; see `lotr-tui data info --help`"),
            (["generate", "--temperature"], "--temperature needs a value; see `lotr-tui generate --help`"),
            (["runs", "show", "--runs-dir"], "--runs-dir needs a value; see `lotr-tui runs show --help`"),
            (["generate", "the", "--json=1"], "--json takes no value; see `lotr-tui generate --help`"),
            (["eval", "--basline"], "unknown option --basline; did you mean --baselines? See `lotr-tui eval --help`"),
            (["--zzz"], "unknown option --zzz; see `lotr-tui --help`"),
            (["runs", "show", "a", "b"], "unexpected argument 'b'; see `lotr-tui runs show --help`"),
            (
                ["generate", "the", "road"],
                "unexpected argument 'road'; put a prompt of several words in quotes; see `lotr-tui generate --help`",
            ),
        ],
    )
    def test_error_names_the_help_of_its_command(self, refused, arguments, message):
        assert refused(*arguments) == f"lotr-tui: {message}"


class TestNumbers:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--pace", "-1"], "pace -1.0 is out of range; use 0"),
            (["--pace", "nan"], "pace nan is out of range"),
            (["--pace", "fast"], "--pace fast is not a number"),
            (["generate", "the", "--count", "0"], "--count 0 is not a whole number from 1 to 1,000,000"),
            (["generate", "the", "--count", "few"], "--count few is not a whole number from 1"),
            (["generate", "the", "--seed", "-1"], "seed -1 is out of range"),
            (["generate", "the", "--seed", "1.5"], "--seed 1.5 is not a whole number"),
            (["generate", "the", "--seed", str(2**63 - 1), "--count", "2"], "is out of range"),
            (["generate", "the", "--top-p", "0"], "top-p 0.0 is out of range; use a number above 0, at most 1"),
            (["generate", "the", "--top-k", "-1"], "top-k -1 is out of range; use a number from 0 to 1,000,000"),
            (["generate", "the", "--temperature", "hot"], "--temperature hot is not a number"),
            (["ablate", "--seeds", "0"], "--seeds 0 is not a whole number from 1 to 1,000"),
            (["ablate", "--jobs", "-2"], "--jobs -2 is not a whole number from 1"),
            (["train", "--epochs", "ten"], "--epochs ten is not a whole number"),
        ],
    )
    def test_number_out_of_range_is_refused(self, refused, arguments, message):
        assert message in refused(*arguments)

    def test_sampling_options_are_checked_before_a_model_is_loaded(self, refused):
        assert "seed -1 is out of range" in refused("generate", "the", "--run", "missing", "--seed", "-1")
        assert "top-k -1 is out of range" in refused("generate", "the", "--run", "missing", "--top-k", "-1")


class TestTheme:
    @pytest.mark.parametrize("arguments", [[], ["train"], ["attach"]])
    def test_unknown_theme_lists_the_themes(self, refused, arguments):
        line = refused(*arguments, "--theme", "drakula")
        assert "unknown theme 'drakula'; did you mean dracula? The themes: shire, shire-light, " in line
        assert "ansi-dark" in line

    def test_listed_themes_are_those_of_the_app(self, refused, make_app):
        listed = refused("--theme", "x").partition("The themes: ")[2].split(", ")
        assert sorted(listed) == sorted(make_app().available_themes)


class TestPrompt:
    def test_missing_prompt_is_read_from_standard_input(self, command, untrained_run):
        arguments = ("--run", untrained_run, "--seed", "3")
        piped = command("generate", *arguments, stdin=b"the road\n")
        assert piped.stdout
        assert piped.stdout == command("generate", "the road", *arguments).stdout
        assert piped.stdout == command("generate", "-", *arguments, stdin=b"the road\n").stdout

    def test_characters_outside_the_tokenizer_are_reported(self, command, untrained_run):
        done = command("generate", "☺ the мир xyzzy road", "--run", untrained_run)
        assert done.returncode == 0
        assert "not in the vocabulary, read as rare words: xyzzy\n" in done.stderr
        assert "skipped, because the model reads only words of a to z, digits and apostrophes: ☺, мир\n" in done.stderr
        record = json_output(command("generate", "☺ the xyzzy", "--run", untrained_run, "--json"))
        assert record["unknown"] == ["☺", "xyzzy"]

    def test_note_says_that_a_reply_does_not_depend_on_the_prompt(self, command, untrained_run):
        arguments = ("generate", " ".join(KNOWN_WORDS[:3]), "--run", untrained_run, "--reply")
        notes = [line for line in command(*arguments).stderr.splitlines() if line.startswith("note: ")]
        assert len(notes) == 1
        assert "learned each line on its own" in notes[0]
        assert command(*arguments, "--json").stderr == ""

    def test_note_says_that_a_model_without_line_ends_rarely_answers(self, command, untrained_run):
        file = untrained_run / "config.json"
        file.write_text(file.read_text().replace('"mode": "line"', '"mode": "stream"'))
        done = command("generate", "the road", "--run", untrained_run, "--reply")
        assert "note: this model was trained without line ends" in done.stderr
