"""The server: its page, one session per browser, and an orderly end of all of them.

The page of textual-serve 1.1.3 names its files and the websocket by one fixed URL, which is wrong behind an SSH tunnel
(https://github.com/Textualize/textual-serve/issues/42), loads a font from a server of Google, has scripts in the HTML,
does not say why a connection was closed, and gives the terminal no focus. This one uses paths and the `Host` header.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import textual_serve
from aiohttp import WSMsgType, web

from lotr_tui.serve.access import WEBSOCKET_PATH, AccessGuard, ErrorLog, is_encrypted
from lotr_tui.serve.app_process import AppProcess
from lotr_tui.serve.browser_input import (
    MAX_HEIGHT,
    MAX_MESSAGE_BYTES,
    MAX_WIDTH,
    InputLimiter,
    clamp,
    parse_message,
)

DEFAULT_FONT_SIZE, MIN_FONT_SIZE, MAX_FONT_SIZE = 16, 6, 48
"""Size of the font in pixels: without the parameter `fontsize` of the URL, and its range."""
POLL_INTERVAL = 1.0
"""Seconds between two looks at apps without a browser, and at connections without a token."""
ACCEPT_RETRY_INTERVAL = 0.1
HEARTBEAT = 15.0
"""Seconds between two pings; a browser that does not answer for half as long has left."""
CLOSE_TIMEOUT = 2.0
NOTICE_INTERVAL = 3.0
"""Minimum seconds between two messages to a user about dropped input."""
BYTES_PER_SECOND = 256 << 10
"""Rate at which messages that were refused are received; the rest waits in the browser."""
TOO_MANY_BROWSERS = 4001
"""Code with which a websocket is closed when all places are taken."""

_UPSTREAM, _OWN = Path(textual_serve.__file__).parent / "static", Path(__file__).parent / "static"
_STATIC_FILES = {
    "xterm.css": _UPSTREAM / "css" / "xterm.css",
    "textual.js": _UPSTREAM / "js" / "textual.js",
    "mono.ttf": _UPSTREAM / "fonts" / "RobotoMono-VariableFont_wght.ttf",
    "mono-italic.ttf": _UPSTREAM / "fonts" / "RobotoMono-Italic-VariableFont_wght.ttf",
    "page.css": _OWN / "page.css",
    "page.js": _OWN / "page.js",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".ttf": "font/ttf"}
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='5.5' fill='none' stroke='%23d9a648' stroke-width='3'/%3E%3C/svg%3E"
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="{icon}">
<link rel="stylesheet" href="/static/xterm.css">
<link rel="stylesheet" href="/static/page.css">
<style>html, body {{ background: {background}; }}</style>
<script src="/static/page.js"></script>
<script src="/static/textual.js"></script>
</head>
<body>
<div id="notice"><p>{title} is starting …</p><button type="button" hidden>Start again</button></div>
<div class="textual-terminal" data-session-websocket-url="{websocket}" data-font-size="{font_size}"></div>
</body>
</html>
"""


