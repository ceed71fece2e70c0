"""Small books in the form of Project Gutenberg, and a web server for them that misbehaves as tests ask."""

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from engine.data.tales import Book

PROSE = (
    "The old ferryman sat by the river and mended his net, for the evening was warm and\n"
    "nobody wished to cross before the moon was up over the hills.\n"
)
START = "*** START OF THE PROJECT GUTENBERG EBOOK THE FERRY ***"
END = "*** END OF THE PROJECT GUTENBERG EBOOK THE FERRY ***"


def make_book_text(body, start=START, end=END):
    return (
        "The Project Gutenberg eBook of The Ferry, by Nobody\n\nThis eBook is for the use of anyone anywhere.\n\n"
        f"Title: The Ferry\n\n{start}\n\n{body}\n\n{end}\n\nSection 1. General Terms of Use of Project Gutenberg-tm\n"
    )


def make_books():
    """Return books of 2 to 3 kB with their files; the first is number 1."""
    books = {}
    for number in range(1, 4):
        paragraphs = [f"{PROSE}Then came traveller number {number} of day {day}.\n" for day in range(10 + number)]
        content = make_book_text("CHAPTER I\n\n\n" + "\n".join(paragraphs)).encode()
        digest = hashlib.sha256(content).hexdigest()
        books[Book(number, digest, f"The Ferry, part {number}")] = content
    return books


@dataclass
class BookServer:
    """Behaviour of the server, and the paths that were requested.

    The next responses end after the numbers of bytes in `break_after`, or have the `statuses`; then the server serves
    whole files again.
    """

    files: dict[str, bytes]
    break_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    continues: bool = False  # true if it sends the rest of a file to clients that have its start
    requests: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve_books(files):
    state = BookServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests.append(self.path)
            content = state.files.get(self.path)
            # Both before the answer, after whose head the client may send the next request.
            status = state.statuses.pop(0) if state.statuses else 404 if content is None else 200
            num_bytes = state.break_after.pop(0) if state.break_after else None
            content = content or b""
            if status == 200 and state.continues and (wanted := self.headers.get("Range")):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                status, content = (206, content[start:]) if start < len(content) else (416, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:num_bytes])

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
