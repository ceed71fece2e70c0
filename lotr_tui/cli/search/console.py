"""A search in the foreground: its output, and the signals that end it."""

import signal
import sys
from collections.abc import Sequence
from functools import partial

from engine.errors import TrainingError, printable
from engine.runtime.worker import Cancellation
from engine.training.search.records import SearchFolder
from engine.training.search.runner import Budget, SearchEnded, SearchWarned, TrialEnded, run_search
from lotr_tui.cli.search.report import SearchReport
from lotr_tui.monitor.background import detach_from_terminal, install_signal_handlers


def search_on_console(
    folder: SearchFolder, budget: Budget, num_jobs: int, remarks: Sequence[str], *, as_json: bool
) -> int:
    """Search, and print a line or a JSON object for each trial and a summary. Return the exit code.

    SIGINT and SIGTERM save and stop all trials with exit code 130 and 143; a second SIGINT ends the search at once. If
    the terminal closes, the search continues without it. If the reader of stdout is gone, the search saves and stops.
    The exit code is 1 if too many trials failed in a row.

    Raises:
        TrainingError: If no trial is complete.
        BrokenPipeError: If the reader of stdout is gone.
    """
    cancellation = Cancellation()
    exit_code = 0

    def stop(signal_number: signal.Signals) -> None:
        nonlocal exit_code
        if exit_code and signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        exit_code = 128 + signal_number
        cancellation.set()
        print("saving the trials; ctrl+c again quits at once", file=sys.stderr)

    install_signal_handlers(
        {
            signal.SIGINT: partial(stop, signal.SIGINT),
            signal.SIGTERM: partial(stop, signal.SIGTERM),
            signal.SIGHUP: detach_from_terminal,
        }
    )
    report = SearchReport(folder, budget, as_json=as_json)
    report.print_start(num_jobs, remarks)
    broken_pipe: BrokenPipeError | None = None
    no_result = ""
    for event in run_search(folder, budget, num_jobs, cancellation):
        try:
            match event:
                case SearchWarned():
                    print(f"warning: {printable(event.message)}", file=sys.stderr)
                case TrialEnded() if broken_pipe is None:
                    report.print_trial(event)
                case SearchEnded() if broken_pipe is None:
                    no_result = report.print_end(event)
                    exit_code = exit_code or int(event.reason == "failures")
        except BrokenPipeError as error:
            broken_pipe = error
            cancellation.set()
    if broken_pipe:
        raise broken_pipe
    if no_result:
        if exit_code <= 1:
            raise TrainingError(no_result)
        print(f"lotr-tui: {no_result}", file=sys.stderr)
    return exit_code
