"""The previous checkpoint replaces a damaged one: with a warning, and a bit-exact resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import Evaluated, Finished, Resume, Started, TrainingEvent, Warned
from engine.runs.directory import METRICS_FILE, MODEL_FILE, PREVIOUS_RESUME_FILE, RESUME_FILE
from engine.runs.metrics import read_current_rows
from engine.runs.summary import summarize_run
from engine.training.job import TrainingJob, prepare_job, resume_job

SMALL: dict[str, Any] = {"embedding_size": 8, "hidden_size": 8, "epochs": 2, "batch_size": 10, "bptt": 20}


def start(corpus: Path, name: str) -> TrainingJob:
    values = SMALL | {"threads": 1, "checkpoint_seconds": 1e-9, "eval_every_steps": 3}
    return prepare_job(Config("tiny").with_values(corpus=str(corpus), **values), name)


def evaluations(path: Path) -> list[tuple[int, float]]:
    rows = read_current_rows(path / METRICS_FILE)
    return [(row["step"], row["valid_perplexity"]) for row in rows if row["event"] == "evaluated"]


@pytest.fixture
def stopped_run(small_csv: Path, home: Path) -> Path:
    """Return a run that was saved after each step and stopped after a few steps."""
    job = start(small_csv, "stopped")
    for event in job.events(lambda: False):
        if isinstance(event, Evaluated) and event.step >= 6:
            job.command_queue.send(ControlCommand("stop"))
    return job.run.path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def resume(path: Path) -> list[TrainingEvent]:
    return list(resume_job(path.name).events(lambda: False))


@pytest.mark.parametrize("damage", [truncate, Path.unlink, None])
def test_resume_from_the_latest_undamaged_checkpoint_is_bit_exact(
    stopped_run: Path, small_csv: Path, damage: Callable[[Path], None] | None
) -> None:
    uninterrupted = start(small_csv, "uninterrupted")
    list(uninterrupted.events(lambda: False))
    before = summarize_run(stopped_run).size_bytes
    if damage is not None:
        damage(stopped_run / RESUME_FILE)
    events = resume(stopped_run)
    warned = [event.message for event in events if isinstance(event, Warned)]
    if damage is None:
        assert not warned
    else:
        (line,) = warned
        problem = "damaged" if damage is truncate else "missing"
        (resumed,) = (event.step for event in events if isinstance(event, Resume))
        end = f"was {problem}; resuming from the previous checkpoint, at step {resumed - 1}"
        assert line == f"{stopped_run / RESUME_FILE} {end}"
        assert [type(event) for event in events].index(Warned) < [type(event) for event in events].index(Started)
        rows = read_current_rows(stopped_run / METRICS_FILE)
        assert line in [row["message"] for row in rows if row["event"] == "warned"]
    assert isinstance(events[-1], Finished)
    assert (stopped_run / MODEL_FILE).read_bytes() == (uninterrupted.run.path / MODEL_FILE).read_bytes()
    assert evaluations(stopped_run) == evaluations(uninterrupted.run.path)
    assert before > summarize_run(stopped_run).size_bytes
    assert not list(stopped_run.glob("resume*"))


def test_a_damaged_checkpoint_does_not_replace_the_previous_one(stopped_run: Path) -> None:
    """Otherwise only the damaged file would exist between the two renames of the next save."""
    good = (stopped_run / PREVIOUS_RESUME_FILE).read_bytes()
    truncate(stopped_run / RESUME_FILE)
    job = resume_job("stopped")
    for event in job.events(lambda: False):
        if isinstance(event, Started):
            assert (stopped_run / RESUME_FILE).read_bytes() == good
            assert not (stopped_run / PREVIOUS_RESUME_FILE).exists()
            break


def test_with_two_damaged_checkpoints_both_stay_and_the_latest_is_named(stopped_run: Path) -> None:
    for name in (RESUME_FILE, PREVIOUS_RESUME_FILE):
        truncate(stopped_run / name)
    before = {path.name: path.read_bytes() for path in stopped_run.glob("resume*")}
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        resume(stopped_run)
    assert {path.name: path.read_bytes() for path in stopped_run.glob("resume*")} == before
