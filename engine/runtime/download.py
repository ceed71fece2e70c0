"""Downloads over HTTP, with several attempts; what an interrupted one has left is continued."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path

from engine.errors import InvalidInputError, LotrError

ATTEMPTS, FIRST_PAUSE, TIMEOUT = 4, 1.0, 30.0  # seconds; each further attempt waits twice as long
CHUNK_BYTES = 1 << 18


def download(
    url: str, path: Path, max_bytes: int, on_bytes: Callable[[int, int], object] = lambda done, total: None
) -> None:
    """Download the rest of a file of which `path` contains the beginning, if it exists.

    `on_bytes` gets the bytes that are there and those of the whole file (0 if the server does not say it), and may
    raise an exception to stop. A file that is missing or too long raises an InvalidInputError, a server that fails a
    LotrError, and a file that cannot be written an OSError.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        if not (problem := _continue(url, path, max_bytes, on_bytes)):
            return
    raise LotrError(f"{url} could not be downloaded in {ATTEMPTS} attempts: {problem}; check the network")


def _continue(url: str, path: Path, max_bytes: int, on_bytes: Callable[[int, int], object]) -> str:
    # Returns why it failed, if another attempt may not fail.
    done = path.stat().st_size if path.exists() else 0
    headers = {"User-Agent": f"lotr-tui/{version('lotr-tui')}"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {error.reason}"
        if error.code == 416:  # the file there is not the beginning of the server's
            path.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in {408, 425, 429}:
            raise InvalidInputError(f"{url}: {answer}") from error
        return answer
    except (OSError, HTTPException) as error:
        return _describe(error)
    if response.status != 206:  # the server sends the whole file, whatever was asked for
        done = 0
    with response, path.open("ab" if done else "wb") as file:
        total = done + (response.length or 0)
        while True:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, HTTPException) as error:
                return _describe(error)
            if not chunk:
                return "the connection broke off" if response.length else ""
            file.write(chunk)
            done += len(chunk)
            if max(done, total) > max_bytes:
                path.unlink()
                raise InvalidInputError(f"{url} is longer than {max_bytes:,} bytes")
            on_bytes(done, total)


def _describe(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__
