"""The process of an app that a browser shows.

`AppService` of textual-serve 1.1.3 has these defects, which no issue reports:

- A shell runs the command and splits paths with blanks, and asyncio kills the process when the server ends, also a
  training that continues in the background. In the server's process group, ctrl+c there ends every app at once.
- After the browser has left nothing reads the output, so that the app blocks in a write and `stop` waits for ever.
- Keys for an app that does not read them are awaited, so that a closed tab is not noticed.
- Standard error is collected without limit, and written to the server's terminal with its control characters.
- Every write of the app is a message of its own: a frame of Textual is three.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, cast

from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from engine.errors import printable

EXIT_TIMEOUT = 30.0
"""Seconds for an app to save and end, or to detach its training, after its tab was closed."""
TERMINATE_TIMEOUT = 10.0
"""Seconds after SIGTERM until SIGKILL."""
MAX_UNREAD_INPUT = 64 << 10
"""Bytes that wait for an app that does not read; further input is dropped."""
MAX_PACKET_BYTES = 64 << 20
"""Largest packet of an app; a larger one means that the stream is broken."""
MAX_ERROR_BYTES = 16 << 10
"""Bytes of standard error that are kept, the latest."""
MAX_JOINED_BYTES = 256 << 10
"""Bytes of output that are sent in one message."""
FOREIGN_VARIABLES = ("COLUMNS", "LINES", "TMUX", "TMUX_PANE", "STY", "CI", "TEXTUAL", "TEXTUAL_LOG", "NO_COLOR")
"""Environment variables that describe the terminal of the server, and not the page."""


class AppProcess(AppService):
    """One app in a separate process. Its output goes to a browser, until the browser leaves or the app ends."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        write_bytes: Callable[[bytes], Awaitable[None]],
        write_str: Callable[[str], Awaitable[None]],
        close: Callable[[], Awaitable[Any]],
    ) -> None:
        """Prepare the process of a program with arguments; the functions send to the browser, and close it."""
        super().__init__(
            " ".join(command),
            write_bytes=write_bytes,
            write_str=write_str,
            close=close,
            download_manager=DownloadManager(),
        )
        self._arguments = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._browser_has_left = False
        self.error_text = ""
        """Last lines that the app has printed, once it has ended."""

    @property
    def pid(self) -> int:
        assert self._child is not None, "the app is not started"
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        """True if the process has ended. After `stop`, a process may continue a training for hours."""
        return self._child is None or self._child.poll() is not None

    async def start(self, width: int, height: int) -> None:
        """Start the process with a terminal of this size in cells."""
        environment = self._build_environment(width, height)
        for name in FOREIGN_VARIABLES:
            environment.pop(name, None)
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(width), "ROWS": str(height)}
        pipe = subprocess.PIPE
        self._child = await asyncio.to_thread(
            subprocess.Popen,
            self._arguments,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=environment,
            start_new_session=True,
        )
        stdout, stderr = await self._connect_reader(self._child.stdout), await self._connect_reader(self._child.stderr)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), self._child.stdin
        )
        self._transports.append(transport)
        self._stdin = asyncio.StreamWriter(transport, cast(Any, protocol), None, loop)
        self._task = asyncio.create_task(self._run_app(stdout, stderr))

    async def send_bytes(self, data: bytes) -> bool:
        """Send input to the app; False if the app does not read its input."""
        return self._send_packet(b"D", data)

    async def send_meta(self, data: dict[str, Any]) -> bool:
        """Send a message to the driver of the app; False if the app does not read its input."""
        return self._send_packet(b"M", json.dumps(data).encode())

    async def stop(self) -> None:
        """Close the tab: let the app save and end, or detach its training, and end it if it hangs."""
        if self._task is None or self._child is None:
            return
        self._browser_has_left = True
        await self.send_meta({"type": "quit"})
        self.stdin.transport.close()  # the end of its input is a hang-up too
        task, self._task = self._task, None
        for number, timeout in ((signal.SIGTERM, EXIT_TIMEOUT), (signal.SIGKILL, TERMINATE_TIMEOUT)):
            await asyncio.wait([task], timeout=timeout)
            if task.done():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, number)
        await asyncio.wait([task], timeout=TERMINATE_TIMEOUT)
        task.cancel()
        for transport in self._transports:
            transport.close()

    def _send_packet(self, kind: Literal[b"D", b"M"], payload: bytes) -> bool:
        transport = self.stdin.transport
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_UNREAD_INPUT:
            return False
        transport.write(self.encode_packet(kind, payload))
        return True

    async def _connect_reader(self, pipe: Any) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=MAX_JOINED_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        self._transports.append(transport)
        return reader

    async def _run_app(self, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        """Forward the output of the app until it ends, and read on without a browser."""
        errors = asyncio.create_task(_read_errors(stderr))
        try:
            await self._forward(stdout)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):  # ended, or no packets
            pass
        finally:
            if not self._browser_has_left:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await self.remote_close()
            self.error_text = await errors

    async def _forward(self, stdout: asyncio.StreamReader) -> None:
        """Read packets, and join the output that is already there into one message."""
        while await stdout.readline() not in (b"__GANGLION__\n", b""):
            pass
        output = bytearray()
        while True:
            header = await stdout.readexactly(5)
            size = int.from_bytes(header[1:], "big")
            if size > MAX_PACKET_BYTES:
                raise ConnectionError("the app has sent a packet that is too large")
            payload = await stdout.readexactly(size)
            if header[:1] == b"D":
                output += payload
                if len(output) < MAX_JOINED_BYTES and _has_packet(stdout):
                    continue
            if output:
                await self._send_to_browser(self.on_data, bytes(output))
                output.clear()
            if header[:1] == b"M":
                await self._send_to_browser(self.on_meta, payload)

    async def _send_to_browser(self, send: Callable[[bytes], Awaitable[None]], payload: bytes) -> None:
        """Send output while there is a browser; afterwards only read it, so that the app is never blocked."""
        if not self._browser_has_left:
            try:
                await send(payload)
            except (ConnectionError, RuntimeError):  # the connection is closing
                self._browser_has_left = True


async def _read_errors(stderr: asyncio.StreamReader) -> str:
    text = b""
    while data := await stderr.read(4096):
        text = (text + data)[-MAX_ERROR_BYTES:]
    return "\n".join(printable(line) for line in text.decode(errors="replace").splitlines() if line.strip())


def _has_packet(reader: asyncio.StreamReader) -> bool:
    """Return True if the next packet of a stream has arrived completely."""
    buffered: bytearray = vars(reader)["_buffer"]  # no public method reads without waiting
    return len(buffered) >= 5 and len(buffered) >= 5 + int.from_bytes(buffered[1:5], "big")
