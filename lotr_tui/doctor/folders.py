"""Check of the folder with runs, settings and history: permissions, space, file system and locks."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from engine.errors import LotrError
from engine.storage.files import app_home
from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.finding import Finding

NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "afp",
    "fuse.sshfs",
    "9p",
    "lustre",
    "ceph",
    "beegfs",
    "afs",
    "gpfs",
    "webdav",
)
MIN_FREE_BYTES = 50_000_000
"""Free space with which a small run can be saved."""
COMFORTABLE_BYTES = 1_000_000_000
"""Free space with which a training of any preset can be saved."""


def check_home(environment: Environment) -> list[Finding]:
    """Report whether runs, settings and history can be kept."""
    try:
        home = app_home()
    except LotrError as error:
        return [Finding("folder", "problem", str(error), "set LOTR_TUI_HOME to a folder, or unset it")]
    shown = environment.shorten(home)
    try:
        existing = next(path for path in (home, *home.absolute().parents) if path.exists())
        problem = _find_problem(home, existing)
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return [Finding("folder", "problem", f"{shown}: {error.strerror}", "set LOTR_TUI_HOME to another folder")]
    if problem:
        return [Finding("folder", "problem", f"{shown}: {problem}", "set LOTR_TUI_HOME to a folder that you can write")]
    file_system = find_file_system(existing)
    state = "can be written" if existing == home else "does not exist yet and can be created"
    summary = f"{shown}: {state}, {free / 1e9:,.1f} GB free" + (f", {file_system}" if file_system else "")
    if free < MIN_FREE_BYTES:
        return [Finding("folder", "problem", summary, "free some space; runs and settings cannot be saved")]
    if existing == home and not _locks_work(home):
        return [Finding("folder", "problem", f"{summary}, no file locks", "use a local folder: set LOTR_TUI_HOME")]
    if file_system.startswith(NETWORK_FILE_SYSTEMS):
        advice = "a network file system is slow, and locks may fail between machines; see LOTR_TUI_HOME"
        return [Finding("folder", "warning", summary, advice)]
    if free < COMFORTABLE_BYTES:
        return [Finding("folder", "warning", summary, "a training of a large preset needs more space")]
    return [Finding("folder", "ok", f"{summary}, locks work" if existing == home else summary)]


def find_file_system(path: Path) -> str:
    """Return the type of the file system of a path, such as "ext4"; "" if it is unknown."""
    import psutil

    try:
        place = path.resolve()
        mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    except (OSError, RuntimeError, psutil.Error):
        return ""
    return next((mounts[folder] for folder in (place, *place.parents) if folder in mounts), "")


def _find_problem(home: Path, existing: Path) -> str:
    """Return why files cannot be written to `home`, or ""; `existing` is `home` or the nearest folder above it."""
    if not existing.is_dir():
        return f"{'this' if existing == home else existing.name} is a file, not a folder"
    if existing == home:
        try:
            with tempfile.TemporaryFile(dir=home):
                return ""
        except OSError as error:
            return f"no file can be created ({error.strerror})"
    return "" if os.access(existing, os.W_OK | os.X_OK) else "the folder cannot be created (permission denied)"


def _locks_work(home: Path) -> bool:
    """Return True if a lock on a file is seen through another descriptor of it."""
    try:
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as first, Path(first.name).open("rb") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:
        return False
    return False
