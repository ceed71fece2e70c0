"""Prompt history: order, several sessions at once, damage, a full disk, and navigation."""

from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

import lotr_tui.session.settings as module
from lotr_tui.session.settings import PromptHistory
from tests.support.files import no_file_longer_than

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


def test_only_the_latest_prompts_are_kept_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_PROMPTS", 10)
    history = PromptHistory(tmp_path / "history.jsonl")
    texts = [f"prompt {number} {'x' * 80}" for number in range(200)]
    for text in texts:
        history.add(text)
    assert history.entries == texts[-10:]
    monkeypatch.setattr(module, "MAX_HISTORY_BYTES", 500)
    assert PromptHistory(history.path).entries == texts[-5:]


def test_prompts_of_two_sessions_at_once_are_kept(tmp_path):
    sessions = [PromptHistory(tmp_path / "history.jsonl") for _ in range(2)]
    for number in range(6):
        sessions[number % 2].add(f"prompt {number}")
    assert PromptHistory(sessions[0].path).entries == [f"prompt {number}" for number in range(6)]


def test_damaged_and_incomplete_lines_are_skipped_and_hide_no_later_prompt(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"one"\n{"a": 1}\n\xff\xfe\n\n[[[\n' + b"[" * 100_000 + b'\n17\n"two"\n"two"\n"thr')
    history = PromptHistory(path)
    assert history.entries == ["one", "two"]
    history.add("four")
    assert PromptHistory(path).entries == ["one", "two", "four"]


def test_prompts_that_a_full_disk_refused_are_reported_once_and_written_later(tmp_path):
    history = PromptHistory(tmp_path / "history.jsonl")
    history.add("one")
    with no_file_longer_than(10):
        assert history.add("two") == f"prompts are not saved: {history.path}: File too large"
        assert history.add("three") == ""
    assert history.add("four") == ""
    assert PromptHistory(history.path).entries == history.entries == ["one", "two", "three", "four"]
