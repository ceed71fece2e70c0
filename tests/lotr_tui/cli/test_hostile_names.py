"""Invalid run names are refused by every command that takes one, and no file is changed."""

import pytest

from tests.support.files import write_run

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
    "compare": ["runs", "compare", "--", "r", "NAME"],
    "rm": ["runs", "rm", "--yes", "--", "NAME"],
    "rename": ["runs", "rename", "--", "NAME", "new"],
    "rename to": ["runs", "rename", "--", "r", "NAME"],
    "export": ["runs", "export", "--csv", "out", "--", "NAME"],
    "compact": ["runs", "compact", "--", "NAME", "out"],
    "generate": ["generate", "--run=NAME", "the"],
    "resume": ["train", "--no-tui", "--resume=NAME"],
    "train": ["train", "--no-tui", "--run=NAME"],
    "eval": ["eval", "--", "NAME"],
}


def folder_state(folder):
    """Return mode, modification time and content of every path below a folder."""
    state = {}
    for path in sorted(folder.rglob("*")):
        if ".command" not in path.parts:
            status = path.lstat()
            state[path] = (status.st_mode, status.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return state


@pytest.mark.parametrize("command_name", COMMANDS)
def test_invalid_run_name_is_refused_in_one_line_and_no_file_is_changed(command, home, tmp_path, command_name):
    write_run(home / "runs" / "r")
    write_run(home / "outside")
    before = folder_state(tmp_path)
    for name in NAMES:
        done = command(*(argument.replace("NAME", name) for argument in COMMANDS[command_name]))
        assert done.returncode == 2, (name, done)
        assert done.stdout == "", name
        lines = done.stderr.splitlines()
        assert len(lines) == 1, (name, done.stderr)
        assert lines[0].startswith("lotr-tui: "), name
        assert lines[0].isprintable(), name
        assert "LOTR_TUI_DEBUG" not in lines[0], (name, lines)
        assert folder_state(tmp_path) == before, name


@pytest.mark.parametrize("name", ["outside", "./outside", "home/runs/../outside", "link", "home/runs/link"])
@pytest.mark.parametrize("arguments", [["runs", "rm", "--yes"], ["runs", "rename"]], ids=["rm", "rename"])
def test_run_outside_the_runs_folder_is_not_changed(command, home, tmp_path, name, arguments):
    (home / "runs").mkdir(parents=True)
    write_run(tmp_path / "outside")
    write_run(home / "outside")
    (home / "runs" / "link").symlink_to(home / "outside")
    before = folder_state(tmp_path)
    done = command(*arguments, name, *(["new"] if arguments[1] == "rename" else []))
    if "link" in name and arguments[1] == "rename":  # the link itself is renamed, not the run
        assert done.returncode == 0, done
        (home / "runs" / "new").rename(home / "runs" / "link")
        assert folder_state(home / "outside") == {
            path: state for path, state in before.items() if home / "outside" in path.parents
        }
        return
    assert done.returncode == 2, done
    assert "only runs of that folder can be" in done.stderr
    assert folder_state(tmp_path) == before


def test_folder_name_with_invalid_utf8_and_escapes_is_printed_as_text(command, tmp_path):
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
