"""Background tasks deliver their items, their end and their failure on the event loop."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from textual.app import App
from textual.screen import Screen

from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask, is_closed, run_in_thread


class Recorder(App[None]):
    """App that records what a task delivers."""

    def __init__(self) -> None:
        super().__init__()
        self.delivered: list[object] = []
        self.background: BackgroundTask[int] = BackgroundTask(
            self,
            "test",
            self.delivered.extend,
            self.delivered.append,
            lambda: self.delivered.append("finished"),
            interval=0.01,
        )

    async def wait(self, count: int) -> list[object]:
        """Wait until `count` entries were recorded."""
        for _ in range(500):
            if len(self.delivered) >= count:
                break
            await asyncio.sleep(0.01)
        return self.delivered


async def test_items_arrive_in_order_and_the_end_comes_last() -> None:
    app = Recorder()
    async with app.run_test():
        app.background.start(lambda _: iter(range(5)))
        assert app.background.is_running
        assert await app.wait(6) == [0, 1, 2, 3, 4, "finished"]
        assert not app.background.is_running


async def test_a_failure_is_delivered_after_the_items_before_it() -> None:
    def source(_: Cancellation) -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    app = Recorder()
    async with app.run_test():
        app.background.start(source)
        first, error = await app.wait(2)
        assert first == 1
        assert str(error) == "broken"
        assert not app.background.is_running


class PausedSource:
    """Source that yields 1, waits for its cancellation and yields 2."""

    def __init__(self) -> None:
        self.resumed = threading.Event()

    def __call__(self, cancelled: Cancellation) -> Iterator[int]:
        yield 1
        cancelled.wait(10)
        self.resumed.set()
        yield 2


async def test_a_cancelled_task_stops_its_thread_and_delivers_nothing_more() -> None:
    app, source = Recorder(), PausedSource()
    async with app.run_test():
        app.background.start(source)
        await app.wait(1)
        app.background.cancel()
        assert await asyncio.to_thread(source.resumed.wait, 5)
        await asyncio.sleep(0.05)
        assert app.delivered == [1]


async def test_a_stopped_task_delivers_its_last_items_and_its_end() -> None:
    app = Recorder()
    async with app.run_test():
        app.background.start(PausedSource())
        await app.wait(1)
        app.background.stop()
        assert await app.wait(3) == [1, 2, "finished"]


async def test_a_restart_cancels_the_generator_before_it() -> None:
    def endless(cancelled: Cancellation) -> Iterator[int]:
        while not cancelled.wait(0.001):
            yield 0

    app = Recorder()
    async with app.run_test():
        app.background.start(endless)
        await app.wait(1)
        app.delivered.clear()
        app.background.start(lambda _: iter([7]))
        assert await app.wait(2) == [7, "finished"]


async def test_a_function_in_a_thread_returns_or_raises_to_its_caller() -> None:
    assert await run_in_thread(lambda number: number + 1, 41) == 42
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 / 0)


async def test_nothing_is_delivered_to_a_screen_that_was_closed() -> None:
    delivered: list[int] = []
    app = App[None]()
    async with app.run_test():
        screen = Screen[None]()
        await app.push_screen(screen)
        task: BackgroundTask[int] = BackgroundTask(screen, "test", delivered.extend, lambda _: None, interval=10)
        task.start(lambda _: iter([1]))
        await app.pop_screen()
        await asyncio.sleep(0.05)
        task.poll()
        assert delivered == []
        assert not task.is_running


async def test_the_screens_of_an_app_that_exits_are_closed_before_their_parts_are_gone() -> None:
    seen: list[bool] = []

    class Watcher(Screen[None]):
        def on_unmount(self) -> None:
            seen.append(is_closed(self))

    app = Recorder()
    async with app.run_test():
        await app.push_screen(Watcher())
        assert not is_closed(app.screen)
    assert seen == [True]
