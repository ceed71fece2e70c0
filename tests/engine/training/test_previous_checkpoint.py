"""The last two savings of a training: a damaged one is told, and the one before it gone on with to the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.control import Command
from engine.errors import RunError
from engine.events import Evaluated, Finished, Resume, Started, TrainingEvent, Warned
from engine.runs import store
from engine.runs.metrics import current_rows
from engine.runs.store import METRICS, MODEL, PREVIOUS, RESUME
from engine.training.job import TrainingJob, prepare_job, resume_job

SMALL: dict[str, Any] = {"embedding_size": 8, "hidden_size": 8, "epochs": 2, "batch_size": 10, "window": 20}


def start(corpus: Path, name: str) -> TrainingJob:
    values = SMALL | {"threads": 1, "checkpoint_seconds": 1e-9, "evaluate_updates": 3}
    return prepare_job(Config("tiny").with_values(corpus=str(corpus), **values), name)


def evaluations(path: Path) -> list[tuple[int, float]]:
    rows = current_rows(path / METRICS)
    return [(row["step"], row["valid_perplexity"]) for row in rows if row["event"] == "evaluated"]


@pytest.fixture
def left(small_csv: Path, home: Path) -> Path:
    """A run that was saved after each update and stopped after some."""
    job = start(small_csv, "left")
    for event in job.events(lambda: False):
        if isinstance(event, Evaluated) and event.step >= 6:
            job.steering.send(Command("stop"))
    return job.run.path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def go_on(path: Path) -> list[TrainingEvent]:
    return list(resume_job(path.name).events(lambda: False))


@pytest.mark.parametrize("damage", [cut, Path.unlink, None])
def test_the_newest_that_is_whole_is_gone_on_with_to_the_same_bits(
    left: Path, small_csv: Path, damage: Callable[[Path], None] | None
) -> None:
    undisturbed = start(small_csv, "whole")
    list(undisturbed.events(lambda: False))
    before = store.summarize(left).bytes
    if damage is not None:
        damage(left / RESUME)
    events = go_on(left)
    warned = [event.message for event in events if isinstance(event, Warned)]
    if damage is None:
        assert not warned
    else:
        (line,) = warned
        was = "damaged" if damage is cut else "missing"
        (resumed,) = (event.step for event in events if isinstance(event, Resume))
        end = f"was {was}; the training goes on from the saving before it, of update {resumed - 1}"
        assert line == f"{left / RESUME} {end}"
        assert [type(event) for event in events].index(Warned) < [type(event) for event in events].index(Started)
        rows = current_rows(left / METRICS)
        assert line in [row["message"] for row in rows if row["event"] == "warned"]
    assert isinstance(events[-1], Finished)
    assert (left / MODEL).read_bytes() == (undisturbed.run.path / MODEL).read_bytes()
    assert evaluations(left) == evaluations(undisturbed.run.path)
    assert before > store.summarize(left).bytes
    assert not list(left.glob("resume*"))


def test_a_damaged_one_does_not_take_the_place_of_the_good_one_before(left: Path) -> None:
    """Between two renames of the next saving a damaged one would be all there is."""
    good = (left / PREVIOUS).read_bytes()
    cut(left / RESUME)
    job = resume_job("left")
    for event in job.events(lambda: False):
        if isinstance(event, Started):
            assert (left / RESUME).read_bytes() == good
            assert not (left / PREVIOUS).exists()
            break


def test_where_none_is_whole_both_stay_and_the_newest_is_named(left: Path) -> None:
    for name in (RESUME, PREVIOUS):
        cut(left / name)
    before = {path.name: path.read_bytes() for path in left.glob("resume*")}
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged"):
        go_on(left)
    assert {path.name: path.read_bytes() for path in left.glob("resume*")} == before
