"""How late an app's event loop is: any command, run as it is with a task in its loop that notes how late it wakes.

    python -m lotr_tui.bench.training.event_loop_latency FILE SECONDS COMMAND …

sleeps for so many seconds again and again, and writes the file once the app was left.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from lotr_tui.bench.terminal import BenchError

Beat = tuple[float, float]
"""When the task woke, by `time.monotonic`, which is one clock for all processes; and by how many seconds too late."""


def noting(file: Path, every: float, *command: str) -> list[str]:
    """`lotr-tui` with such arguments, its event loop's lateness noted in `file` at every so many seconds."""
    return [sys.executable, "-m", "lotr_tui.bench.training.event_loop_latency", str(file), str(every), *command]


def read_lateness(file: Path, since: float, until: float) -> list[float]:
    """The seconds that were noted between two moments of `time.monotonic`.

    Raises:
        BenchError: there are none.
    """
    beats: list[Beat] = json.loads(file.read_text()) if file.exists() else []
    if found := [late for woke, late in beats if since <= woke <= until]:
        return found
    raise BenchError("the event loop's lateness was not noted; run the command to see why")


async def beat(every: float, beats: list[Beat]) -> None:
    """Note beats until cancelled."""
    while True:
        due = time.monotonic() + every
        await asyncio.sleep(every)
        beats.append((woke := time.monotonic(), woke - due))


def _note(file: Path, every: float, command: list[str]) -> None:
    """Run the command; the app that it opens, whichever it is, has the task in its loop."""
    from lotr_tui.app import LotrApp
    from lotr_tui.cli.main import run_command

    beats: list[Beat] = []
    tasks: list[asyncio.Task[None]] = []

    def on_ready(_: LotrApp) -> None:
        tasks.append(asyncio.create_task(beat(every, beats)))

    LotrApp.on_ready = on_ready  # type: ignore[attr-defined]
    sys.argv = ["lotr-tui", *command]
    try:
        run_command()  # not `main`, which may end the process at once
    finally:
        file.write_text(json.dumps(beats))


if __name__ == "__main__":
    _note(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
