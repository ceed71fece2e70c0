"""Scenes of the chapters with a live training, without a thread."""

from lotr_tui.learn.live_training import Regularization, overfitting_config
from lotr_tui.screens.learn.figures.training import OverfittingFigure, TrainingFigure, training_config
from tests.support.learn import open_chapter
from tests.support.live_training import FakeTraining, live_events

VALID = (2247.3, 228.8, 171.0, 146.0, 132.7, 125.5, 119.3, 114.1, 111.5, 109.6, 108.5, 106.2, 105.4)
TRAIN = tuple(1.1 * perplexity for perplexity in VALID[1:])
SCORES = (2250.0, 240.0, 178.0, 141.0, 124.0, 112.0, 103.0, 97.0, 92.0, 89.0, 86.0, 83.0, 81.0)


async def learn_training(pilot):
    """A training that has passed the 5-gram model, and goes on."""
    screen = await open_chapter(pilot, "training")
    figure = screen.query_one(TrainingFigure)
    config = training_config(figure.data.data, len(figure.data.dataset.train))
    _show(figure, FakeTraining(live_events(VALID, TRAIN), config))
    await pilot.press("right", "right")
    await pilot.pause(0.1)


async def learn_overfitting(pilot):
    screen = await open_chapter(pilot, "overfitting")
    figure = screen.query_one(OverfittingFigure)
    await pilot.press(*["right"] * 4)
    config = overfitting_config(figure.data.data, len(figure.data.dataset.train), Regularization(dropout=0.4))
    _show(figure, FakeTraining(live_events(VALID), config, SCORES))
    await pilot.pause(0.1)


async def live_training(pilot):
    """The chapter on overfitting, whose next training has no thread."""
    screen = await open_chapter(pilot, "overfitting")
    figure = screen.query_one(OverfittingFigure)
    config = overfitting_config(figure.data.data, len(figure.data.dataset.train), Regularization())
    figure.make_training = lambda: FakeTraining(live_events(VALID), config, SCORES)


def _show(figure, training):
    figure.training, figure.is_training = training, True
    figure.show_training()
    figure.show_train_line()
