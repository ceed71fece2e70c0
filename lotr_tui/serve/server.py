"""The server: one app per browser, and an orderly end of all of them."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import WSMsgType, web
from textual_serve.download_manager import DownloadManager

from lotr_tui.serve.access import WEBSOCKET_PATH, AccessGuard
from lotr_tui.serve.app_process import AppProcess
from lotr_tui.serve.browser_input import (
    MAX_HEIGHT,
    MAX_MESSAGE_BYTES,
    MAX_WIDTH,
    InputLimiter,
    clamp,
    parse_message,
)
from lotr_tui.serve.page import page_response, static_response

HEARTBEAT = 15.0
"""Seconds between two pings; a browser that does not answer for half as long has left."""
NOTICE_INTERVAL = 3.0
"""Minimum seconds between two messages to a user about dropped input."""
BYTES_PER_SECOND = 256 << 10
"""Rate at which messages that were refused are received; the rest waits in the browser."""
POLL_INTERVAL = 1.0
"""Seconds between two looks at apps that train in the background."""
TOO_MANY_BROWSERS = 4001
"""Code with which a websocket is closed when all places are taken."""
_SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class ServedProgram:
    """The app that browsers see."""

    command: Sequence[str]
    """Program and arguments, without a shell."""
    title: str
    """Title of the page."""
    background: str
    """CSS colour of the page until the app is drawn."""


class BrowserServer:
    """Web server that starts one process of a program for each browser."""

    def __init__(
        self, program: ServedProgram, guard: AccessGuard, max_browsers: int, report: Callable[[str], None]
    ) -> None:
        """Serve `program` to at most `max_browsers` at once; `report` gets one line per event, for the terminal."""
        self._program = program
        self._guard = guard
        self._max_browsers = max_browsers
        self._report = report
        self._downloads = DownloadManager()
        self._num_browsers = 0  # counts apps that are starting, and those that are still saving
        self._num_opened = 0
        self._connections: dict[AppProcess, web.WebSocketResponse] = {}
        self._background: list[AppProcess] = []  # they train without a browser

    @property
    def processes(self) -> list[AppProcess]:
        """Apps that browsers show now."""
        return list(self._connections)

    def make_application(self) -> web.Application:
        """Return the web application with its routes."""
        application = web.Application(middlewares=[self._guard.middleware], client_max_size=1)
        application.add_routes(
            [
                web.get("/", self._handle_page),
                web.get("/static/{name:.*}", self._handle_static),
                web.get("/download/{key}", self._handle_download),
                web.get(WEBSOCKET_PATH, self._handle_websocket),
            ]
        )
        return application

    async def run(self, listening: socket.socket) -> int:
        """Serve until a signal arrives, then close all tabs; a second signal does not wait for the apps.

        Returns:
            The exit code: 128 plus the number of the signal.
        """
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[int] = asyncio.Queue()
        for number in _SHUTDOWN_SIGNALS:
            loop.add_signal_handler(number, received.put_nowait, number.value)
        runner = web.AppRunner(
            self.make_application(), access_log=None, handler_cancellation=False, shutdown_timeout=1.0
        )
        await runner.setup()
        await web.SockSite(runner, listening).start()
        reaper = asyncio.create_task(self._reap())
        received_number = await received.get()
        closing = asyncio.create_task(self.close())
        impatient = asyncio.create_task(received.get())
        await asyncio.wait({closing, impatient}, return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            os._exit(128 + received_number)  # the end of their input tells the apps to close
        for task in (impatient, reaper):
            task.cancel()
        await runner.cleanup()
        return 128 + received_number

    async def close(self) -> None:
        """Close all tabs: every app saves and ends, or continues its training in the background."""
        reason = b"The server has ended."
        websockets = [websocket.close(code=1001, message=reason) for websocket in self._connections.values()]
        await asyncio.gather(*websockets, return_exceptions=True)
        while self._num_browsers:  # the handlers stop the apps, and report how they have ended
            await asyncio.sleep(0.02)

    async def _handle_page(self, request: web.Request) -> web.StreamResponse:
        if self._num_browsers >= self._max_browsers:
            return web.Response(status=503, text=f"503 unavailable: {self._too_many()}\n")
        response = page_response(request, self._program.title, self._program.background)
        self._guard.remember(response)
        return response

    async def _handle_static(self, request: web.Request) -> web.StreamResponse:
        return static_response(request.match_info["name"])

    async def _handle_download(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            download = await self._downloads.get_download_metadata(key)
        except KeyError:
            raise web.HTTPNotFound(text="404 not found: this download is over; start it again\n") from None
        response = web.StreamResponse()
        response.content_type = "application/octet-stream"  # the browser saves it, and never shows it as a page
        name = "".join(c for c in download.file_name if c.isascii() and (c.isalnum() or c in "._-")) or "download"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        await response.prepare(request)
        async for chunk in self._downloads.download(key):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _handle_websocket(self, request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(heartbeat=HEARTBEAT, compress=False, max_msg_size=MAX_MESSAGE_BYTES)
        if self._num_browsers >= self._max_browsers:
            await websocket.prepare(request)
            await websocket.close(code=TOO_MANY_BROWSERS, message=self._too_many().encode())
            return websocket
        self._num_browsers += 1
        self._num_opened += 1
        number = self._num_opened
        try:
            await websocket.prepare(request)
            await self._run_app(websocket, request, number)
        finally:
            self._num_browsers -= 1
        return websocket

    async def _run_app(self, websocket: web.WebSocketResponse, request: web.Request, number: int) -> None:
        process = AppProcess(
            self._program.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,
            download_manager=self._downloads,
        )
        size = (clamp(request.query.get("width"), 80, MAX_WIDTH), clamp(request.query.get("height"), 24, MAX_HEIGHT))
        self._connections[process] = websocket
        try:
            await process.start(*size)
            self._report(f"browser {number} has opened the session ({request.remote})")
            await self._forward_input(websocket, process)
        except OSError as error:
            self._report(f"browser {number}: the app did not start: {error.strerror}")
            await websocket.close(message=b"The app did not start; see the terminal of the server.")
        finally:
            await process.stop()
            del self._connections[process]
            self._report_end(process, number)

    async def _forward_input(self, websocket: web.WebSocketResponse, process: AppProcess) -> None:
        limiter = InputLimiter()
        last_notice = -NOTICE_INTERVAL
        loop = asyncio.get_running_loop()
        async for message in websocket:
            if message.type != WSMsgType.TEXT:
                continue
            refused = await self._forward_message(str(message.data), websocket, process, limiter)
            if refused is None:
                continue
            if refused and loop.time() - last_notice >= NOTICE_INTERVAL:
                last_notice = loop.time()
                await process.send_meta({"type": "notice", "text": refused})
            await asyncio.sleep(len(message.data) / BYTES_PER_SECOND)  # a flood waits in its own browser

    async def _forward_message(
        self, data: str, websocket: web.WebSocketResponse, process: AppProcess, limiter: InputLimiter
    ) -> str | None:
        """Forward one message of a page. Return None, or why it was dropped; "" where the user need not know."""
        message = parse_message(data)
        if message is None:
            return "input dropped: it was too long, or not of this page"
        sent = True
        match message.kind:
            case "stdin":
                if (refused := limiter.refusal(message.text)) is not None:
                    return refused
                sent = await process.send_bytes(message.text.encode(errors="replace"))
            case "resize":
                await process.set_terminal_size(*message.size)
            case "focus":
                await process.focus()
            case "blur":
                await process.blur()
            case "ping":
                await websocket.send_json(["pong", message.text[:32]])
        return None if sent else ""

    def _report_end(self, process: AppProcess, number: int) -> None:
        lines = process.error_text.splitlines()
        for line in lines:
            self._report(f"browser {number}: {line}")
        if process.has_ended:
            self._report(f"browser {number} has closed the session")
        else:
            self._background.append(process)
            self._report(f"browser {number} has closed the session; its training continues as process {process.pid}")

    def _too_many(self) -> str:
        return f"{self._num_browsers} browsers are connected, the most that --max-browsers allows; close one first"

    async def _reap(self) -> None:
        """Collect the exit status of apps that have trained in the background."""
        while True:
            self._background = [process for process in self._background if not process.has_ended]
            await asyncio.sleep(POLL_INTERVAL)


def serve(server: BrowserServer, listening: socket.socket) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return the exit code."""
    with contextlib.closing(listening):
        return asyncio.run(server.run(listening))
