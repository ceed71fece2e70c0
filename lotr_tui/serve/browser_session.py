"""One browser: its websocket and the process of its app, from the first message to the end of both."""

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import WSMsgType, web
from textual_serve.download_manager import DownloadManager

from lotr_tui.serve.app_process import AppProcess
from lotr_tui.serve.browser_input import (
    MAX_HEIGHT,
    MAX_MESSAGE_BYTES,
    MAX_WIDTH,
    InputLimiter,
    clamp,
    parse_message,
)

HEARTBEAT = 15.0
"""Seconds between two pings; a browser that does not answer for half as long has left."""
CLOSE_TIMEOUT = 2.0
"""Seconds that a browser has to confirm that the connection is closed."""
NOTICE_INTERVAL = 3.0
"""Minimum seconds between two messages to a user about dropped input."""
BYTES_PER_SECOND = 256 << 10
"""Rate at which messages that were refused are received; the rest waits in the browser."""


class BrowserSession:
    """An app for one browser, which ends with its tab."""

    def __init__(
        self, command: Sequence[str], number: int, downloads: DownloadManager, report: Callable[[str], None]
    ) -> None:
        """Prepare a session.

        Args:
            command: Program and arguments of the app, without a shell.
            number: Number of the browser in reports.
            downloads: Files that browsers may download.
            report: Gets one line per event, for the terminal of the server.
        """
        self.websocket = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT,
            heartbeat=HEARTBEAT,
            compress=False,  # it takes longer than it saves at the short distances that the server is made for
            max_msg_size=MAX_MESSAGE_BYTES,
        )
        """Connection to the browser."""
        self.process = AppProcess(
            command,
            write_bytes=self.websocket.send_bytes,
            write_str=self.websocket.send_str,
            close=self.websocket.close,
            download_manager=downloads,
        )
        """Process of the app."""
        self._number = number
        self._report = report
        self._limiter = InputLimiter()

    async def run(self, request: web.Request) -> None:
        """Show the app until the tab is closed or the app ends, and then end both."""
        width = clamp(request.query.get("width"), 80, MAX_WIDTH)
        height = clamp(request.query.get("height"), 24, MAX_HEIGHT)
        try:
            await self.websocket.prepare(request)
            await self.process.start(width, height)
            self._report(f"browser {self._number} has opened the session ({request.remote})")
            await self._forward_input()
        except OSError as error:  # the browser has left already, or the system starts no process
            self._report(f"browser {self._number} has got no session: {error.strerror or error}")
            await self.websocket.close(message=b"The app did not start; see the terminal of the server.")
        finally:
            await self.process.stop()
        self._report(f"browser {self._number} has closed the session")
        for line in self.process.error_text.splitlines():
            self._report(f"  {line}")

    async def _forward_input(self) -> None:
        """Forward the messages of the page until the connection is closed."""
        loop = asyncio.get_running_loop()
        last_notice = -NOTICE_INTERVAL
        async for message in self.websocket:
            if message.type != WSMsgType.TEXT:
                continue
            refused = await self._forward(str(message.data))
            if refused is None:
                continue
            if refused and loop.time() - last_notice >= NOTICE_INTERVAL:
                last_notice = loop.time()
                await self.process.send_meta({"type": "notice", "text": refused})
            await asyncio.sleep(len(message.data) / BYTES_PER_SECOND)  # a flood waits in its own browser

    async def _forward(self, data: str) -> str | None:
        """Forward one message. Return None, or why it was dropped; "" where the user need not know."""
        message = parse_message(data)
        if message is None:
            return "input dropped: it was too long, or not of this page"
        process = self.process
        match message.kind:
            case "stdin":
                refused = self._limiter.refusal(message.text)
                if refused is None and not await process.send_bytes(message.text.encode(errors="replace")):
                    return ""  # the app is busy, and shows no message
                return refused
            case "resize":
                await process.set_terminal_size(*message.size)
            case "focus":
                await process.focus()
            case "blur":
                await process.blur()
            case "ping":
                await self.websocket.send_json(["pong", message.text[:32]])
        return None
