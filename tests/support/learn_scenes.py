"""Scenes of the class for snapshots."""

from engine.events import Preparing
from lotr_tui.learn.live_training import LiveTraining
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.learn.figures.training import LiveTrainingFigure
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter
from tests.support.live_training import live_events
from tests.support.pilot import until

VALID = (2247.3, 228.8, 171.0, 146.0, 132.7, 125.5, 119.3, 114.1, 111.5, 109.6, 108.5, 106.2, 105.4)
SCORES = (2250.0, 240.0, 178.0, 141.0, 124.0, 112.0, 103.0, 97.0, 92.0, 89.0, 86.0, 83.0, 81.0)


async def _open(pilot, name, *keys):
    screen = await open_chapter(pilot, name)
    await pilot.press(*keys)
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1)
    return screen


async def learn_tokens(pilot):
    """A line that has unknown words, and the cut-off raised."""
    await _open(pilot, "tokens", "e", *" Zorblax?", "tab", *["right"] * 5)


async def learn_tokens_figure(pilot):
    await _open(pilot, "tokens", "tab")


async def learn_contents(pilot):
    store = ProgressStore()
    for name in ("tokens", "perplexity"):
        store.add(done=name)
    store.save()
    await _open(pilot, "tokens", "g", "down")


async def learn_source(pilot):
    await _open(pilot, "tokens", "v")


async def learn_counting(pilot):
    """A word of the line, some of whose contexts were seen, and an unknown word before it."""
    await _open(pilot, "counting", "e", *" Zorblax", *["ctrl+left"] * 2, "ctrl+r")


async def learn_counting_trigram(pilot):
    """The figure of a lower order, where the figure replaces the text."""
    await _open(pilot, "counting", "tab", "tab", "down", "down")


async def learn_sampling(pilot):
    screen = await open_chapter(pilot, "sampling")
    for id, steps in (("temperature", 10), ("top-k", 12)):
        screen.query_one(f"#{id}", Slider).index -= steps
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause(0.1)


async def learn_perplexity(pilot):
    """A typed line with an unknown word, and the bits of the 5-gram model."""
    screen = await _open(pilot, "perplexity", "e", "end", *" I do not know, Zorblax.", "ctrl+left", "ctrl+left")
    screen.query_one(Slider).index = 1
    await pilot.pause(0.1)


async def learn_memory(pilot):
    """The state is reset before the last word of a question, and the predictions disagree."""
    await _open(pilot, "memory", "x", "e", "ctrl+u", *"What did you", "ctrl+left")


async def learn_attention(pilot):
    """A typed line, and another head than the first one."""
    await _open(pilot, "attention", "e", *" lamp", *["down"] * 2, "ctrl+left")


async def learn_attention_models(pilot):
    """The compared models, with the pre-trained one selected."""
    screen = await open_chapter(pilot, "attention")
    if not screen.query_one("#figure-place").region:
        await pilot.press("tab", "tab")
    await pilot.press("tab", "tab", "end")
    await pilot.pause(0.1)


async def learn_training(pilot):
    """A training that has passed the 5-gram model."""
    await _open(pilot, "training", "right", "right")
    train = [1.1 * perplexity for perplexity in VALID[1:]]
    await show_training(pilot, live_events(VALID, train))


async def learn_overfitting(pilot):
    await _open(pilot, "overfitting", *["right"] * 4)
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


def wait_after(events, cancelled):
    yield from events
    cancelled.wait()
