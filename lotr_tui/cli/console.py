"""Training and generation without a screen: plain lines, or JSON."""

import json
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.control import Command
from engine.data.vocabulary import EOS_ID
from engine.errors import TrainingError, printable
from engine.events import (
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resume,
    Sampled,
    Started,
    Steered,
    Step,
    TrainingEvent,
    Warned,
    to_record,
)
from engine.generation.batch import Beginning, separately, write
from engine.generation.generate import Done, Prompt, TokenEvent, read, stream
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.process import place
from engine.runtime.worker import Cancellation
from lotr_tui import STARTED
from lotr_tui.formatting import duration, ending, perplexity
from lotr_tui.monitor.background import hand_over, leave_terminal, on_signals, shorten_console
from lotr_tui.session.player import Player

if TYPE_CHECKING:  # what trains, which `generate` does without
    from engine.training.job import TrainingJob

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
LINE_SECONDS = 5.0
"""Between two plain lines of training steps."""
AT_ONCE = 16
"""Texts that are written together; more of them are hardly faster."""


def train_on_console(job: "TrainingJob", *, as_json: bool) -> int:
    """Train with one line at a time on stdout; returns the exit code.

    SIGINT and SIGTERM save and stop at the next update, the exit code is 130; SIGUSR1 saves. When the terminal is
    closed, the training goes on without it; detached, in a process of its own. When whoever reads the lines has
    gone, it saves and stops.

    Raises:
        BrokenPipeError: nobody reads the lines any more.
    """
    cancellation = Cancellation()

    def go_on_without_terminal() -> None:
        leave_terminal()
        if place().size > 1:  # torchrun was told the same, and ends its processes soon
            job.steering.send(Command("detach"))

    on_signals(
        {
            signal.SIGINT: cancellation.set,
            signal.SIGTERM: cancellation.set,
            signal.SIGHUP: go_on_without_terminal,
            signal.SIGUSR1: lambda: job.steering.send(Command("checkpoint")),
        }
    )
    lines = _PlainLines(job)
    broken: BrokenPipeError | None = None
    detached = False
    for event in job.events(cancellation):
        detached = isinstance(event, Finished) and event.reason == "detached"
        text = json.dumps(_row(event, job)) if as_json else lines.of(event)
        if text is None or broken:
            continue
        try:
            print(text, flush=True)
            shorten_console(job.run.path)
        except BrokenPipeError as error:
            broken = error
            cancellation.set()
        except OSError:  # the terminal went before its signal came
            leave_terminal()
    if broken:
        raise broken
    if detached:
        print(hand_over(job.run.path), file=sys.stderr)
        return 0
    return 130 if cancellation() else 0


def train_along() -> int:
    """Train as one of several processes but the first, which prints, keeps the result and decides when to stop."""
    from engine.training.job import follow, quiet_threads

    quiet_threads()
    from engine.runtime.distributed import Lost, join

    try:
        with join() as world:
            on_signals(dict.fromkeys(STOPPING, lambda: None))  # the first one heeds them, for all
            follow(world)
    except Lost:  # whoever ended before said why
        return 1
    return 0


def _row(event: TrainingEvent, job: "TrainingJob") -> dict[str, Any]:
    row = to_record(event)
    if isinstance(event, (Started, Finished)):
        row["run"] = str(job.run.path)
    return row


