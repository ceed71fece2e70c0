"""Prompt history: order, several sessions at once, damage, a full disk, and navigation."""

import fcntl
import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lotr_tui.session.history as module
from lotr_tui.session.history import HistoryError, HistoryNavigator, PromptHistory

prompts = st.text(min_size=1, max_size=20).filter(str.strip)


@given(st.lists(st.sampled_from(["a", "b", "two\nlines", "\x1b[0m\r\n\u2028", "ü 字 א", "\ud800"]) | prompts))
def test_next_session_reads_the_prompts_of_this_one(typed):
    expected = [text for text, _ in groupby(typed)]
    with TemporaryDirectory() as folder:
        history = PromptHistory(Path(folder) / "history.jsonl")
        for text in typed:
            history.add(text)
        assert history.entries == expected
        assert PromptHistory(history.path).entries == expected


def test_only_the_latest_prompts_are_kept_and_the_file_stays_short(tmp_path):
    history = PromptHistory(tmp_path / "history.jsonl", max_entries=10)
    texts = [f"prompt {number} {'x' * 80}" for number in range(200)]
    for text in texts:
        history.add(text)
        assert history.path.read_bytes().count(b"\n") <= 20
    assert history.entries == texts[-10:]
    assert PromptHistory(history.path, max_entries=10).entries == texts[-10:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "history.lock"]


def test_damaged_lines_are_skipped_and_an_incomplete_last_line_is_removed(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"one"\n{"a": 1}\n\xff\xfe\n\n[[[\n' + b"[" * 100_000 + b'\n17\n"two"\n"two"\n"thr')
    history = PromptHistory(path)
    assert history.entries == ["one", "two"]
    history.add("four")
    assert PromptHistory(path).entries == ["one", "two", "four"]
    assert path.read_bytes().endswith(b'"one"\n"two"\n"four"\n')


WRITER = """
import sys
from pathlib import Path
from lotr_tui.session import history as module
module.LOCK_TIMEOUT = 60.0  # a busy machine may suspend the other session for a while
history = module.PromptHistory(Path(sys.argv[1]), max_entries=int(sys.argv[3]))
print("ready", flush=True)
input()
for number in range(150):
    history.add(f"{sys.argv[2]} {number} " + "x" * 100)
"""


def write_from_two_processes(path, max_entries):
    """Let two processes add prompts at the same time, and return all lines of the file."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(max_entries)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(module.__file__).parents[2],
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_sessions_that_shorten_the_file_keep_the_latest_prompts_of_both(tmp_path):
    lines = write_from_two_processes(tmp_path / "history.jsonl", max_entries=20)
    assert len(lines) <= 40
    numbers = {name: [int(line.split()[1]) for line in lines if line.startswith(name)] for name in "ab"}
    for kept in numbers.values():  # a gap would be a lost prompt
        assert kept == list(range(kept[0], kept[-1] + 1)) if kept else True
    assert max(kept[-1] for kept in numbers.values() if kept) == 149


def test_navigation_visits_each_prompt_that_starts_with_the_draft_once():
    navigator = HistoryNavigator(["bilbo is", "frodo", "bilbo was", "bilbo is", "bilbo", "Bilbo"], "bilbo")
    assert [navigator.move(1) for _ in range(3)] == ["bilbo is", "bilbo was", None]
    assert [navigator.move(-1) for _ in range(3)] == ["bilbo is", "bilbo", None]


def test_lock_of_a_suspended_session_blocks_no_other_session(tmp_path):
    path = tmp_path / "history.jsonl"
    history = PromptHistory(path)
    history.add("one")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HistoryError, match="locked by another session"):
            history.add("two")
    history.add("three")
    assert PromptHistory(path).entries == ["one", "two", "three"]
