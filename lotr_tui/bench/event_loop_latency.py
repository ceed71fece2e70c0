"""Delays of the event loop of lotr-tui's app.

`python -m lotr_tui.bench.event_loop_latency FILE INTERVAL COMMAND…` runs `lotr-tui COMMAND…` with a task in its event
loop that sleeps INTERVAL seconds again and again, and writes the delays to FILE when the app exits.
"""

import asyncio
import json
import runpy
import sys
import time
from pathlib import Path

from lotr_tui.app import LotrApp
from lotr_tui.bench.processes import module_command
from lotr_tui.bench.terminal import BenchError

Heartbeat = tuple[float, float]
"""Time of `time.monotonic`, the same clock for all processes, at which the task woke, and its delay in seconds."""


def delay_recording_command(path: Path, interval: float, *command: str) -> list[str]:
    """Return the command that runs `lotr-tui` with arguments; if it opens an app, its delays are written to `path`."""
    return module_command("lotr_tui.bench.event_loop_latency", path, interval, *command)


def read_delays(path: Path, since: float, until: float) -> list[float]:
    """Return the delays in seconds recorded between two times of `time.monotonic`."""
    heartbeats: list[Heartbeat] = json.loads(path.read_text()) if path.exists() else []
    if delays := [delay for woke_at, delay in heartbeats if since <= woke_at <= until]:
        return delays
    raise BenchError("no delays of the event loop were recorded; run the command by hand to see why")


async def record_heartbeats(interval: float, heartbeats: list[Heartbeat]) -> None:
    """Append a heartbeat every `interval` seconds until the task is cancelled."""
    while True:
        due_at = time.monotonic() + interval
        await asyncio.sleep(interval)
        woke_at = time.monotonic()
        heartbeats.append((woke_at, woke_at - due_at))


def _record_in_app(interval: float, path: Path) -> None:
    """Make every app that this process opens record its heartbeats."""
    tasks: list[asyncio.Task[None]] = []

    async def record() -> None:
        heartbeats: list[Heartbeat] = []
        try:
            await record_heartbeats(interval, heartbeats)
        finally:  # the event loop cancels its tasks when the app exits
            path.write_text(json.dumps(heartbeats))

    LotrApp.on_ready = lambda _: tasks.append(asyncio.create_task(record()))  # type: ignore[attr-defined]


if __name__ == "__main__":
    _record_in_app(float(sys.argv[2]), Path(sys.argv[1]))
    sys.argv = ["lotr-tui", *sys.argv[3:]]
    runpy.run_module("lotr_tui", run_name="__main__")
