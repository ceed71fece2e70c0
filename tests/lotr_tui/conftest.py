"""A small model with random weights, and a training that only tells events."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import textual._wait
import textual.screen
from textual.screen import Screen

from engine.config import Config, ModelConfig
from engine.control import Command, Steering
from engine.data.vocabulary import EOS, UNK, Vocabulary, tokenize
from engine.events import (
    Checkpointed,
    Evaluated,
    Finished,
    Preparing,
    Sampled,
    Started,
    Steered,
    Step,
    TrainingEvent,
)
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.store import LoadedModel
from lotr_tui.app import LotrApp
from lotr_tui.session.player import Player

# Behind each key a pilot waits, twice, until nothing was done for 20 ms, in which the next frame, at most 17 ms away,
# is painted. Both shorter, and so the tests; what takes longer than a frame they wait for with `until`.
textual._wait.SLEEP_GRANULARITY = 0.01
textual._wait.SLEEP_IDLE = 0.0005
textual.screen.UPDATE_PERIOD = 0.004

WORDS = tokenize("""bilbo baggins is a very old friend of mine and i think he knows it where frodo the lamp was lit in
the high tower before winter came down from north we walked all night with our pony rosa said nothing tolly
asked for bread that ranger kept his promise""")
VOCABULARY = Vocabulary((UNK, EOS, *dict.fromkeys(WORDS)))


def make_decoder(seed: int = 0) -> Decoder:
    config = ModelConfig(embedding_size=12, hidden_size=12)
    random = np.random.default_rng(seed)
    shapes = weight_shapes(config, len(VOCABULARY))
    weights = {name: random.normal(0, 0.6, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["output.bias"][1] = -4.0  # <eos> seldom, so that texts have some length
    return Decoder(config, VOCABULARY, weights)


@pytest.fixture
def decoder() -> Decoder:
    return make_decoder()


@pytest.fixture
def loaded(decoder: Decoder, tmp_path: Path) -> LoadedModel:
    return LoadedModel("bundled", tmp_path, Config(), decoder, 74.9, 94.1, "")


@pytest.fixture
def make_app(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LotrApp]:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    return lambda **options: LotrApp(
        **{"player": Player.of(loaded), "runs_dir": tmp_path / "runs", "pace": 0, **options}
    )


class Host(LotrApp):
    """The app with nothing behind the screen that a test pushes: it starts in a third of the time."""

    def get_default_screen(self) -> Screen[None]:
        return Screen()


@pytest.fixture
def make_host(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    return lambda **options: Host(**{"player": Player.of(loaded), "runs_dir": tmp_path / "runs", "pace": 0, **options})


def training_events(epochs: int = 12, models: bool = True) -> list[TrainingEvent]:
    """A whole training as its reader sees it, with figures that never change."""
    events: list[TrainingEvent] = [
        Preparing("counting words and 5-grams, the lines to beat"),
        Started("tiny-test", "tiny", 752_239, 879, 19_022, 2_227, epochs, "cpu", "", 150.9, 90.8),
        Evaluated(0, 0.0, 152.5, True, 0.1, make_decoder(1) if models else None),
        Sampled(0, 0.0, "bilbo baggins is", "the of a the", 0, 0.7),
    ]
    for epoch in range(1, epochs + 1):
        valid = 70 + 80 * 0.75**epoch
        for part in range(4):
            done = epoch - 1 + (part + 1) / 4
            train = 80 + 90 * 0.75**done
            events.append(
                Step(epoch * 10 + part, done, train, 0.006 * (1 - done / 13), 0.2, 9_800.0, done * 2, 24 - done * 2)
            )
        events.append(Evaluated(epoch * 10 + 3, float(epoch), valid, True, epoch * 2.0, make_decoder(epoch)))
        events.append(Sampled(epoch * 10 + 3, float(epoch), "bilbo baggins is", f"a friend of mine {epoch}", 0, 0.7))
    return events


def finished(model: Decoder) -> Finished:
    return Finished("done", "tiny-test", 12.0, 72.5, 74.1, 24.0, model)


class FakeJob:
    """Stands in for a `TrainingJob`: tells `events`, holds before each event that is not `released` yet.

    What is asked of it is done at once, and kept in `commands`.
    """

    class run:  # noqa: N801
        name = "tiny-test"
        path = Path("runs/tiny-test")

    def __init__(self, events: list[TrainingEvent], failure: Exception | None = None) -> None:
        self._events = events
        self._failure = failure
        self.released = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.steering = Steering()
        self.resumes = False
        self.ends = False
        """Whether it ends with its events; else it waits to be stopped."""
        self.commands: list[Command] = []

    def release(self, number: int | None = None) -> "FakeJob":
        self.released.release(number or len(self._events) + 1)
        return self

    def events(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        for event in self._events:
            while not self.released.acquire(timeout=0.01):
                yield from self._steer()
                if self._ended(cancelled):
                    return
            yield event
        if self._failure:
            raise self._failure
        while not self.ends and not self._ended(cancelled):
            yield from self._steer()
            self.stopped.wait(0.01)

    def _steer(self) -> Iterator[TrainingEvent]:
        for command in self.steering.take():
            self.commands.append(command)
            yield Steered(7, 1.0, command.what, command.value)
            if command.what == "checkpoint":
                yield Checkpointed(7, "resume.safetensors")
            elif command.what in ("stop", "detach"):
                yield Finished("stopped" if command.what == "stop" else "detached", "tiny-test", 1.0, 9.0, 9.0, 1.0)

    def _ended(self, cancelled: Callable[[], bool]) -> bool:
        if cancelled() or any(command.what in ("stop", "detach") for command in self.commands):
            self.stopped.set()
        return self.stopped.is_set()
