"""Scenes of the class for snapshots."""

from engine.events import Preparing
from lotr_tui.learn.live_training import LiveTraining
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.learn.figures.training import LiveTrainingFigure
from tests.support.app import finished
from tests.support.learn import open_chapter
from tests.support.live_training import live_events
from tests.support.pilot import until

VALID = (2247.3, 228.8, 171.0, 146.0, 132.7, 125.5, 119.3, 114.1, 111.5, 109.6, 108.5, 106.2, 105.4)
SCORES = (2250.0, 240.0, 178.0, 141.0, 124.0, 112.0, 103.0, 97.0, 92.0, 89.0, 86.0, 83.0, 81.0)


def scene(name, chapter, *keys):
    """Return a scene of a chapter after some keys."""

    async def run(pilot):
        screen = await open_chapter(pilot, chapter)
        await pilot.press(*keys)
        await until(pilot, lambda: screen.is_idle)
        await pilot.pause(0.1)

    run.__name__ = name
    return run


learn_tokens = scene("learn_tokens", "tokens", "e", *" Zorblax?", "tab", *["right"] * 5)
learn_tokens_figure = scene("learn_tokens_figure", "tokens", "tab")
learn_source = scene("learn_source", "tokens", "v")
# A word of the line, some of whose contexts were seen, and an unknown word before it.
learn_counting = scene("learn_counting", "counting", "e", *" Zorblax", *["ctrl+left"] * 2, "ctrl+r")
learn_counting_trigram = scene("learn_counting_trigram", "counting", "tab", "tab", "down", "down")
learn_sampling = scene("learn_sampling", "sampling", *["left"] * 10, "tab", *["left"] * 12)
# A typed line with an unknown word, and the bits of the 5-gram model.
UNKNOWN_KEYS = ["e", "end", *" I do not know, Zorblax.", "ctrl+left", "ctrl+left"]
learn_perplexity = scene("learn_perplexity", "perplexity", "left", *UNKNOWN_KEYS)
# The state is reset before the last word of a question, and the predictions disagree.
learn_memory = scene("learn_memory", "memory", "x", "e", "ctrl+u", *"What did you", "ctrl+left")
learn_attention = scene("learn_attention", "attention", "e", *" lamp", *["down"] * 2, "ctrl+left")
learn_attention_models = scene("learn_attention_models", "attention", "tab", "end")
open_training = scene("open_training", "training", "right", "right")
open_overfitting = scene("open_overfitting", "overfitting", *["right"] * 4)


async def learn_contents(pilot):
    store = ProgressStore()
    for name in ("tokens", "perplexity"):
        store.add(done=name)
    store.save()
    await scene("contents", "tokens", "g", "down")(pilot)


async def learn_training(pilot):
    """A training that has passed the 5-gram model."""
    await open_training(pilot)
    await show_training(pilot, live_events(VALID, [1.1 * perplexity for perplexity in VALID[1:]]))


async def learn_overfitting(pilot):
    await open_overfitting(pilot)
    await show_training(pilot, live_events(VALID), SCORES)


async def show_training(pilot, events, scores=()):
    """Show the events of a training that goes on, with perplexities of the training text by evaluation."""
    figure = pilot.app.screen.query_one(LiveTrainingFigure)
    training = figure.training = LiveTraining(figure.make_config())
    training.has_ended.set()
    steps = [event.step for event in events if hasattr(event, "valid_perplexity")]
    training.train_scores = dict(zip(steps, scores, strict=False))
    figure.work.start(lambda cancelled: wait_after(events, cancelled))
    await until(pilot, lambda: len(training.view.evaluations) == len(steps))
    await pilot.pause(0.1)


async def live_training(pilot):
    """The chapter on overfitting, whose next training prepares until it is stopped."""
    screen = await open_chapter(pilot, "overfitting")
    work = screen.query_one(LiveTrainingFigure).work
    start = work.start
    work.start = lambda source: start(lambda cancelled: wait_after([Preparing("reading the corpus")], cancelled))


async def ended_training(pilot):
    """The chapter on overfitting after a training, whose model is that of the session."""
    screen = await open_chapter(pilot, "overfitting")
    training = LiveTraining(screen.query_one(LiveTrainingFigure).make_config())
    for event in [*live_events(VALID), finished(None)]:
        training.view.apply(event)
    training.save = lambda runs_dir: pilot.app.session_model
    screen.query_one(LiveTrainingFigure).training = training


def wait_after(events, cancelled):
    yield from events
    cancelled.wait()
