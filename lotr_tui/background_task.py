"""Slow work for screens and widgets: one result to await, a stream of items from a thread, or a call after a pause."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from textual import dom, timer, widget
from textual.message_pump import MessagePump

from engine.runtime.process import EventSource, GeneratorThread

T = TypeVar("T")
POLL_INTERVAL = 0.05  # seconds between two reads of the items that a thread has produced


async def run_in_thread(function: Callable[..., T], *args: object) -> T:
    """Return or raise the outcome of `function`, in a thread for which an exit does not wait: it reads, not writes."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            resolve = partial(outcome.set_result, function(*args))
        except BaseException as error:
            resolve = partial(outcome.set_exception, error)
        with suppress(RuntimeError):  # the event loop is closed: the app has exited
            loop.call_soon_threadsafe(lambda: outcome.done() or resolve())  # done: the caller was cancelled

    threading.Thread(target=run, name="run-in-thread", daemon=True).start()
    return await outcome


def is_closed(node: MessagePump) -> bool:
    """Return True if the screen or the app of a widget is closed, while its timers and tasks still run."""
    try:
        return isinstance(node, widget.Widget) and (not node.app.is_running or node.screen not in node.app.screen_stack)
    except dom.NoScreen:
        return True


class BackgroundTask(Generic[T]):
    """Generator in a thread whose items are delivered to a widget on Textual's event loop.

    A timer of `owner` calls `on_items` with the new items, oldest first; after the last ones `on_error` with the
    exception that ended the generator, or `on_finished`. Cancel it in `on_unmount`.
    """

    def __init__(
        self,
        owner: MessagePump,
        name: str,
        on_items: Callable[[list[T]], None],
        on_error: Callable[[BaseException], None],
        on_finished: Callable[[], None] = lambda: None,
        *,
        interval: float = POLL_INTERVAL,
    ) -> None:
        self._owner, self._name, self._interval = owner, name, interval
        self._on_items, self._on_error, self._on_finished = on_items, on_error, on_finished
        self._thread: GeneratorThread[T] | None = None
        self._timer: timer.Timer | None = None

    @property
    def is_running(self) -> bool:
        """True from `start` until the last item has been delivered, or until `cancel`."""
        return self._thread is not None

    def start(self, source: EventSource[T]) -> None:
        """Run the generator `source` in a new thread; a generator that is still running is cancelled first."""
        self.cancel()
        self._thread = GeneratorThread(self._name, source)
        self._timer = self._owner.set_interval(self._interval, self.poll)

    def stop(self) -> None:
        """Ask the generator to stop; the items until then and its end are still delivered."""
        if self._thread is not None:
            self._thread.cancellation.set()

    def cancel(self) -> None:
        """Ask the generator to stop, and deliver nothing more."""
        self.stop()
        self._thread = None
        if self._timer is not None:
            self._timer.stop()

    def poll(self) -> None:
        """Deliver the items produced so far, and the end of the generator."""
        thread = self._thread
        if thread is None or is_closed(self._owner):
            self.cancel()
            return
        is_running = thread.is_alive()  # read before the items: what comes later is delivered by the next poll
        if items := thread.drain():
            self._on_items(items)
        if is_running or self._thread is not thread:
            return
        self.cancel()
        if thread.exception is not None:
            self._on_error(thread.exception)
        else:
            self._on_finished()


class Debounce:
    """Call of `callback`, `delay` seconds after the last `request`, not 0 (Textual #6370), if `owner` is still open."""

    def __init__(self, owner: MessagePump, delay: float, callback: Callable[[], object]) -> None:
        self._owner, self._delay, self._callback = owner, delay, callback
        self._timer: timer.Timer | None = None
        self.is_waiting = False

    def request(self) -> None:
        if self._timer:
            self._timer.stop()
        self._timer, self.is_waiting = self._owner.set_timer(self._delay or 1e-3, self._call), True

    def _call(self) -> None:
        self.is_waiting = False
        if not is_closed(self._owner):
            self._callback()
