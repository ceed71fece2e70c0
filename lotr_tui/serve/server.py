"""The server: one process of the app for each browser, and an orderly end of all of them.

What is replaced of textual-serve 1.1.3: its page has fixed URLs, which are wrong behind an SSH tunnel
(https://github.com/Textualize/textual-serve/issues/42), a font of Google's and scripts in the HTML; asyncio kills the
app when the server ends, also if it continues a training in the background; after the browser has left, the app blocks
in a write; and standard error is kept without limit, and printed with its control characters.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import textual_serve
from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from engine.errors import describe_error, printable
from lotr_tui.serve.access import WEBSOCKET_PATH, AccessGuard, is_encrypted

MAX_WIDTH, MAX_HEIGHT = 600, 300  # of a terminal in cells; a layout takes time and memory in proportion
MAX_MESSAGE_BYTES = 4 << 20  # of a browser; a longer message closes the connection
EXIT_TIMEOUT = 30.0  # seconds for an app to save and end, or to detach its training; then SIGTERM, and then SIGKILL
HEARTBEAT = 15.0  # seconds between two pings; a browser that does not answer for half as long has left
CLOSE_TIMEOUT, MAX_ERROR_BYTES = 2.0, 16 << 10  # bytes of what an app has printed at its end
TOO_MANY_BROWSERS = 4001  # code with which a websocket is closed when all places are taken
# Variables that describe the terminal of the server, and not the page.
FOREIGN_VARIABLES = ("COLUMNS", "LINES", "TMUX", "TMUX_PANE", "STY", "CI", "TEXTUAL", "TEXTUAL_LOG", "NO_COLOR")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/css/xterm.css">
<link rel="stylesheet" href="/own/page.css">
<script src="/own/page.js"></script>
<script src="/static/js/textual.js"></script>
</head>
<body>
<div id="notice"><p>{title} is starting …</p><button type="button" hidden>Start again</button></div>
<div class="textual-terminal" data-session-websocket-url="{websocket}" data-font-size="{font_size}"></div>
</body>
</html>
"""


class AppProcess(AppService):
    """One app in a separate process. Its output goes to a browser, until the browser leaves or the app ends."""

    last_lines = ""  # printed by the app, once it is stopped

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Any:
        size = {"COLUMNS": str(min(max(width, 1), MAX_WIDTH)), "ROWS": str(min(max(height, 1), MAX_HEIGHT))}
        inherited = {name: value for name, value in self._build_environment().items() if name not in FOREIGN_VARIABLES}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self.child = await asyncio.to_thread(
            subprocess.Popen,
            shlex.split(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=inherited | {"TERM": "xterm-256color", "COLORTERM": "truecolor", **size},
            start_new_session=True,  # ctrl+c in the terminal of the server must not end all apps at once
        )
        loop, output, nothing = asyncio.get_running_loop(), asyncio.StreamReader(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), self.child.stdout)
        make_protocol: Any = lambda: asyncio.streams.FlowControlMixin(loop=loop)  # noqa: E731 - has no type
        transport, protocol = await loop.connect_write_pipe(make_protocol, self.child.stdin)
        self._stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        nothing.feed_eof()
        self._process: Any = SimpleNamespace(stdout=output, stderr=nothing)
        return self._process

    async def run(self) -> None:
        await super().run()
        with suppress(ConnectionError, RuntimeError):
            await self.remote_close()

    async def on_data(self, payload: bytes) -> None:
        """Send output while there is a browser, and only read it afterwards, so that the app is never blocked."""
        with suppress(ConnectionError, RuntimeError):
            await super().on_data(payload)

    async def send_bytes(self, data: bytes) -> bool:
        async with asyncio.timeout(EXIT_TIMEOUT):  # of an app that hangs, a closed tab would not be noticed
            return await super().send_bytes(data)

    async def set_terminal_size(self, width: int, height: int) -> None:
        await super().set_terminal_size(min(max(width, 1), MAX_WIDTH), min(max(height, 1), MAX_HEIGHT))

    async def stop(self) -> None:
        """Close the tab: let the app save and end, or detach its training, and end it if it hangs."""
        task, self._task = self._task, None
        if task is None:
            return
        self.stdin.close()  # the end of its input is a hang-up
        for number in (signal.SIGTERM, signal.SIGKILL):
            await asyncio.wait([task], timeout=EXIT_TIMEOUT)
            if not task.done():
                self.child.send_signal(number)
        await asyncio.wait([task], timeout=EXIT_TIMEOUT)
        task.cancel()
        with self._errors as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_ERROR_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        self.last_lines = "\n".join(printable(line) for line in lines if line.strip())


