"""Downloads over HTTP, with several attempts; what an interrupted one has left is continued."""

import time
import urllib.request
from collections.abc import Callable
from errno import EDQUOT, EFBIG, ENOSPC
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from urllib.error import HTTPError

from engine.errors import InvalidInputError, LotrError

PAUSES, TIMEOUT = (0.0, 1.0, 2.0, 4.0), 30.0  # seconds; a pause before each attempt
CHUNK_BYTES = 1 << 18


def download(url: str, path: Path, max_bytes: int, on_bytes: Callable[[int, int], object] = max) -> None:
    """Download the rest of a file of which `path` contains the beginning, if it exists.

    `on_bytes` gets the bytes that are there and, if known, of the whole file; it may raise an exception to stop. A file
    that is missing or too long raises an InvalidInputError, a server that fails a LotrError, a full disk an OSError.
    """
    problem = ""
    for pause in PAUSES:
        time.sleep(pause)
        done = path.stat().st_size if path.exists() else 0
        headers = {"User-Agent": f"lotr-tui/{version('lotr-tui')}"} | ({"Range": f"bytes={done}-"} if done else {})
        request = urllib.request.Request(url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
            # A server may ignore the range, and send the whole file.
            with response, path.open("ab" if response.status == 206 else "wb") as file:
                total = file.tell() + (response.length or 0)
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    if max(file.tell(), total) > max_bytes:
                        path.unlink()
                        raise InvalidInputError(f"{url} is longer than {max_bytes:,} bytes")
                    on_bytes(file.tell(), total)
                if not response.length:
                    return
                problem = "the connection broke off"
        except HTTPError as error:
            problem = f"the server answered {error.code} {error.reason}"
            if error.code == 416:  # the file there is not the beginning of the server's
                path.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in {408, 425, 429}:
                raise InvalidInputError(f"{url}: {problem}") from error
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and (error.filename or error.errno in (ENOSPC, EDQUOT, EFBIG)):
                raise  # of the file, not of the network
            problem = str(getattr(error, "reason", error)) or type(error).__name__
    raise LotrError(f"{url} could not be downloaded in {len(PAUSES)} attempts: {problem}; check the network")
