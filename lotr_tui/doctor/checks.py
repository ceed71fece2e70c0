"""The checks of `lotr-tui doctor`: each looks at one part of this machine and changes nothing."""

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from engine.errors import describe_error, install_command, printable
from engine.storage.files import app_home
from lotr_tui.engine_package import describe_engine_problem
from lotr_tui.textual_fixes import TMUX_ADVICE, is_plain_tmux

RUN_TIMEOUT = 60.0  # seconds, for Python while it imports torch from a network file system
MIN_FREE_BYTES, COMFORTABLE_BYTES = 50_000_000, 1_000_000_000  # for a small run, and for a training of any preset
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "afp", "fuse.sshfs", "9p", "lustre", "ceph", "beegfs", "afs", "gpfs")
# In another process, which a broken library may end.
TORCH_PROBE = """
import json, time
started = time.perf_counter()
import torch
torch.ones(2, 2).matmul(torch.ones(2, 2))
print(json.dumps({
    "version": torch.__version__,
    "seconds": time.perf_counter() - started,
    "built_for_cuda": torch.version.cuda,
    "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    "mps": torch.backends.mps.is_available(),
    "threads": torch.get_num_threads(),
}))
"""


@dataclass(frozen=True)
class Finding:
    """Finding of a check, in texts of one line."""

    name: str
    state: str  # ok, warning or problem
    summary: str
    advice: str


def make_finding(name: str, summary: str, advice: str = "", *, is_problem: bool = False) -> Finding:
    """Return a problem; or a warning, which works in part, if there is something to do; or else what works."""
    return Finding(name, "problem" if is_problem else "warning" if advice else "ok", summary, advice)


def run_program(*command: str) -> tuple[int, str]:
    """Return the exit code and the output of a program, or where it fails, the end of its errors."""
    try:
        done = subprocess.run(command, input="", capture_output=True, text=True, errors="replace", timeout=RUN_TIMEOUT)
    except (subprocess.TimeoutExpired, OSError) as error:
        return -1, describe_error(error)
    return done.returncode, done.stdout.strip() if done.returncode == 0 else printable(done.stderr.strip())[-120:]


def find_version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def list_versions() -> dict[str, str]:
    """Return the versions of lotr-tui, Python and the packages that matter for a bug report, and the platform."""
    versions = {name: find_version(name) or "not installed" for name in ("lotr-tui", "textual", "numpy", "torch")}
    machine = " ".join(filter(None, (platform.system(), platform.release(), platform.machine())))
    return {"lotr-tui": versions.pop("lotr-tui"), "Python": platform.python_version(), **versions, "platform": machine}


def check_versions() -> Finding:
    versions = {name: version for name, version in list_versions().items() if name != "torch"}
    summary = ", ".join(f"{name} {version}" for name, version in versions.items())
    if problem := describe_engine_problem():
        problem, _, advice = problem.partition("; ")
        return make_finding("versions", f"{summary}; {problem}", advice, is_problem=True)
    is_installed = find_version("lotr-tui") is not None
    advice = "" if is_installed else "run from source files; `pip install -e .` records version and extras"
    return make_finding("versions", summary, advice)


def check_terminal() -> Finding:
    terminal, ci, advice = os.environ.get("TERM", ""), os.environ.get("CI", ""), ""
    parts = [terminal or "TERM is not set", os.environ.get("TERM_PROGRAM", "")]
    with suppress(OSError, ValueError):  # the screens are drawn on standard error
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
        parts.append(f"{columns}x{rows}")
        if columns < 40 or rows < 12:
            advice = "use a window of at least 40 x 12; 80 x 24 is comfortable"
    between = {"TMUX": "in tmux", "STY": "in GNU screen", "ZELLIJ": "in zellij", "SSH_CONNECTION": "over SSH"}
    parts += [text for variable, text in between.items() if os.environ.get(variable)]
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    if closed := [name for name, stream in streams.items() if not stream.isatty()]:
        parts.append(f"not a terminal: {', '.join(closed)}")
    if terminal in ("", "dumb"):
        advice = "the screens need a terminal; set TERM, such as xterm-256color"
    elif ci not in ("", "0", "false"):
        parts.append(f"CI={ci}")
        advice = "`train` prints lines where CI is set"
    return make_finding("terminal", ", ".join(filter(None, parts)), advice)


def check_colors() -> Finding:
    console = Console(force_terminal=True)
    variables = ("COLORTERM", "NO_COLOR", "FORCE_COLOR")
    origin = "".join(f", {name}={os.environ[name]}" for name in variables if name in os.environ)
    if console.no_color:
        return make_finding("colours", f"none{origin}")
    if console.color_system == "truecolor":
        return make_finding("colours", f"true colour{origin}")
    if is_plain_tmux():
        advice = f"lotr-tui shows 256 colours in tmux; for other programs, {TMUX_ADVICE}"
        return make_finding("colours", "16 colours by TERM=screen", advice)
    if os.environ.get("TERM") == "screen":
        return make_finding("colours", f"16 colours{origin}", f"behind tmux, {TMUX_ADVICE}")
    number = {"256": "256", None: "no"}.get(console.color_system, "16")
    return make_finding("colours", f"{number} colours{origin}", "set COLORTERM=truecolor if the terminal shows more")


