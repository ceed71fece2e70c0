"""The server: its routes, one session per browser, and an orderly end of all of them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from textual_serve.download_manager import DownloadManager

from lotr_tui.serve.access import WEBSOCKET_PATH, AccessGuard
from lotr_tui.serve.app_process import AppProcess
from lotr_tui.serve.browser_session import BrowserSession
from lotr_tui.serve.connections import ErrorLog
from lotr_tui.serve.page import page_response, static_response

POLL_INTERVAL = 1.0
"""Seconds between two looks at apps without a browser, and at connections without a token."""
ACCEPT_RETRY_INTERVAL = 0.1
"""Seconds after a connection could not be accepted."""
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
        self.report = report
        """Gets one line per event."""
        self._downloads = DownloadManager()
        self._sessions: dict[asyncio.Task[None], BrowserSession] = {}  # also those whose app is still saving
        self._num_opened = 0
        self._ending: list[AppProcess] = []  # without a browser; some continue a training for hours
        self._is_closing = False

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

    async def run(self, listening: socket.socket, on_ready: Callable[[], None]) -> int:
        """Serve until a signal arrives, then close all tabs; a second signal does not wait for the apps.

        Args:
            listening: Socket to accept browsers on.
            on_ready: Called once browsers and signals are served.

        Returns:
            The exit code: 128 plus the number of the signal.
        """
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[int] = asyncio.Queue()
        for number in _SHUTDOWN_SIGNALS:
            loop.add_signal_handler(number, received.put_nowait, number.value)
        runner = web.AppRunner(self.make_application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        assert runner.server is not None, "the runner is set up"
        tasks = [asyncio.create_task(self._accept(listening, runner.server)), asyncio.create_task(self._reap())]
        on_ready()
        received_number = await received.get()
        closing = asyncio.create_task(self.close())
        second_signal = asyncio.create_task(received.get())
        await asyncio.wait({closing, second_signal}, return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            os._exit(128 + received_number)  # the end of their input tells the apps to close
        for task in (second_signal, *tasks):
            task.cancel()
        await runner.cleanup()
        return 128 + received_number

    async def close(self) -> None:
        """Close all tabs: every app saves and ends, or continues its training in the background."""
        self._is_closing = True
        reason = b"The server has ended."
        closing = [session.websocket.close(code=1001, message=reason) for session in self._sessions.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _accept(self, listening: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Accept connections, of which those without the token are limited."""
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
                transport, _ = await loop.connect_accepted_socket(make_protocol, connection)
            except OSError as error:  # there are too many open files, or the connection is gone already
                logging.getLogger(__name__).error("no connection is accepted: %s", error.strerror)
                await asyncio.sleep(ACCEPT_RETRY_INTERVAL)
            else:
                self._guard.strangers.add(transport, address[0])

    async def _handle_page(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refusal()) is not None:
            return web.Response(status=503, text=f"503 unavailable: {refused}\n")
        response = page_response(request, self._program.title, self._program.background)
        self._guard.remember(request, response)
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
        self._guard.protect(response)
        await response.prepare(request)
        async for chunk in self._downloads.download(key):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def _handle_websocket(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refusal()) is not None:
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            await websocket.close(code=TOO_MANY_BROWSERS, message=refused.encode())
            return websocket
        self._num_opened += 1
        session = BrowserSession(self._program.command, self._num_opened, self._downloads, self.report)
        task = asyncio.create_task(self._run_session(session, request))
        self._sessions[task] = session
        task.add_done_callback(self._sessions.pop)
        await asyncio.shield(task)  # a request that is cancelled must not leave its app behind
        return session.websocket

    async def _run_session(self, session: BrowserSession, request: web.Request) -> None:
        try:
            await session.run(request)
        finally:
            self._ending.append(session.process)

    def _refusal(self) -> str | None:
        """Return why no further browser can have a session now, or None."""
        if self._is_closing:
            return "the server is ending"
        if len(self._sessions) < self._max_browsers:
            return None
        return f"{self._max_browsers} of {self._max_browsers} sessions are open (--max-browsers); close a tab first"

    async def _reap(self) -> None:
        """Collect the exit status of apps without a browser, and close connections that send no token."""
        while True:
            self._guard.strangers.expire()
            self._ending = [process for process in self._ending if not process.has_ended]
            await asyncio.sleep(POLL_INTERVAL)


def serve(server: BrowserServer, listening: socket.socket, on_ready: Callable[[], None]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return the exit code; see `BrowserServer.run`.

    Errors that libraries log are reported, too.
    """
    logging.getLogger().addHandler(ErrorLog(server.report))
    with contextlib.closing(listening):
        return asyncio.run(server.run(listening, on_ready))
