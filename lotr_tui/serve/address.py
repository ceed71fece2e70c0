"""Addresses: where the server listens, and by which names browsers may reach it."""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from engine.errors import InvalidInputError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def bind(host: str, port: int, *, public: bool) -> socket.socket:
    """Return a socket that listens on a host and port; port 0 takes any free one.

    Args:
        host: Name or address of an interface.
        port: Port, or 0.
        public: False to refuse every host that other machines could reach.

    Raises:
        InvalidInputError: If the host is unknown, is not loopback without `public`, or the port cannot be used.
    """
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
        reason = {"EADDRINUSE": "is in use", "EACCES": "needs more rights", "EADDRNOTAVAIL": "has no such host"}
        message = reason.get(_errno_name(error), f"cannot be used: {error.strerror}")
        remedy = "use another --host" if "host" in message else "use another one, or --port 0 for any free port"
        raise InvalidInputError(f"port {port} of {host} {message}; {remedy}") from error


def _errno_name(error: OSError) -> str:
    import errno

    return errno.errorcode.get(error.errno or 0, "")


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
        self._names = {name.lower().rstrip(".") for name in names} | LOOPBACK_NAMES
        self._public = public
        if public:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def allows(self, netloc: str) -> bool:
        """Return True if the value of a `Host` header names this server, on any port: SSH tunnels change it."""
        host = _host_name(netloc)
        if host is None:
            return False
        return host in self._names or (self._public and _is_address(host))


def is_same_origin(origin: str, netloc: str) -> bool:
    """Return True if the value of an `Origin` header is a page of the server that `netloc`, a `Host` header, names."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(netloc) and parts.netloc.lower() == netloc.lower()


def _host_name(netloc: str) -> str | None:
    """Return the host of a `Host` header in lower case, or None if the header is malformed."""
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port  # raises ValueError for a bad port
    except ValueError:
        return None
    is_plain = parts.netloc == netloc and "@" not in netloc and not parts.path and not parts.query
    return parts.hostname.rstrip(".") if is_plain and parts.hostname else None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
