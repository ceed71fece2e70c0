"""Standard streams that are closed, or on a full device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dialogue_runs import write_dialogue_run
from tests.support.files import write_run

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
FULL_MESSAGE = "lotr-tui: standard output cannot be written: No space left on device"
COMMANDS = {
    "version": "--version",
    "help": "--help",
    "locate": "locate",
    "runs": "runs",
    "status": "status r",
    "generate": "generate the --run r",
    "generate as JSON": "generate the --run r --json",
    "answer": "generate the --run d --as FRODO --to SAM --best-of 2",
    "scene": "generate --scene --run d",
    "scene as JSON": "generate --scene --run d --json",
    "who": "who the --run d",
    "eval": "eval r --text own.txt",
    "eval by speaker": "eval d --by-speaker --text own.txt",
    "data info": "data info own.txt",
}
TRAIN = "train --preset tiny --csv small.csv --run new --set embedding_size=8 --set hidden_size=8 --set epochs=1"


@pytest.fixture
def shell(home, tmp_path, environment):
    """Return a function that runs a command with redirections in a shell."""
    write_run(home / "runs" / "r")
    write_dialogue_run(home / "runs" / "d")
    (tmp_path / "own.txt").write_text("the road and the river and a friend of mine\n" * 40)

    def run(command):
        return subprocess.run(
            ["sh", "-c", f'exec "{sys.executable}" -m lotr_tui {command}'],
            cwd=tmp_path,
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@needs_full_device
@pytest.mark.parametrize("name", COMMANDS)
def test_full_standard_output_is_one_line_and_exit_code_1(shell, name):
    done = shell(f"{COMMANDS[name]} >/dev/full")
    assert (done.returncode, done.stderr.splitlines()) == (1, [FULL_MESSAGE])


@pytest.mark.parametrize("name", ["version", "runs", "generate"])
def test_closed_standard_output_counts_as_the_null_device(shell, name):
    done = shell(f"{COMMANDS[name]} >&-")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "lotr-tui:" not in done.stderr


@pytest.mark.parametrize("redirection", ["2>&-", pytest.param("2>/dev/full", marks=needs_full_device)])
def test_unusable_standard_error_loses_only_its_messages(shell, redirection):
    done = shell(f"generate the --run r --seed 3 {redirection}")
    assert done.returncode == 0
    assert done.stdout == shell("generate the --run r --seed 3").stdout
    assert shell(f"status nowhere {redirection}").returncode == 2


def test_closed_standard_input_is_an_empty_text(shell):
    done = shell("generate - <&-")
    assert done.returncode == 2
    assert done.stderr.startswith("lotr-tui: the prompt is empty")
    assert shell("status r <&- >&- 2>&-").returncode == 0


def test_files_do_not_take_the_place_of_closed_streams(shell, tmp_path):
    """A file that is opened first would get the number of a closed stream, and what is printed later."""
    assert shell("runs export r --csv out <&- >&- 2>&-").returncode == 0
    assert all("out" not in path.read_text() for path in (tmp_path / "out").iterdir())


def test_training_with_closed_streams_finishes(shell, small_csv, home):
    done = shell(f"{TRAIN} <&- >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert (home / "runs" / "new" / "model.safetensors").is_file()


@needs_full_device
def test_training_with_a_full_standard_output_finishes_and_fails(shell, small_csv, home):
    done = shell(f"{TRAIN} --json >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{FULL_MESSAGE}; the training continues, see `lotr-tui attach new`"]
    last = json.loads((home / "runs" / "new" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("finished", "done")
