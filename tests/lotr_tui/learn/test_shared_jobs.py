"""Tests of jobs that several chapters wait for."""

import threading
from collections.abc import Callable, Generator

import pytest

from engine.errors import RunError
from engine.runtime.worker import Cancellation
from lotr_tui.learn.shared_jobs import SharedJobs
from tests.support.small_corpora import run_to_end


def never() -> bool:
    return False


def job(name: str, can_end: threading.Event) -> Callable[[Cancellation], Generator[str, None, str]]:
    """Return a job that yields a line, and returns its name once it may."""

    def run(cancelled: Cancellation) -> Generator[str, None, str]:
        yield f"{name} runs"
        while not can_end.wait(0.01):
            if cancelled():
                raise RunError(f"{name} was stopped")
        return name

    return run


def test_second_job_waits_for_its_turn_and_shows_the_progress_of_the_first() -> None:
    jobs, can_end = SharedJobs(), threading.Event()
    first, second = (jobs.wait_for(name, job(name, can_end), never) for name in ("one", "two"))
    assert next(first) == "one runs"
    assert next(second) == "one runs"
    can_end.set()
    assert run_to_end(second) == ("two", ["two runs"])
    assert run_to_end(first)[0] == "one"
    assert not jobs.is_running


def test_two_waiters_share_a_job() -> None:
    jobs, can_end = SharedJobs(), threading.Event()
    starts: list[str] = []

    def count(cancelled: Cancellation) -> Generator[str, None, object]:
        starts.append("")
        result = yield from job("one", can_end)(cancelled)
        return [result]

    waiters = [jobs.wait_for("one", count, never) for _ in range(2)]
    assert [next(waiter) for waiter in waiters] == ["one runs"] * 2
    can_end.set()
    first, second = (run_to_end(waiter)[0] for waiter in waiters)
    assert first is second
    assert len(starts) == 1


def test_cancelled_jobs_stop_and_later_ones_run() -> None:
    jobs, can_end = SharedJobs(), threading.Event()
    waiter = jobs.wait_for("one", job("one", can_end), never)
    next(waiter)
    jobs.cancel()
    with pytest.raises(RunError, match="one was stopped"):
        run_to_end(waiter)
    can_end.set()
    assert run_to_end(jobs.wait_for("one", job("one", can_end), never))[0] == "one"
