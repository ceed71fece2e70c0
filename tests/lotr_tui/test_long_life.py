"""Tests that actions repeated for hours do not leak memory."""

import gc
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from textual.widget import Widget

from engine.events import Evaluated
from engine.training.job import TrainingJob
from lotr_tui.app import LotrApp
from lotr_tui.monitor import local_training
from lotr_tui.widgets.key_footer import KeyFooter
from tests.support.app import FakeJob, training_events
from tests.support.pilot import until


def count_widgets() -> Counter[str]:
    """Count the widgets in memory by class, mounted or not."""
    gc.collect()
    return Counter(type(item).__name__ for item in gc.get_objects() if issubclass(type(item), Widget))


async def test_moving_the_focus_leaks_no_widgets(make_app: Callable[..., LotrApp]) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeyFooter).visible_keys())

        async def move_the_focus() -> None:
            await pilot.press("f4", "tab", "tab", "escape")
            await pilot.pause()

        await move_the_focus()
        before = count_widgets()
        for _ in range(2):
            await move_the_focus()
        assert count_widgets() == before


@pytest.mark.parametrize(("interval", "count"), [(0.0, 13), (3600.0, 0)])
def test_training_trims_the_heap_at_intervals_and_at_its_end(
    interval: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[bool] = []
    monkeypatch.setattr(local_training, "MEMORY_TRIM_INTERVAL", interval)
    monkeypatch.setattr(local_training, "trim_heap", lambda: trims.append(True))
    job = FakeJob(training_events()).release()
    job.ends = True
    training = local_training.LocalTraining(lambda: cast(TrainingJob, job))
    assert training.join(10)
    assert sum(isinstance(event, Evaluated) for event in training.poll()[0]) == 13
    assert len(trims) == count + 1
