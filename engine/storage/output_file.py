"""Files that commands write for users, named by the option `--output`."""

from pathlib import Path

from engine.errors import InvalidInputError, LotrError
from engine.storage.files import atomic_replace


def check_output(output: Path) -> None:
    """Raise an InvalidInputError if `output` is a folder or a special file, or its folder does not exist."""
    if output.exists() and not output.is_file():
        raise InvalidInputError(f"--output {output} is not a file; name a file that ends in .txt")
    if not output.parent.is_dir():
        raise InvalidInputError(f"--output {output} is in a folder that does not exist; create {output.parent}")


def write_output(output: Path, content: bytes) -> None:
    """Write a file, which appears when it is complete, or raise a LotrError."""
    try:
        with atomic_replace(output) as file:
            file.write(content)
    except OSError as error:
        raise LotrError(
            f"{output} cannot be written: {error.strerror}; free some space or name another --output"
        ) from error
