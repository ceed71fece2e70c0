"""CPU time and memory of other processes."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from lotr_tui.bench.processes import cpu_seconds, peak_megabytes, run_module, run_with_usage
from lotr_tui.bench.terminal import BenchError, Terminal


def test_cpu_seconds_include_user_and_system_time() -> None:
    times = os.times()
    assert cpu_seconds(os.getpid()) >= times.user + times.system - 0.02  # the resolution is a hundredth of a second
    with pytest.raises(psutil.NoSuchProcess):
        cpu_seconds(2**30)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")
def test_peak_memory_is_in_megabytes() -> None:
    program = "import sys; kept = b'x' * 300_000_000; print('ready', flush=True); sys.stdin.read()"
    with Terminal([sys.executable, "-c", program], 80, 24, Path()).spawn() as terminal:
        terminal.read_until("ready")
        megabytes = peak_megabytes(terminal.pid)
    assert megabytes is not None
    assert 300 / 1.05 < megabytes < 360
    assert peak_megabytes(2**30) is None


@pytest.mark.parametrize(("sleep_seconds", "stop_at"), [(0, ""), (100, "ready")])
def test_command_usage_is_its_own_and_a_line_can_stop_it(tmp_path: Path, sleep_seconds: int, stop_at: str) -> None:
    program = f"import time; held = bytearray(200_000_000); print('ready', flush=True); time.sleep({sleep_seconds})"
    usage = run_with_usage([sys.executable, "-c", program], tmp_path, stop_at)
    assert usage.output == "ready\n"
    assert usage.peak_megabytes > 200
    assert usage.cpu_seconds > 0


def test_failed_command_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="failed with exit code 3"):
        run_with_usage([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_failed_module_is_an_error_with_its_message() -> None:
    with pytest.raises(BenchError, match="failed with exit code 1: Extra data"):
        run_module("json.tool", __file__)
