"""Hostile and huge files of sessions and runs, and control characters in them."""

import json
import os
from types import SimpleNamespace

import pytest

from engine.errors import TrainingError
from engine.events import Diagnosed, Sampled, Started, Warned, event_to_dict
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from lotr_tui.cli.train import ProgressFormatter
from lotr_tui.monitor.background import resume_in_background
from lotr_tui.monitor.export import export_csv
from lotr_tui.screens.inspect.text_screen import MAX_TEXT_CHARACTERS, marks_to_newlines, newlines_to_marks
from lotr_tui.session.settings import PromptHistory
from tests.support.files import write_run

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e"


@pytest.fixture
def folder(home):
    (home / "sessions").mkdir(parents=True)
    return home


def test_prompt_is_kept_in_memory_if_the_history_is_not_a_regular_file(folder):
    os.mkfifo(folder / "history.jsonl")
    history = PromptHistory()
    assert "prompts are not saved" in history.add("the road")
    assert history.entries == ["the road"]


def test_nothing_is_written_through_a_link(folder):
    run, target = write_run(folder / "r"), folder / "elsewhere"
    target.write_text('"the road"\n')
    (folder / "history.jsonl").symlink_to(target)
    assert "symbolic link" in PromptHistory().add("the ring")
    assert (folder / "history.jsonl").is_symlink()
    (run / "console.txt").symlink_to(target)
    with pytest.raises(TrainingError, match=r"console\.txt cannot be written"):
        resume_in_background(run)
    assert target.read_text() == '"the road"\n'


def test_long_text_is_cut_between_words():
    """A line end is shown as five characters; a cut inside them would leave a part that is read as a word."""
    for num_lines in (2_000, 2_222, 9_000):
        for first_line in ("", "a", "ab", "abc", "abcd"):
            text = newlines_to_marks(f"{first_line}\n" + "a\n" * num_lines)
            assert len(text) <= MAX_TEXT_CHARACTERS
            assert set(marks_to_newlines(text)[len(first_line) :]) <= {"\n", "a"}


# Control characters


def test_console_and_exported_metrics_have_no_control_characters(tmp_path):
    """The prompt comes from the configuration, which may be untrusted; a warning contains paths."""
    training, tokenizer = SimpleNamespace(epochs=1, fine_tune_epochs=1), SimpleNamespace(is_open=False)
    job = SimpleNamespace(config=SimpleNamespace(training=training), dataset=SimpleNamespace(tokenizer=tokenizer))
    sampled = Sampled(1, 1.0, ESCAPES, f"a\n{ESCAPES}", 0, 0.7)
    diagnosed = Diagnosed(1, 1.0, "disk_space", ESCAPES, f"lotr-tui stop {ESCAPES}")
    formatter = ProgressFormatter(job)
    for event in (sampled, Warned(f"cannot write {ESCAPES}"), diagnosed):
        assert all(line.isprintable() for line in formatter.format(event).split("\n"))
    run = write_run(tmp_path / "r")
    started = Started("r", ESCAPES, 99, 5, 100, 10, 40, ESCAPES, "", 151.0, 94.0)
    (run / METRICS_FILE).write_text(json.dumps(event_to_dict(started)) + "\n")
    (run / SAMPLES_FILE).write_text(json.dumps(event_to_dict(sampled)) + "\n")
    for path in export_csv(run, tmp_path / "out"):
        assert all(line.isprintable() for line in path.read_bytes().decode().split("\n")), path
