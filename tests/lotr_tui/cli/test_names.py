"""Names of runs: odd ones that exist are found by every command, and invalid ones are refused in one line."""

import unicodedata

import pytest

from tests.support.commands import json_output, refusal
from tests.support.files import write_run

NAMES = ["my run", unicodedata.normalize("NFD", "café"), ".hidden", "x@4", "-dash", "bad\udcff\x1b[31m"]
INVALID_NAMES = [
    *("", "..", "../outside", "r/../../outside", "-rf", "a\nb", "x" * 300, "\x1b[31mred\x1b]0;title\x07"),
    *("\udcff\udcfe", "~nobody-of-that-name/x", "r@1", "[red]r[/red]\u202e"),
]
COMMANDS = [
    ["attach", "--", "NAME"], ["status", "--", "NAME"], ["stop", "--", "NAME"], ["runs", "show", "--", "NAME"],
    ["runs", "compare", "--", "r", "NAME"], ["runs", "rm", "--yes", "--", "NAME"],
    ["runs", "rename", "--", "NAME", "new"], ["runs", "rename", "--", "r", "NAME"],
    ["runs", "export", "--csv", "out", "--", "NAME"],
    ["generate", "--run=NAME", "the"], ["train", "--no-tui", "--resume=NAME"],
    ["train", "--no-tui", "--csv=small.csv", "--run=NAME"], ["eval", "--", "NAME"],
]  # fmt: skip


def folder_state(folder):
    """Return mode, modification time and content of every path below a folder."""
    state = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        state[path] = (status.st_mode, status.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return state


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_run_is_found_by_its_name(lotr, home, name):
    run = write_run(home / "runs" / name)
    shown = lotr("runs").stdout.splitlines()[1].partition("  ")[0]
    assert shown.isprintable()
    for given in {name, shown}:
        assert json_output(lotr("runs", "show", "--", given))["saved_epochs"] == []
    assert lotr("generate", "the road", f"--run={shown}").returncode == 0
    assert lotr("eval", "--text", "-", "--", shown, stdin=b"the road\n").returncode == 0
    assert "is not being trained" in lotr("stop", "--", shown).stderr
    assert "attach needs a terminal" in lotr("attach", "--", shown).stderr
    assert "resume" in lotr("status", "--", shown).stdout
    assert "has changed since the run was started" in lotr("train", f"--resume={shown}").stderr
    assert lotr("runs", "export", "--csv", "out", "--", shown).returncode == 0
    done = lotr("runs", "rm", "--yes", "--", shown)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"deleted run {shown}: ")
    assert not run.exists()


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.usefixtures("small_csv")
def test_an_invalid_name_is_refused_in_one_line_and_no_file_is_changed(lotr, home, tmp_path, arguments):
    write_run(home / "runs" / "r")
    write_run(home / "outside")
    before = folder_state(tmp_path)
    for name in INVALID_NAMES:
        line = refusal(lotr(*(argument.replace("NAME", name) for argument in arguments)))
        assert line.isprintable(), name
        assert "LOTR_TUI_DEBUG" not in line, (name, line)
        assert folder_state(tmp_path) == before, name
