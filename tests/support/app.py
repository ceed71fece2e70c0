"""A small model with random weights, a host app for screens, and a fake training job."""

import math
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

from textual.app import App
from textual.screen import Screen

from engine import events
from engine.config import ModelConfig
from engine.control import CommandQueue, ControlCommand
from engine.data.tokenizers import EOS, UNK, WordTokenizer, split_words
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.app import LotrApp
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.theme import SHIRE
from tests.support.models import random_weights

WORDS = split_words("""bilbo baggins is a very old friend of mine and i think he knows it where frodo the lamp was lit
in the high tower before winter came down from north we walked all night with our pony rosa said nothing tolly asked
for bread that ranger kept his promise""")
VOCABULARY = WordTokenizer((UNK, EOS, *dict.fromkeys(WORDS)))


def make_decoder(seed=0):
    config = ModelConfig(embedding_size=12, hidden_size=12)
    weights = random_weights(config, VOCABULARY, seed, scale=0.6)
    weights["output.bias"][1] = -4.0  # a rare <eos> makes texts longer
    return NumpyLSTM(config, VOCABULARY, weights)


class ThemedApp(App[None]):
    """App for single widgets, whose styles use the variables of this theme."""

    def __init__(self):
        super().__init__()
        self.register_theme(SHIRE)
        self.theme = SHIRE.name


class Host(LotrApp):
    """App with an empty default screen, which starts in a third of the time."""

    def get_default_screen(self):
        return Screen()


def attached(path):
    """Return the app as `lotr-tui attach` opens it."""
    screen = partial(DashboardScreen.following, path, exit_on_close=True)
    return LotrApp(make_screen=screen, runs_dir=path.parent)


def training_events(epochs=12, models=True):
    first_model = make_decoder(1) if models else None
    training: list[events.TrainingEvent] = [
        events.Preparing("computing the unigram and 5-gram baselines"),
        events.Started("tiny-test", "tiny", 752_239, 879, 19_022, 2_227, epochs, "cpu", "", 150.9, 90.8),
        events.Evaluated(0, 0.0, 152.5, True, 0.1, first_model),
        events.Sampled(0, 0.0, "bilbo baggins is", "the of a the", 0, 0.7),
    ]
    for epoch in range(1, epochs + 1):
        for part in range(4):
            done = epoch - 1 + (part + 1) / 4
            train, lr = 80 + 90 * 0.75**done, 0.006 * (1 - done / 13)
            training.append(events.Step(epoch * 10 + part, done, train, lr, 0.2, 9_800.0, done * 2, 24 - done * 2))
        valid, step, text = 70 + 80 * 0.75**epoch, epoch * 10 + 3, f"a friend of mine {epoch}"
        training.append(events.Evaluated(step, float(epoch), valid, True, epoch * 2.0, make_decoder(epoch)))
        training.append(events.Sampled(step, float(epoch), "bilbo baggins is", text, 0, 0.7))
    return training


def adapter_events(epochs=3):
    """Return the events of a training of an adapter that makes the first word of a line twice as likely an epoch."""
    preparing, started, *training = training_events(epochs, models=False)
    yield from (preparing, replace(started, base="smollm2", valid_characters=4 * started.valid_tokens))
    lines = ("Gollum", ("It", "burns!", "\n")), ("Sam", ("Po-ta-toes!", "\n"))
    for event in training:
        yield event
        if isinstance(event, events.Sampled):
            gain = event.epoch * math.log(2)
            scores = (gain - 9, -5.0, -gain / 2 - 1), (-7.0, -1.0)
            yield events.LinesScored(event.step, event.epoch, scores, () if event.step else lines)


def finished(model):
    return events.Finished("done", "tiny-test", 12.0, 72.5, 74.1, 24.0, model)


class FakeJob:
    """Substitute for a `TrainingJob` that yields given events, and waits before each event until it is released.

    Control commands are applied at once and recorded in `commands`.
    """

    class run:  # noqa: N801
        name = "tiny-test"
        path = Path("runs/tiny-test")

    def __init__(self, training, failure=None):
        self._events, self._failure = training, failure
        self.released = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.command_queue = CommandQueue()
        self.is_resume = False
        self.ends = False  # after the last event; otherwise the job waits to be stopped
        self.commands: list[ControlCommand] = []

    def release(self, number=None):
        self.released.release(number or len(self._events) + 1)
        return self

    def events(self, cancelled, take_problems=lambda: ()):
        for event in self._events:
            while not self.released.acquire(timeout=0.01):
                yield from self._apply_commands()
                if self._ended(cancelled):
                    return
            yield event
        if self._failure:
            raise self._failure
        while not self.ends and not self._ended(cancelled):
            yield from self._apply_commands()
            self.stopped.wait(0.01)

    def _apply_commands(self):
        for command in self.command_queue.drain():
            self.commands.append(command)
            yield events.CommandApplied(7, 1.0, command.kind, command.value)
            if command.kind == "checkpoint":
                yield events.Checkpointed(7, "resume.safetensors")
            elif command.kind in ("stop", "detach"):
                reason = "stopped" if command.kind == "stop" else "detached"
                yield events.Finished(reason, "tiny-test", 1.0, 9.0, 9.0, 1.0)

    def _ended(self, cancelled):
        if cancelled() or any(command.kind in ("stop", "detach") for command in self.commands):
            self.stopped.set()
        return self.stopped.is_set()
