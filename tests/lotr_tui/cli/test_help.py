"""Help texts and versions."""

import platform
import re
from importlib.metadata import version

import pytest

from lotr_tui.cli.main import COMMANDS as SUMMARIES

COMMANDS = [
    *((), *((name,) for name in SUMMARIES if name not in ("who", "tokenize"))),  # whose argument is called TEXT
    *(
        ("data", "info"),
        ("fetch", "tales"),
        ("runs", "show"),
        ("runs", "rm"),
        ("runs", "rename"),
        ("runs", "export"),
    ),
]
CONTRACT = {
    "train": "--preset --csv --text --text-column --speaker-column --mode --split-seed --seed --epochs --device "
    "--threads --precision --set --run --runs-dir --resume --detach --no-tui --json --init "
    "--tokenizer --split --teacher --log",
    "generate": "--run --temperature --top-k --top-p --min-p --repetition-penalty --seed --max-tokens --count --reply "
    "--as --to --best-of --scene --cast --turns --json --jsonl",
    "eval": "--split --text --baselines --cache --mixture --by-speaker --json --jsonl",
    "who": "--run --runs-dir --context --by --json",
    "search": "--minutes --set --resume",
    "learn": "--run --csv --text --list --theme",
}


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_help_has_no_types_of_python_and_fits_80_columns(command, name):
    done = command(*name, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(" ".join(["Usage: lotr-tui", *name, "[OPTIONS]"]))
    assert max(map(len, lines)) <= 80
    assert not re.search(r"<(bool|str|int|float|path)|\brange\b|\[\[|\{|TEXT\b|INTEGER|PATH\b", done.stdout)
    assert "--help" in done.stdout


@pytest.mark.parametrize("name", CONTRACT)
def test_help_lists_the_options_that_scripts_rely_on(lotr, name):
    shown = lotr(name, "--help").stdout
    assert [option for option in CONTRACT[name].split() if not re.search(rf"{option}\b", shown)] == []


def test_all_commands_are_listed(lotr):
    shown = lotr("--help").stdout
    listed = re.findall(r"^  ([a-z]+) ", shown.partition("Commands:")[2].partition("\n\n")[0], re.MULTILINE)
    assert listed == list(SUMMARIES)


def test_version_names_the_package_first_and_then_what_matters(lotr):
    lines = lotr("--version").stdout.splitlines()
    assert lines[0] == f"lotr-tui {version('lotr-tui')}"
    assert lines[1] == f"Python {platform.python_version()}"
    assert lines[2:5] == [f"{name} {version(name)}" for name in ("textual", "numpy", "torch")]
    assert lines[5].startswith(f"platform {platform.system()} ")
