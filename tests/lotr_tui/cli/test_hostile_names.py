"""Names that are none, given to every command that takes the name of a run: refused, and nothing is touched."""

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
    write_run(home / "runs" / "r")
    write_run(home / "outside")
    before = everything(tmp_path)
    for name in NAMES:
        done = command(*(argument.replace("NAME", name) for argument in COMMANDS[what]))
        assert done.returncode == 2, (name, done)
        assert done.stdout == "", name
        lines = done.stderr.splitlines()
        assert len(lines) == 1, (name, done.stderr)
        assert lines[0].startswith("lotr-tui: "), name
        assert lines[0].isprintable(), name
        assert "LOTR_TUI_DEBUG" not in lines[0], (name, lines)
        assert everything(tmp_path) == before, name


@pytest.mark.parametrize("name", ["outside", "./outside", "home/runs/../outside", "link", "home/runs/link"])
@pytest.mark.parametrize("arguments", [["runs", "rm", "--yes"], ["runs", "rename"]], ids=["rm", "rename"])
def test_a_run_outside_the_folder_of_runs_is_not_changed(command, home, tmp_path, name, arguments):
    """To look at it by its path is fine. A link in the folder leads out of it."""
    (home / "runs").mkdir(parents=True)
    write_run(tmp_path / "outside")
    write_run(home / "outside")
    (home / "runs" / "link").symlink_to(home / "outside")
    before = everything(tmp_path)
    done = command(*arguments, name, *(["new"] if arguments[1] == "rename" else []))
    if "link" in name and arguments[1] == "rename":  # the link has another name then
        assert done.returncode == 0, done
        (home / "runs" / "new").rename(home / "runs" / "link")
        assert everything(home / "outside") == {
            path: what for path, what in before.items() if home / "outside" in path.parents
        }
        return
    assert done.returncode == 2, done
    assert "only the runs there can be" in done.stderr
    assert everything(tmp_path) == before


def test_folders_whose_names_are_no_text_are_read_and_written(command, tmp_path):
    """A path may hold any bytes; what is printed of it is text."""
    folder = tmp_path / "\udcff\x1b[31m"
    write_run(folder / "r")
    for arguments in (
        ["runs", "--runs-dir", folder],
        ["runs", "--runs-dir", folder, "--json"],
        ["runs", "show", "r", "--runs-dir", folder],
        ["status", "r", "--runs-dir", folder],
        ["status", "r", "--runs-dir", folder, "--json"],
        ["runs", "export", "r", "--runs-dir", folder, "--csv", folder / "out"],
    ):
        done = command(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "\x1b" not in done.stdout
    assert (folder / "out").is_dir()
