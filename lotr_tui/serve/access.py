"""Access: a token that every request needs, as a parameter of the first page and as a cookie afterwards."""

import secrets
from collections.abc import Awaitable, Callable
from hmac import compare_digest

from aiohttp import web

from lotr_tui.serve.address import AllowedHosts, is_same_origin
from lotr_tui.serve.connections import Strangers

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN_PARAMETER = "token"
TOKEN_BYTES = 32
"""Random bytes of the token: 256 bits."""
WEBSOCKET_PATH = "/ws"
_REMEDY = "open the URL that `lotr-tui serve` has printed"
_SECURITY_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class AccessGuard:
    """Check of every request: the host, the origin of a websocket, and the token or the cookie."""

    def __init__(self, hosts: AllowedHosts, token: str | None = None) -> None:
        """Guard a server that browsers reach as `hosts`, with a token; None draws a random one."""
        self._hosts = hosts
        self.token = token or secrets.token_urlsafe(TOKEN_BYTES)
        """Secret of the URL that is printed."""
        self.strangers = Strangers()
        """Connections that have not shown the token yet."""
        self._session = secrets.token_urlsafe(TOKEN_BYTES)  # value of the cookie
        self._cookie = f"lotr-tui-{secrets.token_hex(4)}"  # cookies do not distinguish the ports of a host

    def refusal(self, request: web.Request) -> str | None:
        """Return a line that says why the request is refused, or None to serve it."""
        netloc = request.headers.get("Host", "")
        if not self._hosts.allows(netloc):
            return f"this server is not known by that name; {_REMEDY}"
        if request.path == WEBSOCKET_PATH and not is_same_origin(request.headers.get("Origin", ""), netloc):
            return "this connection comes from a page of another server"
        token = request.query.get(TOKEN_PARAMETER)
        if token is not None:
            return None if _is_equal(token, self.token) else f"wrong token; {_REMEDY}"
        if _is_equal(request.cookies.get(self._cookie, ""), self._session):
            return None
        return f"no token; {_REMEDY}"

    def remember(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give the browser a cookie, which scripts cannot read and which pages of other sites cannot send."""
        secure = is_encrypted(request)
        response.set_cookie(self._cookie, self._session, path="/", httponly=True, secure=secure, samesite="Strict")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a request before anything else happens, and add the security headers to every answer."""
        reason = self.refusal(request)
        if reason is not None:
            response: web.StreamResponse = web.Response(status=403, text=f"403 forbidden: {reason}\n")
            response.force_close()
        else:
            self.strangers.admit(request.transport)
            try:
                response = await handler(request)
            except web.HTTPException as error:
                self.protect(error)
                raise
        if not response.prepared:
            self.protect(response)
        return response

    def protect(self, response: web.StreamResponse) -> None:
        """Add the security headers to an answer that is not sent yet."""
        for name, value in _SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)


def is_encrypted(request: web.Request) -> bool:
    """Return True if the browser uses HTTPS, as a proxy in front of the server states."""
    return request.headers.get("X-Forwarded-Proto", request.scheme) == "https"


def _is_equal(given: str, secret: str) -> bool:
    return compare_digest(given.encode(errors="replace"), secret.encode())