@dataclass(frozen=True)
class ServedProgram:
    """The app that browsers see: program and arguments, title, and the CSS colour of the page until it is drawn."""

    command: Sequence[str]
    title: str
    background: str


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
        self._open: dict[asyncio.Task[None], web.WebSocketResponse] = {}  # also those whose app is still saving
        self._num_opened = 0
        self._ending: list[AppProcess] = []  # without a browser; some continue a training for hours
        self._is_closing = False

    def make_application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard.middleware], client_max_size=1)
        application.add_routes(
            [
                web.get("/", self._handle_page),
                web.get("/static/{name:.*}", self._handle_static),
                web.get(WEBSOCKET_PATH, self._handle_websocket),
            ]
        )
        return application

    async def run(self, listening: socket.socket, on_ready: Callable[[], None]) -> int:
        """Serve until a signal arrives, then close all tabs; a second signal does not wait for the apps.

        Returns:
            The exit code: 128 plus the number of the signal.
        """
        loop = asyncio.get_running_loop()
        received: asyncio.Queue[int] = asyncio.Queue()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
        closing = [each.close(code=1001, message=b"The server has ended.") for each in self._open.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        await asyncio.gather(*self._open, return_exceptions=True)

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

    async def _reap(self) -> None:
        """Collect the exit status of apps without a browser, and close connections that send no token."""
        while True:
            self._guard.strangers.expire()
            self._ending = [process for process in self._ending if not process.has_ended]
            await asyncio.sleep(POLL_INTERVAL)

    async def _handle_page(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refusal()) is not None:
            return web.Response(status=503, text=f"503 unavailable: {refused}\n")
        origin = f"{'wss' if is_encrypted(request) else 'ws'}://{request.headers['Host']}"
        size = request.query.get("fontsize", "")
        font_size = int(size) if size.isdecimal() and len(size) < 4 else DEFAULT_FONT_SIZE
        text = _PAGE.format(
            title=escape(self._program.title),
            icon=_ICON,
            background=self._program.background,
            websocket=escape(f"{origin}{WEBSOCKET_PATH}"),
            font_size=min(max(font_size, MIN_FONT_SIZE), MAX_FONT_SIZE),
        )
        response = web.Response(text=text, content_type="text/html")
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
            f"img-src 'self' data:; connect-src 'self' {origin}; frame-ancestors 'none'; base-uri 'none'; "
            "form-action 'none'"
        )
        self._guard.remember(request, response)
        return response

    async def _handle_static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        path = _STATIC_FILES.get(name)
        if path is None:
            raise web.HTTPNotFound(text=f"404 not found: {name!r} is no file of this page\n")
        return web.Response(body=path.read_bytes(), content_type=_TYPES[path.suffix])

    async def _handle_websocket(self, request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT,
            heartbeat=HEARTBEAT,
            compress=False,  # it takes longer than it saves at the short distances that the server is made for
            max_msg_size=MAX_MESSAGE_BYTES,
        )
        if (refused := self._refusal()) is not None:
            await websocket.prepare(request)
            await websocket.close(code=TOO_MANY_BROWSERS, message=refused.encode())
            return websocket
        task = asyncio.create_task(self._run_session(request, websocket))
        self._open[task] = websocket
        task.add_done_callback(self._open.pop)
        await asyncio.shield(task)  # a request that is cancelled must not leave its app behind
        return websocket

    def _refusal(self) -> str | None:
        """Return why no further browser can have a session now, or None."""
        if self._is_closing:
            return "the server is ending"
        if len(self._open) < self._max_browsers:
            return None
        return f"{self._max_browsers} of {self._max_browsers} sessions are open (--max-browsers); close a tab first"

    async def _run_session(self, request: web.Request, websocket: web.WebSocketResponse) -> None:
        """Show the app until the tab is closed or the app ends, and then end both."""
        self._num_opened += 1
        browser = f"browser {self._num_opened}"
        process = AppProcess(
            self._program.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,
        )
        try:
            await websocket.prepare(request)
            width = clamp(request.query.get("width"), 80, MAX_WIDTH)
            await process.start(width, clamp(request.query.get("height"), 24, MAX_HEIGHT))
            self.report(f"{browser} has opened the session ({request.remote})")
            await _forward_input(websocket, process)
        except OSError as error:  # the browser has left already, or the system starts no process
            self.report(f"{browser} has got no session: {error.strerror or error}")
            await websocket.close(message=b"The app did not start; see the terminal of the server.")
        finally:
            await process.stop()
            self._ending.append(process)
        self.report(f"{browser} has closed the session")
        for line in process.error_text.splitlines():
            self.report(f"  {line}")


async def _forward_input(websocket: web.WebSocketResponse, process: AppProcess) -> None:
    """Forward the messages of the page until the connection is closed."""
    loop, limiter = asyncio.get_running_loop(), InputLimiter()
    last_notice = -NOTICE_INTERVAL
    async for received in websocket:
        if received.type != WSMsgType.TEXT:
            continue
        message, refused = parse_message(received.data), None
        if message is None:
            refused = "input dropped: it was too long, or not of this page"
        elif message.kind == "stdin":
            refused = limiter.refusal(message.text)
            if refused is None and not await process.send_bytes(message.text.encode(errors="replace")):
                refused = ""  # the app is busy, and shows no message
        elif message.kind == "resize":
            await process.set_terminal_size(*message.size)
        elif message.kind == "ping":
            await websocket.send_json(["pong", message.text[:32]])
        else:
            await process.send_meta({"type": message.kind})
        if refused is None:
            continue
        if refused and loop.time() - last_notice >= NOTICE_INTERVAL:
            last_notice = loop.time()
            await process.send_meta({"type": "notice", "text": refused})
        await asyncio.sleep(len(received.data) / BYTES_PER_SECOND)  # a flood waits in its own browser


def serve(server: BrowserServer, listening: socket.socket, on_ready: Callable[[], None]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return the exit code; see `BrowserServer.run`.

    Errors that libraries log are reported, too.
    """
    logging.getLogger().addHandler(ErrorLog(server.report))
    with contextlib.closing(listening):
        return asyncio.run(server.run(listening, on_ready))
