"""Work that takes a while, awaited by a screen; when the app ends nobody waits for it."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[..., T], *arguments: object) -> T:
    """What `work` returns or raises, done in a thread of its own.

    For reading alone: `asyncio.to_thread` sees work to its end, however long that holds up who leaves, as is right
    for what writes.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if outcome.done():  # nobody wants it any more
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work(*arguments)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the app has ended
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await outcome
