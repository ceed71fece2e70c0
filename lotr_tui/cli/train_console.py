"""`train --no-tui`: a training that prints lines or JSON events instead of drawing a dashboard."""

import errno
import math
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from engine import events
from engine.control import ControlCommand
from engine.errors import OutputError, TrainingError, printable
from engine.runs.directory import run_word
from engine.runtime.process import get_process_info, limit_openmp_spinning
from engine.runtime.worker import Cancellation
from lotr_tui.cli.console import discard_output, to_json
from lotr_tui.formatting import PRETRAINED_NOTE, displayable, format_duration
from lotr_tui.monitor.background import (
    detach_from_terminal,
    install_signal_handlers,
    resume_in_background,
    rotate_console_log,
)
from lotr_tui.monitor.loss_unit import PERPLEXITY, LossUnit
from lotr_tui.trackers.supervisor import TrackerSupervisor

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
PROGRESS_INTERVAL = 5.0
"""Minimum seconds between two progress lines."""
MAX_TRACKER_WAIT = 60.0
"""Seconds to wait at the end of a training until its trackers have received everything."""
TRACKER_REPORT_DELAY = 2.0
"""Seconds of waiting after which a line says so."""
TRACKER_POLL_INTERVAL = 0.1


def train_on_console(job: "TrainingJob", *, as_json: bool) -> int:
    """Train and print one line per event on stdout. Return the exit code.

    SIGINT and SIGTERM save and stop at the next step with exit code 130 and 143; SIGUSR1 saves. If the terminal closes,
    the training continues without it. If the reader of stdout is gone, the training saves and stops. If stdout cannot
    be written for another reason, such as a full disk, the training continues without it, and the exit code is 1.

    Raises:
        BrokenPipeError: If the reader of stdout is gone.
    """
    cancellation, waiting = Cancellation(), Cancellation()
    has_ended = False
    exit_code = 0

    def stop(signal_number: signal.Signals) -> None:
        nonlocal exit_code
        exit_code = exit_code or 128 + signal_number
        (waiting if has_ended else cancellation).set()

    def continue_without_terminal() -> None:
        detach_from_terminal()
        if get_process_info().world_size > 1:  # torchrun received the signal too, and ends its processes soon
            job.command_queue.send(ControlCommand("detach"))

    install_signal_handlers(
        {
            signal.SIGINT: partial(stop, signal.SIGINT),
            signal.SIGTERM: partial(stop, signal.SIGTERM),
            signal.SIGHUP: continue_without_terminal,
            signal.SIGUSR1: lambda: job.command_queue.send(ControlCommand("checkpoint")),
        }
    )
    lines = ProgressFormatter(job)
    broken_pipe: BrokenPipeError | None = None
    has_failed_output = False
    is_detached = False
    trackers = TrackerSupervisor(job.run.path)
    for event in job.events(cancellation, trackers.take_problems):
        is_detached = isinstance(event, events.Finished) and event.reason == "detached"
        line = to_json(_event_record(event, job)) if as_json else lines.format(event)
        if line is None or broken_pipe:
            continue
        try:
            print(line, flush=True)
            rotate_console_log(job.run.path)
        except BrokenPipeError as error:
            broken_pipe = error
            cancellation.set()
        except OutputError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
                detach_from_terminal()  # the terminal is gone, and its signal has not arrived yet
            else:
                has_failed_output = True
                discard_output()
                hint = f"lotr-tui attach {run_word(job.run.path)}"
                print(f"lotr-tui: {error}; the training continues, see `{hint}`", file=sys.stderr)
    has_ended = True
    if broken_pipe:
        raise broken_pipe
    if not is_detached:
        _wait_for_trackers(trackers, waiting)
    if is_detached:
        print(resume_in_background(job.run.path), file=sys.stderr)
        return 0
    return exit_code or int(has_failed_output)


def _wait_for_trackers(trackers: TrackerSupervisor, cancellation: Cancellation) -> None:
    """Wait until the trackers have received the end of the training, and print on stderr how to see it there.

    A tracker that takes long, or a signal after the end of the training, ends the waiting; the process of the tracker
    continues alone.
    """
    started_at = time.monotonic()
    is_reported = False
    while not trackers.wait(TRACKER_POLL_INTERVAL) and not cancellation():
        waited = time.monotonic() - started_at
        if waited > MAX_TRACKER_WAIT:
            break
        if waited > TRACKER_REPORT_DELAY and not is_reported:
            is_reported = True
            print(f"waiting for {', '.join(trackers.running)} to receive the end of the training", file=sys.stderr)
    for line in trackers.closing_lines():
        print(line, file=sys.stderr)


