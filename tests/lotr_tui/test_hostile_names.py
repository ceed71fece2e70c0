"""Names that are none, given to every command that takes the name of a run: refused, and nothing is touched."""

import os

import pytest

from tests.conftest import write_run

NAMES = [
    "",
    ".",
    "..",
    "../outside",
    "../x",
    "a/b",
    "r/",
    "r/../../outside",
    "/",
    "/nowhere/x",
    "-rf",
    "--yes",
    "a\nb",
    "r\n",
    "x" * 300,
    "x" * 5000,
    "\x1b[31mred\x1b]0;title\x07",
    "\udcff\udcfe",
    "~",
    "~nobody-of-that-name/x",
    "*",
    "r@1",
    "r@0",
    "%s",
    "[red]r[/red]",
    "‮r",
]
COMMANDS = {
    "attach": ["attach", "--", "NAME"],
    "status": ["status", "--", "NAME"],
    "stop": ["stop", "--", "NAME"],
    "show": ["runs", "show", "--", "NAME"],
    "rm": ["runs", "rm", "--yes", "--", "NAME"],
    "rename": ["runs", "rename", "--", "NAME", "new"],
    "rename to": ["runs", "rename", "--", "r", "NAME"],
    "export": ["runs", "export", "--csv", "out", "--", "NAME"],
    "generate": ["generate", "--run=NAME", "the"],
    "resume": ["train", "--no-tui", "--resume=NAME"],
    "train": ["train", "--no-tui", "--run=NAME"],
    "eval": ["eval", "--", "NAME"],
}
OF_A_RUN = {"r/": {"attach", "status", "stop", "show", "rm", "rename", "export", "generate", "resume", "eval"}}
"""Names that mean a run as a path does, from the folder of runs; and what then may be done."""


def everything(folder):
    """All that lies in a folder: names, kinds, contents and times of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if ".command" not in path.parts:
            status = path.lstat()
            found[path] = (status.st_mode, status.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return found


@pytest.mark.parametrize("what", COMMANDS)
def test_a_name_that_is_none_is_refused_in_one_line_and_nothing_is_touched(command, home, tmp_path, what):
    """`outside` is a run beside the folder of runs: to look at it by its path is fine, to change it is not."""
    write_run(home / "runs" / "r")
    write_run(home / "outside")
    (tmp_path / "outside").symlink_to(home / "outside")
    (home / "runs" / "link").symlink_to(home / "outside")
    before = everything(tmp_path)
    for name in NAMES:
        arguments = [os.fsencode(argument.replace("NAME", name)).decode(errors="surrogateescape") for argument in COMMANDS[what]]
        done = command(*arguments)
        assert done.returncode == 2, (name, done)
        assert done.stdout == "", name
        lines = done.stderr.splitlines()
        assert len(lines) == 1, (name, done.stderr)
        assert lines[0].startswith("lotr-tui: "), name
        assert lines[0].isprintable(), name
        assert "LOTR_TUI_DEBUG" not in lines[0], (name, lines)
        assert everything(tmp_path) == before, name
