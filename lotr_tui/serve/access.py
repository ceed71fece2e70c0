"""Access: where the server listens, and which requests it serves."""

import asyncio
import ipaddress
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from hmac import compare_digest
from urllib.parse import urlsplit

from aiohttp import web

from engine.errors import InvalidInputError, describe_error, printable

TOKEN_PARAMETER, TOKEN_BYTES = "token", 32
WEBSOCKET_PATH = "/ws"
ACCESS_TIMEOUT, POLL_INTERVAL = 10.0, 1.0  # seconds in which a connection must have sent a request with the token
MAX_STRANGERS = 128  # connections without the token
ERROR_INTERVAL, MAX_ERROR_CHARACTERS = 1.0, 200  # fewest seconds between two lines about errors, and their length
_REMEDY = "use the URL and the token that `lotr-tui serve` has printed"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SECURITY_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def bind(host: str, port: int, *, public: bool) -> tuple[socket.socket, str]:
    """Return a socket that listens, and its URL; port 0 takes any free one. Only `public` allows more than loopback."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"--host {host!r} is not an address of this machine; use 127.0.0.1") from error
    if not public and not all(ipaddress.ip_address(address[4][0]).is_loopback for address in found):
        raise InvalidInputError(
            f"--host {host or '0.0.0.0'} can be reached from other machines; "
            "add --public to allow that, or leave --host out and use an SSH tunnel"
        )
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    try:
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        reason, remedy = os.strerror(error.errno or 0), "use another --host or --port; 0 is any free port"
        raise InvalidInputError(f"port {port} of {host} cannot be used: {reason}; {remedy}") from error
    name, port = listening.getsockname()[:2]
    if ipaddress.ip_address(name).is_unspecified:
        name = socket.gethostname()
    return listening, f"http://{f'[{name}]' if ':' in name else name}:{port}/"


class AccessGuard:
    """Check of every request: the host, the origin of a websocket, and the token, or the cookie of the first page."""

    def __init__(self, names: Iterable[str] = (), *, public: bool = False) -> None:
        """Allow `names` beside the loopback hosts; with `public` also every IP address and the name of this machine."""
        self._names = {name.lower().rstrip(".") for name in names} | {"localhost", "127.0.0.1", "::1"}
        self._public = public
        if public:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self._session = secrets.token_urlsafe(TOKEN_BYTES)  # value of the cookie
        self._cookie = f"lotr-tui-{secrets.token_hex(4)}"  # cookies do not distinguish the ports of a host
        self._admitted: set[web.RequestHandler] = set()  # connections that have shown the token
        self._strangers: dict[web.RequestHandler, float] = {}  # and when each was first seen; the oldest first

    def allows(self, netloc: str) -> bool:
        """Return True if a `Host` header names this server, on any port: SSH tunnels change it.

        A page of another name could be a DNS rebinding attack.
        """
        try:
            parts = urlsplit(f"//{netloc}")
            _ = parts.port  # raises ValueError for a bad port
        except ValueError:
            return False
        if parts.netloc != netloc or "@" in netloc or parts.path or parts.query or not parts.hostname:
            return False
        host = parts.hostname.rstrip(".")
        if host in self._names or not self._public:
            return host in self._names
        try:
            return bool(ipaddress.ip_address(host))
        except ValueError:
            return False

    def remember(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give the browser a cookie, which scripts cannot read and which pages of other sites cannot send."""
        secure = is_encrypted(request)
        response.set_cookie(self._cookie, self._session, path="/", httponly=True, secure=secure, samesite="Strict")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a request before anything else happens, and add the security headers to every answer."""
        try:
            if reason := self._refusal(request):
                forbidden = web.HTTPForbidden(text=f"403 forbidden: {reason}; {_REMEDY}\n")
                forbidden.force_close()
                raise forbidden
            self._admitted.add(request.protocol)
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_SECURITY_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_SECURITY_HEADERS)
        return response

    def _refusal(self, request: web.Request) -> str:
        netloc = request.headers.get("Host", "")
        if not self.allows(netloc):
            return "this server is not known by that name"
        origins = (f"http://{netloc}".lower(), f"https://{netloc}".lower())
        if request.path == WEBSOCKET_PATH and request.headers.get("Origin", "").lower() not in origins:
            return "this connection comes from a page of another server"
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given, secret = None, self.token
        if scheme.lower() == "bearer":
            given = key.strip()
        elif not request.path.startswith("/v1/"):  # of the API, whose clients use the header: addresses are logged
            given = request.query.get(TOKEN_PARAMETER)
            if given is None:
                given, secret = request.cookies.get(self._cookie), self._session
        if given is not None and compare_digest(given.encode(errors="replace"), secret.encode()):
            return ""
        return "no token" if given is None else "wrong token"

    def close_strangers(self, connections: Sequence[web.RequestHandler], now: float) -> None:
        """Close connections that have not shown the token in time, and the oldest of too many; called every second."""
        self._admitted.intersection_update(connections)
        strangers = [each for each in connections if each not in self._admitted]
        self._strangers = {each: self._strangers.get(each, now) for each in strangers}
        for index, (connection, seen_at) in enumerate(self._strangers.items()):
            if now - seen_at >= ACCESS_TIMEOUT or index < len(self._strangers) - MAX_STRANGERS:
                connection.force_close()


def is_encrypted(request: web.Request) -> bool:
    """Return True if the browser uses HTTPS, as a proxy in front of the server states."""
    return request.headers.get("X-Forwarded-Proto", request.scheme) == "https"


class ErrorLog(logging.Handler):
    """Log handler that reports an error as one line without its traceback, and drops errors that follow at once."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._report, self._next_at = report, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._next_at:
            error = record.exc_info[1] if record.exc_info else None
            message = record.getMessage() + (f": {describe_error(error)}" if error else "")
            self._report(f"error: {printable(message)[:MAX_ERROR_CHARACTERS]}")
            self._next_at = time.monotonic() + ERROR_INTERVAL


def make_runner(application: web.Application) -> web.AppRunner:
    """Return the runner of an application, which never decompresses a body: a small one can become very large."""
    return web.AppRunner(application, access_log=None, shutdown_timeout=1.0, auto_decompress=False)


async def serve_until_signal(
    application: web.Application, guard: AccessGuard, listening: socket.socket, on_ready: Callable[[], None]
) -> int:
    """Serve until a signal arrives, shut down, and return 128 plus its number; a second one ends at once."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
    for each in signals:
        loop.add_signal_handler(each, received.put_nowait, each.value)
    runner = make_runner(application)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    on_ready()
    number = 0
    while not number:
        guard.close_strangers(runner.server.connections if runner.server else [], time.monotonic())
        with suppress(TimeoutError):
            number = await asyncio.wait_for(received.get(), POLL_INTERVAL)
    for each in signals:
        loop.add_signal_handler(each, os._exit, 128 + number)
    await runner.cleanup()
    return 128 + number
