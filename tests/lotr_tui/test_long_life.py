"""What is done again and again for hours leaves nothing behind in memory."""

import gc
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from textual.widget import Widget

from engine.events import Evaluated
from engine.training.job import TrainingJob
from lotr_tui.app import LotrApp
from lotr_tui.monitor import training_thread
from lotr_tui.widgets.keys_footer import KeysFooter
from tests.lotr_tui.conftest import FakeJob, training_events
from tests.lotr_tui.screens.session.test_session_screen import until


def widgets() -> Counter[str]:
    """How many of each class there are in memory, seen or not."""
    gc.collect()
    return Counter(type(item).__name__ for item in gc.get_objects() if issubclass(type(item), Widget))


async def test_moving_the_focus_leaves_nothing(make_app: Callable[..., LotrApp]) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())

        async def there_and_back() -> None:
            await pilot.press("f4", "tab", "tab", "escape")
            await pilot.pause()

        await there_and_back()
        before = widgets()
        for _ in range(5):
            await there_and_back()
        assert widgets() == before


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 13), (3600.0, 0)])
def test_a_training_hands_back_memory_now_and_then_and_at_its_end(
    seconds: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(training_thread, "GIVE_BACK_SECONDS", seconds)
    monkeypatch.setattr(training_thread, "give_back_freed_memory", lambda: done.append("given back"))
    job = FakeJob(training_events()).release()
    job.ends = True
    own = training_thread.OwnTraining(lambda: cast(TrainingJob, job))
    assert own.join(10)
    assert sum(isinstance(event, Evaluated) for event in own.poll()[0]) == 13
    assert len(done) == times + 1