class BrowserServer(Server):
    """Web server that starts one process of a program for each browser."""

    def __init__(
        self, command: Sequence[str], title: str, guard: AccessGuard, max_browsers: int, report: Callable[[str], None]
    ) -> None:
        """Serve a program to at most `max_browsers` at once; `report` gets one line per event, for the terminal."""
        super().__init__(shlex.join(command), title=title)
        self._guard, self._max_browsers, self._report = guard, max_browsers, report
        self._open: dict[asyncio.Task[None], web.WebSocketResponse] = {}  # also while their apps are saving
        self._num_opened = 0
        self._is_closing = False

    def make_application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard.middleware], client_max_size=1)
        application.add_routes([web.get("/", self._handle_page), web.get(WEBSOCKET_PATH, self.handle_websocket)])
        for path, module in (("/static", str(textual_serve.__file__)), ("/own", __file__)):
            application.router.add_static(path, Path(module).parent / "static")
        application.on_shutdown.append(self._close)
        return application

    async def _close(self, application: web.Application) -> None:
        self._is_closing = True  # the end of their input tells the apps to close
        closing = [each.close(code=1001, message=b"The server has ended.") for each in self._open.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _handle_page(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refusal():
            return web.Response(status=503, text=f"503 unavailable: {refused}\n")
        origin = f"{'wss' if is_encrypted(request) else 'ws'}://{request.headers['Host']}"
        size = request.query.get("fontsize", "")
        text = _PAGE.format(
            title=escape(self.title),
            websocket=escape(f"{origin}{WEBSOCKET_PATH}"),
            font_size=min(max(int(size), 6), 48) if size.isdecimal() and len(size) < 4 else 16,
        )
        response = web.Response(text=text, content_type="text/html")
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
            f"img-src 'self' data:; connect-src 'self' {origin}; frame-ancestors 'none'; base-uri 'none'; "
            "form-action 'none'"
        )
        self._guard.remember(request, response)
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT, heartbeat=HEARTBEAT, compress=False, max_msg_size=MAX_MESSAGE_BYTES
        )
        if refused := self._refusal():
            await websocket.prepare(request)
            await websocket.close(code=TOO_MANY_BROWSERS, message=refused.encode())
            return websocket
        task = asyncio.create_task(self._run_session(request, websocket))
        self._open[task] = websocket
        task.add_done_callback(self._open.pop)
        await asyncio.shield(task)  # a request that is cancelled must not leave its app behind
        return websocket

    def _refusal(self) -> str:
        if self._is_closing:
            return "the server is ending"
        if len(self._open) < self._max_browsers:
            return ""
        return f"{self._max_browsers} of {self._max_browsers} sessions are open (--max-browsers); close a tab first"

    async def _run_session(self, request: web.Request, websocket: web.WebSocketResponse) -> None:
        self._num_opened += 1
        browser = f"browser {self._num_opened}"
        sends: Any = {"write_bytes": websocket.send_bytes, "write_str": websocket.send_str, "close": websocket.close}
        process = AppProcess(self.command, download_manager=self.download_manager, **sends)
        try:
            await websocket.prepare(request)
            await process.start(int(request.query.get("width", "80")), int(request.query.get("height", "24")))
            self._report(f"{browser} has opened the session ({request.remote})")
            await self._process_messages(websocket, process)
        except Exception as error:  # the browser has left already or sends nonsense, or the system starts no process
            self._report(f"{browser} has lost its session: {printable(describe_error(error))}")
            with suppress(ConnectionError, RuntimeError):
                await websocket.close(message=b"The session has failed; see the terminal of the server.")
        finally:
            await process.stop()
        self._report(f"{browser} has closed the session")
        for line in process.last_lines.splitlines():
            self._report(f"  {line}")
