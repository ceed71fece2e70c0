"""The page of the terminal: its HTML, its files, and which sources it may use.

Workarounds for textual-serve 1.1.3:

- Its page names every file and the websocket by one fixed URL, which is wrong behind an SSH tunnel or another name:
  https://github.com/Textualize/textual-serve/issues/42. The page here uses paths, and the websocket the `Host` header.
- Its page loads a font from a server of Google, although the font is one of its files, and has scripts in the HTML.
- It does not say why a connection was closed, and the terminal gets no focus, so that typing needs a click first.
"""

from functools import lru_cache
from html import escape
from pathlib import Path

import textual_serve
from aiohttp import web

from lotr_tui.serve.access import is_encrypted

UPSTREAM_STATIC = Path(textual_serve.__file__).parent / "static"
OWN_STATIC = Path(__file__).parent / "static"
DEFAULT_FONT_SIZE, MIN_FONT_SIZE, MAX_FONT_SIZE = 16, 6, 48
"""Size of the font in pixels: without the parameter `fontsize` of the URL, and its range."""

_STATIC_FILES = {
    "xterm.css": UPSTREAM_STATIC / "css" / "xterm.css",
    "textual.js": UPSTREAM_STATIC / "js" / "textual.js",
    "mono.ttf": UPSTREAM_STATIC / "fonts" / "RobotoMono-VariableFont_wght.ttf",
    "mono-italic.ttf": UPSTREAM_STATIC / "fonts" / "RobotoMono-Italic-VariableFont_wght.ttf",
    "page.css": OWN_STATIC / "page.css",
    "page.js": OWN_STATIC / "page.js",
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


def page_response(request: web.Request, title: str, background: str) -> web.Response:
    """Return the page with a terminal.

    Args:
        request: Request whose host names the server, after it was checked.
        title: Title of the page.
        background: CSS colour until the app is drawn.
    """
    scheme = "wss" if is_encrypted(request) else "ws"
    websocket_origin = f"{scheme}://{request.headers['Host']}"
    text = _PAGE.format(
        title=escape(title),
        icon=escape(_ICON),
        background=background,
        websocket=escape(f"{websocket_origin}/ws"),
        font_size=_font_size(request.query.get("fontsize", "")),
    )
    response = web.Response(text=text, content_type="text/html")
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        f"img-src 'self' data:; connect-src 'self' {websocket_origin}; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    return response


def static_response(name: str) -> web.Response:
    """Return one of the files of the page; other names are not found."""
    path = _STATIC_FILES.get(name)
    if path is None:
        raise web.HTTPNotFound(text=f"404 not found: {name!r} is no file of this page\n")
    return web.Response(body=_read(path), content_type=_TYPES[path.suffix])


@lru_cache(maxsize=len(_STATIC_FILES))
def _read(path: Path) -> bytes:
    return path.read_bytes()


def _font_size(text: str) -> int:
    size = int(text) if text.isdecimal() and len(text) < 4 else DEFAULT_FONT_SIZE
    return min(max(size, MIN_FONT_SIZE), MAX_FONT_SIZE)
