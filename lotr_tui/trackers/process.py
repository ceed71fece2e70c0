"""Process that sends a run to a tracker while another process trains it: `python -m lotr_tui.trackers.process`.

A package that hangs, fails or leaks does so here, and not in the process that trains.
"""

import contextlib
import faulthandler
import json
import os
import select
import sys
import traceback
from pathlib import Path
from typing import cast

from engine.errors import describe_error
from engine.runs.directory import is_locked
from lotr_tui.trackers.registry import TrackerName
from lotr_tui.trackers.sender import send_run

NICENESS = 19
"""Lowest priority: sending waits for a processor that training does not use."""


def main() -> None:
    """Send the run, and write one JSON line about the result to a pipe.

    The arguments are the run directory, the name of the tracker, the file descriptor of the pipe, and the seconds after
    which a call of the tracker that has not returned ends this process.
    """
    run_dir, name, pipe, timeout = Path(sys.argv[1]), cast(TrackerName, sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    os.nice(NICENESS)

    os.set_inheritable(pipe, False)  # processes that a package starts must not keep it open

    def restart_watchdog(factor: float) -> None:
        # A thread in C, which also works while a package holds Python's lock.
        faulthandler.dump_traceback_later(factor * float(timeout), exit=True)

    def is_over() -> bool:
        # The process that trains closes the standard input at its end, and never writes to it.
        return bool(select.select([sys.stdin], [], [], 0)[0]) or not is_locked(run_dir)

    restart_watchdog(1.0)
    problem = ""
    try:
        send_run(run_dir, name, is_over, restart_watchdog)
    except BaseException as error:
        traceback.print_exc()
        problem = describe_error(error)
    with contextlib.suppress(OSError):  # the training process has ended
        os.write(pipe, json.dumps({"problem": problem}).encode() + b"\n")
        os.close(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the packages must not keep the process.
    os._exit(int(bool(problem)))


if __name__ == "__main__":
    main()
