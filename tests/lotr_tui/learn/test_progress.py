"""Progress of the class: saved exactly, shared between sessions, not lost through damage or a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lotr_tui.learn.progress as module
from engine.errors import InvalidInputError, RunError
from engine.storage.lock import FileLock
from lotr_tui.learn.chapters import CHAPTERS, first_open_chapter
from lotr_tui.learn.progress import MAX_PROGRESS_BYTES, Progress, ProgressStore, progress_file

NAMES = [chapter.name for chapter in CHAPTERS]
names = st.sampled_from(NAMES)
progresses = st.builds(Progress, st.lists(names, unique=True).map(tuple), st.just("") | names)

ADD_CHAPTERS = """
import sys
from pathlib import Path
from lotr_tui.learn.progress import ProgressStore

store = ProgressStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for name in sys.argv[2:]:
    store.add(done=name)
    assert store.save() == ""
"""


def record(**changes: object) -> str:
    return json.dumps({"version": 1, "done": [], "last": "", **changes})


@given(progresses)
def test_encoded_progress_is_decoded_unchanged(progress: Progress) -> None:
    assert Progress.from_json(progress.to_json()) == progress


def test_next_session_reads_the_saved_progress(home: Path) -> None:
    store = ProgressStore()
    assert (store.current, store.notice) == (Progress(), "")
    assert store.save() == ""
    assert not home.exists()  # nothing is written before something was done
    store.add(done="tokens")
    store.add(last="counting")
    assert store.save() == ""
    assert ProgressStore().current == Progress(("tokens",), "counting")
    assert progress_file() == home / "learn.json"


def test_chapter_that_is_done_twice_is_listed_once(home: Path) -> None:
    store = ProgressStore()
    store.add(done="tokens", last="tokens")
    store.add(done="tokens")
    store.save()
    assert ProgressStore().current == Progress(("tokens",), "tokens")


def test_class_goes_on_with_the_first_chapter_that_is_not_done() -> None:
    assert first_open_chapter(()) == 0
    assert first_open_chapter(("counting", "tokens")) == 2
    assert first_open_chapter(("tokens", "memory", "a chapter of another release")) == 1
    assert first_open_chapter(tuple(NAMES)) == 0


def test_two_sessions_keep_the_chapters_of_both(home: Path) -> None:
    first, second = ProgressStore(), ProgressStore()
    first.add(done="tokens", last="counting")
    first.save()
    second.add(done="perplexity")
    assert second.current == Progress(("perplexity",))
    assert second.save() == ""
    assert second.current == ProgressStore().current == Progress(("tokens", "perplexity"), "counting")


def test_two_processes_that_write_at_once_keep_the_chapters_of_both(tmp_path: Path) -> None:
    path = tmp_path / "learn.json"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ADD_CHAPTERS, str(path), *half],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for half in (NAMES[:4], NAMES[4:])
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=30)
        assert writer.returncode == 0
    assert sorted(ProgressStore(path).current.done) == sorted(NAMES)


def test_reset_begins_the_class_again_for_all_sessions(home: Path) -> None:
    first, second = ProgressStore(), ProgressStore()
    first.add(done="tokens")
    first.save()
    second.reset()
    second.add(last="tokens")
    assert second.save() == ""
    assert ProgressStore().current == second.current == Progress((), "tokens")
    first.add(done="counting")
    first.save()
    assert ProgressStore().current == first.current == Progress(("counting",), "tokens")


def test_changes_during_a_write_are_written_by_the_next_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ProgressStore()
    store.add(done="tokens")
    write = module.write_atomically

    def change_meanwhile(path: Path, content: bytes) -> None:
        store.reset()
        store.add(done="counting")  # another thread
        write(path, content)

    monkeypatch.setattr(module, "write_atomically", change_meanwhile)
    store.save()
    assert ProgressStore().current == Progress(("tokens",))
    assert store.current == Progress(("counting",))
    monkeypatch.setattr(module, "write_atomically", write)
    store.save()
    assert ProgressStore().current == store.current == Progress(("counting",))


def test_deleted_file_is_written_again_in_full(home: Path) -> None:
    store = ProgressStore()
    store.add(done="tokens")
    store.save()
    progress_file().unlink()
    store.add(done="counting")
    assert store.save() == ""
    assert ProgressStore().current == Progress(("tokens", "counting"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("[1]", "expected an object"),
        ("[" * 50_000, "not valid JSON"),
        ('{"done": []}', "version"),
        (record(version=True), "version"),
        (record(version=2), "newer"),
        (record(done="tokens"), "done: expected array, got str"),
        (record(done=[3]), "done[0]: expected str, got int"),
        (record(last=None), "last: expected str, got null"),
        (record(score=3), "unknown field 'score'"),
    ],
)
def test_damaged_or_newer_file_is_set_aside_and_reported_in_one_line(home: Path, content: str, message: str) -> None:
    home.mkdir()
    progress_file().write_text(content)
    store = ProgressStore()
    assert store.current == Progress()
    assert message in store.notice
    assert "set aside as learn.json.damaged-1; the class begins again" in store.notice
    assert store.notice.isprintable()
    store.add(done="tokens")
    assert store.save() == ""
    assert (home / "learn.json.damaged-1").read_text() == content
    assert ProgressStore().current == Progress(("tokens",))


def test_file_that_is_damaged_during_the_session_is_set_aside_and_written_again(home: Path) -> None:
    store = ProgressStore()
    store.add(done="tokens")
    store.save()
    progress_file().write_bytes(b"\xff\xfe")
    store.add(done="counting")
    assert "not a text file; set aside as learn.json.damaged-1" in store.save()
    assert ProgressStore().current == Progress(("tokens", "counting"))


def test_pipe_in_place_of_the_file_is_reported_and_kept(home: Path) -> None:
    home.mkdir()
    os.mkfifo(progress_file())
    store = ProgressStore()
    assert store.notice == f"{progress_file()} cannot be read: not a regular file; the class begins again"
    store.add(done="tokens")
    assert store.save() == f"progress is not saved: {progress_file()}: it cannot be read"
    store.add(done="counting")
    assert store.save() == ""
    assert store.current == Progress(("tokens", "counting"))
    assert progress_file().is_fifo()
    progress_file().unlink()
    assert store.save() == ""
    assert ProgressStore().current == Progress(("tokens", "counting"))


def test_file_that_is_too_large_is_kept(home: Path) -> None:
    home.mkdir()
    progress_file().touch()
    os.truncate(progress_file(), 10_000_000_000)
    store = ProgressStore()
    assert f"larger than the limit of {MAX_PROGRESS_BYTES:,} bytes" in store.notice
    store.add(done="tokens")
    assert "progress is not saved" in store.save()
    assert progress_file().stat().st_size == 10_000_000_000


def test_folder_that_cannot_be_written_is_reported_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: bytes) -> None:
        raise RunError("cannot write") from OSError(30, "Read-only file system")

    store = ProgressStore()
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomically", fail)
        store.add(done="tokens")
        assert store.save() == f"progress is not saved: {progress_file()}: Read-only file system"
        store.add(done="counting")
        assert store.save() == ""
        assert store.current == Progress(("tokens", "counting"))
    assert store.save() == ""
    assert ProgressStore().current == Progress(("tokens", "counting"))


def test_home_that_is_a_file_is_reported(home: Path) -> None:
    home.write_text("")
    store = ProgressStore()
    store.add(done="tokens")
    assert store.save() == f"progress is not saved: {progress_file()}: File exists"


def test_session_that_keeps_the_lock_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.02)
    home.mkdir()
    store = ProgressStore()
    store.add(done="tokens")
    with FileLock(home / ".learn.json.lock"):
        assert store.save() == f"progress is not saved: {progress_file()}: another session is writing the file"
    assert store.save() == ""
    assert ProgressStore().current == Progress(("tokens",))


def test_content_that_is_no_progress_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected an object"):
        Progress.from_json("3")
