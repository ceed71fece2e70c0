"""Reading of text files that the user names."""

from pathlib import Path

from engine.errors import CorpusError

MAX_TEXT_FILE_BYTES = 4_000_000
"""Maximum size of a text file, about 800,000 words; a model reads them in a minute or two."""


def check_is_file(path: Path, kind: str) -> None:
    """Raise a CorpusError unless `path` is a regular file. `kind` says which kind of file the user can name."""
    if not path.exists():
        raise CorpusError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; name a {kind} in it")
    if not path.is_file():
        raise CorpusError(f"{path} is not a regular file; name a {kind}")


def read_text_file(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without byte order mark, or raise a CorpusError."""
    try:
        path = path.expanduser()
        check_is_file(path, "text file")
        if (size := path.stat().st_size) > MAX_TEXT_FILE_BYTES:
            raise CorpusError(
                f"{path} has {size / 1e6:,.1f} MB; the limit is {MAX_TEXT_FILE_BYTES / 1e6:g} MB, so use a part of it"
            )
        content = path.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: NUL in the path; RuntimeError: unknown ~user
        reason = getattr(error, "strerror", None) or str(error)
        raise CorpusError(f"{path} cannot be read: {reason}") from error
    if b"\0" in content:
        raise CorpusError(f"{path} contains NUL bytes, so it is not text; name a text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
