"""Connections that have not shown the token: limits on their time and number, so that they lock nobody out."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from engine.errors import describe_error, printable

ACCESS_TIMEOUT = 10.0
"""Seconds in which a connection must have sent a whole request with the token or the cookie."""
MAX_STRANGERS, MAX_PER_ADDRESS = 128, 32
"""Maximum number of connections without the token, of all addresses together and of one."""
ERROR_INTERVAL = 1.0
"""Minimum seconds between two lines about errors."""
MAX_ERROR_CHARACTERS = 200


class Strangers:
    """Open connections that have not shown the token yet.

    There is always room for a further one: the oldest one of its address gives way, or if all places are taken, the
    oldest one of the address that has the most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without connections, on a clock in seconds."""
        self._clock = clock
        self._connections: dict[asyncio.Transport, tuple[str, float]] = {}  # address and time; the oldest first

    def add(self, connection: asyncio.Transport, address: str) -> None:
        """Add a new connection from an address."""
        self._connections = {each: entry for each, entry in self._connections.items() if not each.is_closing()}
        counts = Counter(entry[0] for entry in self._connections.values())
        if counts[address] >= MAX_PER_ADDRESS:
            self._close_oldest(address)
        elif len(self._connections) >= MAX_STRANGERS:
            self._close_oldest(max(counts, key=counts.__getitem__))
        self._connections[connection] = address, self._clock()

    def admit(self, connection: asyncio.Transport | None) -> None:
        """Forget a connection that has shown the token; None if it is closed already."""
        if connection is not None:
            self._connections.pop(connection, None)

    def expire(self) -> None:
        """Close the connections whose time is over."""
        for connection, (_, opened_at) in self._connections.items():
            if self._clock() - opened_at >= ACCESS_TIMEOUT:
                connection.abort()

    def _close_oldest(self, address: str) -> None:
        oldest = next(each for each, entry in self._connections.items() if entry[0] == address)
        del self._connections[oldest]
        oldest.abort()


class ErrorLog(logging.Handler):
    """Log handler that reports an error as one line, and drops those that follow at once."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """Give each line to `report`."""
        super().__init__(logging.WARNING)
        self._report = report
        self._next_at = 0.0
        self._num_dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record without its traceback."""
        if time.monotonic() < self._next_at:
            self._num_dropped += 1
            return
        error = record.exc_info[1] if record.exc_info else None
        message = printable(record.getMessage() + (f": {describe_error(error)}" if error else ""))
        more = f" (and {self._num_dropped:,} more before)" if self._num_dropped else ""
        self._report(f"error: {message[:MAX_ERROR_CHARACTERS]}{more}")
        self._next_at, self._num_dropped = time.monotonic() + ERROR_INTERVAL, 0