def train_worker_rank() -> int:
    """Train as a process other than the main one, which prints, saves and decides when to stop."""
    limit_openmp_spinning()
    from engine.runtime.distributed import PeerLostError, distributed_context
    from engine.training.trainer import train_as_worker_rank

    try:
        with distributed_context() as context:
            install_signal_handlers(dict.fromkeys(STOP_SIGNALS, lambda: None))  # the main process handles signals
            train_as_worker_rank(context)
    except PeerLostError:  # the process that ended first has printed the reason
        return 1
    return 0


def _event_record(event: events.TrainingEvent, job: "TrainingJob") -> dict[str, Any]:
    record = events.event_to_dict(event)
    if isinstance(event, (events.Started, events.Finished)):
        record["run"] = str(job.run.path)
    return record


class ProgressFormatter:
    """Converter from training events to lines: every evaluation and sample, and a step every few seconds."""

    def __init__(self, job: "TrainingJob") -> None:
        """Format the events of `job`."""
        self._job = job
        self._last_line_time = time.perf_counter()
        self._last_step: events.Step | None = None
        self._started: events.Started | None = None
        self._unit = PERPLEXITY
        self._tokens = "tokens" if job.dataset.tokenizer.is_open else "words"

    def format(self, event: events.TrainingEvent) -> str | None:
        """Return the line to print for `event`, or None.

        Raises:
            TrainingError: If the event reports a failed training.
        """
        options = self._job.config.training
        epochs = options.epochs + options.fine_tune_epochs
        match event:
            case events.Preparing():
                return f"{event.message} ..."
            case events.Started():
                self._started, self._unit = event, (unit := LossUnit.of(event))
                origin = f", from run {options.init}" if options.init else ""
                return (
                    f"{printable(f'run {event.run} in {self._job.run.path}{origin}')}\n"
                    f"{event.parameters:,} parameters, {event.vocabulary_size:,} {self._tokens}, "
                    f"{event.train_tokens:,} training tokens, on {event.device}\n"
                    f"baselines (validation {unit.title}): unigram {unit.format(event.unigram_perplexity)}, "
                    f"Kneser-Ney {unit.format(event.kneser_ney_perplexity)}"
                )
            case events.Step():
                self._last_step = event
                if time.perf_counter() - self._last_line_time < PROGRESS_INTERVAL:
                    return None
                return self._format_progress(event, f"epoch {event.epoch:5.1f}/{epochs}")
            case events.Evaluated():
                mark = "  best" if event.is_best else ""
                valid = f"valid {self._unit.format(event.valid_perplexity):>7}{_format_notebook_perplexity(event)}"
                return self._format_progress(self._last_step, f"epoch {event.epoch:5.1f}/{epochs}  {valid}{mark:6}")
            case events.Sampled():
                return f'    "{printable(event.prompt)}" {displayable(event.text)}'
            case events.Finished():
                unit = self._unit
                test = "" if math.isnan(event.test_perplexity) else f", test {unit.format(event.test_perplexity)}"
                bits = math.nan if self._started is None else self._started.bits_per_character(event.valid_perplexity)
                valid = f"{unit.format(event.valid_perplexity)}{_format_notebook_perplexity(event)}"
                if unit.is_perplexity and not math.isnan(bits):
                    valid += f" ({bits:.3f} bits/character)"
                result = f"valid {unit.name} {valid}{test}{'' if unit.is_perplexity else f', {PRETRAINED_NOTE}'}"
                return f"{event.reason} after {format_duration(event.seconds)}: {result}{self._format_hint(event)}"
            case events.CommandApplied():
                return f"{event.kind.replace('_', ' ')} {event.value}".rstrip() + f" at step {event.step:,}"
            case events.Resume():
                return f"resuming at step {event.step:,}" if event.step else "restarting from the beginning"
            case events.Warned():
                return f"warning: {printable(event.message)}"
            case events.Diagnosed():
                return f"diagnosis: {printable(event.message)}\n    remedy: {printable(event.remedy)}"
            case events.Failed():
                raise TrainingError(event.message)
        return None

    def _format_hint(self, event: events.Finished) -> str:
        """Return a line with the next command to use; empty for a detached training, which prints its own hint."""
        run = run_word(self._job.run.path)
        if event.reason == "stopped":
            return f"\nresume it: lotr-tui train --resume {run}"
        return "" if event.reason == "detached" else f"\nopen a session with it: lotr-tui --run {run}"

    def _format_progress(self, step: events.Step | None, prefix: str) -> str:
        self._last_line_time = time.perf_counter()
        if step is None:
            return prefix
        return (
            f"{prefix}  train {self._unit.format(step.train_perplexity):>7}  lr {step.lr:.5f}  "
            f"{step.tokens_per_second:7,.0f} tokens/s  {format_duration(step.eta_seconds)} left"
        )


def _format_notebook_perplexity(event: events.Evaluated | events.Finished) -> str:
    """Return what the notebook's formula prints for the same model, if the training follows that formula."""
    perplexity = event.notebook_perplexity
    return "" if math.isnan(perplexity) else f" (the notebook prints {perplexity:.3f})"
