"""The lock of a run, and the states that others see it in."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.events import Failed, Step, TrainingEvent, from_record
from engine.runs import store, writer
from engine.runs.manage import remove
from tests.support.runs import CONFIG, VOCABULARY, rows, training, write


def state_seen_elsewhere(path: Path) -> str:
    """The state of a run as another process sees it."""
    code = "import sys, pathlib; from engine.runs import store; print(store.summarize(pathlib.Path(sys.argv[1])).state)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_another_process_sees_a_run_going_on_and_then_finished(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    events = writer.record(run, iter(training()))
    for event in events:
        if isinstance(event, Step):
            break
    assert state_seen_elsewhere(run.path) == "running"
    assert store.summarize(run.path).state == "running"
    with pytest.raises(RunError, match="being trained"):
        remove(run.path, tmp_path)
    list(events)
    assert state_seen_elsewhere(run.path) == "finished"


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    events = writer.record(run, iter(training()))
    next(events)
    for _ in range(5):
        assert store.summarize(run.path).state == "running"
    list(events)
    assert store.summarize(run.path).state == "finished"


def test_a_killed_process_leaves_a_crashed_run(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom engine.runs import writer\nfrom engine.config import Config\n"
        "from engine.data.vocabulary import Vocabulary\n"
        "run = writer.create(Config(), Vocabulary(('<unk>', '<eos>', 'a')), 'r', pathlib.Path(sys.argv[1]))\n"
        "print('made', flush=True)\ntime.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "made\n"
            assert store.summarize(tmp_path / "r").state == "running"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    assert store.summarize(tmp_path / "r").state == "crashed"


@pytest.mark.parametrize(("finish", "state"), [("done", "finished"), ("stopped", "stopped"), (None, "crashed")])
def test_states_by_how_it_ended(tmp_path: Path, finish: str | None, state: str) -> None:
    assert store.summarize(write(tmp_path, "r", training(finish))).state == state


def test_who_trains_is_what_stands_in_the_lock(tmp_path: Path) -> None:
    assert store.writer(tmp_path) == ""
    (tmp_path / store.LOCK).write_text("process 7 on moria\n")
    assert store.writer(tmp_path) == "process 7 on moria"
    (tmp_path / store.LOCK).write_bytes("Náin \x1b".encode() + b"\xff" + b"x" * 1000)
    assert store.writer(tmp_path) == "Náin " + 2 * "\N{REPLACEMENT CHARACTER}" + 93 * "x"  # 100 characters


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], "crashed"),
        ([{"event": "evaluated"}], "crashed"),
        ([{"event": "finished", "reason": "done"}], "finished"),
        ([{"event": "finished"}], "finished"),
        ([{"event": "finished", "reason": "stopped"}], "stopped"),
        ([{"event": "finished", "reason": "detached"}], "stopped"),
        ([{"event": "failed"}], "failed"),
        ([{"event": "failed"}, {"event": "evaluated"}], "crashed"),
        ([{"event": "finished"}, {"event": "warned"}, {"event": "checkpointed"}], "finished"),
        ([{"event": "checkpointed"}, {"event": "failed"}, {"event": "checkpointed"}, {"event": "warned"}], "failed"),
    ],
)
def test_states_by_the_last_row_that_is_no_note(tmp_path: Path, rows: list[dict[str, Any]], state: str) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    run.lock.close()
    (run.path / store.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert store.summarize(run.path).state == state
    assert store.is_finished(run.path) == (state == "finished")


def test_an_exception_goes_to_the_record_the_log_and_the_caller(tmp_path: Path) -> None:
    def broken() -> Iterator[TrainingEvent]:
        yield from training(None)
        raise ZeroDivisionError("broken on purpose")

    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    found: list[TrainingEvent] = []
    with pytest.raises(ZeroDivisionError, match="broken on purpose"):
        found.extend(writer.record(run, broken()))
    assert len(found) == len(training(None)) + 2  # and all before it arrived, with two checkpoints
    last = from_record(rows(run.path / store.METRICS)[-1])
    assert isinstance(last, Failed)
    assert last.message == "ZeroDivisionError: broken on purpose"
    log = (run.path / store.LOG).read_text()
    assert "Traceback" in log
    assert "broken on purpose" in log
    summary = store.summarize(run.path)
    assert summary.state == "failed"
    assert summary.valid_perplexity == 90.0
    assert store.load(run.path).valid_perplexity == 90.0  # what was learnt before is not lost


def test_a_consumer_that_leaves_frees_the_lock(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    events = writer.record(run, iter(training()))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert state_seen_elsewhere(run.path) == "crashed"
