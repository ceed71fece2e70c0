"""The state of a run as other processes see it: its lock and its last row."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.events import Failed, Step, TrainingEvent, event_from_dict
from engine.runs.directory import LOCK_FILE, LOG_FILE, METRICS_FILE, lock_owner
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run
from engine.runs.manage import delete_run
from engine.runs.summary import is_finished, summarize_run
from engine.runs.writer import record_events
from tests.support.runs import CONFIG, VOCABULARY, make_events, read_strict_rows, record_run


def state_in_another_process(path: Path) -> str:
    """Return the state of a run as another process sees it."""
    code = (
        "import sys, pathlib; from engine.runs.summary import summarize_run\n"
        "print(summarize_run(pathlib.Path(sys.argv[1])).state)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_another_process_sees_a_run_as_running_and_then_finished(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    events = record_events(run, iter(make_events()))
    for event in events:
        if isinstance(event, Step):
            break
    assert state_in_another_process(run.path) == "running"
    assert summarize_run(run.path).state == "running"
    with pytest.raises(RunError, match="being trained"):
        delete_run(run.path, tmp_path)
    list(events)
    assert state_in_another_process(run.path) == "finished"


def test_reading_the_state_does_not_take_the_lock(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    events = record_events(run, iter(make_events()))
    next(events)
    for _ in range(5):
        assert summarize_run(run.path).state == "running"
    list(events)
    assert summarize_run(run.path).state == "finished"


def test_a_run_whose_process_was_killed_is_crashed(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom engine.runs.locked_run import create_run\nfrom engine.config import Config\n"
        "from engine.data.tokenizers.words import WordTokenizer\n"
        "run = create_run(Config(), WordTokenizer(('<unk>', '<eos>', 'a')), 'r', pathlib.Path(sys.argv[1]))\n"
        "print('made', flush=True)\ntime.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "made\n"
            assert summarize_run(tmp_path / "r").state == "running"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    assert summarize_run(tmp_path / "r").state == "crashed"


@pytest.mark.parametrize(("finish", "state"), [("done", "finished"), ("stopped", "stopped"), (None, "crashed")])
def test_the_state_depends_on_the_end_of_the_training(tmp_path: Path, finish: str | None, state: str) -> None:
    assert summarize_run(record_run(tmp_path, "r", make_events(finish))).state == state


def test_the_lock_owner_is_the_printable_text_in_the_lock_file(tmp_path: Path) -> None:
    assert lock_owner(tmp_path) == ""
    (tmp_path / LOCK_FILE).write_text("process 7 on moria\n")
    assert lock_owner(tmp_path) == "process 7 on moria"
    (tmp_path / LOCK_FILE).write_bytes("Náin \x1b".encode() + b"\xff" + b"x" * 1000)
    assert lock_owner(tmp_path) == "Náin " + 2 * "\N{REPLACEMENT CHARACTER}" + 93 * "x"  # 100 characters


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], "crashed"),
        ([{"event": "evaluated"}], "crashed"),
        ([{"event": "finished", "reason": "done"}], "finished"),
        ([{"event": "finished"}], "finished"),
        ([{"event": "finished", "reason": "stopped"}], "stopped"),
        ([{"event": "finished", "reason": "detached"}], "stopped"),
        ([{"event": "finished", "reason": "pruned"}], "pruned"),
        ([{"event": "failed"}], "failed"),
        ([{"event": "failed"}, {"event": "evaluated"}], "crashed"),
        ([{"event": "finished"}, {"event": "warned"}, {"event": "checkpointed"}], "finished"),
        ([{"event": "checkpointed"}, {"event": "failed"}, {"event": "checkpointed"}, {"event": "warned"}], "failed"),
    ],
)
def test_the_state_depends_on_the_last_row_about_the_training(
    tmp_path: Path, rows: list[dict[str, Any]], state: str
) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    run.lock.release()
    (run.path / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert summarize_run(run.path).state == state
    assert is_finished(run.path) == (state in ("finished", "pruned"))


def test_an_exception_is_recorded_logged_and_raised(tmp_path: Path) -> None:
    def broken() -> Iterator[TrainingEvent]:
        yield from make_events(None)
        raise ZeroDivisionError("broken on purpose")

    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    recorded: list[TrainingEvent] = []
    with pytest.raises(ZeroDivisionError, match="broken on purpose"):
        recorded.extend(record_events(run, broken()))
    assert len(recorded) == len(make_events(None)) + 2  # all earlier events, and two checkpoints
    last = event_from_dict(read_strict_rows(run.path / METRICS_FILE)[-1])
    assert isinstance(last, Failed)
    assert last.message == "ZeroDivisionError: broken on purpose"
    log = (run.path / LOG_FILE).read_text()
    assert "Traceback" in log
    assert "broken on purpose" in log
    summary = summarize_run(run.path)
    assert summary.state == "failed"
    assert summary.valid_perplexity == 90.0
    assert load_model(run.path).valid_perplexity == 90.0  # the weights of earlier evaluations are kept


def test_a_consumer_that_stops_early_releases_the_lock(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    events = record_events(run, iter(make_events()))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert state_in_another_process(run.path) == "crashed"
