"""Access: where the server listens, which requests it serves, and how many connections may come without the token."""

import asyncio
import errno
import ipaddress
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from hmac import compare_digest
from urllib.parse import urlsplit

from aiohttp import web

from engine.errors import InvalidInputError, describe_error, printable

TOKEN_PARAMETER = "token"
TOKEN_BYTES = 32
WEBSOCKET_PATH = "/ws"
ACCESS_TIMEOUT = 10.0
"""Seconds in which a connection must have sent a whole request with the token or the cookie."""
MAX_STRANGERS, MAX_PER_ADDRESS = 128, 32
"""Maximum number of connections without the token, of all addresses together and of one."""
ERROR_INTERVAL = 1.0
"""Minimum seconds between two lines about errors."""
MAX_ERROR_CHARACTERS = 200

_REMEDY = "open the URL that `lotr-tui serve` has printed"
_SECURITY_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PORT_ERRORS = {
    errno.EADDRINUSE: "is in use; use another one, or --port 0 for any free port",
    errno.EACCES: "needs more rights; use another one, or --port 0 for any free port",
    errno.EADDRNOTAVAIL: "has no such host; use another --host",
}


def bind(host: str, port: int, *, public: bool) -> socket.socket:
    """Return a socket that listens; port 0 takes any free one. Without `public`, only loopback hosts are allowed."""
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
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = _PORT_ERRORS.get(error.errno or 0, f"cannot be used: {error.strerror}; use another one")
        raise InvalidInputError(f"port {port} of {host} {reason}") from error


def url_host(listening: socket.socket) -> str:
    """Return the host for the URL of a listening socket, in brackets if it is an IPv6 address."""
    host = str(listening.getsockname()[0])
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"[{host}]" if ":" in host else host


class AllowedHosts:
    """Names under which browsers may reach the server; a page of another name could be a DNS rebinding attack."""

    def __init__(self, names: Iterable[str] = (), *, public: bool = False) -> None:
        """Allow `names` beside the loopback names; with `public` also every IP address and the name of this machine."""
        self._names = {name.lower().rstrip(".") for name in names} | {"localhost", "127.0.0.1", "::1"}
        self._public = public
        if public:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def allows(self, netloc: str) -> bool:
        """Return True if the value of a `Host` header names this server, on any port: SSH tunnels change it."""
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


class AccessGuard:
    """Check of every request: the host, the origin of a websocket, and the token, or the cookie of the first page."""

    def __init__(self, hosts: AllowedHosts) -> None:
        self._hosts = hosts
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.strangers = Strangers()
        self._session = secrets.token_urlsafe(TOKEN_BYTES)  # value of the cookie
        self._cookie = f"lotr-tui-{secrets.token_hex(4)}"  # cookies do not distinguish the ports of a host

    def remember(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give the browser a cookie, which scripts cannot read and which pages of other sites cannot send."""
        secure = is_encrypted(request)
        response.set_cookie(self._cookie, self._session, path="/", httponly=True, secure=secure, samesite="Strict")

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse a request before anything else happens, and add the security headers to every answer."""
        reason = self._refusal(request)
        if reason is not None:
            response: web.StreamResponse = web.Response(status=403, text=f"403 forbidden: {reason}\n")
            response.force_close()
        else:
            self.strangers.admit(request.transport)
            try:
                response = await handler(request)
            except web.HTTPException as error:
                error.headers.update(_SECURITY_HEADERS)
                raise
        if not response.prepared:
            response.headers.update(_SECURITY_HEADERS)
        return response

    def _refusal(self, request: web.Request) -> str | None:
        netloc = request.headers.get("Host", "")
        if not self._hosts.allows(netloc):
            return f"this server is not known by that name; {_REMEDY}"
        if request.path == WEBSOCKET_PATH and request.headers.get("Origin", "").lower() not in (
            f"http://{netloc}".lower(),
            f"https://{netloc}".lower(),
        ):
            return "this connection comes from a page of another server"
        token = request.query.get(TOKEN_PARAMETER)
        if token is not None:
            return None if _is_equal(token, self.token) else f"wrong token; {_REMEDY}"
        return None if _is_equal(request.cookies.get(self._cookie, ""), self._session) else f"no token; {_REMEDY}"


def is_encrypted(request: web.Request) -> bool:
    """Return True if the browser uses HTTPS, as a proxy in front of the server states."""
    return request.headers.get("X-Forwarded-Proto", request.scheme) == "https"


def _is_equal(given: str, secret: str) -> bool:
    return compare_digest(given.encode(errors="replace"), secret.encode())


class Strangers:
    """Open connections that have not shown the token yet.

    There is always room for a further one: the oldest one of its address gives way, or if all places are taken, the
    oldest one of the address that has the most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._connections: dict[asyncio.Transport, tuple[str, float]] = {}  # address and time; the oldest first

    def add(self, connection: asyncio.Transport, address: str) -> None:
        """Add a new connection from an address."""
        self._connections = {each: entry for each, entry in self._connections.items() if not each.is_closing()}
        counts = Counter(entry[0] for entry in self._connections.values())
        if counts[address] >= MAX_PER_ADDRESS or len(self._connections) >= MAX_STRANGERS:
            crowded = address if counts[address] >= MAX_PER_ADDRESS else max(counts, key=counts.__getitem__)
            oldest = next(each for each, entry in self._connections.items() if entry[0] == crowded)
            del self._connections[oldest]
            oldest.abort()
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


class ErrorLog(logging.Handler):
    """Log handler that reports an error as one line, and drops those that follow at once."""

    def __init__(self, report: Callable[[str], None]) -> None:
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