def check_encoding() -> Finding:
    name = next((name for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    summary = f"{sys.stdout.encoding.upper()} ({name}={os.environ[name]})" if name else sys.stdout.encoding.upper()
    if sys.stdout.encoding.lower().replace("-", "") != "utf8":
        advice = "marks and letters beyond ASCII are lost; export LC_ALL=C.UTF-8"
        return make_finding("text", summary, advice, is_problem=True)
    is_plain = bool(name) and "utf" not in os.environ[name].lower()
    return make_finding("text", summary, "if characters look wrong, `export LC_ALL=C.UTF-8`" if is_plain else "")


def check_clipboard() -> Finding:
    if os.environ.get("TMUX"):
        code, setting = run_program("tmux", "show-options", "-sv", "set-clipboard")
        advice = "" if setting == "on" else "copied text stays in tmux; run `tmux set -s set-clipboard on`"
        return make_finding("clipboard", f"OSC 52 in tmux: set-clipboard {'unknown' if code else setting}", advice)
    is_deaf = os.environ.get("VTE_VERSION") or os.environ.get("TERM_PROGRAM") == "Apple_Terminal"
    if is_deaf or os.environ.get("TERM", "") in ("", "dumb", "linux"):
        advice = "select with the mouse and --no-mouse, or export to a file; ctrl+v pastes within lotr-tui"
        return make_finding("clipboard", "OSC 52, which this terminal ignores", advice)
    return make_finding("clipboard", "OSC 52, if the terminal allows it (none confirms it)")


def check_processor() -> Finding:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    limits = "".join(f", {name}={os.environ[name]}" for name in variables if name in os.environ)
    return make_finding("processor", f"{total} cores, {usable} usable here{limits}")


@cache
def probe_torch() -> dict[str, Any]:
    code, output = run_program(sys.executable, "-c", TORCH_PROBE)
    return {"problem": output or "it ends Python"} if code else json.loads(output.splitlines()[-1])


def check_torch() -> Finding:
    if find_version("torch") is None:
        return make_finding("torch", "not installed: playing works, training does not", "`pip install torch`")
    torch = probe_torch()
    if problem := torch.get("problem"):
        advice = "training does not work; reinstall it: `pip install --force-reinstall torch`"
        return make_finding("torch", f"not usable: {problem}", advice, is_problem=True)
    return make_finding(
        "torch", f"{torch['version']}, imported in {torch['seconds']:.1f} s, {torch['threads']} threads"
    )


def check_gpu() -> Finding:
    gpu, torch = "", {} if find_version("torch") is None else probe_torch()
    if shutil.which("nvidia-smi"):
        code, rows = run_program("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
        if code:
            return make_finding("GPU", f"an NVIDIA driver that does not answer: {rows}", "run nvidia-smi to see why")
        gpu = rows.replace("\n", "; ")
    if torch.get("cuda"):
        return make_finding("GPU", f"{gpu or torch['cuda']}; torch uses CUDA {torch['built_for_cuda']}")
    if torch.get("mps"):
        return make_finding("GPU", "Apple GPU; torch uses MPS (train --device mps)")
    if not gpu or "version" not in torch:
        return make_finding("GPU", gpu or "none found; training uses the processor")
    if built_for := torch["built_for_cuda"]:
        advice = "training uses the processor; update the NVIDIA driver, or install torch for an older CUDA"
        return make_finding("GPU", f"{gpu}; torch for CUDA {built_for} cannot use it", advice)
    advice = "training uses the processor; install torch with CUDA (pytorch.org/get-started)"
    return make_finding("GPU", f"{gpu}; this torch is built without CUDA", advice)


def check_folder() -> Finding:
    home, summary, advice = app_home(), "does not exist yet and can be created", ""
    shown = f"~/{home.relative_to(Path.home())}" if home.is_relative_to(Path.home()) else str(home)
    try:
        existing = next(path for path in (home, *home.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if existing == home:
            with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as file, Path(file.name).open("rb") as again:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(BlockingIOError):
                    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    raise OSError(0, "file locks have no effect")
            summary = "can be written, locks work"
        elif not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            raise PermissionError(0, "cannot be created")
        mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
        place = existing.resolve()
    except OSError as error:
        advice = "set LOTR_TUI_HOME to a local folder that you can write"
        return make_finding("folder", f"{shown}: {error.strerror}", advice, is_problem=True)
    file_system = next((mounts[folder] for folder in (place, *place.parents) if folder in mounts), "unknown")
    if file_system.startswith(NETWORK_FILE_SYSTEMS):
        advice = "a network file system is slow, and locks may fail between machines; see LOTR_TUI_HOME"
    elif free < COMFORTABLE_BYTES:
        advice = "free some space: a training needs more"
    summary = f"{shown}: {summary}, {free / 1e9:,.1f} GB free, {file_system}"
    return make_finding("folder", summary, advice, is_problem=free < MIN_FREE_BYTES)


def check_extras() -> Finding:
    packages: dict[str, list[str]] = {}
    for requirement in (metadata.requires("lotr-tui") or ()) if find_version("lotr-tui") else ():
        if (match := re.match(r"""([\w.-]+).*;.*\bextra == ['"]([\w.-]+)['"]""", requirement)) and match[2] != "dev":
            packages.setdefault(match[2], []).append(match[1])
    present = [extra for extra, names in packages.items() if all(map(find_version, names))]
    missing = [extra for extra in packages if extra not in present]
    summary = f"installed: {', '.join(present) or 'none'}; not installed: {', '.join(missing) or 'none'}"
    return make_finding("extras", f"{summary} (`{install_command(missing[0])}`)" if missing else summary)


CHECKS = (
    *(check_versions, check_terminal, check_colors, check_encoding, check_clipboard),
    *(check_processor, check_torch, check_gpu, check_folder, check_extras),
)


def run_checks(checks: Sequence[Callable[[], Finding]] = CHECKS) -> Iterator[Finding]:
    """Yield the finding of each check; one that fails is a problem itself, and the others still run."""
    for check in checks:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            yield check()
        except Exception as error:
            yield make_finding(name, f"the check failed: {describe_error(error)}", is_problem=True)
