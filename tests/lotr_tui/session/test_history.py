"""Prompts are kept in order, by several sessions at once, whatever happened to the file before."""

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
from engine.errors import RunError
from lotr_tui.session.history import History, HistoryError, Recall, history_file
from tests.support.file_limits import no_file_longer_than

prompts = st.text(min_size=1, max_size=20).filter(str.strip)


@given(st.lists(st.sampled_from(["a", "b", "two\nlines", "\x1b[0m\r\n\u2028", "ü 字 א", "\ud800"]) | prompts))
def test_the_next_session_recalls_what_was_typed(typed):
    expected = [text for text, _ in groupby(typed)]
    with TemporaryDirectory() as folder:
        history = History(Path(folder) / "history.jsonl")
        for text in typed:
            history.add(text)
        assert history.entries == expected
        assert History(history.path).entries == expected


def test_it_stands_in_the_home(home):
    History().add("bilbo")
    assert json.loads(history_file().read_text()) == "bilbo"
    assert history_file().parent == home


def test_blank_prompts_are_not_kept(home):
    for text in ("", "  ", "\n"):
        History().add(text)
    assert not home.exists()


def test_only_the_latest_are_kept_and_the_file_stays_short(tmp_path):
    history = History(tmp_path / "history.jsonl", most=10)
    texts = [f"prompt {number} {'x' * 80}" for number in range(200)]
    for text in texts:
        history.add(text)
        assert history.path.read_bytes().count(b"\n") <= 20
    assert history.entries == texts[-10:]
    assert History(history.path, most=10).entries == texts[-10:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "history.lock"]


def test_of_a_huge_file_only_the_end_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    path = tmp_path / "history.jsonl"
    texts = [f"{number:03} {'x' * 93}" for number in range(100)]  # 100 bytes a line
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    history = History(path)
    assert history.entries == texts[-9:]
    history.add("one more")
    history.add("and another")
    assert path.stat().st_size < 10_100


def test_damaged_lines_are_passed_over(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"one"\n{"a": 1}\n\xff\xfe\n\n[[[\n' + b"[" * 100_000 + b'\n17\n"two"\n"two"\n"thr')
    history = History(path)
    assert history.entries == ["one", "two"]
    history.add("four")
    assert History(path).entries == ["one", "two", "four"]
    assert b'"thr\n"four"\n' in path.read_bytes()


WRITER = """
import sys
from pathlib import Path
from lotr_tui.session.history import History
history = History(Path(sys.argv[1]), most=int(sys.argv[3]))
print("ready", flush=True)
input()
for number in range(150):
    history.add(f"{sys.argv[2]} {number} " + "x" * 100)
"""


def written_by_two(path, most):
    """What stands in the file after two processes have written to it at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(most)],
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


def test_two_sessions_at_once_lose_nothing(tmp_path):
    lines = written_by_two(tmp_path / "history.jsonl", most=1000)
    for name in "ab":
        assert [line for line in lines if line.startswith(name)] == [f"{name} {n} " + "x" * 100 for n in range(150)]


def test_two_sessions_that_shorten_the_file_keep_each_others_latest(tmp_path):
    lines = written_by_two(tmp_path / "history.jsonl", most=20)
    assert len(lines) <= 40
    numbers = {name: [int(line.split()[1]) for line in lines if line.startswith(name)] for name in "ab"}
    for found in numbers.values():  # what is there has no gap: nothing was lost between two that were kept
        assert found == list(range(found[0], found[-1] + 1)) if found else True
    assert max(found[-1] for found in numbers.values() if found) == 149


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RunError("unused")])
def test_a_full_disk_is_said_once_and_the_prompt_can_be_recalled(tmp_path, monkeypatch, failure):
    history = History(tmp_path / "history.jsonl")

    def full(self):
        raise failure

    monkeypatch.setattr(History, "_write", full)
    with pytest.raises(HistoryError, match="not kept"):
        history.add("one")
    history.add("two")
    assert history.entries == ["one", "two"]
    monkeypatch.undo()
    history.add("three")
    assert History(history.path).entries == ["one", "two", "three"]


def test_no_part_of_a_prompt_stays_on_a_full_disk(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.add("one")
    before = history.path.read_bytes()
    with no_file_longer_than(len(before) + 3), pytest.raises(HistoryError, match="File too large"):
        history.add("two")
    assert history.path.read_bytes() == before


def test_a_home_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file" / "history.jsonl")
    assert history.entries == []
    with pytest.raises(HistoryError, match=r"history\.jsonl"):
        history.add("one")
    history.add("two")
    assert history.entries == ["one", "two"]


def test_recall_goes_back_and_returns_to_what_was_typed():
    recall = Recall(["one", "two", "three"], "")
    assert [recall.older() for _ in range(4)] == ["three", "two", "one", None]
    assert [recall.newer() for _ in range(4)] == ["two", "three", "", None]
    assert recall.older() == "three"


def test_recall_finds_what_starts_as_typed_each_text_once():
    recall = Recall(["bilbo is", "frodo", "bilbo was", "bilbo is", "bilbo", "Bilbo"], "bilbo")
    assert [recall.older() for _ in range(3)] == ["bilbo is", "bilbo was", None]
    assert [recall.newer() for _ in range(3)] == ["bilbo is", "bilbo", None]


def test_nothing_to_recall():
    assert Recall([], "half").older() is None
    assert Recall(["one"], "half").newer() is None


def test_a_session_that_is_suspended_while_it_writes_holds_up_no_other(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path)
    history.add("one")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HistoryError, match="not kept"):
            history.add("two")
    history.add("three")
    assert History(path).entries == ["one", "two", "three"]  # what was not kept waited