class _PlainLines:
    """Turns events into lines: every evaluation and sample, and a step now and then."""

    def __init__(self, job: "TrainingJob") -> None:
        self._job = job
        self._last = time.perf_counter()
        self._step: Step | None = None

    def of(self, event: TrainingEvent) -> str | None:
        """The line to print for `event`, if any."""
        options = self._job.config.training
        epochs = options.epochs + options.fine_tune_epochs
        match event:
            case Preparing():
                return f"{event.what} ..."
            case Started():
                return (
                    f"{printable(f'run {event.run} in {self._job.run.path}')}\n"
                    f"{event.parameters:,} parameters, {event.vocabulary:,} words, "
                    f"{event.train_tokens:,} training tokens, on {event.device}\n"
                    f"validation perplexity to beat: unigram {event.unigram_perplexity:.1f}, "
                    f"Kneser-Ney {perplexity(event.kneser_ney_perplexity)}"
                )
            case Step():
                self._step = event
                if time.perf_counter() - self._last < LINE_SECONDS:
                    return None
                return self._progress(event, f"epoch {event.epoch:5.1f}/{epochs}")
            case Evaluated():
                mark = "  best" if event.best else ""
                valid = f"valid {event.valid_perplexity:7.1f}{_notebook_says(event)}"
                return self._progress(self._step, f"epoch {event.epoch:5.1f}/{epochs}  {valid}{mark:6}")
            case Sampled():
                return f'    "{printable(event.prompt)}" {event.text}'
            case Finished():
                test = "" if math.isnan(event.test_perplexity) else f", test {event.test_perplexity:.1f}"
                return (
                    f"{event.reason} after {duration(event.seconds)}: "
                    f"valid perplexity {event.valid_perplexity:.1f}{_notebook_says(event)}{test}"
                )
            case Steered():
                return f"{event.what.replace('_', ' ')} {event.value}".rstrip() + f" at update {event.step:,}"
            case Resume():
                return f"goes on with update {event.step:,}" if event.step else "begins anew"
            case Warned():
                return f"warning: {printable(event.message)}"
            case Failed():
                raise TrainingError(event.message)
        return None

    def _progress(self, step: Step | None, start: str) -> str:
        self._last = time.perf_counter()
        if step is None:
            return start
        return (
            f"{start}  train {step.train_perplexity:7.1f}  lr {step.lr:.5f}  "
            f"{step.tokens_per_second:7,.0f} tokens/s  {duration(step.eta_seconds)} left"
        )


def _notebook_says(event: Evaluated | Finished) -> str:
    """What the notebook's formula prints for the same model, where the training follows that formula."""
    claimed = event.notebook_perplexity
    return "" if math.isnan(claimed) else f" (the notebook prints {claimed:.3f})"


def generate_on_console(
    player: Player,
    prompt: Prompt,
    settings: SamplerSettings,
    seeds: Sequence[int],
    *,
    reply: bool,
    as_json: bool,
    jsonl: bool,
) -> None:
    """Print a continuation of `prompt` for each seed, word by word as it is drawn, and how it came about on stderr."""
    if prompt.unknown:
        print(f"not in the vocabulary, read as <unk>: {', '.join(prompt.unknown)}", file=sys.stderr)
    ids = (*prompt.ids, EOS_ID) if reply else prompt.ids
    for begin in range(0, len(seeds), AT_ONCE):
        for events in _texts(player.model, ids, settings, seeds[begin : begin + AT_ONCE]):
            _print_text(events, prompt, settings, player, as_json=as_json, jsonl=jsonl)


def _texts(
    model: LanguageModel, ids: tuple[int, ...], settings: SamplerSettings, seeds: Sequence[int]
) -> list[Iterator[TokenEvent | Done]]:
    """The events of the text of each seed."""
    if len(seeds) == 1:
        return [stream(model, ids, settings, seeds[0])]
    reading = read(model, ids)
    return separately(write(model, [Beginning(reading, ids, settings, seed) for seed in seeds]), len(seeds))


def _print_text(
    events: Iterator[TokenEvent | Done],
    prompt: Prompt,
    settings: SamplerSettings,
    player: Player,
    *,
    as_json: bool,
    jsonl: bool,
) -> None:
    words: list[TokenEvent] = []
    first_token_seconds: float | None = None
    for event in events:
        if isinstance(event, TokenEvent):
            if first_token_seconds is None:
                first_token_seconds = time.perf_counter() - STARTED
            words.append(event)
            if jsonl:
                print(json.dumps({"event": "token", **asdict(event)}), flush=True)
            elif not as_json:
                print(("" if event.index == 0 else " ") + event.text, end="", flush=True)
            continue
        _print_end(event, prompt, words, settings, first_token_seconds, player, as_json=as_json, jsonl=jsonl)


def _print_end(
    done: Done,
    prompt: Prompt,
    words: list[TokenEvent],
    settings: SamplerSettings,
    first_token_seconds: float | None,
    player: Player,
    *,
    as_json: bool,
    jsonl: bool,
) -> None:
    if jsonl:
        print(json.dumps({"event": "done", **asdict(done)}), flush=True)
    elif as_json:
        result = {
            "prompt": prompt.text,
            "text": " ".join(event.text for event in words),
            "tokens": [asdict(event) for event in words],
            "unknown": prompt.unknown,
            "seed": done.seed,
            **asdict(settings),
            "run": player.name,
            "reason": done.reason,
            "tokens_per_second": done.tokens_per_second,
            "first_token_seconds": first_token_seconds,
        }
        print(json.dumps(result), flush=True)
    else:
        print(flush=True)
        print(
            f"seed {done.seed} · {settings.chain()} · {done.tokens_per_second:,.0f} words/s · {ending(done)}",
            file=sys.stderr,
        )
