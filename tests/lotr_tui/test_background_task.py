"""Background tasks deliver their items, their end and their failure on the event loop."""

import asyncio
import threading
from functools import partial

from textual.app import App
from textual.screen import Screen

from lotr_tui.background_task import BackgroundTask, Debounce, is_closed
from tests.support.pilot import until


class Recorder(App[None]):
    def __init__(self):
        super().__init__()
        self.delivered = []
        self.background = self.make_task(self)

    def make_task(self, owner):
        delivered = self.delivered
        finish = partial(delivered.append, "finished")
        return BackgroundTask(owner, "test", delivered.extend, delivered.append, finish, interval=0.01)


class PausedSource(threading.Event):
    """Source that yields 1, waits for its cancellation, is set and yields 2."""

    def __call__(self, cancelled):
        yield 1
        cancelled.wait(10)
        self.set()
        yield 2


def failing_source(cancelled):
    yield 1
    raise ValueError("broken")


async def test_items_arrive_in_order_and_the_end_or_the_failure_comes_last():
    app = Recorder()
    async with app.run_test() as pilot:
        app.background.start(lambda _: iter(range(5)))
        assert app.background.is_running
        await until(pilot, lambda: not app.background.is_running)
        assert app.delivered == [0, 1, 2, 3, 4, "finished"]
        app.delivered.clear()
        app.background.start(failing_source)
        await until(pilot, lambda: not app.background.is_running)
        first, error = app.delivered
        assert (first, str(error)) == (1, "broken")


async def test_a_stopped_task_delivers_its_last_items_and_a_cancelled_one_nothing_more():
    app = Recorder()
    async with app.run_test() as pilot:
        app.background.start(PausedSource())
        await until(pilot, lambda: app.delivered)
        app.background.stop()
        await until(pilot, lambda: app.delivered == [1, 2, "finished"])
        cancelled, restarted = PausedSource(), PausedSource()
        for source in (cancelled, restarted):
            app.delivered.clear()
            app.background.start(source)  # the second start cancels the first source
            await until(pilot, lambda: app.delivered)
        assert await asyncio.to_thread(cancelled.wait, 5)
        app.background.cancel()
        assert await asyncio.to_thread(restarted.wait, 5)
        await pilot.pause(0.05)
        assert app.delivered == [1]


async def test_nothing_is_delivered_to_a_screen_that_was_closed():
    seen = []

    class Watcher(Screen[None]):
        def on_unmount(self):
            seen.append(is_closed(self))

    app = Recorder()
    async with app.run_test() as pilot:
        await app.push_screen(Screen())
        task = app.make_task(app.screen)
        task.start(PausedSource())
        await app.pop_screen()
        await pilot.pause(0.05)
        task.poll()
        assert not task.is_running
        await app.push_screen(Watcher())
        assert not is_closed(app.screen)
    assert app.delivered == []
    assert seen == [True]  # at the exit, screens are closed before their parts are gone


async def test_a_debounce_without_a_delay_calls_once_and_lets_the_app_end():
    app, calls = App(), []
    async with app.run_test() as pilot:
        debounce = Debounce(app, 0, partial(calls.append, "called"))
        debounce.request()
        debounce.request()
        await until(pilot, lambda: calls)
        await pilot.pause(0.05)
    assert calls == ["called"]
